"""What the file system says of what lies there, without a look into it: its mark, its kind, its size."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from gitstate.medium import OF_THE_FILE, not_read

Mark = tuple[int, int, int, int, int]


def mark_of(found: os.stat_result) -> Mark:
    """Device, inode, size and both times of a file: while they stay, so does the file, if it lay still for a while."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def kind_of(mode: int) -> str:
    """What a file mode says a thing is, in a word or two."""
    for test, word in (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symlink"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return word
    return "a device"


def size_of(directory: Path, *, whole: bool = False) -> int:
    """Bytes of all files below, as far as they can be found; symlinks count as what they are.

    Raises:
        StorageError: only where the *whole* is asked for: a directory cannot be read just now.
    """

    def refused(error: OSError) -> None:
        if whole and error.errno not in OF_THE_FILE:
            raise not_read(str(error.filename), error)

    total = 0
    for above, _, names in os.walk(directory, onerror=refused):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                total += os.lstat(os.path.join(above, name)).st_size
    return total
