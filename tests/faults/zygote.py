"""A process that has everything imported and forks a child for each call: a fresh process for a few milliseconds.

A child's answer is written through a shared mapping, so that no system call which a test makes fail is needed to give
it, and so that it stands even when the child is killed right after.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import mmap
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
SPACE = 1 << 22  # bytes for an answer
_SET_PTRACER = 0x59616D61  # PR_SET_PTRACER of prctl(2)
TIMEOUT = 60.0  # seconds; whatever takes longer hangs


class Answer:
    """Where a child says how it fares: the whole answer so far, replaced at once by a later one."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SPACE)

    def say(self, value: object) -> None:
        raw = json.dumps(value).encode()
        half = SPACE // 2 if self._memory[0:1] == b"\1" else 8
        if len(raw) > SPACE // 2 - 8:
            raise ValueError("the answer is too long")
        self._memory[half : half + len(raw)] = raw
        self._memory[1:8] = len(raw).to_bytes(7, "big")
        self._memory[0:1] = b"\2" if half > 8 else b"\1"

    @staticmethod
    def heard(path: str) -> object:
        with open(path, "rb") as file:
            head = file.read(8)
            if head[0] == 0:
                return None
            if head[0] == 2:
                file.seek(SPACE // 2)
            return json.loads(file.read(int.from_bytes(head[1:], "big")))


class Ended(NamedTuple):
    """How a child ended: its answer so far, and the signal or exit code; ``hung`` when it had to be ended."""

    answer: object
    signal: int
    code: int
    hung: bool = False


class Zygote:
    """The parent's end: one child at a time."""

    def __init__(self, scratch: Path) -> None:
        descriptor, self._answer = tempfile.mkstemp(prefix="gitstate-answer-")  # not where a disk may be full
        os.close(descriptor)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=scratch,
            bufsize=0,
        )
        self._heard = b""

    def start(self, function: str, arguments: dict[str, object], *, hold: bool = False) -> int:
        """Fork a child that calls *function* (``module:name``); with *hold* it stops first. Its pid."""
        with open(self._answer, "r+b") as file:
            file.truncate(0)
            file.truncate(SPACE)
        self._send({"function": function, "arguments": arguments, "hold": hold, "answer": self._answer})
        return int(self._receive()["pid"])

    def wait(self, pid: int, timeout: float = TIMEOUT) -> Ended:
        """Wait until the child has ended, and been reaped."""
        hung = not self._is_heard(timeout)
        if hung:
            os.kill(pid, signal.SIGKILL)
        status = int(self._receive()["status"])
        return Ended(Answer.heard(self._answer), os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                     os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0, hung)  # fmt: skip

    def call(self, function: str, **arguments: object) -> object:
        """The answer of a child that is let run to its end."""
        ended = self.wait(self.start(function, arguments))
        if ended.hung or ended.signal or ended.code:
            raise AssertionError(f"{function}: {ended}"[:4000])
        return ended.answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        os.unlink(self._answer)

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _is_heard(self, timeout: float) -> bool:
        """Whether there is a whole line to be read, by then."""
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                return False
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise AssertionError(f"the zygote died with {self._process.wait()}")
            self._heard += chunk
        return True

    def _receive(self) -> dict[str, int]:
        assert self._is_heard(TIMEOUT)
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, int] = json.loads(line)
        return message


def _child(message: dict[str, object]) -> int:
    answer = Answer(str(message["answer"]))
    module, _, name = str(message["function"]).partition(":")
    function = getattr(importlib.import_module(module), name)
    if message["hold"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        arguments = message["arguments"]
        assert isinstance(arguments, dict)
        return int(function(answer, **arguments) or 0)
    except BaseException:
        answer.say({"trace": traceback.format_exc()})
        return 70


def serve() -> None:
    """Read what to call, fork, report pid and status; until the other end is closed."""
    # Everything a child might import, imported once: an error is for what it does, not for what it is made of.
    import ctypes

    import gitstate
    from faults import invariants, workloads  # noqa: F401

    for module in pkgutil.walk_packages(gitstate.__path__, "gitstate."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()

    library = ctypes.CDLL(None)
    logging.getLogger("gitstate").addHandler(logging.NullHandler())
    for line in sys.stdin:
        message = json.loads(line)
        pid = os.fork()
        if pid == 0:
            # What a child prints by mistake must not be taken for a message.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(2, 1)
            if message["hold"] and sys.platform == "linux":
                library.prctl(_SET_PTRACER, ctypes.c_ulong(-1))  # strace may attach, also where only parents may
            os._exit(_child(message))
        if message["hold"]:
            os.waitpid(pid, os.WUNTRACED)
        print(json.dumps({"pid": pid}), flush=True)
        while True:
            _, status = os.waitpid(pid, 0)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                break
        print(json.dumps({"status": status}), flush=True)


def until(condition, timeout: float, what: str) -> None:  # type: ignore[no-untyped-def]
    """Look at *condition* until it holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} took longer than {timeout:g} s")
        time.sleep(0.0003)


if __name__ == "__main__":
    serve()
