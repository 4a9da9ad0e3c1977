"""How long a record counts whose holder lives, or may."""

from __future__ import annotations

import subprocess
from datetime import timedelta

import pytest
from clocks import Script
from holders import AT_ONCE, LEASE, claim, originals, record_of, waited

from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.mark.parametrize("days", [-365, 365])
def test_within_a_boot_only_the_monotonic_clock_counts(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], days: int
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    clock.set(clock.now() + timedelta(days=days))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_record_of_an_unknown_clock_ends_when_the_wall_clock_passes_it(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, originals(neighbour.pid, clock))
    clock.advance(seconds=20)
    assert 10 <= waited(state, clock) < 10 + AT_ONCE


def test_a_record_of_an_unknown_clock_ends_when_it_stood_unchanged_for_its_own_length(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    now = int(clock.now().timestamp() * 1000) + 365 * 86_400_000
    claim(state, originals(neighbour.pid, clock, timestamp=now, leaseExpiry=now + 12_000))
    assert 12 <= waited(state, clock) < 12 + 2 * AT_ONCE


def test_no_record_is_watched_for_more_than_a_minute(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    now = int(clock.now().timestamp() * 1000)
    claim(state, originals(neighbour.pid, clock, leaseExpiry=now + 365 * 86_400_000))
    assert 60 <= waited(state, clock) < 60 + AT_ONCE


@pytest.mark.parametrize("expiry", [None, "soon", True, [], -1e300])
def test_a_record_that_does_not_say_when_it_ends_has_the_originals_length(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], expiry: object
) -> None:
    """``-1e300`` has passed by any clock; the others would keep the original out for ever."""
    claim(state, originals(neighbour.pid, clock, leaseExpiry=expiry))
    expected = 0.0 if expiry == -1e300 else LEASE
    assert expected <= waited(state, clock) < expected + AT_ONCE


@pytest.mark.parametrize("expiry", [1e300, 1e18])
def test_a_monotonic_expiry_further_ahead_than_the_lease_is_long_is_of_another_clock(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], expiry: float
) -> None:
    claim(state, record_of(neighbour.pid, clock, monotonicExpiry=expiry))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_record_that_is_renewed_is_not_standing_unchanged(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    def renewed() -> None:
        now = int(clock.now().timestamp() * 1000) + 365 * 86_400_000
        claim(state, record_of(1, clock, host="elsewhere", timestamp=now, leaseExpiry=now + 30_000))

    renewed()
    for seconds in (20, 40, 60):
        clock.at(seconds, renewed)
    assert 60 + LEASE <= waited(state, clock) < 60 + LEASE + AT_ONCE


def test_a_lease_of_a_minute_is_respected_for_a_minute(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    now = int(clock.now().timestamp() * 1000)
    long = record_of(neighbour.pid, clock, leaseExpiry=now + 300_000, monotonicExpiry=clock.monotonic() + 300)
    claim(state, long)
    assert 300 <= waited(state, clock) < 300 + AT_ONCE
