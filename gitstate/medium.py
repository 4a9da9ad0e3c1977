"""The medium: what makes bytes stay on it, and what it says when it will not have them or cannot give them back."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from gitstate.errors import StorageError

# On macOS fsync(2) does not reach the medium; this does.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_RENAME_EXCHANGE = 2  # renameat2(2)


# --- staying ----------------------------------------------------------------------------------------------------------


def fsync(descriptor: int) -> None:
    """Make what *descriptor* names reach the medium."""
    if _FULL_SYNC is not None:
        with suppress(OSError):  # not every file system has it; fsync is what is left
            fcntl.fcntl(descriptor, _FULL_SYNC)
            return
    os.fsync(descriptor)


def datasync(descriptor: int) -> None:
    """As :func:`fsync`, for a file that neither grew nor got another name."""
    if _FULL_SYNC is not None:
        fsync(descriptor)
        return
    os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable, wherever it lies.

    Raises:
        StorageError: it cannot be opened, or the sync fails.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(str(path), error) from None


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """renameat2(2), where there is one."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        found: Callable[[int, bytes, int, bytes, int], int] | None = getattr(ctypes.CDLL(None), "renameat2", None)
    except (ImportError, OSError):  # a Python that was built without it
        return None
    return found


def exchanged(parent: int, name: str, other: int, target: str) -> bool:
    """Let two names change their files; any failure is left to the rename that follows to explain."""
    call = _renameat2()
    return call is not None and call(parent, os.fsencode(name), other, os.fsencode(target), _RENAME_EXCHANGE) == 0


# --- written over -----------------------------------------------------------------------------------------------------

# Where all who have a file open are known to this system: elsewhere somebody may read it on another machine, or outside.
_MOUNTS = "/proc/self/mountinfo"
_LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs"))


@cache
def is_local(device: int) -> bool:
    """Whether a device holds a file system of this machine alone, as proc(5) says in mountinfo."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError), open(_MOUNTS) as lines:
        for line in lines:
            place, _, kind = line.partition(" - ")
            if place.split(" ")[2] == wanted:
                return kind.split(" ")[0] in _LOCAL
    return False


def shut_out(descriptor: int) -> bool:
    """Keep all others from opening a file until they are :func:`let_in`; whether that was done: nobody has it open or mapped.

    That is what a lease for writing means (fcntl(2), F_SETLEASE).
    """
    import signal  # who only reads does without the names of all signals

    try:
        # Whoever tries to open it waits, and has the system tell us: by a signal that is ignored, not one that ends us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    return True


def let_in(descriptor: int) -> None:
    """Undo :func:`shut_out`. To close the file is not enough: a child forked meanwhile has it open, too."""
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


# --- refusing ---------------------------------------------------------------------------------------------------------


class NotAFileError(StorageError):
    """Something else (a directory, a symlink, a FIFO) lies where a regular file is wanted, or it may not be read."""


class UnreadableError(StorageError):
    """The disk, or a limit of this process, kept a file from being read.

    What is in it is not known, so nothing may be decided by it: it is no damage, and nothing is missing.
    """


# What says something of the file itself. Anything else (EIO, EMFILE, ENOMEM, ESTALE …) says nothing of it.
OF_THE_FILE = {
    errno.EACCES, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENODEV, errno.ENOENT, errno.ENOTDIR,
    errno.ENXIO, errno.EPERM,
}  # fmt: skip


@contextmanager
def readable(name: str) -> Iterator[None]:
    """For the length of a block in which the file *name* is read: what keeps it from that is an UnreadableError."""
    try:
        yield
    except OSError as error:
        raise not_read(name, error) from None


def not_read(name: str, error: OSError) -> StorageError:
    """What *error* says, that came while the file *name* was read: of the file, or of the disk."""
    if error.errno in OF_THE_FILE:
        return NotAFileError(f"{name}: {_words(error)}", path=name, errno=error.errno)
    hint = "repeat the command; if the disk is failing, copy away what can be read"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "ulimit -n: too many files are open"
    return UnreadableError(f"{name}: {_words(error)}", hint=hint, path=name, errno=error.errno)


def _words(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a symlink, which is not followed"
    return (error.strerror or str(error)).lower()


def storage_error(name: str, error: OSError) -> StorageError:
    """What *error* says, that came while something was done to *name*."""
    hints = {
        errno.ENOSPC: "make room on the disk, then repeat the command",
        errno.EDQUOT: "make room within the quota, then repeat the command",
        errno.EROFS: "the file system is mounted read-only",
        errno.EACCES: "look at the owner and mode of the state directory",
        errno.EPERM: "look at the owner and mode of the state directory",
    }
    return StorageError(
        f"{name or 'the state directory'}: {_words(error)}",
        hint=hints.get(error.errno or 0),
        path=name,
        errno=error.errno,
    )
