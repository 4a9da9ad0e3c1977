"""Spare files: kept when they are no longer needed, and written over instead of making new ones.

Where many files are made and removed, making one is what takes longest: ext4 without a journal passes over everything
that was removed within the last minutes. A spare file has one name, which only the holder of the guard uses, and is
written over only if the system says that nobody has it open or mapped: whoever still reads what it was goes on reading
that. Nothing that must survive a power cut, or that would be taken for somebody's edit after one, is kept in it.
"""

from __future__ import annotations

from contextlib import suppress

from gitstate.durable import Directory, mode_of
from gitstate.errors import StorageError
from gitstate.layout import SPARES


def refill(directory: Directory, spare: str, raw: bytes, *, mode: int = 0o600) -> str:
    """A file that holds *raw*: the spare one of that name, or a new one in the aside directory; where it is.

    Not durable. Under the guard. Whoever asks for it puts it in place, or gives it to :func:`recycle`.

    Raises:
        StorageError: the file system refused.
    """
    name = f"{SPARES}/{spare}"
    if directory.reuses:
        if directory.rewrite(name, raw, mode):
            return name
        with suppress(StorageError):  # after a power cut it may be the very file that is to be kept next
            directory.discard(name)
    return directory.prepare(raw, mode=mode, durable=False)


def take(directory: Directory, spare: str, raw: bytes, *, mode: int = 0o600) -> str:
    """As :func:`refill`, with a name of its own in the aside directory."""
    filled = refill(directory, spare, raw, mode=mode)
    if filled != f"{SPARES}/{spare}":
        return filled
    name = directory.new_name()
    directory.move(filled, name)
    return name


def recycle(directory: Directory, name: str, spare: str) -> None:
    """Keep a file that is no longer needed, or remove it. Where that fails it is swept later. Under the guard."""
    if name == f"{SPARES}/{spare}":
        return
    if directory.reuses:
        try:
            directory.make(SPARES)
            directory.move(name, f"{SPARES}/{spare}")
            return
        except StorageError:  # not there any more, or something else is in the way
            pass
    directory.drop(name)


def swap(directory: Directory, name: str, raw: bytes, spare: str) -> None:
    """A file replaced as a whole, not durably; an existing one keeps its mode, and is the next spare one. Under the guard.

    Raises:
        StorageError: the file system refused.
    """
    present = directory.status(name)
    filled = refill(directory, spare, raw, mode=mode_of(present, 0o600))
    try:
        if present is None or not directory.exchange(filled, name):
            directory.move(filled, name)
            return
    except StorageError:
        directory.drop(filled)
        raise
    recycle(directory, filled, spare)
