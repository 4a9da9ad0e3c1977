"""Clocks lie: what the wall clock does lets nobody in, and keeps nobody out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from clocks import Script
from conftest import git
from holders import AT_ONCE, LEASE, LOOP, another, claim, count_up, elsewhere, iteration, originals, record_of, waited

from gitstate import LeaseTimeoutError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

MOMENT = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
JUMPS = {
    "+31 s": MOMENT + timedelta(seconds=31),
    "-31 s": MOMENT - timedelta(seconds=31),
    "+1 h": MOMENT + timedelta(hours=1),
    "-1 h": MOMENT - timedelta(hours=1),
    "+1 year": MOMENT + timedelta(days=365),
    "-1 year": MOMENT - timedelta(days=365),
    "1970": datetime(1970, 1, 1, tzinfo=UTC),
    "2038": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
}


def committed(state: StateRepository) -> list[int]:
    """Committer times, oldest first."""
    return [int(line) for line in git(state.base_dir, "log", "--reverse", "--format=%ct").stdout.split()]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wall_clock_that_jumps_in_the_middle_of_a_hold_lets_nobody_else_in(
    state: StateRepository, clock: Script, jump: str
) -> None:
    """Not for those whose clock jumped too, nor for those whose clock is right."""
    right = Script()
    right.uptime = clock.uptime
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "mine"})
        clock.set(JUMPS[jump])
        for other in (clock, right):
            with pytest.raises(LeaseTimeoutError):
                elsewhere(lambda other=other: count_up(another(state, other)))
    assert (state.get_loop(LOOP)["note"], iteration(state)) == ("mine", 0)


def test_a_length_that_is_no_whole_number_of_milliseconds_is_no_sign_of_another_clock(
    state: StateRepository, clock: Script
) -> None:
    with another(state, clock, lease_seconds=20.0005).transaction():
        clock.set(JUMPS["+1 h"])
        with pytest.raises(LeaseTimeoutError):
            elsewhere(lambda: count_up(another(state, clock)))


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wall_clock_that_jumps_lets_generations_grow_and_committer_times_not_fall(
    state: StateRepository, clock: Script, jump: str
) -> None:
    for moment in (MOMENT, JUMPS[jump], MOMENT, JUMPS[jump]):
        clock.set(moment)
        count_up(state)
    times = committed(state)
    generations = [change.generation or 0 for change in state.log()][::-1]
    assert times == sorted(times)
    assert generations == sorted(set(generations))
    assert [change.time for change in state.log(limit=2)] == [JUMPS[jump], MOMENT]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wait_ends_when_the_lease_is_given_back_whatever_the_wall_clock_does(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], jump: str
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    clock.at(2, lambda: clock.set(JUMPS[jump]))
    clock.at(5, state.lock_path.unlink)
    assert 5 <= waited(state, clock) < 5 + AT_ONCE


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("whose", [record_of, originals])
def test_a_wait_ends_in_time_whatever_the_wall_clock_does(
    state: StateRepository,
    clock: Script,
    neighbour: subprocess.Popen[bytes],
    jump: str,
    whose: Callable[..., dict[str, object]],
) -> None:
    """At the end of the lease; that of the original, which counts by the wall clock alone, may end before, not after."""
    claim(state, whose(neighbour.pid, clock))
    clock.at(2, lambda: clock.set(JUMPS[jump]))
    earliest = LEASE if whose is record_of or JUMPS[jump] < MOMENT else 2
    assert earliest <= waited(state, clock) < LEASE + AT_ONCE


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wait_in_vain_ends_in_time_whatever_the_wall_clock_does(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], jump: str
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    clock.at(2, lambda: clock.set(JUMPS[jump]))
    with pytest.raises(LeaseTimeoutError):
        another(state, clock, lock_timeout=5).update_loop(LOOP, {"note": "late"})
    assert 5 <= clock.elapsed < 5 + AT_ONCE
