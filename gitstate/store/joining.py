"""Packs joined into one by copying, without taking deltas apart; nothing is ever thrown away.

An entry that is whole, or a delta of an object named by its id, means the same wherever it stands; one that says how
far back its base begins is told the id instead. Of an object that several packs have, the entry of the first is taken.
No chain of deltas can close to a circle by that. Every pack has the bases of its deltas itself (:meth:`_Source.copy`
makes sure), so the base of an entry that was taken from one pack is taken from that pack or from an earlier one. Along
a chain the packs never go back up, and as long as they stay the same it is a chain of that pack, which has no circle.
So each ends at an object that was whole. Some of those become deltas of others that were whole too and that stand
before them in the new pack, so that no circle closes there either.

The new pack is durable before an old one goes, and has a name that no pack had before: a pack goes only for one that
is newer and has all its objects. So the newest pack that ever had an object is still there, whoever does this at the
same time, a second time, or when somebody else has the lease. On the way in the index comes first, and on the way out
the pack goes first: what a kill or a power cut leaves in between is an index alone, which nobody uses, and which says
itself that it is not needed.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count, pairwise, repeat
from typing import NamedTuple

from gitstate.durable import Directory
from gitstate.store.packindex import Listed, PackDamagedError, columns_of, index_pieces, separate
from gitstate.store.packs import DERIVED, HEADER_SIZE, PACKS, entry_in, open_data, open_index, pack_header
from gitstate.store.predecessors import SHORTEST, Predecessors

Progress = Callable[[int, int], None]

_WINDOW = 512 * 1024  # bytes of a pack that are copied at once
_ROW = (1 << 32) - 1
KIND, DELTA_BY_OFFSET, DELTA_BY_ID = 0x70, 0x60, 0x70  # in the first byte of an entry
_DELTAS = (DELTA_BY_OFFSET, DELTA_BY_ID)
_FEW = 8192  # ids that are put in order at once
_KNOWN = 50_000  # ids that are in memory to be looked up, at most
_OF_SEVERAL = "multi-pack-index"  # git's; it makes it again, and with it looks for packs that are gone


class Joined(NamedTuple):
    """What came of it: the new pack, or ``None``, what went into it, and the packs that are damaged, with the damage."""

    name: str | None
    packs: int
    objects: int
    damage: dict[str, str]


class _Source:
    """A pack whose entries are copied. Rows are those of its index."""

    def __init__(self, directory: Directory, name: str) -> None:
        self.directory, self.name = directory, name
        self.index = open_index(directory, name)
        self.without: set[int] = set()  # rows that another pack has
        self._places: array[int] = array("I")  # where the entry of each row begins in the new pack
        self._checksums: array[int] | None = None  # of each entry, where they are not those of the index
        self._windows: list[array[int]] = []  # what begins within each: how far into it, and the row

    def copied(self, position: int, predecessors: Predecessors) -> Iterator[tuple[bytes, int]]:
        """The entries that are wanted, the first of them at *position*, in pieces; with each, how many were looked at.

        Raises:
            PackDamagedError: an entry, the pack or its index is not what it should be; there are other words for that.
        """
        if not self.index.pieces.is_sealed():
            raise PackDamagedError("its index does not check")
        checksums = self.index.checksums()
        if not self.index.has_checksums:
            self._checksums = checksums
        bases: Container[bytes] = self.index
        if self.index.count <= _KNOWN:
            bases = set(separate(self.index.names()[1]))
        with closing(open_data(self.directory, self.name, self.index)) as data:
            self._look_through(data.size)
            room = position + data.size + 20 * self.index.count  # an entry that is told its base is longer
            self._places = array("I" if room < 1 << 32 else "Q", [0]) * self.index.count
            digest, at = hashlib.sha1(data.all(0, HEADER_SIZE), usedforsecurity=False), HEADER_SIZE
            for starts, rows in self._in_order(data.size - 20):
                if starts[0] != at:
                    raise PackDamagedError("its index does not name every entry")
                block, at = data.all(at, starts[-1] - at), starts[-1]
                digest.update(block)
                pieces = []
                for (start, end), row in zip(pairwise(starts), rows, strict=True):
                    piece = block[start - starts[0] : end - starts[0]]
                    if not self.index.has_checksums:
                        checksums[row] = zlib.crc32(piece)
                    if not piece or zlib.crc32(piece) != checksums[row]:
                        raise PackDamagedError(f"{self._name_of(row)} is not what its index says")
                    piece = self._anywhere(piece, row, start, bases)
                    if row not in self.without:
                        if len(piece) >= SHORTEST:
                            piece = self._changed(row, predecessors.shortened(self.index.object_id(row).hex(), piece))
                        self._places[row] = position
                        position += len(piece)
                        pieces.append(piece)
                yield b"".join(pieces), len(rows)
            if at != data.size - 20 or digest.digest() != data.all(at, 20):
                raise PackDamagedError("its checksum is another")
        self._windows = []

    def _look_through(self, size: int) -> None:
        windows = [array("Q") for _ in range(size // _WINDOW + 1)]
        for row, offset in enumerate(self.index.offsets()):
            if offset >= size:
                raise PackDamagedError("its index names what lies behind its end")
            windows[offset // _WINDOW].append((offset % _WINDOW) << 32 | row)
        self._windows = [array("Q", sorted(window)) for window in windows]

    def _in_order(self, size: int) -> Iterator[tuple[list[int], list[int]]]:
        """Window by window, where entries begin, and last where the last one ends; and the rows of these entries."""
        begins = [number * _WINDOW + (window[0] >> 32) for number, window in enumerate(self._windows) if window]
        ends = iter([*begins[1:], size])
        for number, window in enumerate(self._windows):
            if window:
                starts = [number * _WINDOW + (item >> 32) for item in window]
                yield [*starts, next(ends)], [item & _ROW for item in window]

    def _anywhere(self, raw: bytes, row: int, start: int, bases: Container[bytes]) -> bytes:
        """An entry as it can stand anywhere, if its base is in the same pack."""
        kind = raw[0] & KIND
        if kind in _DELTAS:
            length = 1  # of what tells kind and size, as in :func:`entry_in`, which is too slow for every entry
            while raw[length - 1] & 128:
                length += 1
            if kind == DELTA_BY_OFFSET:
                entry = entry_in(raw)
                base = self.index.object_id(self._row_at(start - int(entry.base or 0)))
                raw = self._changed(row, bytes([raw[0] | DELTA_BY_ID]) + raw[1:length] + base + raw[entry.length :])
            elif raw[length : length + 20] not in bases:
                raise PackDamagedError(f"{self._name_of(row)} is a delta of what is not there")
        return raw

    def _changed(self, row: int, raw: bytes) -> bytes:
        """An entry that is not what the index says of it."""
        if self._checksums is None:
            self._checksums = self.index.checksums()
        self._checksums[row] = zlib.crc32(raw)
        return raw

    def listed(self, object_id: bytes, row: int, checksum: int) -> Listed:
        """What the new index says of a row; *checksum* is that of its own index."""
        return object_id, self._places[row], checksum if self._checksums is None else self._checksums[row]

    def _row_at(self, offset: int) -> int:
        window, wanted = self._windows[max(offset, 0) // _WINDOW], (offset % _WINDOW) << 32
        at = bisect_left(window, wanted)
        if offset < HEADER_SIZE or at == len(window) or window[at] & ~_ROW != wanted:
            raise PackDamagedError("a delta of what is not there")
        return window[at] & _ROW

    def _name_of(self, row: int) -> str:
        return self.index.object_id(row).hex()[:12]


class _SourceDamagedError(Exception):
    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(str(error) or type(error).__name__)
        self.name = name


# --- joining ---------------------------------------------------------------------------------------------------------


def join(directory: Directory, names: Sequence[str], progress: Progress | None = None) -> Joined:
    """One pack in the place of several, durably. Those that are damaged stay as they are; those that go meanwhile are left out.

    Raises:
        StorageError: the file system refused; all packs are still there, and maybe the new one too.
    """
    damage: dict[str, str] = {}
    left = list(names)
    while len(left) > 1:
        try:
            with ExitStack() as stack, directory.kept_open():
                sources = [_source(directory, name, stack) for name in left]
                return Joined(*_joined(directory, sources, progress), damage)
        except _SourceDamagedError as error:
            left.remove(error.name)
            if directory.status(f"{PACKS}/{error.name}.pack") is not None:
                damage[error.name] = str(error)
    return Joined(None, 0, 0, damage)


def _source(directory: Directory, name: str, stack: ExitStack) -> _Source:
    try:
        source = _Source(directory, name)
        stack.callback(source.index.close)
        return source
    except Exception as error:  # damage has many faces
        raise _SourceDamagedError(name, error) from None


def _joined(directory: Directory, sources: Sequence[_Source], progress: Progress | None) -> tuple[str, int, int]:
    counts = _counted(sources)
    everything, looked_at = sum(source.index.count for source in sources), 0
    prepared: list[str] = []
    try:
        with directory.preparing(mode=0o444) as (name, file):
            prepared.append(name)
            header = pack_header(sum(counts))
            digest = hashlib.sha1(header, usedforsecurity=False)
            file.write(header)
            position, predecessors = len(header), Predecessors()
            for source in sources:
                for piece, number in _guarded(source, source.copied(position, predecessors)):
                    digest.update(piece)
                    file.write(piece)
                    position, looked_at = position + len(piece), looked_at + number
                    if progress is not None:
                        progress(looked_at, everything)
            file.write(digest.digest())
        with directory.preparing(mode=0o444) as (name, file):
            prepared.append(name)
            file.writelines(index_pieces(counts, map(columns_of, _listed(sources)), digest.digest()))
        joined = place(directory, *prepared)
    finally:
        for name in prepared:
            directory.drop(name)
    retire(directory, joined, [source.name for source in sources])
    return joined, len(sources), sum(counts)


def _guarded(source: _Source, pieces: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """What is copied, with whatever is wrong with the source told apart from what is wrong with the disk written to."""
    while True:
        try:
            found = next(pieces, None)
        except MemoryError:
            raise
        except Exception as error:  # as above
            raise _SourceDamagedError(source.name, error) from None
        if found is None:
            return
        yield found


def _ordered(sources: Sequence[_Source]) -> Iterator[list[tuple[bytes, int, int, int]]]:
    """All ids in order, each with the number of its source, the first source first, its row, and its checksum there.

    They come in lists, so that not all of them are in memory.
    """
    everything = sum(source.index.count for source in sources)
    width = next(width for width in (256, 64, 16, 4, 1) if everything * width <= 256 * _FEW or width == 1)
    for first in range(0, 256, width):
        found: list[tuple[bytes, int, int, int]] = []
        for number, source in enumerate(sources):
            low, names = source.index.names(first, first + width - 1)
            checksums = source.index.checksums(low, len(names) // 20)
            found += zip(separate(names), repeat(number), count(low), checksums, strict=False)
        found.sort()
        yield found


def _counted(sources: Sequence[_Source]) -> list[int]:
    """How many different ids there are with each first byte; what is there again is noted as not wanted."""
    counts = [sum(source.index.count_of(first) for source in sources) for first in range(256)]
    for found in _ordered(sources):
        for one, other in pairwise(found):
            if one[0] == other[0]:
                sources[other[1]].without.add(other[2])
                counts[one[0][0]] -= 1
    return counts


def _listed(sources: Sequence[_Source]) -> Iterator[list[Listed]]:
    """What the new index lists of them, once all is copied."""
    for found in _ordered(sources):
        yield [
            sources[number].listed(object_id, row, checksum)
            for object_id, number, row, checksum in found
            if row not in sources[number].without
        ]


def new_name() -> str:
    """A name that no pack had before."""
    return f"pack-{os.urandom(20).hex()}"


def place(directory: Directory, pack: str, index: str, name: str = "") -> str:
    """Put a prepared pack and its index in place, durably; the name that they get, a new one if none is given."""
    name = name or new_name()
    for prepared, ending in ((index, ".idx"), (pack, ".pack")):
        directory.move(prepared, f"{PACKS}/{name}{ending}")
        directory.sync(PACKS)
    return name


def retire(directory: Directory, successor: str, names: Sequence[str]) -> None:
    """Remove packs whose objects the *successor* has: the packs, durably, and then their indexes."""
    if directory.status(f"{PACKS}/{successor}.pack") is None:  # somebody has made something else of it already
        return
    directory.discard(f"{PACKS}/{_OF_SEVERAL}")
    for name in names:
        for ending in (".pack", *DERIVED):
            directory.discard(f"{PACKS}/{name}{ending}")
    directory.sync(PACKS)
    for name in names:
        directory.discard(f"{PACKS}/{name}.idx")
