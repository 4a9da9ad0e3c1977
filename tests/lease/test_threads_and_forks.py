"""Holds inside holds, in threads and in forked children."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from clocks import Script
from holders import AT_ONCE, LOOP, STALL, another, count_up, elsewhere, in_child, iteration

from gitstate import LeaseTimeoutError, RefusedError, StateRepository
from gitstate.durable import Directory
from gitstate.guard import Guard
from gitstate.layout import ASIDE, GUARD

pytestmark = pytest.mark.usefixtures("quick_disk")


def nested_ways(state: StateRepository, tmp_path: Path) -> dict[str, StateRepository]:
    link = tmp_path / "link"
    link.symlink_to(state.project_root)
    again = StateRepository(state.project_root, clock=state._writer.clock)
    return {"itself": state, "another object": again, "a symlink": StateRepository(link, clock=state._writer.clock)}


@pytest.mark.parametrize("through", ["itself", "another object", "a symlink"])
def test_a_mutation_inside_modify_loop_is_refused_at_once(
    state: StateRepository, clock: Script, tmp_path: Path, through: str
) -> None:
    inner = nested_ways(state, tmp_path)[through]

    def nested(found: object) -> dict[str, object]:
        with pytest.raises(RefusedError, match="in the middle of a mutation of the same state directory"):
            inner.update_loop(LOOP, {"note": "inner"})
        return {"note": "outer"}

    assert state.modify_loop(LOOP, nested)["note"] == "outer"
    assert clock.elapsed < AT_ONCE


def test_a_mutation_of_the_same_thread_inside_its_open_transaction_is_refused_at_once(
    state: StateRepository, clock: Script
) -> None:
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "outer"})
        with pytest.raises(RefusedError, match="in the middle of a mutation"):
            state.update_loop(LOOP, {"note": "inner"})
        with pytest.raises(RefusedError, match="in the middle of a mutation"), state.transaction():
            pass
    assert state.get_loop(LOOP)["note"] == "outer"
    assert clock.elapsed < AT_ONCE


def test_a_mutation_of_another_state_directory_inside_is_nobodys_business(
    state: StateRepository, tmp_path: Path, clock: Script
) -> None:
    other = StateRepository(tmp_path, clock=clock)
    state.modify_loop(LOOP, lambda found: other.init() and None)
    assert other.revision() is not None


def test_another_thread_waits_like_another_process(state: StateRepository, clock: Script) -> None:
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "first"})
        with pytest.raises(LeaseTimeoutError):
            elsewhere(lambda: count_up(another(state, clock, lock_timeout=3)))
    assert 3 <= clock.elapsed < 3 + AT_ONCE
    elsewhere(lambda: count_up(state))
    assert (state.get_loop(LOOP)["note"], iteration(state)) == ("first", 1)


def test_an_open_transaction_refuses_another_thread_at_once(state: StateRepository, clock: Script) -> None:
    with state.transaction() as tx:
        with pytest.raises(RefusedError, match="belongs to another thread"):
            elsewhere(lambda: tx.update_loop(LOOP, {"note": "theirs"}))
        tx.update_loop(LOOP, {"note": "mine"})
    assert state.get_loop(LOOP)["note"] == "mine"
    assert clock.elapsed < AT_ONCE


def test_a_child_forked_in_the_middle_cannot_publish_and_releases_nothing(state: StateRepository) -> None:
    tx = state.transaction()
    inside = tx.__enter__()
    inside.update_loop(LOOP, {"note": "the parent's"})
    record = state.lock_path.read_bytes()

    assert in_child(lambda: tx.__exit__(None, None, None)) == "LeaseLostError"
    assert state.lock_path.read_bytes() == record
    tx.__exit__(None, None, None)
    assert state.get_loop(LOOP)["note"] == "the parent's"


def test_a_child_forked_in_the_middle_that_fails_releases_nothing(state: StateRepository) -> None:
    def failing() -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            tx.__exit__(type(error), error, error.__traceback__)

    tx = state.transaction()
    tx.__enter__()
    record = state.lock_path.read_bytes()
    in_child(failing)
    assert state.lock_path.read_bytes() == record
    tx.__exit__(None, None, None)


def test_a_child_forked_in_the_middle_cannot_go_on_with_the_transaction(state: StateRepository) -> None:
    with state.transaction() as tx:
        assert in_child(lambda: tx.update_loop(LOOP, {"note": "the child's"})) == "RefusedError"


def test_a_child_forked_in_the_middle_waits_like_any_other_process(state: StateRepository, clock: Script) -> None:
    def late() -> object:
        try:
            another(state, clock, lock_timeout=3).update_loop(LOOP, {"note": "the child's"})
        except LeaseTimeoutError as error:
            return [error.holder.pid, clock.elapsed]  # type: ignore[attr-defined]
        return None

    with state.transaction():
        pid, seconds = in_child(late)
    assert pid == os.getpid()
    assert 3 <= seconds < 3 + AT_ONCE


def test_a_child_forked_before_works_on_its_own(state: StateRepository) -> None:
    count_up(state)
    assert in_child(lambda: count_up(state)) is None
    count_up(state)
    assert iteration(state) == 3


def test_a_child_forked_while_another_thread_is_inside_the_guard_does_not_keep_it(state: StateRepository) -> None:
    """A copy of the descriptor would keep the guard locked beyond the death of its holder."""
    guard = Guard(Directory(state.base_dir, ASIDE), GUARD)
    parted, out = os.pipe()
    may_end, end = os.pipe()
    with guard.hold(0):
        holder = os.fork()  # stands for the parent: it takes the guard, forks and is killed
        if holder == 0:
            os._exit(_fork_inside(guard, out, may_end))
    os.close(out)
    os.close(may_end)
    assert os.read(parted, 1) == b"!"
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert guard.is_free()
    os.close(end)
    assert os.read(parted, 1) == b""  # the grandchild lived until now, and has ended


def _fork_inside(guard: Guard, out: int, may_end: int) -> int:
    with guard.hold(STALL):
        if os.fork() == 0:
            for descriptor in range(3, 256):
                if descriptor in (out, may_end):
                    continue
                if os.path.exists(f"/proc/self/fd/{descriptor}") and "pipe" in os.readlink(
                    f"/proc/self/fd/{descriptor}"
                ):
                    os.close(descriptor)
            os.write(out, b"!")
            os.read(may_end, 1)
            return 0
        signal.pause()
    return 0
