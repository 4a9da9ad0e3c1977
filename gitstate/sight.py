"""What was seen of the files, and a cheap way to tell that none of them was touched since.

As git does with its index, a file that was compared once is not compared again
while device, inode, size, and both its times are the same. A file system's
times move in steps, so what was touched shortly before it was looked at is
not trusted: it may be touched again within the same step.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from gitstate.marks import Mark, mark_of

_COARSE = 2_000_000_000  # nanoseconds; the coarsest file systems count in two seconds
_FINE = 50_000_000  # where a time has a fraction of a second; the kernel's clock ticks at least every ten milliseconds
_SECOND = 1_000_000_000


class Sight:
    """The marks of files and directories as they were at one moment; those that are missing are marked as such."""

    def __init__(self, base: Path, names: Iterable[str]) -> None:
        self._base = f"{base}/"
        # The file system's clock is meant here, not the one that is injected.
        now = time.time_ns()
        self._marks: dict[str, Mark | None] = {}
        for name in names:
            mark = self._look(name)
            if mark is None or mark[4] < now - (_FINE if mark[4] % _SECOND else _COARSE):
                self._marks[name] = mark

    def _look(self, name: str) -> Mark | None:
        try:
            return mark_of(os.lstat(self._base + name))
        except OSError:
            return None

    def is_untouched(self, names: Iterable[str]) -> bool:
        """Whether all of these are as they were."""
        marks = self._marks
        return all(name in marks and self._look(name) == marks[name] for name in names)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file that is as it was; ``None`` of any other."""
        mark = self._marks.get(name)
        if mark is None:
            return None
        try:
            descriptor = os.open(self._base + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if mark_of(found) != mark or not stat.S_ISREG(found.st_mode):
                return None
            raw = os.read(descriptor, mark[2] + 1)
            return raw if len(raw) == mark[2] else None
        except OSError:
            return None
        finally:
            os.close(descriptor)


Known = dict[str, tuple[Sight, tuple[str, ...]]]
_KNOWN: dict[Path, Known] = {}
_MOST = 64  # state directories


def known_of(base: Path) -> Known:
    """What anybody in this process has compared in a state directory: by path, its sight, and what else must be untouched."""
    while len(_KNOWN) >= _MOST and base not in _KNOWN:
        _KNOWN.pop(next(iter(_KNOWN)), None)
    return _KNOWN.setdefault(base, {})
