"""Packs: opened as regular files and nothing else, read entry by entry, and checked."""

from __future__ import annotations

import io
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.pack import OFS_DELTA, REF_DELTA, apply_delta, load_pack_index_file
from dulwich.pack import PackIndex as AnyIndex

from gitstate.durable import Directory
from gitstate.errors import StorageError
from gitstate.medium import NotAFileError, UnreadableError
from gitstate.store.hints import Hints
from gitstate.store.packindex import SIGNATURE, PackDamagedError, PackIndex, Pieces, index_of

PACKS = ".git/objects/pack"
DERIVED = (".rev", ".bitmap")  # what git makes of a pack, and can make again
_HEADER = struct.Struct(">4sLL")
HEADER_SIZE = _HEADER.size
_PIECE = 4096  # bytes of an entry that are read at first
_LARGEST_PIECE = 1024 * 1024  # bytes that are read at once, however many it says there are
_FEW = 8  # packs that are looked into without asking for hints
_KEPT = 64  # packs that are kept open
_LOOKS = 3  # for packs that came while others were listed: whoever writes all the time brings more and more
_TRIES = 50  # looks at a directory whose packs change all the time
_BASES = 512 * 1024  # bytes of objects that others are deltas of, kept from one read to the next


def pack_names(directory: Directory) -> list[str]:
    """The packs, each by its name without an ending; one of which only the index is left is among them."""
    found = directory.names(PACKS)
    return sorted(
        {name.rpartition(".")[0] for name in found if name.startswith("pack-") and name.endswith((".pack", ".idx"))}
    )


# --- reading ---------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """The head of an entry: what kind of object, its size, of what it is a delta, and how long the head is.

    ``base`` is an id (``REF_DELTA``), or how far before this entry another one begins (``OFS_DELTA``).
    """

    kind: int
    size: int
    base: bytes | int | None
    length: int


def entry_in(raw: bytes, at: int = 0) -> Entry:
    """The head of the entry that begins at *at*. Raises IndexError where the bytes end before it does."""
    first = byte = raw[at]
    kind, size, shift, end = first >> 4 & 7, first & 15, 4, at + 1
    while byte & 128:
        byte = raw[end]
        size |= (byte & 127) << shift
        shift, end = shift + 7, end + 1
    if kind == REF_DELTA:
        return Entry(kind, size, raw[end : end + 20], end + 20 - at)
    if kind != OFS_DELTA:
        return Entry(kind, size, None, end - at)
    byte = raw[end]
    base, end = byte & 127, end + 1
    while byte & 128:
        byte = raw[end]
        base, end = (base + 1) << 7 | byte & 127, end + 1
    return Entry(kind, size, base, end - at)


def pack_header(count: int) -> bytes:
    """What a pack of *count* entries begins with."""
    return _HEADER.pack(b"PACK", 2, count)


def open_index(directory: Directory, name: str) -> PackIndex:
    """The index of a pack.

    Raises:
        PackDamagedError: it is none.
        NotAFileError: it is missing, or may not be read.
        UnreadableError: it cannot be read.
    """
    path = f"{PACKS}/{name}.idx"
    pieces = Pieces(directory.opened(path), path)
    try:
        return PackIndex(pieces) if pieces.some(0, 4) == SIGNATURE[:4] else _of_the_first_version(name, pieces)
    except BaseException as error:
        pieces.close()
        if isinstance(error, PackDamagedError | StorageError | OSError) or not isinstance(error, Exception):
            raise
        raise PackDamagedError(f"unreadable ({type(error).__name__})") from None  # an old one, which dulwich reads


def _of_the_first_version(name: str, pieces: Pieces) -> PackIndex:
    """What an index says that is as git made them many years ago."""
    if not pieces.is_sealed():  # anything at all may look like one
        raise PackDamagedError("not an index")
    with closing(pieces):
        raw = pieces.all(0, pieces.size)
    try:
        with closing(loaded_index(name, raw)) as old:
            listed = [(bytes(sha), offset, crc or 0) for sha, offset, crc in old.iterentries()]
            index = PackIndex(Pieces(index_of(listed, old.get_pack_checksum() or b"")))
    except Exception as error:  # dulwich meets damage with a dozen types
        raise PackDamagedError(f"not an index ({type(error).__name__})") from None
    index.has_checksums = False
    return index


def loaded_index(name: str, raw: bytes) -> AnyIndex:
    """An index as dulwich reads it, of any version. Whatever is raised is damage."""
    contents = io.BytesIO(raw)
    try:
        return load_pack_index_file(name, contents, DEFAULT_OBJECT_FORMAT)
    except BaseException:
        contents.close()  # dulwich leaves a half-made index behind, which complains when it is collected
        raise


def open_data(directory: Directory, name: str, index: PackIndex) -> Pieces:
    """The pack of an index. Whatever is raised is damage, or it is another pack, or an UnreadableError."""
    path = f"{PACKS}/{name}.pack"
    pieces = Pieces(directory.opened(path), path)
    try:
        magic, version, count = _HEADER.unpack(pieces.all(0, _HEADER.size))
        if magic != b"PACK" or version not in (2, 3):
            raise PackDamagedError("not a pack")
        if count != index.count or pieces.all(pieces.size - 20, 20) != index.pack_checksum:
            raise PackDamagedError("the index belongs to another pack")
        return pieces
    except BaseException:
        pieces.close()
        raise


class OpenPack:
    """A pack whose index could be opened; its data are opened when they are needed."""

    def __init__(self, directory: Directory, name: str) -> None:
        self.directory, self.name = directory, name
        self.index = open_index(directory, name)
        self._data: Pieces | None = None

    def get_raw(self, object_id: bytes, bases: Bases) -> tuple[int, bytes]:
        """Type number and bytes of an object. Raises KeyError when it is not in here; anything else is damage."""
        offset = self.index.offset(self.index.row(object_id))
        deltas: list[tuple[int, bytes]] = []
        seen: set[int] = set()
        while (found := bases.get(self.name, offset)) is None:
            if offset in seen:
                raise PackDamagedError("a delta of itself")
            seen.add(offset)
            kind, base, raw = self._entry(offset)
            if base is None:
                found = kind, raw
                break
            deltas.append((offset, raw))
            offset = offset - base if isinstance(base, int) else self._base(base)
        kind, raw = found
        while deltas:
            bases.keep(self.name, offset, kind, raw)
            offset, delta = deltas.pop()
            raw = b"".join(apply_delta(raw, delta))
        return kind, raw

    def _base(self, object_id: bytes) -> int:
        try:
            return self.index.offset(self.index.row(object_id))
        except KeyError:
            raise PackDamagedError("a delta of what is not there") from None

    def _entry(self, offset: int) -> tuple[int, bytes | int | None, bytes]:
        if self._data is None:
            self._data = open_data(self.directory, self.name, self.index)
        piece = self._data.some(offset, _PIECE)
        entry = entry_in(piece)
        position, piece = offset + len(piece), piece[entry.length :]
        inflater = zlib.decompressobj()
        parts, left = [], entry.size
        while not inflater.eof:
            if not piece:
                piece = self._data.some(position, min(max(_PIECE, left), _LARGEST_PIECE))
                position += len(piece)
                if not piece:
                    raise PackDamagedError("cut short")
            part = inflater.decompress(piece, left + 1)
            parts.append(part)
            left -= len(part)
            if left < 0:
                break
            piece = inflater.unconsumed_tail
        if left:
            raise PackDamagedError("not as long as it says")
        return entry.kind, entry.base, b"".join(parts)

    @property
    def is_kept_open(self) -> bool:
        return self.index.pieces.is_kept_open or (self._data is not None and self._data.is_kept_open)

    def close(self) -> None:
        self.index.close()
        if self._data is not None:
            self._data.close()


class Bases:
    """Objects that deltas were applied to, the last few: whoever follows a history wants them again at once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], tuple[int, bytes]] = OrderedDict()
        self._size = 0

    def get(self, pack: str, offset: int) -> tuple[int, bytes] | None:
        return self._kept.get((pack, offset))

    def keep(self, pack: str, offset: int, kind: int, raw: bytes) -> None:
        if (pack, offset) not in self._kept and len(raw) <= _BASES:
            self._kept[pack, offset] = kind, raw
            self._size += len(raw)
        while self._size > _BASES:
            self._size -= len(self._kept.popitem(last=False)[1][1])

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0


class Packs:
    """The packs of one repository, the one that was of use last before all others. For one thread at a time."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.unopened: set[str] = set()  # packs whose index cannot be read
        self._names: list[str] = []
        self._open: OrderedDict[str, OpenPack] = OrderedDict()
        self._bases = Bases()
        self._hints: Hints | None = None

    def copies(self, object_id: bytes) -> Iterator[tuple[int, bytes] | Exception]:
        """Type number and bytes of an object from every pack that has it, or what keeps them from being read.

        Packs may come and go meanwhile: what one that is gone had, is looked for in those that have come.
        """
        without: set[str] = set()
        for _ in range(_TRIES):
            names = self._in_order(object_id, [name for name in self._names if name not in without])
            while (found := self._next_copy(object_id, names, without)) is not None:
                yield found
            if not self.look_again():
                return

    def _in_order(self, object_id: bytes, names: list[str]) -> Iterator[str]:
        """*names*, those last where the object cannot be."""
        yield from names[:1]
        without = self._hinted().without(object_id) if len(names) > _FEW else frozenset()
        yield from (name for name in names[1:] if name not in without)
        yield from (name for name in names[1:] if name in without)

    def _next_copy(
        self, object_id: bytes, names: Iterator[str], without: set[str]
    ) -> tuple[int, bytes] | Exception | None:
        with self.directory.kept_open():
            for name in names:
                try:
                    found = self._opened(name).get_raw(object_id, self._bases)
                except KeyError:
                    without.add(name)
                except UnreadableError as error:
                    return error
                except Exception as error:
                    if name not in self.unopened:
                        return error
                else:
                    self._names.remove(name)
                    self._names.insert(0, name)
                    return found
        return None

    def get_raw(self, name: str, object_id: bytes) -> tuple[int, bytes]:
        """As a single pack has it. Whatever is raised is damage, or an UnreadableError."""
        return self._opened(name).get_raw(object_id, self._bases)

    def look_again(self) -> bool:
        """Look for packs again; whether there are others than before."""
        names, known = set(pack_names(self.directory)), set(self._names)
        self.unopened &= names
        if names != known:
            self._forget_hints()
        for name in known - names:
            self._names.remove(name)
            if name in self._open:
                self._open.pop(name).close()
        new = sorted(names - known)
        # Of many, most are large and old, and are looked for by their hints: which came last counts for the others.
        hinted = frozenset(self._hinted().names) if len(names) > _FEW else frozenset()
        young = [name for name in new if name not in hinted]
        found = self.directory.statuses(PACKS, [f"{name}.pack" for name in young]) if young else []
        ages = dict.fromkeys(new, 0)
        ages |= {name: -status.st_mtime_ns for name, status in zip(young, found, strict=True) if status is not None}
        self._names[:0] = sorted(new, key=ages.__getitem__)
        return names != known

    def _hinted(self) -> Hints:
        if self._hints is None:
            self._hints = Hints(self.directory)
        return self._hints

    def _forget_hints(self) -> None:
        hints, self._hints = self._hints, None
        if hints is not None:
            hints.close()

    def ids(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Every object id that begins with *prefix*, with the name of a pack that has it, as their indexes say."""
        self.look_again()
        for name in list(self._names):
            with suppress(PackDamagedError, NotAFileError):  # a damaged index is found by its own checksum
                for object_id in self._opened(name).index.ids(prefix):
                    yield object_id, name

    def listed(self) -> Iterator[tuple[str, bytes]]:
        """Every pack, with the ids in it, a few at a time, as their indexes say.

        Packs may be joined meanwhile: those that have come are listed as well.
        """
        done: set[str] = set()
        for _ in range(_LOOKS):
            self.look_again()
            for name in [name for name in self._names if name not in done]:
                done.add(name)
                with suppress(PackDamagedError, NotAFileError):  # as above; and what is gone lies in another
                    for first in range(256):
                        if self._opened(name).index.count_of(first):
                            yield name, self._opened(name).index.names(first, first)[1]

    def count(self) -> int:
        """How many ids all packs have together, as their indexes say."""
        self.look_again()
        total = 0
        for name in list(self._names):
            with suppress(PackDamagedError, NotAFileError):
                total += self._opened(name).index.count
        return total

    def _opened(self, name: str) -> OpenPack:
        pack = self._open.get(name)
        if pack is None:
            try:
                pack = self._open[name] = OpenPack(self.directory, name)
            except UnreadableError:
                raise
            except Exception:  # git puts the pack in place before its index, so it is tried again
                self.unopened.add(name)
                raise
            self.unopened.discard(name)
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return pack

    def close(self) -> None:
        """Let go of open files, and know nothing."""
        for pack in self._open.values():
            pack.close()
        self._open.clear()
        self._names.clear()
        self._bases.clear()
        self._forget_hints()


# --- judging ---------------------------------------------------------------------------------------------------------


def damage_of_pack(directory: Directory, name: str) -> str | None:
    """What is wrong with a pack as a whole, by its own checksums; ``None`` when they hold, or when it is gone."""
    damage = _damage(directory, name)
    return damage if any(directory.status(f"{PACKS}/{name}{ending}") for ending in (".pack", ".idx")) else None


def _damage(directory: Directory, name: str) -> str | None:
    for ending, words in ((".pack", "the pack is missing, only its index is left"), (".idx", "its index is missing")):
        if directory.status(f"{PACKS}/{name}{ending}") is None:
            return words
    where = "its index"
    try:
        with closing(open_index(directory, name)) as index:
            if not index.pieces.is_sealed():
                raise PackDamagedError("its checksum is another")
            where = "the pack"
            with closing(open_data(directory, name, index)) as data:
                if not data.is_sealed():
                    raise PackDamagedError("its checksum is another")
    except PackDamagedError as error:
        return f"{where} does not check ({error})"
    except NotAFileError as error:
        return f"{where} cannot be read ({error})"
    return None


def ids_of(directory: Directory, name: str) -> set[str] | None:
    """The ids in a pack that is whole; ``None`` when it is not."""
    if damage_of_pack(directory, name) is not None:
        return None
    with closing(open_index(directory, name)) as index:
        return set(index.ids())
