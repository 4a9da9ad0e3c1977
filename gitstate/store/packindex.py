"""Indexes of packs (gitformat-pack(5), version 2): read in pieces, and written."""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from itertools import accumulate
from typing import TypeVar

from gitstate.medium import not_read, readable

SIGNATURE = b"\377tOc\0\0\0\2"
_FAN = struct.Struct(">256L")
_LONG = struct.Struct(">L")
_LONGER = struct.Struct(">Q")
_ID = struct.Struct("20s")
_NAMES = len(SIGNATURE) + _FAN.size
_SMALL = 128 * 1024  # bytes; what is not larger is read once and closed
_CHUNK = 1024 * 1024
LARGE = 1 << 31  # offsets from here on stand in a table of their own

Piece = TypeVar("Piece", bytes, "array[int]")
Listed = tuple[bytes, int, int]  # an object's id, where its entry begins in the pack, and the crc32 of that entry
Columns = tuple[Sequence[bytes], Sequence[int], Sequence[int]]  # the same of several objects, each in the same order


class PackDamagedError(Exception):
    """A pack or its index is not what it should be; the message says in what."""


class Pieces:
    """A file that is read in pieces, each from its place. It is never mapped into memory.

    What is mapped kills the process (SIGBUS) when its file is cut short or its sector is bad.
    """

    def __init__(self, source: FileIO | bytes, name: str = "") -> None:
        self.name = name
        self._file: FileIO | None = None
        self._whole: bytes | None = None
        self.size = len(source) if isinstance(source, bytes) else os.fstat(source.fileno()).st_size
        if isinstance(source, bytes):
            self._whole = source
        elif self.size <= _SMALL:
            with source, readable(name):
                self._whole = source.readall()
            self.size = len(self._whole)
        else:
            self._file = source

    @property
    def is_kept_open(self) -> bool:
        return self._file is not None

    def some(self, offset: int, size: int) -> bytes:
        """The bytes at *offset*, fewer where the file ends before.

        Raises:
            UnreadableError: the disk cannot read it.
        """
        if self._whole is not None:
            return self._whole[offset : offset + size]
        if self._file is None:
            raise PackDamagedError("closed")
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise not_read(self.name, error) from None

    def all(self, offset: int, size: int) -> bytes:
        """Exactly *size* bytes at *offset*.

        Raises:
            PackDamagedError: the file ends before.
        """
        found = self.some(offset, size)
        while len(found) < size:
            more = self.some(offset + len(found), size - len(found))
            if not more:
                raise PackDamagedError("cut short")
            found += more
        return found

    def is_sealed(self) -> bool:
        """Whether the file ends with the SHA-1 of what comes before."""
        digest = hashlib.sha1(usedforsecurity=False)
        end = self.size - 20
        for offset in range(0, end, _CHUNK):
            digest.update(self.all(offset, min(_CHUNK, end - offset)))
        return end >= 0 and digest.digest() == self.all(end, 20)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class PackIndex:
    """Where each object of one pack begins. An object's place in the order of ids is its *row*.

    Raises:
        PackDamagedError: its tables cannot be as long as it says.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.has_checksums = True
        head = pieces.all(0, _NAMES) if pieces.size >= _NAMES else b""
        if not head.startswith(SIGNATURE):
            raise PackDamagedError("not an index of version 2")
        self._fan: tuple[int, ...] = (0, *_FAN.unpack_from(head, len(SIGNATURE)))
        self.count = self._fan[-1]
        rest = pieces.size - (_NAMES + 28 * self.count + 40)
        if rest < 0 or rest % 8 or rest > 8 * self.count or list(self._fan) != sorted(self._fan):
            raise PackDamagedError("an index of the wrong length")
        self._checksums = _NAMES + 20 * self.count
        self._offsets = self._checksums + 4 * self.count
        self._large = self._offsets + 4 * self.count

    @property
    def pack_checksum(self) -> bytes:
        """The checksum of the pack that it belongs to."""
        return self.pieces.all(self.pieces.size - 40, 20)

    def names(self, first: int = 0, last: int = 255) -> tuple[int, bytes]:
        """The ids whose first byte is one of *first* to *last*, one after the other, and the row of the first of them."""
        low, high = self._fan[first], self._fan[last + 1]
        return low, self.pieces.all(_NAMES + 20 * low, 20 * (high - low))

    def count_of(self, first: int) -> int:
        """How many ids there are whose first byte is *first*."""
        return self._fan[first + 1] - self._fan[first]

    def row(self, object_id: bytes) -> int:
        """Raises KeyError when the object is not in the pack."""
        low, names = self.names(object_id[0], object_id[0])
        at = names.find(object_id)
        while at > 0 and at % 20:  # ids lie in a row: one may seem to stand across two others
            at = names.find(object_id, at + 1)
        if at < 0:
            raise KeyError(object_id)
        return low + at // 20

    def __contains__(self, object_id: object) -> bool:
        try:
            return isinstance(object_id, bytes) and self.row(object_id) >= 0
        except KeyError:
            return False

    def object_id(self, row: int) -> bytes:
        """The id in a row."""
        return self.pieces.all(_NAMES + 20 * row, 20)

    def offset(self, row: int) -> int:
        """Where the entry of a row begins in the pack."""
        (found,) = _LONG.unpack(self.pieces.all(self._offsets + 4 * row, 4))
        return self._beyond(found) if found >= LARGE else int(found)

    def _beyond(self, found: int) -> int:
        return int(_LONGER.unpack(self.pieces.all(self._large + 8 * (found - LARGE), 8))[0])

    def offsets(self) -> array[int]:
        """Where the entries begin, row by row."""
        found = _numbers(self.pieces.all(self._offsets, 4 * self.count))
        if self.pieces.size == self._large + 40:
            return found
        return array("Q", [self._beyond(offset) if offset >= LARGE else offset for offset in found])

    def checksums(self, first: int = 0, count: int | None = None) -> array[int]:
        """The crc32 of the entries, row by row; of all, or of *count* from the *first* on."""
        wanted = self.count if count is None else count
        return _numbers(self.pieces.all(self._checksums + 4 * first, 4 * wanted))

    def ids(self, prefix: str = "") -> Iterator[str]:
        """The ids that begin with *prefix*, in hexadecimal and in order."""
        low, high = int(f"{prefix}00"[:2], 16), int(f"{prefix}ff"[:2], 16)
        for first in range(low, high + 1):
            names = self.names(first, first)[1].hex()
            for at in range(0, len(names), 40):
                if names.startswith(prefix, at):
                    yield names[at : at + 40]

    def close(self) -> None:
        self.pieces.close()


def count_in(size: int) -> int:
    """How many objects an index of *size* bytes lists, without those whose offsets take twice the room."""
    return max(0, (size - _NAMES - 40) // 28)


def _numbers(raw: bytes) -> array[int]:
    found = array("I", raw)
    if struct.pack("=L", 1) != _LONG.pack(1):
        found.byteswap()
    return found


def separate(names: bytes) -> list[bytes]:
    """Ids that lie one after the other."""
    return [name for (name,) in _ID.iter_unpack(names)]


def index_of(entries: Iterable[Listed], checksum: bytes) -> bytes:
    """The index of a pack with that *checksum*, from its entries in any order."""
    ordered = sorted(entries)
    counts = Counter([entry[0][0] for entry in ordered])
    return b"".join(index_pieces([counts[first] for first in range(256)], [columns_of(ordered)], checksum))


def columns_of(rows: Sequence[Listed]) -> Columns:
    """The rows of an index by columns, as it stands in the file."""
    names, places, checks = zip(*rows, strict=True) if rows else ((), (), ())
    return names, places, checks


def index_pieces(counts: Sequence[int], buckets: Iterable[Columns], checksum: bytes) -> Iterator[bytes | array[int]]:
    """The index of a pack with that *checksum*, piece by piece.

    *buckets* are the entries in order, any number of them in each; *counts* says how many there are with each first byte.
    """
    digest = hashlib.sha1(usedforsecurity=False)

    def sealed(piece: Piece) -> Piece:
        digest.update(piece)
        return piece

    checksums, offsets, large = array("I"), array("I"), array("Q")
    yield sealed(SIGNATURE + _FAN.pack(*accumulate(counts)))
    for names, places, checks in buckets:
        yield sealed(b"".join(names))
        checksums.extend(checks)
        if max(places, default=0) < LARGE:
            offsets.extend(places)
            continue
        for place in places:
            offsets.append(place if place < LARGE else LARGE + len(large))
            if place >= LARGE:
                large.append(place)
    for table in (checksums, offsets, large):
        if struct.pack("=L", 1) != _LONG.pack(1):
            table.byteswap()
        yield sealed(table)
    yield sealed(checksum)
    yield digest.digest()
