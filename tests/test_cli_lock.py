"""The lease seen from outside: who has it, how to be rid of it, and what is said to whoever waited in vain.

The holders are real: a process in the middle of a transaction, the same stopped, killed, or holding on for too long.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gitstate import RefusedError, StateRepository
from gitstate.cli import root

Run = Callable[..., Result]
LOOP = "fix-tests"
WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
HOLDER = """
import gitstate, sys
with gitstate.open(".", actor="agent:night", lease_seconds=float(sys.argv[1])).transaction() as tx:
    tx.update_loop("fix-tests", {"note": "mine"})
    print("holding", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A process that holds the lease until it is told to go on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ends(self) -> str:
        """What it has to say when it is told to go on, and wants to publish."""
        self.process.send_signal(signal.SIGCONT)
        return self.process.communicate("\n", timeout=60)[1]


@pytest.fixture
def run(project: Path) -> Run:
    """Runs a command in the project, and waits for nothing."""
    return lambda *words: CliRunner().invoke(root, ["-C", str(project), "--lock-timeout", "0", *words])


@pytest.fixture
def hold(state: StateRepository) -> Iterator[Callable[..., Holder]]:
    """Starts a process that holds the lease of a project with one loop."""
    state.create_loop("Fix the tests", "npm test", loop_id=LOOP, pid=None)
    started: list[Holder] = []

    def held(seconds: float = 30) -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(seconds)],
            cwd=state.project_root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Holder(process))
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        return started[-1]

    yield held
    for holder in started:
        with holder.process:
            holder.process.kill()
    state.lock_path.unlink(missing_ok=True)
    state.repair()  # what they left


def left_by(state: StateRepository, **facts: object) -> None:
    """A record as the original, or another host, left it."""
    now = int(time.time() * 1000)
    record = {"pid": 1, "loopId": "create-loop", "timestamp": now, "leaseExpiry": now + 30_000, "fencingToken": now}
    state.lock_path.write_text(json.dumps({**record, **facts}))


def late(run: Run) -> str:
    """What is said to whoever waited in vain."""
    result = run("update", LOOP, "--set", "note=late")
    assert result.exit_code == 4
    assert "Traceback" not in result.output
    return result.stderr


def facts(shown: str) -> dict[str, str]:
    """A table of names and texts."""
    return dict(re.findall(r"^(\S.*?)  +(\S.*)$", shown, re.MULTILINE))


# --- a live holder ---------------------------------------------------------------------------------------------------


def test_a_live_holder_is_shown(run: Run, hold: Callable[..., Holder]) -> None:
    pid = hold().pid
    shown = run("lock", "show")
    assert shown.exit_code == 0
    assert facts(shown.stdout) | {"since": "", "expires": ""} == {
        "held by": f"transaction (process {pid} on {os.uname().nodename})",
        "process": f"alive: process {pid} runs",
        "since": "",
        "expires": "",
        "generation": "3",
    }
    assert re.fullmatch(rf"{WHEN}\S+ \(\d+ s ago\)|{WHEN}\S+ \(just now\)", facts(shown.stdout)["since"])
    assert re.fullmatch(rf"{WHEN}\S+ \(in \d+ s\)", facts(shown.stdout)["expires"])
    assert run("-q", "lock", "show").stdout == "transaction\n"


def test_who_waits_for_a_live_holder_in_vain_is_told_who_has_it_and_when_it_ends(
    run: Run, hold: Callable[..., Holder]
) -> None:
    pid = hold().pid
    assert re.fullmatch(
        rf"error: the lease was not to be had within 0 s: transaction has it since {WHEN} UTC \(\d+ s ago\); "
        rf"process {pid} runs\n"
        rf"hint: repeat the command: the lease ends at {WHEN} UTC and is then taken over; "
        rf"if process {pid} hangs, end it: its lease goes with it\n",
        late(run),
    )


def test_the_lease_of_a_live_holder_is_not_broken_without_force(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold()
    record = state.lock_path.read_bytes()
    asked = run("lock", "break")
    assert (asked.exit_code, asked.stdout) == (8, "")
    assert f"held by     transaction (process {holder.pid} on " in asked.stderr
    assert asked.stderr.endswith(
        "hint: gitstate -C " + str(state.project_root) + " --lock-timeout 0 lock break --yes\n"
    )
    refused = run("lock", "break", "--yes")
    assert (refused.exit_code, refused.stdout, refused.stderr) == (
        8,
        "",
        f"error: the lease is held by a live process: process {holder.pid} runs\n"
        "hint: wait, or gitstate lock break --force --yes\n",
    )
    assert run("lock", "break", "--force").exit_code == 8  # to override a refusal is not to say yes
    assert state.lock_path.read_bytes() == record
    assert holder.ends() == ""
    assert state.get_loop(LOOP)["note"] == "mine"


def test_with_force_it_is_broken_and_the_holder_publishes_nothing(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold()
    broken = run("lock", "break", "--force", "--yes")
    assert broken.exit_code == 0
    assert facts(broken.stdout)["broken, held by"] == f"transaction (process {holder.pid} on {os.uname().nodename})"
    assert broken.stdout.splitlines()[-1] == (
        f"process {holder.pid} still lives: it publishes nothing any more, and is told so (exit code 5)"
    )
    assert not state.lock_path.exists()
    assert run("update", LOOP, "--set", "note=ours").exit_code == 0
    assert "LeaseLostError: the lease of generation 3 was lost to another writer, gone since" in holder.ends()
    assert state.get_loop(LOOP)["note"] == "ours"


# --- one that is stopped ---------------------------------------------------------------------------------------------


def test_a_stopped_holder_is_shown_and_spoken_of_as_one_that_can_be_woken(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold()
    holder.stop()
    assert facts(run("lock", "show").stdout)["process"] == f"alive: process {holder.pid} exists, but is stopped"
    said = late(run).splitlines()
    assert said[0].endswith(f"; process {holder.pid} exists, but is stopped")
    assert re.fullmatch(
        rf"hint: kill -CONT {holder.pid} lets it finish; or wait: the lease ends at {WHEN} UTC and is then taken over",
        said[1],
    )
    refused = run("lock", "break", "--yes")
    assert refused.exit_code == 8
    assert refused.stderr.splitlines()[1] == (
        f"hint: kill -CONT {holder.pid} lets it finish, or gitstate lock break --force --yes"
    )
    os.kill(holder.pid, signal.SIGCONT)  # as the hint has it
    assert holder.ends() == ""
    assert state.get_loop(LOOP)["note"] == "mine"


def test_who_would_break_a_lease_while_somebody_is_inside_the_guard_is_told_who(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold()
    with state._writer.keeper.guard.hold(0):
        refused = run("lock", "break", "--force", "--yes")
        assert refused.exit_code == 4
        assert f"process {os.getpid()} runs, and it is inside" in refused.stderr
    assert holder.ends() == ""


# --- dead, expired ---------------------------------------------------------------------------------------------------


def test_a_dead_holder_is_shown_and_its_lease_is_broken_without_force(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold()
    holder.kill()
    assert facts(run("lock", "show").stdout)["process"] == f"dead: process {holder.pid} does not exist"
    broken = run("lock", "break", "--yes")
    assert (broken.exit_code, state.lock_path.exists()) == (0, False)
    assert broken.stdout.splitlines()[-1] == "nothing that it acknowledged is lost"


def test_a_dead_holder_has_not_to_be_broken(run: Run, hold: Callable[..., Holder]) -> None:
    hold().kill()
    assert run("update", LOOP, "--set", "note=late").exit_code == 0


def test_an_expired_lease_is_shown_as_such_and_broken_without_force(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold(0.001)
    shown = facts(run("lock", "show").stdout)
    assert shown["process"] == f"alive: process {holder.pid} runs"
    assert shown["expires"].endswith(", expired")
    broken = run("lock", "break", "--yes")
    assert (broken.exit_code, state.lock_path.exists()) == (0, False)
    assert "LeaseLostError" in holder.ends()
    assert "note" not in state.get_loop(LOOP)


# --- the original's, another host's, nobody's ------------------------------------------------------------------------


def test_the_lock_of_a_live_original_is_shown_and_broken_with_a_warning_of_what_it_will_do(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    left_by(state, pid=os.getpid())
    shown = facts(run("lock", "show").stdout)
    assert shown["held by"] == f"create-loop (process {os.getpid()})"
    assert shown["generation"] == "none: the holder is not gitstate"
    assert re.search(rf"create-loop has it since {WHEN} UTC \(\d+ s ago\); process {os.getpid()} runs", late(run))
    assert run("lock", "break", "--yes").exit_code == 8
    broken = run("lock", "break", "--force", "--yes")
    assert (broken.exit_code, state.lock_path.exists()) == (0, False)
    assert broken.stdout.splitlines()[-1] == (
        f"process {os.getpid()} still lives: it does not notice, for it is not gitstate: "
        "what it goes on to write is merged as an outside edit"
    )


def test_of_a_holder_on_another_host_it_is_said_where_to_look(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    left_by(state, pid=4242, host="elsewhere", bootId="b", startTime=1, nonce="n", fencingToken=9)
    shown = facts(run("lock", "show").stdout)
    assert shown["held by"] == "create-loop (process 4242 on elsewhere)"
    assert shown["process"] == "unknown: process 4242 belongs to the host elsewhere"
    assert late(run).splitlines()[1] == (
        "hint: look at process 4242 on elsewhere; if it is gone: gitstate lock break --yes"
    )
    broken = run("lock", "break", "--yes")  # it is not provably alive
    assert broken.exit_code == 0
    assert broken.stdout.splitlines()[-1] == (
        "if process 4242 still lives, it publishes nothing any more, and is told so (exit code 5)"
    )


def test_a_record_that_cannot_be_read_is_shown_and_broken(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    state.lock_path.write_bytes(b"\0" * 100)
    shown = facts(run("lock", "show").stdout)
    assert (shown["held by"], shown["process"]) == (
        "nobody named (no known process)",
        "unknown: the record cannot be read",
    )
    said = late(run).splitlines()
    assert re.search(rf"somebody has it since {WHEN} UTC \(\d+ s ago\); the record cannot be read$", said[0])
    assert said[1] == "hint: gitstate lock break --yes"
    assert run("lock", "break", "--yes").exit_code == 0
    assert not state.lock_path.exists()


def test_where_nobody_holds_the_lease_breaking_is_refused_by_the_command_as_by_the_library(
    run: Run, project: Path, state: StateRepository
) -> None:
    """With a history and without one, whatever was agreed to."""
    for _ in ("nothing there at all", "a history"):
        assert run("lock", "show").stdout == "the lease is free\n"
        with pytest.raises(RefusedError) as caught:
            state.break_lease()
        for words in ((), ("--yes",), ("--force", "--yes")):
            refused = run("lock", "break", *words)
            assert (refused.exit_code, refused.stdout) == (8, "")
            assert refused.stderr == f"error: {caught.value.message}\nhint: {caught.value.hint}\n"
        document = json.loads(run("lock", "break", "--yes", "--json").stdout)
        assert document["error"]["message"] == "nobody holds the lease: there is nothing to break"
        state.init()


def test_an_answer_for_programs_carries_the_lease(
    run: Run, hold: Callable[..., Holder], state: StateRepository
) -> None:
    holder = hold()
    shown = json.loads(run("lock", "show", "--json").stdout)["data"]
    assert (shown["pid"], shown["alive"], shown["expired"], shown["generation"]) == (holder.pid, True, False, 3)
    assert json.loads(run("update", LOOP, "--set", "a=1", "--json").stdout)["error"]["details"]["holder"] == shown
    assert json.loads(run("lock", "break", "--yes", "--json").stdout)["error"]["details"]["holder"] == shown
    broken = json.loads(run("lock", "break", "--yes", "--force", "--json").stdout)
    assert (broken["data"], broken["change"]) == (shown, None)
