"""Pack entries (gitformat-pack(5)): an object whole, or as what distinguishes it from another of the same pack.

No entry says where in the pack another one lies (``REF_DELTA``, never ``OFS_DELTA``), so entries, and whole packs, are
put together by copying them.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dulwich.pack import apply_delta

from gitstate.likeness import common_runs
from gitstate.medium import UnreadableError
from gitstate.store.objects import KINDS, NUMBERS, Stored, deflated
from gitstate.store.packindex import index_pieces
from gitstate.store.packs import HEADER_SIZE, pack_header

_RELATIVE = 7
_LONGEST_COPY = 0xFFFF


class Entry(NamedTuple):
    """An object's id, and the bytes of its entry."""

    id: str
    raw: bytes


# --- entries ---------------------------------------------------------------------------------------------------------


def whole(object_id: str, stored: Stored) -> Entry:
    """The entry that holds all of an object."""
    return Entry(object_id, _header(NUMBERS[stored.kind], len(stored.raw)) + deflated(stored.raw))


def relative(object_id: str, raw: bytes, base_id: str, base: bytes) -> Entry | None:
    """The entry that makes an object's *raw* of *base*, of the same kind; ``None`` where that saves nothing."""
    delta = difference(base, raw)
    if 4 * len(delta) > 3 * len(raw):
        return None
    return Entry(object_id, _header(_RELATIVE, len(delta)) + bytes.fromhex(base_id) + deflated(delta))


def base_of(raw: bytes) -> str | None:
    """The id of the object that an entry builds upon."""
    if (raw[0] >> 4) & 7 != _RELATIVE:
        return None
    start = _length_of_header(raw)
    return raw[start : start + 20].hex()


def unpacked(raw: bytes, base: Callable[[str], Stored]) -> Stored:
    """The object of an entry; *base* finds those it builds upon. Whoever calls compares it with its id.

    Raises:
        ValueError: the entry is damaged.
    """
    number, start, base_id = (raw[0] >> 4) & 7, _length_of_header(raw), base_of(raw)
    try:
        if base_id is None:
            return Stored(KINDS.get(number, b"?"), zlib.decompress(raw[start:]))
        below = base(base_id)
        return Stored(below.kind, b"".join(apply_delta(below.raw, zlib.decompress(raw[start + 20 :]))))
    except (ValueError, UnreadableError):
        raise
    except Exception as error:  # zlib's, and whatever dulwich meets a damaged difference with
        raise ValueError(f"unreadable ({type(error).__name__})") from None


def _header(number: int, size: int) -> bytes:
    """Kind and size: four bits of the size with the kind, then seven a byte, the lowest first."""
    byte, size = number << 4 | size & 15, size >> 4
    header = bytearray()
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    header.append(byte)
    return bytes(header)


def _length_of_header(raw: bytes) -> int:
    length = 1
    while raw[length - 1] & 0x80:
        length += 1
    return length


# --- differences -----------------------------------------------------------------------------------------------------


def difference(base: bytes, target: bytes) -> bytes:
    """The delta that makes *target* of *base*. It need not be the shortest."""
    made = bytearray(_varint(len(base)) + _varint(len(target)))
    done = 0
    for run in common_runs(base, target):
        _insert(made, target[done : run.there])
        _copy(made, run.here, run.size)
        done = run.there + run.size
    _insert(made, target[done:])
    return bytes(made)


def _copy(made: bytearray, offset: int, size: int) -> None:
    while size > 0:
        part = min(size, _LONGEST_COPY)
        code, arguments = 0x80, bytearray()
        for bit, byte in enumerate((*offset.to_bytes(4, "little"), *part.to_bytes(2, "little"))):
            if byte:
                code |= 1 << bit
                arguments.append(byte)
        made.append(code)
        made += arguments
        offset, size = offset + part, size - part


def _insert(made: bytearray, raw: bytes) -> None:
    for start in range(0, len(raw), 127):
        part = raw[start : start + 127]
        made.append(len(part))
        made += part


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


# --- packs -----------------------------------------------------------------------------------------------------------


class Packed:
    """Entries in the order in which a pack holds them, each object once. It is not changed: more make another one."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.size = 0  # bytes of the entries
        # In the order of their ids: these, offsets, and CRC-32s.
        self._names: list[bytes] = []
        self._places, self._checks = array("I"), array("I")
        self._counts = [0] * 256  # of ids by their first byte

    def with_entries(self, entries: Sequence[Entry]) -> Packed:
        made = Packed()
        made.entries, made.size = dict(self.entries), self.size
        made._names, made._places = self._names[:], self._places[:]
        made._checks, made._counts = self._checks[:], self._counts[:]
        for entry in entries:
            if entry.id not in made.entries:
                name = bytes.fromhex(entry.id)
                row = bisect(made._names, name)
                made._names.insert(row, name)
                made._places.insert(row, HEADER_SIZE + made.size)
                made._checks.insert(row, zlib.crc32(entry.raw))
                made._counts[name[0]] += 1
                made.entries[entry.id] = entry.raw
                made.size += len(entry.raw)
        return made

    def as_files(self) -> tuple[bytes, bytes]:
        """The pack, and its index."""
        body = b"".join((pack_header(len(self.entries)), *self.entries.values()))
        checksum = hashlib.sha1(body, usedforsecurity=False).digest()
        columns = (self._names, self._places, self._checks)
        return body + checksum, b"".join(index_pieces(self._counts, [columns], checksum))
