"""Children run under strace(1): their system calls counted, recorded, made to fail, or their last.

strace is attached to a child that has everything imported and holds still, so that a run costs a few hundredths of a
second. ``inject=CALL:when=N`` counts the calls of one name, so a point is a name and a number.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from faults.zygote import Ended, Zygote, until

# What changes something that another process, or the same machine after a power cut, can see.
CHANGING = (
    "open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "rename", "renameat", "renameat2", "link",
    "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat", "truncate", "ftruncate",
    "fallocate", "fsync", "fdatasync", "sync_file_range", "syncfs", "chmod", "fchmod", "fchmodat", "flock", "utimensat",
    "copy_file_range", "sendfile", "msync",
)  # fmt: skip
# What says nothing about files; what a kill there leaves, a kill at the next call leaves as well.
_UNINTERESTING = {
    "brk", "mmap", "munmap", "mprotect", "madvise", "futex", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "restart_syscall", "getrandom", "getpid", "gettid", "exit_group", "exit", "clock_nanosleep", "select", "poll",
    "kill", "tgkill", "clock_gettime", "gettimeofday", "mremap", "sched_yield", "access",
}  # fmt: skip


class Point(NamedTuple):
    """The *nth* call of the system call *name* in a run, and how strace writes it, with the paths of what is open."""

    name: str
    nth: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name}#{self.nth}"


@functools.cache
def why_not() -> str | None:
    """Why system calls cannot be traced here, ``None`` if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        tracer = subprocess.Popen(["strace", "-qq", "-p", str(sleeper.pid)], stderr=subprocess.DEVNULL)
        try:
            until(lambda: _tracer_of(sleeper.pid) or tracer.poll() is not None, 5, "attaching")
            return None if tracer.poll() is None else "processes may not be traced here"
        finally:
            tracer.kill()
            tracer.wait()
    finally:
        sleeper.kill()
        sleeper.wait()


def traced(zygote: Zygote, function: str, arguments: dict[str, object], *options: str, timeout: float = 60.0) -> Ended:
    """Call a function in a child of *zygote* under strace with *options*."""
    pid = zygote.start(function, arguments, hold=True)
    with subprocess.Popen(["strace", "-qq", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True) as tracer:
        try:
            until(lambda: _tracer_of(pid) or tracer.poll() is not None, 10, "attaching")
        finally:
            os.kill(pid, signal.SIGCONT)
        ended = zygote.wait(pid, timeout)
        _, said = tracer.communicate(timeout=10)
    if tracer.returncode != 0 and not ended.signal:
        raise AssertionError(f"strace: {said}")
    return ended


def _tracer_of(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return True
    return b"TracerPid:\t0\n" not in status


def points(
    zygote: Zygote, function: str, arguments: dict[str, object], log: Path, *, every: bool = False
) -> list[Point]:
    """The calls of one undisturbed run that change something; with *every* those that only look, too."""
    wanted = "all" if every else ",".join("?" + name for name in CHANGING)
    ended = traced(
        zygote, function, arguments, "-y", "-o", str(log), "-s", "64", "-e", f"trace={wanted}", "-e", "signal=none"
    )
    if ended.signal or ended.hung:
        raise AssertionError(f"{arguments}: {ended}")
    seen: dict[str, int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        name = match[1]
        seen[name] = seen.get(name, 0) + 1
        point = Point(name, seen[name], line[:400])
        if name not in _UNINTERESTING and (every or changes(point)):
            found.append(point)
    return found


def changes(point: Point) -> bool:
    """Whether a call changes something, or only looks."""
    opens = point.name in ("open", "openat")
    return point.name in CHANGING and (not opens or "O_CREAT" in point.text or "O_TRUNC" in point.text)


def killed_at(zygote: Zygote, function: str, arguments: dict[str, object], point: Point) -> Ended:
    """Call a function and kill it, as by ``kill -9``, when it enters the call *point*."""
    return traced(
        zygote, function, arguments, "-o", os.devnull, "-e", f"trace={point.name}", "-e", "signal=none",
        "-e", f"inject={point.name}:signal=KILL:when={point.nth}",
    )  # fmt: skip


def failed_at(
    zygote: Zygote, function: str, arguments: dict[str, object], point: Point, error: str, *, lasting: bool
) -> Ended:
    """Call a function and let the call *point* fail with *error*; with *lasting* all later ones of its name, too."""
    return traced(
        zygote, function, arguments, "-o", os.devnull, "-e", f"trace={point.name}", "-e", "signal=none",
        "-e", f"inject={point.name}:error={error}:when={point.nth}{'+' if lasting else ''}",
    )  # fmt: skip
