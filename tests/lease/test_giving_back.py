"""How the lease is renewed, given back, taken over, and broken."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import Script
from holders import LEASE, LOOP, another, claim, count_up, elsewhere, iteration, originals, record_of
from listings import contents
from processes import dead_pid

from gitstate import LeaseLostError, RefusedError, StateRepository
from gitstate.lease import Lease

pytestmark = pytest.mark.usefixtures("quick_disk")


# --- releasing, renewing, taking over --------------------------------------------------------------------------------


def in_a_transaction(state: StateRepository, slowly: Callable[[], object], note: str) -> None:
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": note})
        slowly()


def in_modify_loop(state: StateRepository, slowly: Callable[[], object], note: str) -> None:
    state.modify_loop(LOOP, lambda found: {"note": note, "done": slowly() is not None})


@pytest.mark.parametrize("way", [in_a_transaction, in_modify_loop])
def test_an_expired_holder_that_nobody_overtook_publishes(
    state: StateRepository, clock: Script, way: Callable[..., None]
) -> None:
    way(state, lambda: clock.advance(hours=8), "slow")
    assert state.get_loop(LOOP)["note"] == "slow"
    assert state.lease_info() is None


@pytest.mark.parametrize("way", [in_a_transaction, in_modify_loop])
def test_an_expired_holder_that_was_overtaken_publishes_nothing_and_can_start_again(
    state: StateRepository, clock: Script, way: Callable[..., None]
) -> None:
    def slowly() -> None:
        clock.advance(seconds=LEASE + 1)
        elsewhere(lambda: count_up(another(state, clock)))

    with pytest.raises(LeaseLostError, match=r"the lease of generation \d+ was lost to another writer, gone since"):
        way(state, slowly, "slow")
    assert ("note" in state.get_loop(LOOP), iteration(state)) == (False, 1)
    way(state, lambda: None, "again")
    assert (state.get_loop(LOOP)["note"], iteration(state)) == ("again", 1)
    assert state.lease_info() is None


def test_an_expired_holder_renews_its_lease_before_it_publishes(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs, seen = state._writer.revisions.refs, []
    advance = refs.advance
    monkeypatch.setattr(
        refs, "advance", lambda old, new, **how: seen.append(state.lease_info()) or advance(old, new, **how)
    )
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "slow"})
        held = state.lease_info()
        clock.advance(hours=8)
    assert held is not None
    assert [(info.generation, info.expired) for info in seen] == [(held.generation, False)]


def test_a_holder_that_was_overtaken_can_start_again(state: StateRepository, clock: Script) -> None:
    def slow(found: Any) -> dict[str, object]:
        if found["currentIteration"] == 0:
            clock.advance(seconds=LEASE + 1)
            elsewhere(lambda: count_up(another(state, clock)))
        return {"currentIteration": found["currentIteration"] + 1}

    with pytest.raises(LeaseLostError):
        state.modify_loop(LOOP, slow)
    state.modify_loop(LOOP, slow)
    assert iteration(state) == 2


def test_an_overtaken_holder_does_not_remove_its_successors_record(state: StateRepository, clock: Script) -> None:
    """Not even where pid and purpose are the same, which is all that the original compares."""
    keeper, nothing = state._writer.keeper, lambda lease: None
    first = keeper.acquire("update-the-loop", 0, first=nothing)
    clock.advance(seconds=LEASE + 1)
    second = keeper.acquire("update-the-loop", 0, first=nothing)
    record = state.lock_path.read_bytes()
    with keeper.guard.hold(0):
        keeper.release(first)
        assert state.lock_path.read_bytes() == record
        with pytest.raises(LeaseLostError):
            keeper.prove(first)
        keeper.prove(second)
        keeper.release(second)
    assert not state.lock_path.exists()


def test_a_holder_whose_lease_was_broken_and_went_to_another_cannot_publish(state: StateRepository) -> None:
    keeper, nothing = state._writer.keeper, lambda lease: None
    first = keeper.acquire("update-the-loop", 0, first=nothing)
    with keeper.guard.hold(0):
        keeper.prove(first)
    state.lock_path.unlink()
    second = keeper.acquire("update-the-loop", 0, first=nothing)
    with keeper.guard.hold(0):
        with pytest.raises(LeaseLostError):
            keeper.prove(first)
        keeper.release(second)


def test_a_lease_that_expired_since_it_was_proved_is_given_back_only_if_it_is_there_still(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """The original knows no guard: when ours has expired, it puts its own in the place."""
    keeper = state._writer.keeper
    lease = keeper.acquire("update-the-loop", 0, first=lambda lease: None)
    with keeper.guard.hold(0):
        keeper.prove(lease)
        clock.advance(seconds=LEASE + 1)
        theirs = json.dumps(originals(neighbour.pid, clock)).encode()
        state.lock_path.unlink()
        state.lock_path.write_bytes(theirs)
        keeper.release(lease, proved=True)
    assert state.lock_path.read_bytes() == theirs
    state.lock_path.unlink()
    keeper.take_sign_away(lease)


def test_a_record_that_changed_since_it_was_judged_is_put_back(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """The original knows no guard: its own record may come between the look and the hand that reaches for it."""
    keeper = state._writer.keeper
    claim(state, record_of(dead_pid(), clock))
    judged = keeper._find()
    fresh = json.dumps(originals(neighbour.pid, clock)).encode()
    state.lock_path.write_bytes(fresh)
    with keeper.guard.hold(0):
        assert judged is not None
        assert not keeper._set_aside(judged)
    assert state.lock_path.read_bytes() == fresh
    state.lock_path.unlink()


def test_a_failure_right_after_taking_the_lease_gives_it_back(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(lease: Lease) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        state._writer.keeper.acquire("update", 0, first=interrupted)
    assert state.lease_info() is None


# --- breaking --------------------------------------------------------------------------------------------------------


def test_breaking_is_refused_while_the_holder_lives(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    with pytest.raises(RefusedError, match=f"held by a live process: process {neighbour.pid} runs") as caught:
        state.break_lease()
    assert caught.value.hint == "wait, or gitstate lock break --force --yes"
    assert state.lock_path.exists()
    state.break_lease(force=True)
    assert not state.lock_path.exists()


def test_a_stale_lease_may_be_broken_without_force(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    for record in (
        record_of(dead_pid(), clock),
        record_of(neighbour.pid, clock, monotonicExpiry=clock.monotonic() - 1),
    ):
        claim(state, record)
        assert state.break_lease().pid == record["pid"]
        assert not state.lock_path.exists()


def test_breaking_nothing_is_refused(state: StateRepository) -> None:
    with pytest.raises(RefusedError, match="nobody holds the lease"):
        state.break_lease()


def test_a_holder_whose_lease_was_broken_cannot_publish(state: StateRepository, clock: Script) -> None:
    with pytest.raises(LeaseLostError), state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "never"})
        broken = elsewhere(lambda: another(state, clock).break_lease(force=True))
    assert broken.pid == os.getpid()
    assert "note" not in state.get_loop(LOOP)


def test_breaking_what_has_no_history_yet_leaves_everything_as_it_is(project: Path, clock: Script) -> None:
    base = project / ".aiwg" / "ralph-external"
    base.mkdir(parents=True)
    (base / "registry.json.lock").write_text(json.dumps(originals(dead_pid(), clock)))
    before = contents(project, without=())
    with pytest.raises(RefusedError) as caught:
        StateRepository(project, clock=clock).break_lease(force=True)
    assert caught.value.hint == "gitstate init"
    assert (contents(project, without=()), os.listdir(base)) == (before, ["registry.json.lock"])
