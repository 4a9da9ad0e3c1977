"""The index, derived from the head so that ``git status`` has nothing to say. It decides nothing.

Its entries (gitformat-index(5)) lie in the order of their paths, and are written over in place where a mutation changes
them. Beside each blob id stands a mark: what the file system said of the file when it was last compared. Of a file
without one nothing is known, and git looks at it itself.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from gitstate.durable import Directory
from gitstate.medium import NotAFileError
from gitstate.spares import swap
from gitstate.store.trees import CommitTree

INDEX = ".git/index"
_HEADER = struct.Struct(">4sII")
_ENTRY = struct.Struct(">10I20sH")  # what stands before the path
_MARK = 40  # bytes of an entry that tell whether a file was touched; the mode is among them
_MODE = struct.Struct(">I")
_LONGEST = 0xFFF  # what the length of a path is cut to
_SURE = 2  # seconds that a file must have lain still before somebody else's index, so that its mark is believed


class IndexLockedError(Exception):
    """Another git program is at the index; it is rewritten next time."""


class Entry(NamedTuple):
    """One file in the index: ``mark`` is all zeros but for the mode where nothing is known of it."""

    path: str
    blob: str
    mode: int
    mark: bytes

    def is_of(self, found: os.stat_result) -> bool:
        """Whether the file is as it was when it was marked."""
        return self.mark == _mark(found, self.mode)


class Index:
    """An index of ours, to be changed and saved."""

    def __init__(self, raw: bytes) -> None:
        self._before = raw
        self._raw = bytearray(raw[:-20])
        self._same = len(self._raw)  # bytes from the beginning that nothing was changed in

    @classmethod
    def found(cls, directory: Directory, checksum: str) -> Index | None:
        """The index, if it is the one that has this *checksum*.

        Raises:
            IndexLockedError: ``index.lock`` stands; it is never removed.
        """
        _refuse_if_locked(directory)
        raw = _read(directory)
        return cls(raw) if len(raw) > 32 and raw[-20:].hex() == checksum else None

    def put(self, path: str, mode: int, blob: str, found: os.stat_result | None) -> None:
        """One entry, new or in place of what it was; *found* is what the file system says of a file that was compared."""
        name = _encoded(path)
        at = self._find(name)
        entry = _packed(name, mode, blob, found)
        if at is None:
            at = next((start for start, _, other in _entries(self._raw) if other > name), len(self._raw))
            self._raw[at:at] = entry
            self._count(1)
        else:
            self._raw[at : at + len(entry)] = entry
        self._same = min(self._same, at)

    def drop(self, path: str) -> None:
        """No entry of that name."""
        name = _encoded(path)
        at = self._find(name)
        if at is not None:
            del self._raw[at : at + _size(name)]
            self._count(-1)
            self._same = 0

    def _find(self, name: bytes) -> int | None:
        # What changes lies at the end: registry.json, and loops/ before it.
        at = self._raw.rfind(name + b"\0")
        while at >= 0:
            start = at - _ENTRY.size
            if start >= _HEADER.size and start % 8 == _HEADER.size % 8:
                *_, flags = _ENTRY.unpack_from(self._raw, start)
                if flags & ~_LONGEST == 0 and flags == min(len(name), _LONGEST):
                    return start
            at = self._raw.rfind(name + b"\0", 0, at + len(name))
        return None

    def _count(self, more: int) -> None:
        signature, version, count = _HEADER.unpack_from(self._raw)
        _HEADER.pack_into(self._raw, 0, signature, version, count + more)
        self._same = 0

    def following(self, area: str, path: str, most: int) -> list[Entry]:
        """The entries below *area* from *path* on, at most so many; from the first one if there is no such path."""
        top = _encoded(f"{area}/")
        start = self._find(_encoded(path)) if path.startswith(f"{area}/") else None
        if start is None:
            start = next((at for at, _, name in _entries(self._raw) if name >= top), len(self._raw))
        found: list[Entry] = []
        for at, _, name in _entries(self._raw, start):
            if not name.startswith(top) or len(found) == most:
                break
            *_, blob, _ = values = _ENTRY.unpack_from(self._raw, at)
            mark = bytes(self._raw[at : at + _MARK])
            found.append(Entry(_decoded(name), blob.hex(), values[6], mark))
        return found

    def save(self, directory: Directory) -> str | None:
        """Write it; its checksum. ``None``: it was damaged before, and nothing is written.

        Raises:
            StorageError: the file system refused.
        """
        # What did not change is read once for both checksums.
        before = hashlib.sha1(memoryview(self._raw)[: self._same], usedforsecurity=False)
        after = before.copy()
        before.update(memoryview(self._before)[self._same : -20])
        if before.digest() != self._before[-20:]:
            return None
        after.update(memoryview(self._raw)[self._same :])
        swap(directory, INDEX, bytes(self._raw) + after.digest(), "index")
        return after.hexdigest()


def rewrite_index(directory: Directory, tree: CommitTree, compared: Callable[[str, str], os.stat_result | None]) -> str:
    """Make the index equal to *tree*; its checksum.

    Args:
        compared: for a path and its blob id, what the file system said of the file when it was found to be just that;
            ``None`` of one that git is left to look at.

    Raises:
        IndexLockedError: ``index.lock`` stands; it is never removed.
    """
    _refuse_if_locked(directory)
    entries = []
    for path, mode, blob in tree.files():
        name = _encoded(path)
        entries.append((name, _packed(name, mode, blob, compared(path, blob))))
    return _write(directory, entries)


def adopt_index(directory: Directory, tree: CommitTree, compared: Mapping[str, os.stat_result | None]) -> str:
    """As :func:`rewrite_index`, after git wrote the index: what git says of the files that are not in *compared* is kept.

    git marks a file when it has compared it, too. What was touched shortly before is left for git to look at again.
    """
    _refuse_if_locked(directory)
    raw = _read(directory)
    known = _known(raw)
    written = directory.status(INDEX)
    settled = 0 if written is None else int(written.st_mtime) - _SURE
    entries = []
    for path, mode, blob in tree.files():
        name = _encoded(path)
        entry = _packed(name, mode, blob, compared.get(path))
        theirs = known.get(name) if path not in compared else None
        if theirs is not None and theirs[40:60] == entry[40:60] and theirs[24:28] == entry[24:28]:
            changed, _, modified, *_ = _ENTRY.unpack_from(theirs)
            if max(changed, modified) < settled:
                entry = theirs[:_MARK] + entry[_MARK:]
        entries.append((name, entry))
    return _write(directory, entries)


def _refuse_if_locked(directory: Directory) -> None:
    if directory.status(f"{INDEX}.lock") is not None:
        raise IndexLockedError


def _read(directory: Directory) -> bytes:
    try:
        return directory.read(INDEX) or b""
    except NotAFileError:
        return b""


def _write(directory: Directory, entries: list[tuple[bytes, bytes]]) -> str:
    raw = _HEADER.pack(b"DIRC", 2, len(entries)) + b"".join(entry for _, entry in sorted(entries))
    checksum = hashlib.sha1(raw, usedforsecurity=False)
    swap(directory, INDEX, raw + checksum.digest(), "index")
    return checksum.hexdigest()


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _size(name: bytes) -> int:
    return (_ENTRY.size + len(name) + 8) // 8 * 8


def _mark(found: os.stat_result | None, mode: int) -> bytes:
    if found is None:
        return bytes(24) + _MODE.pack(mode) + bytes(12)
    numbers = (
        *divmod(found.st_ctime_ns, 1_000_000_000),
        *divmod(found.st_mtime_ns, 1_000_000_000),
        found.st_dev,
        found.st_ino,
        mode,
        found.st_uid,
        found.st_gid,
        found.st_size,
    )
    return struct.pack(">10I", *(number & 0xFFFFFFFF for number in numbers))


def _packed(name: bytes, mode: int, blob: str, found: os.stat_result | None) -> bytes:
    flags = min(len(name), _LONGEST).to_bytes(2)
    return (_mark(found, mode) + bytes.fromhex(blob) + flags + name).ljust(_size(name), b"\0")


def _entries(raw: bytes | bytearray, start: int = _HEADER.size) -> Iterator[tuple[int, int, bytes]]:
    """Where each entry of an index of version 2 begins and ends, and its path; *raw* is without the checksum."""
    at = start
    while at + _ENTRY.size < len(raw):
        length = int.from_bytes(raw[at + 60 : at + 62]) & _LONGEST
        path = at + _ENTRY.size
        end = path + length if length < _LONGEST else raw.find(b"\0", path)
        name = bytes(raw[path:end])
        yield at, at + _size(name), name
        at += _size(name)


def _known(raw: bytes) -> dict[bytes, bytes]:
    """The entries of an intact index of version 2; whatever else stands there says nothing."""
    if len(raw) < 32 or hashlib.sha1(raw[:-20], usedforsecurity=False).digest() != raw[-20:]:
        return {}
    signature, version, count = _HEADER.unpack_from(raw)
    if (signature, version) != (b"DIRC", 2):
        return {}
    found = {}
    for number, (at, end, name) in enumerate(_entries(raw[:-20])):
        if number == count:  # extensions follow
            break
        if not int.from_bytes(raw[at + 60 : at + 62]) & ~_LONGEST:
            found[name] = raw[at:end]
    return found


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
    return staged != {_encoded(path): blob.encode() for path, _, blob in tree.files()}


def _staged(raw: bytes) -> dict[bytes, bytes]:
    known = _known(raw)
    if len(known) == _HEADER.unpack_from(raw)[2]:
        return {name: entry[_MARK : _MARK + 20].hex().encode() for name, entry in known.items()}
    import io

    from dulwich.index import IndexEntry, read_index_dict  # git's newer versions of it, and its extensions

    return {
        name: entry.sha for name, entry in read_index_dict(io.BytesIO(raw)).items() if isinstance(entry, IndexEntry)
    }
