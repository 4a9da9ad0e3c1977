"""What a directory holds, to the byte and to the nanosecond, so that tests can say that nothing was written."""

from __future__ import annotations

import os
from pathlib import Path

Listing = dict[str, tuple[object, ...]]


def listing(top: Path) -> Listing:
    """Everything below *top*, and itself: kind and mode, size, mtime, inode, and what a file or symlink holds."""
    found: Listing = {}
    for above, directories, files in os.walk(top):
        for name in (".", *directories, *files):
            path = Path(above, name)
            seen = path.lstat()
            held: object = None
            if path.is_symlink():
                held = os.readlink(path)
            elif path.is_file():
                held = path.read_bytes()
            found[os.path.normpath(path)] = (seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ino, held)
    return found


def contents(top: Path, *, without: tuple[str, ...] = (".git",)) -> dict[str, bytes]:
    """The bytes of every regular file below *top*, by its path in it; directories in *without* are left out."""
    found: dict[str, bytes] = {}
    for above, directories, files in os.walk(top):
        directories[:] = [name for name in directories if name not in without]
        for name in files:
            path = Path(above, name)
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(top))] = path.read_bytes()
    return found
