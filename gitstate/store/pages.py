"""The pages of the index of changes: records, and a tree that leads from a loop to the newest page that it is on.

A page is sealed when it is full, and whoever reads it compares it with its seal: a question costs the pages that it
needs, and no others. The last page is open; its last record seals what comes before.

A full page is 4096 bytes: a head, records, nodes of the tree (from the end downwards), the number of records and a
CRC-32. The tree is one of pairs of bits, and only added to: a page holds the nodes that changed, and its head names the root as
it was before. So every page leads to what is older, from wherever in history one begins.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

PAGE = 4096
_MAGIC = b"GSC2"
_HEAD = struct.Struct(">4s4sIIQB")  # magic, salt, root, number of the first commit, the newest time before, depth
_RECORD = struct.Struct(">20sIBI")  # commit, key, and the time: its high byte with the flag, and the rest
_ROW = struct.Struct(f"{_RECORD.format}4x")  # a record with its seal
_CRC = _COUNT = struct.Struct(">I")
_UNIT = struct.Struct(">II")  # a leaf: key and page; a node has two of them: what follows for each pair of bits
_END = _COUNT.size + _CRC.size
_SIZE = _RECORD.size + _CRC.size
_FLAG = 24  # where in a record the byte with the flag is
_IS_LAST = 0x80  # of its commit: without it an append was cut short between records
_DEEP = 4  # levels that room is kept for, however small the tree is
_BITS = 32
_KEPT = 64  # pages that are kept in memory
LATEST = 2**39 - 1
NO_KEY = 0


class IndexDamagedError(Exception):
    """The index is not what was written: history is walked instead."""


class Page:
    """A page that was compared with its seal. A *slot* is the place of a record."""

    def __init__(self, number: int, raw: bytes, count: int) -> None:
        self.number, self.raw, self.count = number, raw, count
        head: tuple[bytes, bytes, int, int, int, int] = _HEAD.unpack_from(raw)
        magic, self.salt, self.root, self.first, self.time, self.depth = head
        if magic != _MAGIC:
            raise IndexDamagedError

    @cached_property
    def ids(self) -> list[bytes]:
        """The commits of all records."""
        return [row[0] for row in self._rows]

    @cached_property
    def keys(self) -> list[int]:
        """The loops of all records."""
        return [row[1] for row in self._rows]

    @cached_property
    def _rows(self) -> list[tuple[bytes, int, int, int]]:
        return list(_ROW.iter_unpack(self.raw[_HEAD.size : _HEAD.size + self.count * _SIZE]))

    def commit(self, slot: int) -> str:
        """The commit of a record."""
        begin = _HEAD.size + slot * _SIZE
        return self.raw[begin : begin + 20].hex()

    def key(self, slot: int) -> int:
        """The loop of a record."""
        found: int = _RECORD.unpack_from(self.raw, _HEAD.size + slot * _SIZE)[1]
        return found

    def time_at(self, slot: int) -> int:
        """The newest time of all commits up to that of a record."""
        high: int
        low: int
        _, _, high, low = _RECORD.unpack_from(self.raw, _HEAD.size + slot * _SIZE)
        return (high & ~_IS_LAST) << 32 | low

    def number_at(self, slot: int) -> int:
        """The number of a record's commit."""
        return self.first + len(set(self.ids[: slot + 1])) - 1

    def commit_of_number(self, number: int) -> str:
        """The commit with that number, which is on this page."""
        return list(dict.fromkeys(self.ids))[number - self.first].hex()

    def slot_of(self, commit: bytes) -> int | None:
        """The last record of a commit, if it is here."""
        end = _HEAD.size + self.count * _SIZE
        while (found := self.raw.rfind(commit, _HEAD.size, end)) >= 0:
            if (found - _HEAD.size) % _SIZE == 0:
                return (found - _HEAD.size) // _SIZE
            end = found + len(commit) - 1
        return None

    def not_after(self, time: int, count: int) -> int:
        """How many of the first *count* records are not after *time*."""
        return bisect_right(range(count), time, key=self.time_at)

    def unit(self, index: int) -> tuple[int, int]:
        """A leaf of the tree, or half a node."""
        first, second = _UNIT.unpack_from(self.raw, PAGE - (index + 1) * _UNIT.size)
        return first, second


def _sealed(crc: int) -> bytes:
    """A CRC as it is written. A CRC that runs on over an earlier one as it is forgets half of what was before."""
    return _CRC.pack(crc * 0x9E3779B1 & 0xFFFFFFFF)


def _is_sealed(number: int, raw: bytes) -> bool:
    return raw[-_CRC.size :] == _sealed(zlib.crc32(memoryview(raw)[: -_CRC.size], number))


def open_page(number: int, raw: bytes) -> Page:
    """The last page, from the bytes that there are of it.

    Raises:
        IndexDamagedError: they are not what was written.
    """
    count, rest = divmod(len(raw) - _HEAD.size, _SIZE)
    if count < 1 or rest or not raw[_FLAG - _SIZE] & _IS_LAST or not _is_sealed(number, raw):
        raise IndexDamagedError
    return Page(number, raw, count)


def _full_page(number: int, raw: bytes) -> Page:
    if len(raw) != PAGE or not _is_sealed(number, raw):
        raise IndexDamagedError
    return Page(number, raw, _COUNT.unpack_from(raw, PAGE - _END)[0])


class Pages:
    """The pages of one index, by their numbers; *read* gives the bytes of a full one.

    Raises:
        IndexDamagedError: a page that is asked for is not what was written.
    """

    def __init__(self, last: Page, read: Callable[[int], bytes]) -> None:
        self.last = last
        self._read = read
        self._known: dict[int, Page] = {}

    def __getitem__(self, number: int) -> Page:
        if number == self.last.number:
            return self.last
        found = self._known.get(number)
        if found is None:
            found = _full_page(number, self._read(number))
            if found.salt != self.last.salt:  # of another index
                raise IndexDamagedError
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[number] = found
        return found

    def newest_where(self, fits: Callable[[Page], bool], most: int) -> Page | None:
        """The newest page up to number *most* that *fits*, if all before it do as well and none after it."""
        low, high = 0, most + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if fits(self[middle]) else (low, middle)
        return self[low - 1] if low else None

    def leaf(self, ref: int) -> tuple[int, int]:
        """The leaf that a reference into the tree leads to: a key, and the newest page with it."""
        return self[ref >> 10].unit(ref >> 1 & 511)

    def node(self, ref: int) -> tuple[int, ...]:
        """The node that a reference into the tree leads to: what follows."""
        page, index = self[ref >> 10], ref >> 1 & 511
        return *page.unit(index), *page.unit(index + 1)

    def newest_with(self, key: int, before: Page) -> int | None:
        """The number of the newest page before a page that has records with *key*."""
        ref, bits = before.root, _BITS
        while ref and not ref & 1:
            bits -= 2
            ref = self.node(ref)[key >> bits & 3]
        if not ref:
            return None
        found, number = self.leaf(ref)
        return number if found == key else None


class Pen:
    """Writes records behind those that there are: *ending* is the last page, or nothing, and the index begins here.

    ``written`` is what is added to the file. *read* is as in :class:`Pages`.
    """

    def __init__(self, ending: Page | None, salt: bytes, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._begin = self._number = 0 if ending is None else ending.number
        self._raw = bytearray(b"" if ending is None else ending.raw)
        self._there = len(self._raw)
        self._start = 0  # where the open page begins in what is at hand
        self.time, self.commits, self._last = 0, 0, b""
        if ending is None:
            self._salt, self._count = salt, 0
            self._keys: dict[int, None] = {}
            self._head(0, 0)
        else:
            self._salt, self._count = ending.salt, ending.count
            self._keys = dict.fromkeys(key for key in ending.keys if key != NO_KEY)
            self._depth = ending.depth
            self.time, self.commits = ending.time_at(ending.count - 1), ending.number_at(ending.count - 1) + 1
            self._crc = zlib.crc32(self._raw, self._number)

    @property
    def written(self) -> bytes:
        return bytes(self._raw[self._there :])

    def add(self, commit: bytes, keys: Sequence[int], time: int) -> None:
        """The records of a commit, one for each key.

        Raises:
            IndexDamagedError: what it builds upon is not what was written.
        """
        self.time = max(self.time, time)
        for left, key in reversed(list(enumerate(reversed(keys)))):
            if self._is_full(key):
                self._turn()
            high = self.time >> 32 | (0 if left else _IS_LAST)
            self._put(_RECORD.pack(commit, key, high, self.time & 0xFFFFFFFF))
            self._put(_sealed(self._crc))
            self._count += 1
            if key != NO_KEY:
                self._keys[key] = None
        self.commits += 1

    def _put(self, raw: bytes) -> None:
        self._raw += raw
        self._crc = zlib.crc32(raw, self._crc)

    def _head(self, root: int, depth: int) -> None:
        self._depth = depth
        self._crc = self._number
        self._put(_HEAD.pack(_MAGIC, self._salt, root, self.commits, self.time, depth))

    def _is_full(self, key: int) -> bool:
        keys = len(self._keys) + (key not in self._keys)
        units = keys + sum(2 * min(1 << 2 * level, keys) for level in range(max(self._depth, _DEEP) + 1))
        return _HEAD.size + (self._count + 1) * _SIZE + units * _UNIT.size + _END > PAGE

    def _turn(self) -> None:
        """Seal the page, with the nodes that lead to it, and begin another."""
        page = Page(self._number, bytes(self._raw[self._start :]), self._count)
        room = (PAGE - len(page.raw) - _END) // _UNIT.size
        planting = _Planting(Pages(page, self._known), page.number, room)
        root = planting.plant(page.root, sorted(self._keys), _BITS)
        self._seal(planting.units[:room])
        for begin in range(room, len(planting.units), planting.room_beyond):
            self._count = 0
            self._raw += _HEAD.pack(_MAGIC, self._salt, page.root, page.first, page.time, page.depth)
            self._seal(planting.units[begin : begin + planting.room_beyond])
        self._count = 0
        self._keys = {}
        self._head(root, max(self._depth, planting.depth))

    def _seal(self, units: Iterable[tuple[int, int]]) -> None:
        tree = b"".join(_UNIT.pack(*unit) for unit in reversed(list(units)))
        filled = len(self._raw) - self._start + len(tree) + _END
        self._raw += bytes(PAGE - filled) + tree + _COUNT.pack(self._count)
        self._raw += _sealed(zlib.crc32(self._raw[self._start :], self._number))
        self._start, self._number = len(self._raw), self._number + 1

    def _known(self, number: int) -> bytes:
        begin = (number - self._begin) * PAGE
        return bytes(self._raw[begin : begin + PAGE]) if number >= self._begin else self._read(number)


class _Planting:
    """The nodes that lead to the newest page, over those of the tree as it was."""

    room_beyond = (PAGE - _HEAD.size - _END) // _UNIT.size  # on a page without records

    def __init__(self, pages: Pages, page: int, room: int) -> None:
        self.pages, self.page, self.room = pages, page, room
        self.units: list[tuple[int, int]] = []
        self.depth = 0

    def plant(self, old: int, keys: Sequence[int], bits: int) -> int:
        """The tree *old*, with *keys* leading to the page: they agree in all but their last *bits*."""
        if not keys:
            return old
        below = [0, 0, 0, 0]
        if old & 1:
            known = self.pages.leaf(old)[0]
            if known not in keys:
                below[known >> bits - 2 & 3] = old
        elif old:
            below = list(self.pages.node(old))
        if len(keys) == 1 and not any(below):
            self.depth = max(self.depth, (_BITS - bits) // 2)
            return self._new((keys[0], self.page)) | 1
        for pair in range(4):
            fitting = [key for key in keys if key >> bits - 2 & 3 == pair]
            below[pair] = self.plant(below[pair], fitting, bits - 2)
        return self._new((below[0], below[1]), (below[2], below[3]))

    def _new(self, *units: tuple[int, int]) -> int:
        left = self.room - len(self.units)
        if left < len(units) and (left if left >= 0 else left % self.room_beyond) == 1:
            self.units.append((0, 0))  # a node lies on one page
        beyond, index = divmod(len(self.units) - self.room, self.room_beyond)
        page, index = (self.page + 1 + beyond, index) if beyond >= 0 else (self.page, len(self.units))
        self.units += units
        return page << 10 | index + 1 << 1
