"""How long one waits for the lease, and who goes next."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable

import pytest
from clocks import Script
from holders import AT_ONCE, LOOP, another, claim, count_up, elsewhere, record_of, waited
from processes import dead_pid

from gitstate import LeaseTimeoutError, StateRepository
from gitstate.durable import Directory
from gitstate.guard import Guard
from gitstate.layout import ASIDE, GUARD

pytestmark = pytest.mark.usefixtures("quick_disk")


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.5, 5, 29])
def test_a_wait_in_vain_ends_in_time(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], timeout: float
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    with pytest.raises(LeaseTimeoutError) as caught:
        another(state, clock, lock_timeout=timeout).update_loop(LOOP, {"note": "late"})
    assert timeout <= clock.elapsed < timeout + AT_ONCE
    assert caught.value.waited == timeout


def test_a_timeout_of_nothing_gets_a_free_lease(state: StateRepository, clock: Script) -> None:
    another(state, clock, lock_timeout=0).update_loop(LOOP, {"note": "at once"})
    assert clock.elapsed == 0


def test_a_timeout_of_nothing_takes_over_from_the_dead(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(dead_pid(), clock))
    another(state, clock, lock_timeout=0).update_loop(LOOP, {"note": "at once"})
    assert clock.elapsed == 0


def test_a_holder_that_is_tried_once_still_gives_its_lease_back_when_the_guard_is_taken_for_a_moment(
    state: StateRepository, clock: Script
) -> None:
    """Or everybody else would wait for the lease to expire."""
    hasty = another(state, clock, lock_timeout=0)
    guard = Guard(Directory(state.base_dir, ASIDE), GUARD, clock)
    inside = guard.hold(0)

    def taken(found: object) -> None:
        inside.__enter__()
        clock.at(clock.elapsed + 0.5, lambda: inside.__exit__(None, None, None))

    hasty.modify_loop(LOOP, taken)
    assert state.lease_info() is None


def test_a_free_lease_is_taken_past_a_queue_whose_head_is_stopped(state: StateRepository, clock: Script) -> None:
    """Whoever stands at the door may have been stopped there: with Control-Z, say."""
    with Guard(Directory(state.base_dir, ASIDE), ".git/gitstate/turn", clock).hold(0):
        assert waited(state, clock) < 2 * AT_ONCE


def test_the_dead_are_replaced_past_a_queue_whose_head_cannot_judge_them(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(dead_pid(), clock))
    with Guard(Directory(state.base_dir, ASIDE), ".git/gitstate/turn", clock).hold(0):
        assert waited(state, clock) < 2 * AT_ONCE


def test_a_lease_that_its_own_process_could_not_give_back_does_not_lock_it_out(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """A release that cannot get the guard leaves the record to expire; to this process it is stale at once."""
    guard = Guard(Directory(state.base_dir, ASIDE), GUARD, clock)
    inside = guard.hold(0)
    impatient = another(state, clock, lock_timeout=2)
    impatient.modify_loop(LOOP, lambda found: inside.__enter__())
    left = json.loads(state.lock_path.read_bytes())
    inside.__exit__(None, None, None)
    assert left["pid"] == os.getpid()
    began = clock.uptime
    count_up(state)
    assert clock.uptime - began < AT_ONCE


def test_no_thread_takes_the_lease_of_another_for_one_that_was_abandoned(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record can be seen a moment before the call that wrote it returns."""
    keeper = state._writer.keeper
    link, judged = keeper.directory.link, []

    def watched(name: str, target: str) -> bool:
        done = link(name, target)
        if target != "registry.json.lock":
            return done
        claimed = keeper._find()
        assert claimed is not None
        judged.append(elsewhere(lambda: keeper._is_stale(claimed)))
        return done

    monkeypatch.setattr(keeper.directory, "link", watched)
    count_up(state)
    assert judged == [False]


# --- who goes next ---------------------------------------------------------------------------------------------------


def in_a_queue(state: StateRepository, clock: Script) -> float:
    """The seconds that a mutation waits while another stands at the door."""
    with Guard(Directory(state.base_dir, ASIDE), ".git/gitstate/turn", clock).hold(0):
        began = clock.uptime
        count_up(state)
        return clock.uptime - began


def test_whoever_has_just_given_the_lease_back_may_take_it_again_past_the_queue(
    state: StateRepository, clock: Script
) -> None:
    clock.advance(seconds=1)
    count_up(state)
    assert in_a_queue(state, clock) == 0
    clock.advance(seconds=0.0005)
    assert in_a_queue(state, clock) == 0


def test_whoever_has_had_it_for_long_enough_queues_like_anybody(state: StateRepository, clock: Script) -> None:
    clock.advance(seconds=1)
    count_up(state)
    waits = []
    for _ in range(30):
        clock.advance(seconds=0.0009)
        waits.append(in_a_queue(state, clock))
        if waits[-1]:
            break
    assert len(waits) == 23  # 22 times 0.9 ms are less than 20 ms


def test_whoever_gave_it_back_a_while_ago_queues_like_anybody(state: StateRepository, clock: Script) -> None:
    clock.advance(seconds=1)
    count_up(state)
    clock.advance(seconds=0.002)
    assert in_a_queue(state, clock) > 0


@pytest.fixture
def take(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, float], None]:
    """Takes the lease, at looks at which it is held (``h``) or free (``f``), and uses all of them."""

    def taking(script: str, timeout: float) -> None:
        keeper = state._writer.keeper
        claim(state, record_of(neighbour.pid, clock))
        held = keeper._find()
        state.lock_path.unlink()
        clock.advance(seconds=1)
        looks = iter([held if look == "h" else None for look in script])
        monkeypatch.setattr(keeper, "_look", lambda: next(looks))
        lease = keeper.acquire("update", timeout, first=lambda lease: None)
        assert list(looks) == []
        state._writer._release(lease)

    return taking


def test_from_somebody_the_lease_is_taken_when_it_was_free_at_two_looks(take: Callable[[str, float], None]) -> None:
    take("hfhff", 5)


def test_at_the_end_of_its_time_a_waiter_takes_what_is_free_at_one_look(take: Callable[[str, float], None]) -> None:
    take("hf", 1e-9)


def test_where_nobody_was_it_is_taken_at_the_first_look(take: Callable[[str, float], None]) -> None:
    take("f", 0)
