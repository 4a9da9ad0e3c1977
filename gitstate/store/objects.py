"""Objects by id: written loose and durable, read from loose files and packs, verified at every read."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

from dulwich.objects import Tag

from gitstate.durable import LARGEST, Directory
from gitstate.errors import CorruptStateError
from gitstate.medium import NotAFileError, UnreadableError
from gitstate.store.packindex import separate
from gitstate.store.packs import PACKS, Packs

OBJECTS = ".git/objects"
KINDS = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
NUMBERS = {name: number for number, name in KINDS.items()}
_ID = re.compile(r"\A[0-9a-f]{40}\Z")
_CACHED = 512  # objects; a mutation reads a few dozen
_PARSED = 1024  # objects that are kept as what was parsed
_HARDLY = 160  # bytes up to which compressing saves next to nothing
_LARGE = 64 * 1024  # bytes from which on an object counts as large: of these, there are at hand
_LARGE_BYTES = 64 * 1024 * 1024  # bytes in all, or one
_CACHED_BYTES = 2 * 1024 * 1024  # of all others that are kept
_PARSED_BYTES = 512 * 1024  # of all that are kept parsed, which takes some five times the room

T = TypeVar("T")
K = TypeVar("K")


class Stored(NamedTuple):
    """An object: its kind (``commit``, ``tree``, ``blob`` or ``tag``) and its bytes."""

    kind: bytes
    raw: bytes

    @property
    def id(self) -> str:
        digest = hashlib.sha1(b"%s %d\0" % (self.kind, len(self.raw)), usedforsecurity=False)
        digest.update(self.raw)  # which may be large, and is not copied for this
        return digest.hexdigest()


class Kept(Generic[K, T]):
    """What is kept in memory, the older half of it forgotten now and then: so *many* at most, made of so many bytes.

    Threads may be here at once: one may forget too much, which is read again.
    """

    def __init__(self, many: int, size: int) -> None:
        self._many, self._most = many // 2, size // 2
        self._older: dict[K, T] = {}
        self._newer: dict[K, T] = {}
        self._size = 0  # of the newer ones

    def get(self, key: K) -> T | None:
        """What is kept under a key."""
        found = self._newer.get(key)
        return self._older.get(key) if found is None else found

    def keep(self, key: K, value: T, size: int) -> None:
        """Keep a *value*, made of *size* bytes."""
        if len(self._newer) >= self._many or self._size + size > self._most:
            self._older, self._newer, self._size = self._newer, {}, 0
        self._newer[key] = value
        self._size += size

    def clear(self) -> None:
        """Keep nothing."""
        self._older, self._newer, self._size = {}, {}, 0


class Recent(Protocol):
    """Where objects are that may be nowhere else; what comes from there is compared with its id."""

    def __call__(self, object_id: str, *, refresh: bool) -> Stored | None: ...


class ObjectDamagedError(CorruptStateError):
    """An object is missing or is not what its name says. Facts: ``object_id``, ``path``, ``damage``."""


class Objects:
    """The object store of one repository."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._packs = Packs(directory)
        self._reading = threading.RLock()
        self._opened_by = os.getpid()
        self._closing = weakref.finalize(self, self._packs.close)
        self._cache: Kept[str, Stored] = Kept(_CACHED, _CACHED_BYTES)
        self._large: dict[str, Stored] = {}
        self._parsed: Kept[tuple[str, bytes], object] = Kept(_PARSED, _PARSED_BYTES)
        self.recent: Recent | None = None

    # --- reading ---

    def read(self, object_id: str, kind: bytes | None = None) -> Stored:
        """An object whose bytes were compared with its id.

        Raises:
            ObjectDamagedError: it is missing, damaged or of another kind.
            UnreadableError: it cannot be read, and there may be nothing wrong with it.
        """
        found = self._cache.get(object_id) or self._large.get(object_id)
        if found is None:
            found = self._read_anywhere(object_id)
            self.remember(object_id, found)
        if kind is not None and found.kind != kind:
            raise damaged(object_id, f"a {found.kind.decode()}, not a {kind.decode()}")
        return found

    def held(self, object_id: str) -> bytes | None:
        """The bytes of an object that is at hand; they were compared with its id."""
        found = self._cache.get(object_id) or self._large.get(object_id)
        return None if found is None else found.raw

    def remember(self, object_id: str, stored: Stored) -> None:
        """Keep an object at hand."""
        if len(stored.raw) < _LARGE:
            self._cache.keep(object_id, stored, len(stored.raw))
            return
        self._large[object_id] = stored
        size = sum([len(each.raw) for each in list(self._large.values())])
        while size > _LARGE_BYTES and len(self._large) > 1:
            with suppress(KeyError, RuntimeError, StopIteration):  # another thread was faster
                size -= len(self._large.pop(next(iter(self._large))).raw)

    def parsed(self, object_id: str, kind: bytes, parse: Callable[[str, bytes], T]) -> T:
        """What *parse* makes of an object's id and bytes, made once; nobody may change it.

        Raises:
            ObjectDamagedError: as :meth:`read`, and whatever *parse* raises.
        """
        found = self._parsed.get((object_id, kind))
        if found is None:
            raw = self.read(object_id, kind).raw
            found = parse(object_id, raw)
            self.remember_parsed(object_id, kind, found, len(raw))
        return cast("T", found)

    def remember_parsed(self, object_id: str, kind: bytes, found: object, size: int) -> None:
        """Keep what parsing an object of so many bytes gives, or would give, at hand."""
        self._parsed.keep((object_id, kind), found, size)

    def _read_anywhere(self, object_id: str) -> Stored:
        """The object from the one place where it is whole, if there is one."""
        if not _ID.match(object_id):  # ids come out of objects that anyone may have made
            raise damaged(object_id, "no object can have that id")
        found = self._read_recent(object_id, refresh=False)
        damage: ObjectDamagedError | UnreadableError | None = None
        for read in (self.read_loose, self._read_packed):
            try:
                found = found or read(object_id)
            except (ObjectDamagedError, UnreadableError) as error:
                damage = error if damage is None or isinstance(error, UnreadableError) else damage
        found = found or self._read_recent(object_id, refresh=True)
        if found is None:
            raise damage or damaged(object_id, "missing")
        return found

    def _read_recent(self, object_id: str, *, refresh: bool) -> Stored | None:
        found = None if self.recent is None else self.recent(object_id, refresh=refresh)
        return found if found is not None and found.id == object_id else None

    def has(self, object_id: str) -> bool:
        """Whether an intact object of that id is there."""
        try:
            self.read(object_id)
        except ObjectDamagedError:
            return False
        return True

    def read_loose(self, object_id: str) -> Stored | None:
        """The object as its own file has it, ``None`` if it has none.

        Raises:
            ObjectDamagedError: it is damaged.
        """
        try:
            packed = self.directory.read(path_of(object_id))
        except NotAFileError as error:
            raise damaged(object_id, error.message.partition(": ")[2] or error.message) from None
        return None if packed is None else _unpacked(object_id, packed)

    def _read_packed(self, object_id: str) -> Stored | None:
        if self._opened_by != os.getpid():  # another thread of the parent's may have been inside
            self._opened_by = os.getpid()
            self._reading = threading.RLock()
        with self._reading:
            return self._find_packed(object_id)

    def _find_packed(self, object_id: str) -> Stored | None:
        """The object from any pack that has it whole; damage counts only when no pack does."""
        damage = ""
        unreadable: UnreadableError | None = None
        for found in self._packs.copies(bytes.fromhex(object_id)):
            if isinstance(found, UnreadableError):
                unreadable = found
                continue
            if isinstance(found, Exception):
                damage = f"in a damaged pack ({found or type(found).__name__})"
                continue
            stored = Stored(KINDS.get(found[0], b"?"), found[1])
            if stored.id == object_id:
                return stored
            damage = "not what its name says"
        if unreadable is not None:
            raise unreadable
        if damage or self._packs.unopened:
            raise damaged(object_id, damage or f"missing, but {min(self._packs.unopened)} cannot be opened")
        return None

    def beginning_with(self, prefix: str) -> list[str]:
        """The ids that begin with *prefix* (at least 2 characters)."""
        found = {
            prefix[:2] + rest
            for rest in self.directory.names(f"{OBJECTS}/{prefix[:2]}")
            if rest.startswith(prefix[2:]) and len(rest) == 38
        }
        with self._reading:
            found.update(object_id for object_id, _ in self._packs.ids(prefix))
        return sorted(found)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Every object that has a loose file or a pack entry, intact or not: its id, and the path of what holds it."""
        yield from ((name, path_of(name)) for name in self.loose_ids())
        listed = self._packs.listed()
        while True:
            with self._reading:
                name, ids = next(listed, (None, b""))
            if name is None:
                return
            yield from ((object_id.hex(), f"{PACKS}/{name}.pack") for object_id in separate(ids))

    def count(self) -> int:
        """How many :meth:`entries` there are, as things stand."""
        with self._reading:
            return sum(1 for _ in self.loose_ids()) + self._packs.count()

    def loose_ids(self) -> Iterator[str]:
        """Every object that has a file of its own, intact or not."""
        for fan in self.directory.names(OBJECTS):
            if len(fan) == 2:
                names = (fan + rest for rest in self.directory.names(f"{OBJECTS}/{fan}"))
                yield from filter(_ID.match, names)

    def verify(self, object_id: str, path: str) -> None:
        """Compare one of :meth:`entries` with its name, from the disk and not from memory.

        Raises:
            ObjectDamagedError: it is not what its name says; ``path`` is what holds it.
        """
        if path == path_of(object_id):
            self.read_loose(object_id)
            return
        try:
            with self._reading:
                number, raw = self._packs.get_raw(path[len(PACKS) + 1 : -5], bytes.fromhex(object_id))
        except UnreadableError:
            raise
        except Exception as error:  # dulwich meets damage with many types
            if self.directory.status(path) is None:  # its pack was joined with others meanwhile
                self._read_anywhere(object_id)
                return
            raise damaged(object_id, f"unreadable ({error or type(error).__name__})", path) from None
        if Stored(KINDS.get(number, b"?"), raw).id != object_id:
            raise damaged(object_id, "not what its name says", path)

    def forget(self) -> None:
        """Read everything from the disk again."""
        with self._reading:
            self._cache.clear()
            self._large.clear()
            self._parsed.clear()
            self.close()

    # --- writing ---

    def write(self, objects: Iterable[Stored]) -> None:
        """Objects made durable: their bytes, then the entries that name them.

        One that is there already is read back; when intact it is made durable like a new one, since nobody knows
        whether it ever was, and when damaged it is replaced.

        Raises:
            StorageError: the file system refused; some of the objects may be there, which harms nothing.
        """
        fans: dict[str, None] = {}
        for stored in objects:
            object_id = stored.id
            name = path_of(object_id)
            fan = name.rpartition("/")[0]
            if self._is_intact(object_id, stored):
                self.directory.sync_file(name)
                continue
            if fan not in fans:
                self.directory.make(fan)
            prepared = self.directory.prepare(_packed(stored))
            try:
                self.directory.move(prepared, name)
            except BaseException:
                self.directory.discard(prepared)
                raise
            fans[fan] = None
            self.remember(object_id, stored)
        for fan in fans:
            self.directory.sync(fan)
        self.directory.sync(OBJECTS)  # also when no fan is new: whoever made it may have been killed before this

    def _is_intact(self, object_id: str, stored: Stored) -> bool:
        try:
            found = self.read_loose(object_id)
        except ObjectDamagedError:
            return False
        return found == stored

    def tag_target(self, object_id: str) -> str:
        """The id of what an annotated tag names."""
        return self._of_tag(object_id, lambda tag: tag.object[1].decode())

    def tag_name(self, object_id: str) -> str:
        """The name that an annotated tag gives itself."""
        return self._of_tag(object_id, lambda tag: tag.name.decode())

    def _of_tag(self, object_id: str, ask: Callable[[Tag], str]) -> str:
        try:
            tag = Tag()
            tag.set_raw_string(self.read(object_id, b"tag").raw)
            return ask(tag)
        except (ObjectDamagedError, UnreadableError):
            raise
        except Exception as error:  # as above
            raise damaged(object_id, f"unreadable ({type(error).__name__})") from None

    def close(self) -> None:
        """Let go of open packs."""
        self._packs.close()


def path_of(object_id: str) -> str:
    """Where the loose file of an object is, or would be."""
    return f"{OBJECTS}/{object_id[:2]}/{object_id[2:]}"


def deflated(raw: bytes) -> bytes:
    """*raw* as git stores it, compressed a little."""
    # Most of what is stored is small, and making the tables for a window of 32 KB takes ten times as long as filling them.
    # What is very small, a tree or a difference, is mostly ids, and hardly gets smaller.
    level, window, memory = (0, 9, 1) if len(raw) <= _HARDLY else (1, 12, 4) if len(raw) <= 1 << 12 else (1, 15, 8)
    deflating = zlib.compressobj(level, zlib.DEFLATED, window, memory)
    return deflating.compress(raw) + deflating.flush()


def _packed(stored: Stored) -> bytes:
    return deflated(b"%s %d\0%s" % (stored.kind, len(stored.raw), stored.raw))


def _unpacked(object_id: str, packed: bytes) -> Stored:
    try:
        inflater = zlib.decompressobj()
        whole = inflater.decompress(packed, LARGEST)
        header, _, raw = whole.partition(b"\0")
        kind, _, length = header.partition(b" ")
        intact = inflater.eof and not inflater.unused_data and kind in NUMBERS and length == b"%d" % len(raw)
    except zlib.error as error:
        raise damaged(object_id, f"unreadable ({error})") from None
    if not intact or hashlib.sha1(whole, usedforsecurity=False).hexdigest() != object_id:
        raise damaged(object_id, "not what its name says" if inflater.eof else "cut short" if packed else "empty")
    return Stored(kind, raw)


def damaged(object_id: str, damage: str, path: str | None = None) -> ObjectDamagedError:
    """The error about an object: *damage* in words, *path* what holds it, its loose file without one."""
    is_missing = damage.startswith("missing")
    return ObjectDamagedError(
        f"the object {object_id[:12]} is {damage}"
        if is_missing
        else f"the object {object_id[:12]} is damaged: {damage}",
        hint="gitstate repair",
        object_id=object_id,
        path=path or path_of(object_id),
        damage=damage,
        revision=None,
    )


def unreadable(object_id: str, error: Exception) -> ObjectDamagedError:
    """What dulwich met when it took an object apart, as the damage that it is."""
    if isinstance(error, ObjectDamagedError):
        return error
    return damaged(object_id, f"unreadable ({type(error).__name__})")
