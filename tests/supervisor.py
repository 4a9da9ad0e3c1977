"""A busy supervisor that works through gitstate, beside those of the original: see ``original_driver.mjs``.

    python supervisor.py '{"project": …, "seconds": …, "seed": …, "shared": […], "commands": …}'

It says that it is ready, begins when a line comes on stdin, and reports every call as a JSON line: what it was, its
loop, its value (the reason of its commit), when it was called and returned, from when to when it held the lease (seconds
of the monotonic clock), and the name of its error. With *commands* every fifth call is a process of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

from gitstate import GitStateError, StateRepository
from gitstate.lease import Lease, LeaseKeeper

PATIENCE = 60.0

_held: list[float | None] = []


def note_holding() -> None:
    """Have the lease keeper note from when to when it holds the lease; inner bounds of both."""
    acquire, release = LeaseKeeper.acquire, LeaseKeeper.release

    def acquiring(self: LeaseKeeper, *words: object, **options: object) -> Lease:
        lease = acquire(self, *words, **options)  # type: ignore[arg-type]
        _held[:] = [time.monotonic(), None]
        return lease

    def releasing(self: LeaseKeeper, lease: Lease, **options: bool) -> None:
        _held[1] = time.monotonic()
        release(self, lease, **options)

    LeaseKeeper.acquire, LeaseKeeper.release = acquiring, releasing  # type: ignore[method-assign, assignment]


class Supervisor:
    """One of them."""

    def __init__(self, project: str, seconds: float, seed: int, shared: list[str], *, commands: bool = False) -> None:
        self.project, self.seconds, self.seed, self.shared, self.commands = project, seconds, seed, shared, commands
        self.random = random.Random(seed)
        self.state = StateRepository(project, actor=f"agent:{seed}", lock_timeout=PATIENCE)
        self.own: list[str] = []

    def work(self) -> None:
        until, number = time.monotonic() + self.seconds, 0
        while time.monotonic() < until:
            self.call(f"gitstate{self.seed}-{number}", through_commands=self.commands and number % 5 == 4)
            number += 1
            time.sleep(self.random.uniform(0, 0.012))  # as busy as the original's, and no busier

    def call(self, value: str, *, through_commands: bool) -> None:
        what = self.random.choices(("update", "create", "archive"), (8, 1, 1))[0]
        if what == "archive" and not self.own:
            what = "create"
        loop = {"create": value, "archive": self.own[0] if self.own else ""}.get(what) or self.random.choice(
            [*self.shared, *self.own]
        )
        _held.clear()
        called = time.monotonic()
        error = (self.through_command if through_commands else self.through_library)(what, loop, value)
        facts = {"do": what, "loop": loop, "value": value, "called": called, "returned": time.monotonic()}
        if error is None and what == "create":
            self.own.append(loop)
        if error is None and what == "archive":
            self.own.remove(loop)
        print(json.dumps({**facts, "held": _held or None, "error": error}), flush=True)

    def through_library(self, what: str, loop: str, value: str) -> str | None:
        state = self.state
        ways: dict[str, Callable[[], object]] = {
            "update": lambda: state.modify_loop(
                loop, lambda found: {"currentIteration": found["currentIteration"] + 1}, reason=value
            ),
            "create": lambda: state.create_loop(f"Be {loop}", "never", loop_id=loop, force=True, reason=value),
            "archive": lambda: state.archive_loop(loop, status="completed", reason=value),
        }
        try:
            ways[what]()
        except GitStateError as error:
            return f"{type(error).__name__}: {error}"
        return None

    def through_command(self, what: str, loop: str, value: str) -> str | None:
        ways = {
            "update": ["update", loop, "--set", f"gitstate{self.seed}={value}"],
            "create": ["create", f"Be {loop}", "--completion", "never", "--loop-id", loop, "--force"],
            "archive": ["archive", loop, "--status", "completed"],
        }
        command = [sys.executable, "-m", "gitstate", "-C", self.project, "--lock-timeout", str(PATIENCE)]
        ran = subprocess.run([*command, *ways[what], "-m", value], capture_output=True, text=True)
        return None if ran.returncode == 0 else f"exit {ran.returncode}: {ran.stderr}"


def main() -> int:
    plan = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    note_holding()
    supervisor = Supervisor(**plan)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    supervisor.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
