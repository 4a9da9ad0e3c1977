"""The guard: a kernel lock held for milliseconds, which ends with its holder whatever becomes of it.

It is flock(2) on a file that is never removed. What is done under it is done
by one process and one thread at a time; correctness rests on that for the
lease record and on compare-and-swap for the head.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import repeat

from filelock import lock_descriptor, unlock_descriptor

from gitstate import process
from gitstate.clock import Clock, SystemClock
from gitstate.durable import Directory
from gitstate.errors import LeaseTimeoutError, StorageError
from gitstate.medium import NotAFileError, UnreadableError

BRIEFLY = 1.0  # seconds that are enough wherever nobody is stuck: whoever is inside leaves within milliseconds
_POLL = 0.001  # seconds between two looks

_OPEN: set[int] = set()  # the descriptors of guards in this process, held or waited for


def _let_go_after_fork() -> None:
    """A forked child holds nothing: its copies would keep a guard locked beyond the death of the parent."""
    for descriptor in _OPEN:
        with suppress(OSError):
            os.close(descriptor)
    _OPEN.clear()


os.register_at_fork(after_in_child=_let_go_after_fork)


class Guard:
    """A lock of one file. Each hold opens it anew, so threads exclude each other as processes do."""

    def __init__(self, directory: Directory, name: str, clock: Clock | None = None) -> None:
        self.directory = directory
        self.name = name
        self.path = directory.path / name
        self.clock = SystemClock() if clock is None else clock

    @contextmanager
    def hold(self, timeout: float, *, waited: float = 0.0, pauses: Iterator[float] | None = None) -> Iterator[None]:
        """Hold the guard for the length of the block; *timeout* in seconds, 0 tries once.

        Args:
            waited: seconds that the caller has waited before, for the message.
            pauses: seconds from look to look; where they end the wait is given up.

        Raises:
            LeaseTimeoutError: another process held it all the time; the message says which, and its state.
            StorageError: the file cannot be opened or locked.
        """
        deadline = self.clock.monotonic() + timeout
        pauses = repeat(_POLL) if pauses is None else pauses
        while True:
            descriptor = self._opened()
            try:
                while not self._is_locked(descriptor):
                    pause = next(pauses, None) if self.clock.monotonic() < deadline else None
                    if pause is None:
                        raise self._timed_out(waited + timeout)
                    self.clock.sleep(pause)
                mine, there = os.fstat(descriptor), self.directory.status(self.name)
                if there is not None and os.path.samestat(mine, there):  # what was locked is what others will lock
                    if mine.st_nlink == 1:  # any other name may be anybody's
                        self._sign(descriptor)
                    yield
                    return
            finally:
                self._close(descriptor)

    def is_free(self) -> bool:
        """Whether nobody holds it at this moment."""
        try:
            with self.hold(0):
                return True
        except LeaseTimeoutError:
            return False

    def _opened(self) -> int:
        try:
            descriptor = self.directory.descriptor(self.name, os.O_RDWR)
        except StorageError as error:
            raise self._unusable(error.message.partition(": ")[2], error.facts.get("errno"), error.hint) from None
        _OPEN.add(descriptor)
        return descriptor

    @staticmethod
    def _close(descriptor: int) -> None:
        if descriptor in _OPEN:  # after a fork the child has closed its own
            with suppress(OSError):
                unlock_descriptor(descriptor)
            _OPEN.discard(descriptor)
            os.close(descriptor)

    def _is_locked(self, descriptor: int) -> bool:
        try:
            return lock_descriptor(descriptor, blocking=False)
        except OSError as error:
            raise self._unusable((error.strerror or str(error)).lower(), error.errno) from None

    @staticmethod
    def _sign(descriptor: int) -> None:
        """Leave our pid for those who wait in vain."""
        with suppress(OSError):  # a full disk must not keep anybody out
            os.pwrite(descriptor, b"%-12d\n" % os.getpid(), 0)

    def holder(self) -> int | None:
        """The pid of whoever is inside: as the system has it, else as the last one signed.

        The signature alone may be another's: who was stopped right after it got the guard has not signed yet.
        """
        there = self.directory.status(self.name)
        known = None if there is None else process.lock_holder(there.st_dev, there.st_ino)
        if known is not None:
            return known
        try:
            return int((self.directory.read(self.name, 64) or b"")[:12])
        except (NotAFileError, UnreadableError, ValueError):
            return None

    def _unusable(self, words: str, errno: object, hint: str | None = None) -> StorageError:
        return StorageError(
            f"{self.path}: the guard cannot be locked: {words}", hint=hint, path=str(self.path), errno=errno
        )

    def _timed_out(self, waited: float) -> LeaseTimeoutError:
        pid = self.holder()
        seen = process.liveness(pid, None)
        if seen.verdict == "alive":
            who = f"{seen.reason}, and it is inside"
            hint = f"end process {pid}: nothing that was acknowledged is lost"
            if process.is_stopped(pid):
                hint = f"kill -CONT {pid} lets it finish; kill -9 {pid} ends it, and nothing acknowledged is lost"
        else:
            who, hint = "a program that is not gitstate is inside", f"fuser -v {self.path}"
        return LeaseTimeoutError(
            f"the guard was not to be had within {waited:g} s: {who}", hint=hint, holder=None, pid=pid, waited=waited
        )
