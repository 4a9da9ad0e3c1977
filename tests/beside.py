"""The original itself, under node and unmodified: ``original_driver.mjs`` has the other end of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import git

from gitstate import StateRepository

# Read when tests are collected: no test of its own sees the variables of the environment.
MODULE = os.environ.get("GITSTATE_ORIGINAL", "")
DRIVER = Path(__file__).with_name("original_driver.mjs")
STALL = 60  # seconds after which something hangs
LOOP, OTHER = "ralph-shared-0", "ralph-shared-1"


def _missing() -> str:
    if not MODULE:
        return "GITSTATE_ORIGINAL is not set; it names the original's module, a .mjs file"
    if not Path(MODULE).is_file():
        return f"GITSTATE_ORIGINAL names no file: {MODULE}"
    return "" if shutil.which("node") else "there is no node to run the original with"


needs_original = pytest.mark.skipif(bool(_missing()), reason=_missing())


def begun(project: Path) -> StateRepository:
    """Two loops that gitstate made; whoever opened them gives up at once where the lease is held."""
    state = StateRepository(project, actor="user:alice", lock_timeout=0)
    for loop in (LOOP, OTHER):
        state.create_loop("Be worked on from two sides", "never", loop_id=loop, pid=None, max_iterations=10**6)
    return state


def story(state: StateRepository, loop: str | None = None) -> list[str]:
    """The kinds of what was done, oldest first."""
    return [change.operation for change in state.log(loop)][::-1]


def counted(state: StateRepository) -> int:
    """How many loops the registry counts as archived."""
    registry = state.load_registry()
    return registry["total_completed"] + registry["total_aborted"]


def tags(state: StateRepository) -> list[str]:
    return git(state.base_dir, "tag", "--list").stdout.split()


class Node:
    """One process of the original."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def does(self, step: str, **facts: object) -> Any:
        """What a step returned."""
        report = self.tries(step, **facts)
        assert "error" not in report, report
        return report.get("result")

    def tries(self, step: str, **facts: object) -> dict[str, Any]:
        """The report of a step, whatever became of it."""
        self.begins(step, **facts)
        return self.reports()

    def begins(self, step: str, **facts: object) -> None:
        """Have it begin a step, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps({'do': step, **facts})}\n")
        self.process.stdin.flush()

    def reports(self) -> dict[str, Any]:
        """The report of the step that it began."""
        assert self.process.stdout is not None
        alarm = threading.Timer(STALL, self.process.kill)
        alarm.start()
        try:
            line = self.process.stdout.readline()
        finally:
            alarm.cancel()
        assert line, "the original ended, or hung"
        report: dict[str, Any] = json.loads(line)
        return report

    def await_stop(self) -> None:
        """Until it has stopped itself, as it was told to with the step ``stop``."""
        assert os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED).si_code == os.CLD_STOPPED

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def node(project: Path, *mode: str) -> Iterator[Node]:
    """A process of the original on *project*, for the length of the block."""
    with subprocess.Popen(
        ["node", str(DRIVER), MODULE, str(project), *mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Node(process)
        finally:
            process.kill()
