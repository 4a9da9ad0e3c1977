"""Large packs joined into one step by step, each of which is short and can be done by another process.

What is copied are whole stretches of the old packs, as they stand, without the entries that an earlier one has as well:
so this is for packs whose deltas all name their bases by id, as gitstate's own do, and the new pack follows from the
old ones, byte for byte. Why no chain of deltas closes to a circle by that: ``store/joining.py``.

The body of the new pack and the notes about it lie in a directory of their own, where nobody takes them for a pack. Each
step copies a stretch, has it on the disk, and notes that, with a digest of what was copied; whatever no note tells of is
written anew. Next come the rows of the index, which are noted as well. When all is there the body is read back, every
stretch of it compared with its digest, and the pack put in place. The old ones go in another step, once the new pack,
opened anew, is whole and lists all that they list.

Notes count in the boot that wrote them, and for the packs that they were written about; others are thrown away.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

from gitstate import process
from gitstate.digest import sha1
from gitstate.durable import Directory
from gitstate.errors import LeaseTimeoutError, StorageError
from gitstate.guard import Guard
from gitstate.layout import JOINING, JOINING_GUARD
from gitstate.medium import NotAFileError, UnreadableError
from gitstate.store.consolidation import choose_large, joinable
from gitstate.store.joining import DELTA_BY_ID, DELTA_BY_OFFSET, KIND, Joined, new_name, place, retire
from gitstate.store.packindex import PackDamagedError, PackIndex, Pieces, index_pieces, separate
from gitstate.store.packs import HEADER_SIZE, PACKS, open_data, open_index, pack_header
from gitstate.store.underway import FIRST, STRETCH, OtherwiseError, Progress, note, noted

_ENTRIES = 16_384  # that are copied in one step
_BYTES = 192 * _ENTRIES  # that are copied in one step, if no single entry is longer
_ROWS = 65_536  # of the index that are made in one step
_LEFT = f"{JOINING}/left"  # packs that are not joined like this, a name on each line
_PLACED = f"{JOINING}/placed"  # the new pack that is in place, and those that may go for it, a name on each line
_NAME = re.compile(r"pack-[0-9a-f]+")


class _NotJoinedError(Exception):
    """A pack is not joined like this; the message says what is wrong with it, if anything."""

    def __init__(self, name: str, words: str = "") -> None:
        super().__init__(words)
        self.name = name


# --- whose turn it is -------------------------------------------------------------------------------------------------


def take_a_step(directory: Directory) -> Joined | None:
    """Take one step of joining packs that are too large to be joined at once; what came of it, ``None`` if nothing yet.

    Nothing depends on who holds the lease. Whoever finds somebody else at it leaves it to him.

    Raises:
        LeaseTimeoutError: somebody else is at it.
        StorageError: the file system refused; all objects are still there.
    """
    if not _chosen(directory) and not _is_begun(directory):
        return None
    with _alone(directory):
        retired = _retire_replaced(directory)
        return _step(directory, _chosen(directory)) if retired is None else retired


def drop_stale(directory: Directory) -> None:
    """Throw away what was begun and cannot be gone on with, unless somebody is at it; if not, it takes room and no more."""
    if _is_begun(directory):
        with suppress(LeaseTimeoutError, StorageError), _alone(directory):
            _retire_replaced(directory)
            _keep_only(directory, _chosen(directory))


def _chosen(directory: Directory) -> list[str]:
    weights, left = joinable(directory), _left_alone(directory)
    return choose_large({name: weights[name] for name in weights if name not in left and _NAME.fullmatch(name)})


def _is_begun(directory: Directory) -> bool:
    return any(f"{JOINING}/{name}" not in (JOINING_GUARD, _LEFT) for name in directory.names(JOINING))


@contextmanager
def _alone(directory: Directory) -> Iterator[None]:
    directory.make(JOINING)
    with Guard(directory, JOINING_GUARD).hold(0):
        yield


def _left_alone(directory: Directory) -> frozenset[str]:
    """The packs that are not joined like this: they are damaged, or git's."""
    with suppress(StorageError):
        return frozenset((directory.read(_LEFT, 1 << 20) or b"").decode(errors="replace").split())
    return frozenset()


def _leave_alone(directory: Directory, *names: str) -> None:
    left = {
        other for other in _left_alone(directory).union(names) if directory.status(f"{PACKS}/{other}.pack") is not None
    }
    directory.write(_LEFT, "".join(f"{other}\n" for other in sorted(left)).encode(), durable=False)


def _keep_only(directory: Directory, names: Sequence[str]) -> None:
    """Throw away what was begun, unless it is the joining of *names*."""
    key = _key(names)
    for file in directory.names(JOINING):
        path = f"{JOINING}/{file}"
        if path not in (JOINING_GUARD, _LEFT, _PLACED) and (key is None or file.partition(".")[0] != key):
            directory.discard(path)


def _key(names: Sequence[str]) -> str | None:
    boot = process.boot_id()
    if not names or boot is None:
        return None
    return hashlib.sha1("\n".join((boot, *names)).encode(), usedforsecurity=False).hexdigest()


# --- steps ------------------------------------------------------------------------------------------------------------


def _step(directory: Directory, names: Sequence[str]) -> Joined | None:
    """The next step of joining *names* in this order; what came of it, ``None`` if there is more to do.

    For one at a time. What was begun of others is thrown away.

    Raises:
        StorageError: the file system refused; all packs are still there, and what was begun is thrown away.
    """
    _keep_only(directory, names)
    key = _key(names)
    if key is None:
        return None
    try:
        with ExitStack() as stack, directory.kept_open():
            sources = [_opened(directory, name, stack) for name in names]
            progress = noted(directory, _notes(key))
            body = directory.status(_body(key))
            if progress.end > (0 if body is None else body.st_size):
                raise OtherwiseError
            if progress.number < len(sources):
                _copy(directory, key, names, sources, progress)
            elif progress.first < 256:
                _list(directory, key, names, sources, progress)
            elif not progress.checksum:
                _seal(directory, key, progress)
            else:
                _put_in_place(directory, key, names, progress)
    except (OtherwiseError, PackDamagedError):
        _drop(directory, key)
    except StorageError:
        _drop(directory, key)
        raise
    except _NotJoinedError as error:
        _drop(directory, key)
        if directory.status(f"{PACKS}/{error.name}.pack") is not None:
            _leave_alone(directory, error.name)
            return Joined(None, 0, 0, {error.name: str(error)} if str(error) else {})
    return None


def _body(key: str) -> str:
    return f"{JOINING}/{key}.body"


def _notes(key: str) -> str:
    return f"{JOINING}/{key}.notes"


def _drop(directory: Directory, key: str) -> None:
    for path in (_notes(key), _body(key)):
        with suppress(StorageError):
            directory.discard(path)


def _opened(directory: Directory, name: str, stack: ExitStack) -> PackIndex:
    with _damage_of(name):
        index = stack.enter_context(closing(open_index(directory, name)))
        if not index.pieces.is_sealed():
            raise PackDamagedError("its index does not check")
        if not index.has_checksums:
            raise _NotJoinedError(name)
        return index


@contextmanager
def _damage_of(name: str) -> Iterator[None]:
    """For the length of a block that only reads a pack: what goes wrong is wrong with that."""
    try:
        yield
    except (_NotJoinedError, UnreadableError, MemoryError):
        raise
    except Exception as error:  # damage has many faces
        raise _NotJoinedError(name, str(error) or type(error).__name__) from None


# --- copying ----------------------------------------------------------------------------------------------------------


def _copy(
    directory: Directory, key: str, names: Sequence[str], sources: Sequence[PackIndex], progress: Progress
) -> None:
    """Copy the next stretch, durably."""
    number, begin = progress.number, max(progress.end, HEADER_SIZE)
    with _damage_of(names[number]):
        pieces, runs, entries, follows = _stretch(directory, names[number], sources, progress, begin)
    raw = b"".join(pieces)
    # The header tells how many entries there are, which is not known yet.
    directory.extend(_body(key), raw if progress.end else bytes(HEADER_SIZE) + raw, progress.end, durable=True)
    here = (number, follows) if follows else (number + 1, HEADER_SIZE)
    stretch = STRETCH.pack(number, *here, begin + len(raw), entries, sha1(raw))
    note(directory, _notes(key), progress, b"s", stretch, runs.tobytes())


def _stretch(
    directory: Directory, name: str, sources: Sequence[PackIndex], progress: Progress, position: int
) -> tuple[list[bytes], array[int], int, int]:
    """What is to be copied next, from where up to where it stands and to where it comes, how many entries those are, and
    where the next one begins; 0 after the last.

    Raises:
        PackDamagedError: an entry, the pack or its index is not what it should be; there are other words for that.
    """
    index, at = sources[progress.number], progress.offset
    listed, offsets, checksums = index.names()[1], index.offsets(), index.checksums()
    beyond = at + _BYTES
    found = sorted((offset, row) for row, offset in enumerate(offsets) if at <= offset < beyond)
    behind = min((offset for offset in offsets if offset >= beyond), default=0)  # 0 where nothing is
    starts, rows = [offset for offset, _ in found[:_ENTRIES]], [row for _, row in found[:_ENTRIES]]
    follows = found[_ENTRIES][0] if len(found) > _ENTRIES else behind
    with closing(open_data(directory, name, index)) as data:
        if at == HEADER_SIZE and not data.is_sealed():
            raise PackDamagedError("its checksum is another")
        stop = follows or data.size - 20
        if starts[:1] != [at]:
            raise PackDamagedError("its index does not name every entry")
        block = data.all(at, max(0, stop - at))
    names = [listed[20 * row : 20 * row + 20] for row in rows]
    elsewhere, bases = _listed_in(sources[: progress.number], set(names)), set()
    runs, entries = array("Q"), 0
    for each, row, start, following in zip(names, rows, starts, [*starts[1:], stop], strict=True):
        piece = block[start - at : following - at]
        if not piece or zlib.crc32(piece) != checksums[row]:
            raise PackDamagedError(f"{each.hex()[:12]} is not what its index says")
        kind = piece[0] & KIND
        if kind == DELTA_BY_OFFSET:
            raise _NotJoinedError(name)
        if kind == DELTA_BY_ID:
            bases.add(_base_of(piece))
        if each not in elsewhere:
            if runs and runs[-2] == start:
                runs[-2] = following
            else:
                runs.extend((start, following, position))
            position += len(piece)
            entries += 1
    if _listed_in([index], bases) != bases:
        raise PackDamagedError("a delta of what is not there")
    copied = [block[runs[n] - at : runs[n + 1] - at] for n in range(0, len(runs), 3)]
    return copied, runs, entries, follows


def _listed_in(indexes: Sequence[PackIndex], names: set[bytes]) -> set[bytes]:
    """Those of *names* that any of the indexes lists."""
    found: set[bytes] = set()
    for index in indexes:
        found |= names.intersection(separate(index.names()[1]))
    return found


def _base_of(piece: bytes) -> bytes:
    """What an entry builds upon that names it by its id."""
    length = 1
    while piece[length - 1] & 128:
        length += 1
    return piece[length : length + 20]


# --- listing ----------------------------------------------------------------------------------------------------------


def _list(
    directory: Directory, key: str, names: Sequence[str], sources: Sequence[PackIndex], progress: Progress
) -> None:
    """Note the next rows of the index."""
    everything, first = sum(index.count for index in sources), progress.first
    width = next(width for width in (256, 64, 16, 4, 1) if everything * width <= 256 * _ROWS or width == 1)
    found: list[tuple[bytes, int, int]] = []
    for number, (name, index) in enumerate(zip(names, sources, strict=True)):
        with _damage_of(name):
            low, some = index.names(first, first + width - 1)
            count = len(some) // 20
            checksums, offsets = index.checksums(low, count), index.offsets()[low : low + count]
        found += zip(separate(some), _places(progress.runs.get(number, array("Q")), offsets), checksums, strict=True)
    found = sorted(row for row in found if row[1])
    counts = array("I", [0]) * width
    for row in found:
        counts[row[0][0] - first] += 1
    ids, places, checks = zip(*found, strict=True) if found else ((), (), ())
    columns = (counts, b"".join(ids), array("I", places), array("I", checks))
    note(directory, _notes(key), progress, b"r", FIRST.pack(first + width), *map(bytes, columns))


def _places(runs: array[int], offsets: array[int]) -> list[int]:
    """To where the entries at *offsets* came; 0 for those that were not copied."""
    starts, ends, places = runs[0::3], runs[1::3], runs[2::3]
    if len(starts) == 1:
        (start, end, place) = runs
        return [offset - start + place if start <= offset < end else 0 for offset in offsets]
    found = []
    for offset in offsets:
        run = bisect_right(starts, offset) - 1
        found.append(offset - starts[run] + places[run] if run >= 0 and offset < ends[run] else 0)
    return found


# --- putting in place -------------------------------------------------------------------------------------------------


def _seal(directory: Directory, key: str, progress: Progress) -> None:
    """Give the body its header and its checksum, durably."""
    if sum(progress.counts) != progress.entries:
        raise OtherwiseError
    header = pack_header(progress.entries)
    directory.extend(_body(key), b"", progress.end)
    directory.overwrite(_body(key), header, 0, progress.end)
    digest = _read_back(directory, key, header, progress)
    directory.extend(_body(key), digest, progress.end, durable=True)
    note(directory, _notes(key), progress, b"t", digest)


def _put_in_place(directory: Directory, key: str, names: Sequence[str], progress: Progress) -> None:
    """Make a pack of what is there, durably, and note which ones may go for it."""
    with closing(Pieces(directory.opened(_body(key)), _body(key))) as body:
        if body.size != progress.end or body.all(body.size - 20, 20) != progress.checksum or not body.is_sealed():
            raise OtherwiseError
    directory.extend(_body(key), b"", progress.end, durable=True, mode=0o444)
    name, prepared = new_name(), ""
    try:
        with directory.preparing(mode=0o444) as (prepared, file):
            file.writelines(index_pieces(progress.counts, progress.columns, progress.checksum))
        directory.write(_PLACED, "".join(f"{each}\n" for each in (name, *names)).encode())
        place(directory, _body(key), prepared, name)
    except StorageError:
        with suppress(StorageError):
            directory.discard(_PLACED)  # a second sync of that name would succeed without having written it
            if directory.status(f"{PACKS}/{name}.pack") is not None:
                _leave_alone(directory, *names)  # or another would be made, and another
        raise
    finally:
        if prepared:
            directory.drop(prepared)
    _drop(directory, key)


def _read_back(directory: Directory, key: str, header: bytes, progress: Progress) -> bytes:
    """The checksum of the pack, of what is there, which is what was to be written."""
    with closing(Pieces(directory.opened(_body(key)), _body(key))) as body:
        digest = hashlib.sha1(header, usedforsecurity=False)
        if body.size != progress.end or body.all(0, HEADER_SIZE) != header:
            raise OtherwiseError
        begin = HEADER_SIZE
        for stretch in progress.stretches:
            raw = body.all(begin, stretch.end - begin)
            if sha1(raw) != stretch.digest:
                raise OtherwiseError
            digest.update(raw)
            begin = stretch.end
        return digest.digest()


def _retire_replaced(directory: Directory) -> Joined | None:
    """Let the old packs go for the one that was put in place, if it is whole and has all that they have.

    For one at a time. What it came to; ``None`` where there is no such pack.

    Raises:
        UnreadableError: that cannot be told now.
        StorageError: the file system refused; whatever is gone lies in the new pack.
    """
    try:
        name, *names = (directory.read(_PLACED, 1 << 16) or b"").decode().split()
    except (NotAFileError, ValueError):
        name, names = "", []
    joined = None
    if _NAME.fullmatch(name) and directory.status(f"{PACKS}/{name}.pack") is not None:
        there = [
            other
            for other in names
            if _NAME.fullmatch(other) and other != name and directory.status(f"{PACKS}/{other}.pack") is not None
        ]
        count = _count_if_whole(directory, name, there)
        if count is not None:
            directory.sync(PACKS)  # whoever put it there may have been killed before it was
            retire(directory, name, there)
            joined = Joined(name, len(there), count, {})
        else:
            _leave_alone(directory, *there)  # or another would be made, and another
    directory.discard(_PLACED)
    if joined is not None:
        _keep_only(directory, [])  # a kill may have left the notes
    return joined


def _count_if_whole(directory: Directory, name: str, others: Sequence[str]) -> int | None:
    """How many objects are in a pack, if it is whole and lists all that the others list."""
    try:
        with ExitStack() as stack, directory.kept_open():
            opened = [stack.enter_context(closing(open_index(directory, each))) for each in (name, *others)]
            data = stack.enter_context(closing(open_data(directory, name, opened[0])))
            if not data.is_sealed() or not all(index.pieces.is_sealed() for index in opened):
                return None
            for first in range(0, 256, 16):
                listed, *wanted = (separate(index.names(first, first + 15)[1]) for index in opened)
                has = set(listed).__contains__
                if not all(all(map(has, ids)) for ids in wanted):
                    return None
            return opened[0].count
    except UnreadableError:
        raise
    except (PackDamagedError, NotAFileError, OSError, struct.error):
        return None
