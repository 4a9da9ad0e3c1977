"""The record of the lease, and the sign beside it: what stands there, and until when."""

from __future__ import annotations

import json
import os

import pytest
from clocks import Script
from holders import LEASE, LOOP, another, count_up, elsewhere
from processes import dead_pid

from gitstate import StateRepository, StorageError
from gitstate.durable import Directory
from gitstate.layout import ASIDE, GENERATION, GIT_ASIDE

pytestmark = pytest.mark.usefixtures("quick_disk")


# --- the record ------------------------------------------------------------------------------------------------------


def test_the_record_has_the_originals_keys_and_types_and_can_be_read_by_anyone(state: StateRepository) -> None:
    with state.transaction():
        record = json.loads(state.lock_path.read_bytes())
        assert {key: type(record[key]) for key in ("pid", "loopId", "timestamp", "leaseExpiry", "fencingToken")} == {
            "pid": int,
            "loopId": str,
            "timestamp": int,
            "leaseExpiry": int,
            "fencingToken": int,
        }
        assert record["pid"] == os.getpid()
        assert record["leaseExpiry"] - record["timestamp"] == LEASE * 1000
        assert state.lock_path.stat().st_mode & 0o777 == 0o644
    assert not state.lock_path.exists()


def test_the_record_appears_whole(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever bytes are written during an acquisition, nobody can see an unfinished record."""
    write, seen = os.write, []

    def watched(descriptor: int, data: bytes) -> int:
        done = write(descriptor, data)
        seen.append(state.lock_path.read_bytes() if state.lock_path.exists() else None)
        return done

    monkeypatch.setattr(os, "write", watched)
    count_up(state)
    assert len(seen) > 3
    assert all(raw is None or json.loads(raw)["pid"] == os.getpid() for raw in seen)


def test_generations_grow_by_one_and_are_those_of_the_commits(state: StateRepository) -> None:
    for _ in range(3):
        count_up(state)
    newest = [change.generation for change in state.log(limit=4)]
    assert newest[0] is not None
    assert newest == [newest[0], newest[0] - 1, newest[0] - 2, newest[0] - 3]


@pytest.mark.parametrize("mark", [b"", b"\0" * 8, b"-5\n", b"many\n", b"9" * 60, b"9" * 200])
def test_a_damaged_generation_mark_is_made_good_from_history(state: StateRepository, mark: bytes) -> None:
    before = next(state.log()).generation
    (state.base_dir / GENERATION).write_bytes(mark)
    count_up(state)
    assert next(state.log()).generation == (before or 0) + 1


def test_a_lease_that_never_committed_uses_up_its_generation(state: StateRepository) -> None:
    before = next(state.log()).generation or 0
    with pytest.raises(ZeroDivisionError):
        state.modify_loop(LOOP, lambda found: {"currentIteration": 1 // 0})
    count_up(state)
    assert next(state.log()).generation == before + 2


# --- the sign --------------------------------------------------------------------------------------------------------


def aside(state: StateRepository) -> list[str]:
    return os.listdir(state.base_dir / ASIDE)


def test_a_holder_has_his_sign_beside_the_record_until_he_is_done(state: StateRepository) -> None:
    with state.transaction():
        (sign,) = aside(state)
        assert os.path.samefile(state.base_dir / ASIDE / sign, state.lock_path)
    assert aside(state) == []


def test_what_could_not_be_removed_has_a_writer_sweep_who_found_all_well_before(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another(state, clock)
    count_up(other)
    count_up(state)
    discard, move = Directory.discard, Directory.move

    def failing(self: Directory, name: str) -> bool:
        if name.endswith((".idx", ".pack")):
            raise StorageError(f"{name}: input/output error")
        return discard(self, name)

    def failing_too(self: Directory, name: str, target: str, *, durable: bool = False) -> None:
        if name.endswith((".idx", ".pack")):
            raise StorageError(f"{name}: input/output error")
        move(self, name, target, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "discard", failing)
        patch.setattr(Directory, "move", failing_too)
        count_up(state)
    assert len(state._revisions.recent.of_epoch()) == 2
    assert len(aside(state)) == 1
    count_up(other)
    assert len(state._revisions.recent.of_epoch()) == 1
    count_up(state)
    assert aside(state) == []


def test_what_an_earlier_run_with_the_same_pid_left_is_removed(state: StateRepository, clock: Script) -> None:
    """In a container every run of an agent may have it."""
    left = state.base_dir / ASIDE / f"{os.getpid()}-0123456789ab1"
    left.write_text("left")
    count_up(state)
    assert not left.exists()


def test_what_a_holder_left_whose_lease_was_broken_is_removed_by_a_writer_who_found_all_well_before(
    state: StateRepository, clock: Script
) -> None:
    count_up(state)
    lock = state.base_dir / ".git/packed-refs.lock"

    def killed() -> None:
        other = another(state, clock)
        other._writer.keeper.acquire("gc", 0, first=lambda lease: None)
        lock.write_text("gitstate\n")  # while tags are packed

    elsewhere(killed)
    state.break_lease(force=True)
    count_up(state)
    assert not lock.exists()


def test_a_sweep_that_failed_is_made_good_by_a_writer_who_found_all_well_before(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another(state, clock)
    count_up(other)
    count_up(state)
    (state.base_dir / ASIDE / f"{dead_pid()}-0123456789ab1").write_text("its sign")
    shell = state.base_dir / f"{GIT_ASIDE}{dead_pid()}-0-01234567"
    shell.mkdir()
    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(Directory, "remove_tree", fails_to_remove)
        count_up(state)
    count_up(other)
    assert not shell.exists()
    assert aside(state) == []


def fails_to_remove(self: Directory, name: str) -> None:
    raise StorageError(f"{name}: input/output error")
