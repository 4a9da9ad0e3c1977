"""What the disk, or a limit of the process, keeps from being read is not known: it is no damage, and nothing is missing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import git
from original import stringify
from templates import copy, template

from gitstate import DamageWarning, StateRepository, StorageError
from gitstate.durable import LARGEST, Directory
from gitstate.medium import UnreadableError

pytestmark = pytest.mark.usefixtures("quick_disk")

LOOP = "the-loop"
Unreadable = Callable[..., AbstractContextManager[None]]


def build(state: StateRepository, clock: FakeClock) -> None:
    state.create_loop("Be put away", "never", loop_id="archived", pid=None)
    state.archive_loop("archived", status="completed")
    state.create_loop("Stand", "never", loop_id=LOOP, pid=None)
    state.update_loop(LOOP, {"note": "first"})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template") / "project", build)


@pytest.fixture
def state(built: Path, project: Path) -> Iterator[StateRepository]:
    with copy(built, project)[0] as repository:
        yield repository


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Unreadable:
    """Files whose names end like that cannot be opened for reading, for the length of a block."""

    @contextmanager
    def failing(ending: str, code: int = errno.EIO) -> Iterator[None]:
        real = Directory._descriptor

        def refused(self: Directory, name: str, flags: int) -> int:
            if name.endswith(ending) and not flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(code, os.strerror(code))
            return real(self, name, flags)

        with monkeypatch.context() as patch:
            patch.setattr(Directory, "_descriptor", refused)
            yield

    return failing


def edited(state: StateRepository) -> bytes:
    path = state.loops_dir / LOOP / "session-state.json"
    raw = stringify({**json.loads(path.read_bytes()), "edited": "outside"})
    path.write_bytes(raw)
    return raw


def subjects(state: StateRepository) -> list[str]:
    return git(state.base_dir, "log", "--format=%s").stdout.splitlines()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ESTALE], ids=errno.errorcode.get)
def test_an_edited_state_that_cannot_be_read_just_now_is_not_taken_for_damaged(
    state: StateRepository, unreadable: Unreadable, code: int
) -> None:
    raw, before = edited(state), subjects(state)
    with unreadable("loops/the-loop/session-state.json", code), pytest.raises(StorageError) as caught:
        state.update_loop(LOOP, {"note": "second"})
    assert (caught.value.facts["errno"], caught.value.facts["path"]) == (code, "loops/the-loop/session-state.json")
    assert (subjects(state), (state.loops_dir / LOOP / "session-state.json").read_bytes()) == (before, raw)
    state.update_loop(LOOP, {"note": "second"})
    found = state.get_loop(LOOP)
    assert (found["edited"], found["note"]) == ("outside", "second")


def test_a_first_adoption_leaves_out_nothing_that_it_cannot_read(
    state: StateRepository, unreadable: Unreadable
) -> None:
    (state.base_dir / ".git").rename(state.project_root / "put-away.git")
    anew = StateRepository(state.project_root)
    with unreadable("loops/the-loop/session-state.json"), pytest.raises(StorageError, match="input/output error"):
        anew.init()
    assert not (state.base_dir / ".git").exists()
    anew.init()
    assert "loops/the-loop/session-state.json" in git(state.base_dir, "show", "--stat=200", "HEAD").stdout


@pytest.mark.parametrize("ending", ["refs/heads/main", "logs/refs/heads/main", ".idx", ".pack"])
def test_repair_moves_no_branch_while_it_cannot_read_what_leads_there(
    state: StateRepository, unreadable: Unreadable, ending: str
) -> None:
    git(state.base_dir, "gc", "-q")
    (state.base_dir / ".git/refs/heads/main").write_bytes(b"")  # damage, to be repaired
    with StateRepository(state.project_root) as fresh:
        with unreadable(ending), pytest.raises(StorageError):
            fresh.repair()
        assert (state.base_dir / ".git/refs/heads/main").read_bytes() == b""
        fresh.repair()
    assert subjects(state)[0].startswith("update the-loop: ")


def test_prune_does_not_pass_over_what_it_cannot_read(state: StateRepository, unreadable: Unreadable) -> None:
    with unreadable("refs/tags/archive/archived"), pytest.raises(StorageError):
        state.prune_archives(older_than=timedelta(0))
    assert len(state.prune_archives(older_than=timedelta(0))) == 1


def test_a_journal_that_cannot_be_read_is_not_written_over(state: StateRepository, unreadable: Unreadable) -> None:
    journal = state.base_dir / ".git/gitstate/journal"
    before = journal.read_bytes()
    with unreadable("gitstate/journal"), pytest.raises(StorageError):
        state.update_loop(LOOP, {"note": "second"})
    assert journal.read_bytes() == before


def test_a_lease_that_cannot_be_read_keeps_nobody_out_for_ever(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Directory.look

    def failing(self: Directory, name: str, limit: int = LARGEST) -> tuple[bytes, os.stat_result] | None:
        found = look(self, name, limit)
        if found is not None and found[0] == b"bad sector":  # wherever it is moved
            raise UnreadableError(f"{name}: input/output error", path=name, errno=errno.EIO)
        return found

    monkeypatch.setattr(Directory, "look", failing)
    state.lock_path.write_bytes(b"bad sector")
    held = state.lease_info()
    assert held is not None
    assert held.reason == "the record cannot be read"
    state.update_loop(LOOP, {"note": "second"})  # once it stood unchanged for a while
    state.lock_path.write_bytes(b"bad sector")
    state.break_lease()
    assert not state.lock_path.exists()


@pytest.mark.parametrize("ending", [".git/HEAD", "logs/refs/heads/main", "packed-refs", ".git/config"])
def test_a_check_says_what_it_could_not_read_and_goes_on(
    state: StateRepository, unreadable: Unreadable, ending: str
) -> None:
    git(state.base_dir, "gc", "-q")
    (state.loops_dir / LOOP / "session-state.json").write_bytes(b"")
    with unreadable(ending):
        found = {finding.code: finding for finding in state.check(full=True)}
    assert str(found["not_read"].path).endswith(ending)
    if ending == ".git/HEAD":  # upon which no file depends
        assert "file_damaged" in found
    with unreadable(ending), pytest.raises(StorageError):
        state.repair()
    state.repair()


def test_a_holder_who_cannot_read_his_own_record_is_told_why(state: StateRepository, unreadable: Unreadable) -> None:
    with state._writer.leased("update") as lease:
        os.utime(state.lock_path)  # so that it has to be read to be known
        with unreadable(".lock", errno.EMFILE), pytest.raises(StorageError) as caught:
            state._writer.keeper.prove(lease)
    assert caught.value.facts["errno"] == errno.EMFILE


def test_a_record_that_cannot_be_read_when_it_was_moved_is_put_back(
    state: StateRepository, unreadable: Unreadable
) -> None:
    keeper = state._writer.keeper
    state.lock_path.write_text('{"pid": 1}')
    judged = keeper._find()
    assert judged is not None
    state.lock_path.unlink()
    state.lock_path.write_text('{"pid": 12, "loopId": "another"}')
    with state._writer.publishing.guarded(), suppress(StorageError), unreadable("", errno.EMFILE):
        keeper._set_aside(judged)
    assert json.loads(state.lock_path.read_bytes())["pid"] == 12
    state.lock_path.unlink()


def test_a_read_goes_on_with_what_history_has_and_says_so(state: StateRepository, unreadable: Unreadable) -> None:
    edited(state)
    with StateRepository(state.project_root) as fresh:
        with unreadable("loops/the-loop/session-state.json"), pytest.warns(DamageWarning, match="input/output error"):
            found = fresh.get_loop(LOOP)
        assert "edited" not in found
        assert fresh.get_loop(LOOP)["edited"] == "outside"


def test_without_history_a_registry_that_cannot_be_read_is_not_taken_for_an_empty_one(
    state: StateRepository, unreadable: Unreadable
) -> None:
    (state.base_dir / ".git").rename(state.project_root / "put-away.git")
    with StateRepository(state.project_root) as anew:
        with unreadable("registry.json"), pytest.raises(StorageError, match="input/output error"):
            anew.list_active_loops()
        assert [entry["loop_id"] for entry in anew.list_active_loops()] == [LOOP]


def test_prune_names_no_bytes_that_it_could_not_count(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("archive/archived"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        with pytest.raises(StorageError, match="input/output error"):
            state.prune_archives(older_than=timedelta(0))
    (pruned,) = state.prune_archives(older_than=timedelta(0))
    assert pruned.bytes is not None
    assert pruned.bytes > 0
