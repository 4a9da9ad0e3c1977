"""Reading again: what was compared once is not compared again while nobody touched it, and is when somebody did."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import gitstate
from gitstate import StateRepository, sight
from gitstate.projection import Projection

LOOP = "fix"


@pytest.fixture(autouse=True)
def _old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written a moment ago counts as written long ago: no test waits for that."""
    monkeypatch.setattr(sight, "_FINE", -60_000_000_000)
    monkeypatch.setattr(sight, "_COARSE", -60_000_000_000)


@pytest.fixture
def loop(state: StateRepository) -> Iterator[Path]:
    state.create_loop("Fix the tests", "all tests pass", loop_id=LOOP, pid=None)
    state.get_loop(LOOP)
    state.list_active_loops()
    return state.loops_dir / LOOP / "session-state.json"


def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read to be compared, from here on."""
    seen: list[str] = []
    found = Projection.found
    monkeypatch.setattr(Projection, "found", lambda self, path: seen.append(path) or found(self, path))
    return seen


def test_what_nobody_touched_is_read_once_and_compared_with_nothing(
    state: StateRepository, loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = compared(monkeypatch)
    assert state.get_loop(LOOP)["loopId"] == LOOP
    assert [entry["loop_id"] for entry in state.list_active_loops()] == [LOOP]
    assert seen == []


def test_each_answer_is_a_fresh_copy(state: StateRepository, loop: Path) -> None:
    state.get_loop(LOOP)["status"] = "mine"  # type: ignore[typeddict-item]
    state.list_active_loops()[0]["owner"] = "me"
    assert state.get_loop(LOOP)["status"] != "mine"
    assert state.list_active_loops()[0]["owner"] != "me"


def test_an_edit_of_the_same_length_and_time_is_seen(state: StateRepository, loop: Path) -> None:
    before = loop.stat()
    loop.write_bytes(loop.read_bytes().replace(b"Fix the tests", b"Fix the texts"))
    os.utime(loop, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert state.get_loop(LOOP)["objective"] == "Fix the texts"


def test_an_edit_of_a_session_state_is_seen_in_the_registry(state: StateRepository, loop: Path) -> None:
    record = json.loads(loop.read_text())
    loop.write_text(json.dumps({**record, "status": "paused"}, indent=2) + "\n")
    assert state.list_active_loops()[0]["status"] == "paused"


def test_a_new_loop_of_the_originals_is_seen(state: StateRepository, loop: Path) -> None:
    record = json.loads(loop.read_text())
    other = loop.parent.parent / "other"
    other.mkdir()
    assert len(state.list_active_loops()) == 1
    state.list_active_loops()
    (other / loop.name).write_text(json.dumps({**record, "loopId": "other"}, indent=2))
    assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, "other"}


def test_another_writers_commit_is_seen(state: StateRepository, loop: Path) -> None:
    with gitstate.open(state.project_root, actor="user:bob") as other:
        other.update_loop(LOOP, {"status": "paused"})
    assert state.get_loop(LOOP)["status"] == "paused"
    assert state.list_active_loops()[0]["status"] == "paused"


def test_a_stale_file_is_not_served_because_it_was_known_once(state: StateRepository, loop: Path) -> None:
    kept = loop.with_name("kept")
    os.link(loop, kept)
    state.update_loop(LOOP, {"status": "paused"})
    os.replace(kept, loop)  # the very inode that was compared before
    assert state.get_loop(LOOP)["status"] == "paused"


def test_what_was_written_a_moment_ago_is_compared_each_time(
    state: StateRepository, loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sight, "_FINE", 3600_000_000_000)
    state.update_loop(LOOP, {"status": "paused"})
    state.get_loop(LOOP)
    seen = compared(monkeypatch)
    state.get_loop(LOOP)
    assert len(seen) == 1


def test_a_file_systems_times_are_trusted_after_one_of_its_steps(
    state: StateRepository, loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time without a fraction of a second is taken for one of a file system that counts in whole ones."""
    monkeypatch.setattr(sight, "_FINE", 3600_000_000_000)
    assert not sight.Sight(state.base_dir, ["registry.json"]).is_untouched(["registry.json"])
    look = sight.Sight._look
    monkeypatch.setattr(
        sight.Sight, "_look", lambda self, name: (mark := look(self, name)) and (*mark[:4], mark[4] // 10**9 * 10**9)
    )
    name = str(loop.relative_to(state.base_dir))
    assert sight.Sight(state.base_dir, [name]).is_untouched([name])
    monkeypatch.setattr(sight, "_COARSE", 3600_000_000_000)
    assert not sight.Sight(state.base_dir, [name]).is_untouched([name])
