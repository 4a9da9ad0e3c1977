"""Whose record it is: the living are waited for, the dead are not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from clocks import Script
from holders import AT_ONCE, LEASE, claim, originals, record_of, waited
from processes import dead_pid

from gitstate import StateRepository, process

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.mark.parametrize("whose", [record_of, originals])
def test_a_dead_holder_is_taken_over_at_once(
    state: StateRepository, clock: Script, whose: Callable[..., dict[str, object]]
) -> None:
    claim(state, whose(dead_pid(), clock))
    assert waited(state, clock) < AT_ONCE


def test_a_zombie_is_dead(state: StateRepository, clock: Script) -> None:
    with subprocess.Popen(["sleep", "1000"]) as zombie:
        record = record_of(zombie.pid, clock)
        zombie.kill()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        claim(state, record)
        assert waited(state, clock) < AT_ONCE


@pytest.mark.parametrize(
    "change",
    [{"startTime": 12345}, {"bootId": "6f1d7a2e-0000-4000-8000-000000000000"}],
    ids=["a recycled pid", "another boot"],
)
def test_a_pid_that_means_another_process_by_now_is_dead(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], change: Mapping[str, object]
) -> None:
    claim(state, record_of(neighbour.pid, clock, **change))
    assert waited(state, clock) < AT_ONCE


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**40])
def test_a_number_that_is_no_pid_is_a_dead_holder(state: StateRepository, clock: Script, pid: int) -> None:
    claim(state, originals(pid, clock))
    assert waited(state, clock) < AT_ONCE


@pytest.mark.parametrize("pid", ["1", True, None, 1.5, [1], {}])
def test_what_is_not_even_a_number_makes_the_record_unreadable(
    state: StateRepository, clock: Script, pid: object
) -> None:
    claim(state, {**originals(1, clock), "pid": pid})
    assert 2.0 <= waited(state, clock) < 2.0 + AT_ONCE


def test_a_live_holder_is_waited_for_until_its_lease_ends(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_stopped_holder_is_alive(state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]) -> None:
    neighbour.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, neighbour.pid, os.WSTOPPED)
    claim(state, record_of(neighbour.pid, clock))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_holder_that_may_not_be_signalled_is_alive(
    state: StateRepository,
    clock: Script,
    neighbour: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """``EPERM`` says that there is a process; the original takes it for the opposite."""
    record = record_of(neighbour.pid, clock)

    def refused(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    claim(state, record)
    with monkeypatch.context() as patch:
        patch.setattr(process, "_PROC", tmp_path)  # as where there is no /proc, or it hides other users' processes
        patch.setattr(os, "kill", refused)
        assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


@pytest.mark.parametrize(
    ("key", "value"),
    [*(("startTime", value) for value in ("x" * 40, [], 1.5, None)), *(("bootId", value) for value in ([], 1.5, None))],
)
def test_an_identity_that_makes_no_sense_proves_nothing(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], key: str, value: object
) -> None:
    claim(state, record_of(neighbour.pid, clock, **{key: value}))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


@pytest.mark.parametrize("pid", [1, 2**31 - 1], ids=["a pid that lives here", "a pid that does not"])
def test_nothing_is_known_of_a_process_of_another_host(state: StateRepository, clock: Script, pid: int) -> None:
    claim(state, record_of(pid, clock, host="elsewhere", bootId="not-this-one"))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_nothing_is_known_of_a_process_of_another_pid_namespace(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(2**31 - 1, clock, pidNamespace=1))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_record_without_host_is_this_hosts(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, originals(neighbour.pid, clock))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE
    claim(state, originals(2**31 - 1, clock))
    assert waited(state, clock) < AT_ONCE
