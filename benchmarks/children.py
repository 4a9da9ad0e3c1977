"""Commands as processes: how long each takes from start to end, and its peak of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# A small process of its own forks the command: a child's peak begins with the size of whoever forked it.
_LAUNCHER = """
import json, os, sys, time
began = time.perf_counter()
pid = os.fork()
if pid == 0:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(json.dumps([time.perf_counter() - began, used.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""
_KILOBYTES = 1 if sys.platform == "linux" else 1024  # in what getrusage counts: macOS counts bytes

GITSTATE = [sys.executable, "-m", "gitstate"]


class Ended(NamedTuple):
    """How a command went: seconds, peak in KB, exit code."""

    seconds: float
    peak_kb: int
    exit_code: int


def run(words: Sequence[str | Path], limit: float | None = None) -> Ended | None:
    """Run a command with nothing to read and its output thrown away; ``None`` if it took more than *limit* seconds."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *words]
    with subprocess.Popen(launcher, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _end_group(process)
            return None
    seconds, peak, code = json.loads(out)
    return Ended(seconds, peak // _KILOBYTES, code)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End the launcher and what it started: the process group is theirs alone."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def gitstate(root: Path, *words: str, limit: float | None = None) -> Ended | None:
    return run([*GITSTATE, "-C", root, *words], limit)


def has_command(name: str) -> bool:
    ended = run([*GITSTATE, name, "--help"])
    return ended is not None and ended.exit_code == 0
