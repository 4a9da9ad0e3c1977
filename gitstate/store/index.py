"""The index, derived from the head so that ``git status`` has nothing to say. It decides nothing."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Container
from typing import TYPE_CHECKING

from dulwich.objects import ObjectID

from gitstate.durable import Directory
from gitstate.layout import REGISTRY, place_of
from gitstate.store.trees import CommitTree

if TYPE_CHECKING:
    from dulwich.index import IndexEntry

INDEX = ".git/index"
_HEADER = struct.Struct(">4sII")
_STAGED = struct.Struct(">40x20sH")  # after ten numbers that say how the file was: the blob, and flags
_LENGTH, _EXTENDED, _STAGE = 0xFFF, 0x4000, 0x3000


class IndexLockedError(Exception):
    """Another git program is at the index; it is rewritten next time."""


def rewrite_index(directory: Directory, tree: CommitTree, unlike: Container[str] = ()) -> None:
    """Make the index equal to *tree*, with the present files' marks, so that git need not read them.

    Files in *unlike* are known to differ from the tree, so git is left to look at them; so it is with files that
    somebody else committed, which nobody compared with the tree.

    Raises:
        IndexLockedError: ``index.lock`` stands; it is never removed.
    """
    from dulwich.index import IndexChecksumWriter, write_index_dict  # whoever only looks does without it

    if directory.status(f"{INDEX}.lock") is not None:
        raise IndexLockedError
    entries = {}
    for path, mode, blob in tree.files():
        compared = path not in unlike and (path == REGISTRY or place_of(path) is not None)
        name = path.encode("utf-8", "surrogateescape")
        entries[name] = _entry(directory.status(path) if compared else None, mode, blob)
    buffer = io.BytesIO()
    writer = IndexChecksumWriter(buffer)
    write_index_dict(writer, entries, version=2)
    writer.write_checksum()
    directory.write(INDEX, buffer.getvalue(), durable=False)


def _entry(found: os.stat_result | None, mode: int, blob: str) -> IndexEntry:
    from dulwich.index import IndexEntry

    if found is None:
        return IndexEntry(0, 0, 0, 0, mode, 0, 0, 0, ObjectID(blob.encode()))
    return IndexEntry(
        divmod(found.st_ctime_ns, 1_000_000_000),
        divmod(found.st_mtime_ns, 1_000_000_000),
        found.st_dev & 0xFFFFFFFF,
        found.st_ino & 0xFFFFFFFF,
        mode,
        found.st_uid,
        found.st_gid,
        found.st_size & 0xFFFFFFFF,
        ObjectID(blob.encode()),
    )


def index_differs(directory: Directory, tree: CommitTree) -> bool:
    """Whether the index is damaged, or names other blobs than *tree*."""
    try:
        raw = directory.read(INDEX)
        if raw is None:
            return True
        if hashlib.sha1(raw[:-20], usedforsecurity=False).digest() != raw[-20:]:
            return True
        staged = _staged(raw)
    except Exception:  # dulwich meets damage with many types
        return True
    return staged != {path.encode("utf-8", "surrogateescape"): blob for path, _, blob in tree.files()}


def _staged(raw: bytes) -> dict[bytes, str]:
    """The blobs that an index names (gitformat-index(5)); one that git rewrote in another form is dulwich's to read."""
    signature, version, count = _HEADER.unpack_from(raw)
    if signature == b"DIRC" and version == 2:
        found, position = {}, _HEADER.size
        for _ in range(count):
            blob, flags = _STAGED.unpack_from(raw, position)
            begin, length = position + _STAGED.size, flags & _LENGTH
            if flags & (_EXTENDED | _STAGE) or length == _LENGTH:
                break
            found[raw[begin : begin + length]] = blob.hex()
            position += (_STAGED.size + length + 8) & ~7
        else:
            return found
    from dulwich.index import IndexEntry, read_index_dict

    read = read_index_dict(io.BytesIO(raw))
    return {name: entry.sha.decode() for name, entry in read.items() if isinstance(entry, IndexEntry)}
