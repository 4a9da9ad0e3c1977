"""Tags packed into ``packed-refs``, so that their number is not that of the files. They never move, so nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable

from gitstate.durable import Directory
from gitstate.errors import CorruptStateError
from gitstate.layout import CHECKPOINT_TAGS
from gitstate.medium import NotAFileError
from gitstate.store.refs import PACKED_REFS, Refs, format_packed

_LOCK = f"{PACKED_REFS}.lock"  # as git does it (git-pack-refs(1))
_OURS = b"gitstate\n"


def pack_tags(refs: Refs, peel: Callable[[str], str]) -> int:
    """Pack all loose tags, durably; how many. Under the guard. None, if git is at it.

    Tags that are damaged or lead nowhere stay as they are. *peel* is what a tag leads to in the end.

    Raises:
        RefDamagedError: the file of packed refs cannot be read.
        StorageError: the file system refused; no tag is lost.
    """
    names = refs.loose_names("refs/tags")
    if not names or not _take_lock(refs.directory):
        return 0
    try:
        found = {name: value for name in names if (value := _value(refs, name)) is not None}
        packed = {name: (value, target) for name, value, target in refs.packed_lines()}
        packed |= {name: (value, None) for name, value in found.items()}
        lines = [(name, value, target or _target(peel, value)) for name, (value, target) in packed.items()]
        refs.directory.write(PACKED_REFS, format_packed(lines))
        for name, value in found.items():
            _remove(refs.directory, f".git/{name}", value)
    finally:
        refs.directory.drop(_LOCK)
    return len(found)


def left_over(directory: Directory) -> bool:
    """Remove a lock of the packed refs that gitstate itself left; whether there was one. Under the guard."""
    try:
        return directory.read(_LOCK, 64) == _OURS and directory.discard(_LOCK)
    except NotAFileError:
        return False


def _take_lock(directory: Directory) -> bool:
    left_over(directory)
    return directory.write_new(_LOCK, _OURS)  # durably: nobody could tell whose a lock is that has lost its bytes


def _value(refs: Refs, name: str) -> str | None:
    try:
        return refs.loose(name)
    except CorruptStateError:
        return None


def _target(peel: Callable[[str], str], value: str) -> str | None:
    try:
        target = peel(value)
    except CorruptStateError:  # git writes such lines without it, too
        return None
    return None if target == value else target


def _remove(directory: Directory, path: str, value: str) -> None:
    """Remove a loose tag that is packed now. It is taken away first, and put back if somebody has just moved it."""
    aside = directory.new_name()
    directory.move(path, aside)
    if (directory.read(aside, 4096) or b"")[:40] != value.encode():
        directory.link(aside, path)
    directory.discard(aside)
    above = path.rpartition("/")[0]
    if above.startswith(f".git/{CHECKPOINT_TAGS}"):
        directory.remove_empty(above)
