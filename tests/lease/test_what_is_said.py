"""What is said at three in the morning, to those who wait in vain."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from clocks import FakeClock, Script
from holders import AT_ONCE, LOOP, another, claim, record_of

from gitstate import LeaseTimeoutError, StateRepository, process
from gitstate.durable import Directory
from gitstate.guard import Guard
from gitstate.layout import ASIDE, GUARD

pytestmark = pytest.mark.usefixtures("quick_disk")


def fails(state: StateRepository, clock: FakeClock, timeout: float = 35.0) -> LeaseTimeoutError:
    with pytest.raises(LeaseTimeoutError) as caught:
        another(state, clock, lock_timeout=timeout).update_loop(LOOP, {"note": "late"})
    return caught.value


def test_a_wait_in_vain_says_who_has_the_lease_since_when_and_what_to_do(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    error = fails(state, clock, 12)
    assert str(error) == (
        "the lease was not to be had within 12 s: update-the-loop has it since 2026-06-15 12:00:00 UTC (12 s ago); "
        f"process {neighbour.pid} runs"
    )
    assert error.hint == (
        "repeat the command: the lease ends at 2026-06-15 12:00:30 UTC and is then taken over; "
        f"if process {neighbour.pid} hangs, end it: its lease goes with it"
    )
    assert error.exit_code == 4
    assert error.holder.pid == neighbour.pid  # type: ignore[attr-defined]


def test_a_wait_in_vain_for_a_stopped_process_says_how_to_wake_it(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    neighbour.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, neighbour.pid, os.WSTOPPED)
    claim(state, record_of(neighbour.pid, clock))
    error = fails(state, clock, 12)
    assert str(error).endswith(f"; process {neighbour.pid} exists, but is stopped")
    assert error.hint == (
        f"kill -CONT {neighbour.pid} lets it finish; or wait: the lease ends at 2026-06-15 12:00:30 UTC "
        "and is then taken over"
    )


def test_a_wait_in_vain_for_another_host_says_where_to_look(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(4242, clock, host="devbox", bootId="another"))
    error = fails(state, clock, 12)
    assert str(error).endswith("; process 4242 belongs to the host devbox")
    assert error.hint == "look at process 4242 on devbox; if it is gone: gitstate lock break --yes"


def test_a_wait_in_vain_for_what_cannot_be_read_says_how_to_be_rid_of_it(state: StateRepository, clock: Script) -> None:
    state.lock_path.write_bytes(b"")
    assert fails(state, clock, 1).hint == "gitstate lock break --yes"


def test_a_wait_in_vain_in_a_crowd_says_so(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """Every look finds another holder, the last one nobody: as it happens when many come and go."""
    keeper = state._writer.keeper
    assert "others took it in turn" in str(keeper._timed_out(5))


def test_a_wait_in_vain_for_the_guard_says_who_is_inside_and_for_how_long(
    state: StateRepository, clock: Script
) -> None:
    with Guard(Directory(state.base_dir, ASIDE), GUARD, clock).hold(0):
        error = fails(state, clock, 12)
    assert str(error) == (f"the guard was not to be had within 12 s: process {os.getpid()} runs, and it is inside")
    assert error.hint == f"end process {os.getpid()}: nothing that was acknowledged is lost"
    assert 12 <= clock.elapsed < 12 + AT_ONCE


@pytest.fixture
def inside(state: StateRepository) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has locked the guard and not signed it: a stranger, or one that was stopped right after."""
    path = state.base_dir / GUARD
    with subprocess.Popen(
        ["flock", str(path), "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert int(path.read_bytes()) == os.getpid()  # as the last one left it
        yield process
        process.send_signal(signal.SIGCONT)
        process.communicate(b"\n")


def test_a_wait_in_vain_for_a_guard_that_is_not_signed_yet_names_who_is_inside_and_not_who_was(
    state: StateRepository, clock: Script, inside: subprocess.Popen[bytes]
) -> None:
    """Or an innocent process would be ended."""
    error = fails(state, clock, 1)
    assert str(error).endswith(f"process {inside.pid} runs, and it is inside")
    assert error.hint == f"end process {inside.pid}: nothing that was acknowledged is lost"
    inside.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, inside.pid, os.WSTOPPED)
    error = fails(state, clock, 1)
    assert str(error).endswith(f"process {inside.pid} exists, but is stopped, and it is inside")
    assert error.hint == (
        f"kill -CONT {inside.pid} lets it finish; kill -9 {inside.pid} ends it, and nothing acknowledged is lost"
    )


def test_a_wait_in_vain_for_a_guard_that_nobody_is_known_to_hold_says_how_to_find_out(
    state: StateRepository, clock: Script, inside: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "lock_holder", lambda device, inode: None)  # as where the system does not tell
    (state.base_dir / GUARD).write_bytes(b"")
    error = fails(state, clock, 1)
    assert "a program that is not gitstate is inside" in str(error)
    assert error.hint == f"fuser -v {state.base_dir / GUARD}"
