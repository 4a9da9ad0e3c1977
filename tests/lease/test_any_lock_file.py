"""The lock file can be anything: whatever stands there keeps nobody out for ever."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import Script
from holders import AT_ONCE, LEASE, LOOP, another, claim, in_child, originals, waited
from listings import contents

from gitstate import LeaseTimeoutError, StateRepository
from gitstate.layout import QUARANTINE

pytestmark = pytest.mark.usefixtures("quick_disk")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


def outside(path: Path) -> Path:
    """A file outside the state directory."""
    return path.parent.parent.parent.parent / "victim.json"


def planted(path: Path) -> None:
    outside(path).write_text('{"pid": 1}')
    path.symlink_to(outside(path))


ANYTHING: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(b'{\n  "pid": 12'),
    "NULs": lambda path: path.write_bytes(bytes(300)),
    "null": lambda path: path.write_bytes(b"null"),
    "a list": lambda path: path.write_bytes(b"[]"),
    "a text": lambda path: path.write_bytes(b'"pid"'),
    "an object without pid": lambda path: path.write_bytes(b"{}"),
    "not UTF-8": lambda path: path.write_bytes(b'{"pid": 1, "loopId": "\xff"}'),
    "nested very deep": lambda path: path.write_bytes(b"[" * 60_000),
    "100 MB": sparse,
    "a directory": lambda path: path.mkdir(),
    "a directory with files in it": lambda path: (path / "a").mkdir(parents=True) or (path / "a/b").write_text("data"),
    "a FIFO": os.mkfifo,
    "a symlink": planted,
    "a dangling symlink": lambda path: path.symlink_to("nowhere"),
    "a symlink to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", ANYTHING)
def test_whatever_is_no_record_is_stale_after_standing_for_two_seconds(
    state: StateRepository, clock: Script, kind: str
) -> None:
    ANYTHING[kind](state.lock_path)
    before = contents(state.project_root.parent, without=("ralph-external",))
    assert 2.0 <= waited(state, clock) < 2.0 + AT_ONCE
    assert contents(state.project_root.parent, without=("ralph-external",)) == before
    assert not os.path.lexists(state.lock_path)


@pytest.mark.parametrize(
    "kind", [kind for kind in ANYTHING if "directory" in kind or "symlink" in kind or "FIFO" in kind]
)
def test_what_is_not_even_a_file_is_kept_in_quarantine(state: StateRepository, clock: Script, kind: str) -> None:
    ANYTHING[kind](state.lock_path)
    mode = state.lock_path.lstat().st_mode
    waited(state, clock)
    kept = list((state.base_dir / QUARANTINE).iterdir())
    assert [path.lstat().st_mode for path in kept] == [mode]


@pytest.mark.parametrize("kind", ANYTHING)
def test_whatever_is_no_record_can_be_shown_and_broken(state: StateRepository, clock: Script, kind: str) -> None:
    ANYTHING[kind](state.lock_path)
    shown = state.lease_info()
    assert shown is not None
    assert (shown.pid, shown.alive, shown.reason) == (None, None, "the record cannot be read")
    assert state.break_lease() == shown
    assert state.lease_info() is None
    assert clock.elapsed < AT_ONCE


def test_a_record_that_cannot_be_opened_is_like_one_that_cannot_be_read(tmp_path: Path) -> None:
    """As an ordinary user: for root nothing is unreadable."""

    def wait() -> float:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        clock = Script()
        state = StateRepository(where, clock=clock)
        state.create_loop("Be contended for", "never", loop_id=LOOP, pid=None)
        state.lock_path.write_text("{}")
        state.lock_path.chmod(0)
        return waited(state, clock)

    with tempfile.TemporaryDirectory(dir=None if os.geteuid() == 0 else tmp_path) as where:
        os.chmod(where, 0o777)
        assert 2.0 <= in_child(wait) < 2.0 + AT_ONCE


def test_a_record_that_is_being_written_is_not_broken(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """The original creates its lock empty and fills it afterwards."""
    state.lock_path.write_bytes(b"")
    clock.at(1.9, lambda: claim(state, originals(neighbour.pid, clock)))
    assert 1.9 + LEASE <= waited(state, clock) < 1.9 + LEASE + AT_ONCE


def test_a_wait_before_an_unreadable_record_ends_in_time(state: StateRepository, clock: Script) -> None:
    state.lock_path.write_bytes(b"")
    with pytest.raises(LeaseTimeoutError, match=r"within 1.5 s: somebody has it since .*; the record cannot be read"):
        another(state, clock, lock_timeout=1.5).update_loop(LOOP, {"note": "late"})
    assert 1.5 <= clock.elapsed < 1.5 + AT_ONCE
