"""Processes: who this one is, and whether another one is still the one that was meant.

A pid alone names nothing for long. An identity is pid, host, boot and start
time; on Linux the latter are ``/proc/sys/kernel/random/boot_id`` and field 22
of ``/proc/<pid>/stat`` (proc(5)), in clock ticks since boot, which no step of
the wall clock changes. Elsewhere psutil's boot and creation times stand in.
"""

from __future__ import annotations

import os
import pwd
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gitstate.records import MAX_PID, ProcessRecord

if TYPE_CHECKING:
    from gitstate.results import Liveness


_PROC = Path("/proc")
_STOPPED = ("T", "t")


def hostname() -> str:
    """This machine's name."""
    return os.uname().nodename


def boot_id() -> str | None:
    """An id of this boot of the machine, ``None`` where it cannot be told."""
    try:
        return _boot_id()
    except OSError:
        # Too many open files, say. Another id than other processes have would make ours look dead to them.
        return None


@cache
def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        import psutil

        return f"boot-{int(psutil.boot_time())}"


@cache
def pid_namespace() -> int | None:
    """The number of this process's pid namespace (pid_namespaces(7)), ``None`` where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def login_name() -> str:
    """The login name of this process's user id, or the number itself."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class _Seen(NamedTuple):
    start_time: int | None
    state: str  # one letter, as in /proc/<pid>/stat


def _look(pid: int) -> _Seen | None:
    """What there is to know of a pid here, ``None`` if no such process exists."""
    try:
        raw = (_PROC / str(pid) / "stat").read_bytes()
        fields = raw[raw.rindex(b")") + 2 :].split()
        return _Seen(int(fields[19]), fields[0].decode())
    except (OSError, ValueError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return _Seen(None, "?")
    if (_PROC / "self/stat").exists():
        return _Seen(None, "?")
    return _look_elsewhere(pid)


def _look_elsewhere(pid: int) -> _Seen | None:
    import psutil

    try:
        process = psutil.Process(pid)
        letter = (
            "Z"
            if process.status() == psutil.STATUS_ZOMBIE
            else "T"
            if process.status() == psutil.STATUS_STOPPED
            else "?"
        )
        return _Seen(int(process.create_time() * 100), letter)
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return _Seen(None, "?")


_mine: tuple[int, int | None] = (0, None)  # the pid and start time of this process; after a fork it has another pid


def own_identity() -> ProcessRecord:
    """As :func:`identity`, of this process: its start time is looked up once."""
    global _mine  # noqa: PLW0603
    pid = os.getpid()
    if _mine[0] != pid or _mine[1] is None:
        record = identity(pid)
        _mine = pid, record["startTime"]
        return record
    return _record(*_mine)


def identity(pid: int) -> ProcessRecord:
    """Who the process *pid* of this machine is; without a start time if there is none of that pid."""
    seen = _look(pid)
    return _record(pid, None if seen is None else seen.start_time)


def _record(pid: int, start_time: int | None) -> ProcessRecord:
    record: ProcessRecord = {"pid": pid, "host": hostname(), "bootId": boot_id(), "startTime": start_time}
    namespace = pid_namespace()
    if namespace is not None:
        record["pidNamespace"] = namespace
    return record


def liveness(pid: object, recorded: ProcessRecord | None) -> Liveness:
    """Whether the process meant by *pid* and, where there is one, its *recorded* identity, lives.

    A pid without identity is taken for one of this host, as the original means it. ``foreign``: of another host or
    pid namespace. What may not be signalled (``EPERM``) lives; a zombie does not.
    """
    from gitstate.results import Liveness  # who only asks which boot this is does without

    if pid is None:
        return Liveness("none", None, "no process is recorded")
    if isinstance(pid, bool) or not isinstance(pid, int) or not 1 <= pid <= MAX_PID:
        return Liveness("dead", None, f"{pid!r:.40} is no process id")
    elsewhere = None if recorded is None else _elsewhere(pid, recorded)
    if elsewhere is not None:
        return elsewhere
    seen = _look(pid)
    if seen is None:
        return Liveness("dead", pid, f"process {pid} does not exist")
    if seen.state in ("Z", "X"):
        return Liveness("dead", pid, f"process {pid} has ended (a zombie)")
    started = None if recorded is None else recorded.get("startTime")
    if isinstance(started, int) and seen.start_time is not None and started != seen.start_time:
        return Liveness("dead", pid, f"process {pid} is another process by now: the pid was used again")
    if seen.state in _STOPPED:
        return Liveness("alive", pid, f"process {pid} exists, but is stopped")
    return Liveness("alive", pid, f"process {pid} runs" + (", but waits for a disk" if seen.state == "D" else ""))


def _elsewhere(pid: int, recorded: ProcessRecord) -> Liveness | None:
    """The verdict on a process of another host, pid namespace or boot; ``None`` on one of here and now."""
    from gitstate.results import Liveness

    host = recorded.get("host")
    if host is not None and host != hostname():
        return Liveness("foreign", pid, f"process {pid} belongs to the host {host}")
    namespace = recorded.get("pidNamespace")
    if namespace is not None and pid_namespace() is not None and namespace != pid_namespace():
        return Liveness("foreign", pid, f"process {pid} belongs to another pid namespace of {host}")
    boot = recorded.get("bootId")
    if isinstance(boot, str) and boot_id() is not None and boot != boot_id():
        return Liveness("dead", pid, f"process {pid} ended when {host or 'the machine'} restarted")
    return None


def is_stopped(pid: int | None) -> bool:
    """Whether a process was stopped, by a signal or a debugger, so that it goes on only when it is told to."""
    seen = None if pid is None else _look(pid)
    return seen is not None and seen.state in _STOPPED


def lock_holder(device: int, inode: int) -> int | None:
    """The pid of whoever holds a flock(2) lock of that file, where the system tells (proc_locks(5))."""
    where = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        lines = (_PROC / "locks").read_text().splitlines()
    except (OSError, ValueError):
        return None
    for fields in map(str.split, lines):
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == where and fields[4].isdigit():
            return int(fields[4]) or None  # 0: of a pid namespace that cannot be seen from here
    return None


def is_mine(pid: int) -> bool:
    """Whether *pid* is this process or one of its ancestors."""
    current = os.getpid()
    for _ in range(64):
        if current == pid:
            return True
        parent = _parent_of(current)
        if parent is None or parent <= 1:
            return parent == pid
        current = parent
    return False


def _parent_of(pid: int) -> int | None:
    try:
        raw = (_PROC / str(pid) / "stat").read_bytes()
        return int(raw[raw.rindex(b")") + 2 :].split()[1])
    except (OSError, ValueError, IndexError):
        pass
    import psutil

    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None
