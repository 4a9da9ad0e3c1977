"""Many busy writers on one state directory, each a process of its own, with a report of every call.

    python writers.py '{"project": …, "seed": …, "writers": …, "operations": …}'

Each line of the report is one call: its token (the reason of its commit), what it was, when it was called and when it
returned (seconds of the monotonic clock), and the name of its error. All begin at once. A writer of the command line
runs ``python -m gitstate``; a *mortal* one is stopped in the middle of some calls, and killed in the middle of its last.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steps import Steps

from gitstate import DamageWarning, GitStateError, LeaseLostError, StateRepository

SHARED = "shared-loop"
PATIENCE = 600.0  # seconds: nobody gives up; whoever starves is seen in the figures
STEPS_OF_A_CALL = 75


@dataclass
class Plan:
    """What is asked of all writers together."""

    project: str
    seed: int
    writers: int
    operations: int
    at_the_command_line: int = 0  # so many of the writers
    lease: float = 30.0
    mortal: bool = False


class Writer:
    """One of them: through the library, or through the command line."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan, self.name = plan, f"writer{number}"
        self.random = random.Random(f"{plan.seed}-{number}")
        self.at_the_command_line = number < plan.at_the_command_line
        self.own: list[str] = []
        self.state = StateRepository(
            plan.project, actor=f"agent:{self.name}", lock_timeout=PATIENCE, lease_seconds=plan.lease
        )
        self.steps = Steps() if plan.mortal else None

    def work(self) -> None:
        for number in range(self.plan.operations):
            if self.steps is not None:
                last = number == self.plan.operations - 1
                harm = signal.SIGKILL if last else self.random.choice((signal.SIGSTOP, 0))
                self.steps.send(harm, self.random.randrange(1, STEPS_OF_A_CALL))
            self.call(f"{self.name}-{number}")

    def call(self, token: str) -> None:
        what = self.random.choices(("count", "create", "archive", "fail"), (6, 2, 2, 1))[0]
        if what == "archive" and not self.own:
            what = "create"
        loop = {"create": token, "archive": self.own[0] if self.own else ""}.get(what, SHARED)
        say(token=token, what=what, loop=loop, called=time.monotonic())
        error = (self.through_commands if self.at_the_command_line else self.through_library)(what, loop, token)
        say(token=token, returned=time.monotonic(), error=error)
        if error is None and what == "create":
            self.own.append(loop)
        if error is None and what == "archive":
            self.own.remove(loop)

    def through_library(self, what: str, loop: str, token: str) -> str | None:
        state = self.state
        ways: dict[str, Callable[[], object]] = {
            "count": lambda: state.modify_loop(
                loop, lambda found: {"currentIteration": found["currentIteration"] + 1}, reason=token
            ),
            "create": lambda: state.create_loop(
                f"Be {loop}", "never", loop_id=loop, pid=None, force=True, reason=token
            ),
            "archive": lambda: state.archive_loop(loop, reason=token),
            "fail": lambda: state.create_loop("Be there twice", "never", loop_id=SHARED, force=True, reason=token),
        }
        try:
            ways[what]()
        except LeaseLostError:
            assert self.plan.mortal, "nobody outlived its lease"
            return "LeaseLostError"
        except GitStateError as error:
            return type(error).__name__
        return None

    def through_commands(self, what: str, loop: str, token: str) -> str | None:
        ways = {
            "count": ["update", loop, "--set", f"{self.name}={token}"],
            "create": ["create", f"Be {loop}", "--completion", "never", "--loop-id", loop, "--force"],
            "archive": ["archive", loop],
            "fail": ["create", "Be there twice", "--completion", "never", "--loop-id", SHARED, "--force"],
        }
        command = [sys.executable, "-m", "gitstate", "-C", self.plan.project, "--lock-timeout", str(PATIENCE), "--json"]
        ran = subprocess.run([*command, *ways[what], "-m", token], capture_output=True, text=True)
        error: dict[str, Any] = json.loads(ran.stdout).get("error") or {}
        assert (ran.returncode == 0) == (not error), ran
        return error.get("code")


def say(**facts: object) -> None:
    """One line; as short as this it is written in one piece whoever else writes."""
    os.write(1, f"{json.dumps(facts)}\n".encode())


def main() -> int:
    plan = Plan(**json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    warnings.simplefilter("ignore", DamageWarning)
    gate, opened = os.pipe()
    children = set()
    for number in range(plan.writers):
        child = os.fork()
        if child == 0:
            os.close(opened)
            os._exit(_write(plan, number, gate))
        children.add(child)
    os.close(opened)
    chance, worst = random.Random(plan.seed), 0
    while children:
        child, status = os.waitpid(-1, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            time.sleep(chance.uniform(0, 3 * plan.lease))  # not to wait for anything: to be late
            os.kill(child, signal.SIGCONT)
            continue
        children.remove(child)
        killed = plan.mortal and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        worst = worst if killed else max(worst, status)
    return 1 if worst else 0


def _write(plan: Plan, number: int, gate: int) -> int:
    try:
        writer = Writer(plan, number)
        os.read(gate, 1)
        writer.work()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
