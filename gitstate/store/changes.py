"""An index of history: for each commit of the branch its loops and its time, in the order of the branch.

It is derived: nothing here is needed to read history, and whoever does not
find the end of it in his history, or finds it damaged, walks the commits.
It is only added to, so that a mutation costs the same at any length of it,
and never synced: what a power cut takes is walked, and noted again.

A record is 44 bytes: the commit id, the loop (8 bytes of a hash of its id),
the time (seconds; that of the newest commit so far), the number of the
commit, and a CRC-32 of everything before it in the file.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gitstate.durable import LARGEST, Directory, NotAFileError
from gitstate.errors import StorageError
from gitstate.layout import CHANGES

_RECORD = struct.Struct(">20s8sQI")
_CRC = struct.Struct(">I")
_SIZE = _RECORD.size + _CRC.size
_NO_LOOP, _ANY_LOOP, _BEHIND = b"\0" * 8, b"\xfe" * 8, b"\xff" * 8
_LATEST = 2**63


class Noted(NamedTuple):
    """A commit as it is noted: ``loop_ids`` is ``None`` where only a look at its files could tell; ``time`` the author's."""

    revision: str
    loop_ids: tuple[str, ...] | None
    time: int


def _key(loop_id: str) -> bytes:
    return hashlib.sha1(loop_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[:8]


class Index:
    """What the file says. Positions count records, the oldest first."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.last = len(raw) // _SIZE - 1

    def revision(self, position: int) -> str:
        return self._raw[position * _SIZE : position * _SIZE + 20].hex()

    def _field(self, position: int, number: int) -> int:
        found: int = _RECORD.unpack_from(self._raw, position * _SIZE)[number]
        return found

    def position(self, revision: str) -> int | None:
        """The last record of a commit; everything up to it is its past."""
        if self.last >= 0 and self.revision(self.last) == revision:
            return self.last
        return self._before(bytes.fromhex(revision), 0, self.last)

    def _before(self, wanted: bytes, offset: int, position: int) -> int | None:
        """The newest record up to *position* that has *wanted* at *offset*."""
        end = position * _SIZE + offset + len(wanted)
        while (found := self._raw.rfind(wanted, 0, end)) >= 0:
            if found % _SIZE == offset:
                return found // _SIZE
            end = found + len(wanted) - 1
        return None

    def of_loop(self, loop_id: str, position: int) -> Iterator[str]:
        """The commits up to *position* that may concern a loop, newest first."""
        keys = (_key(loop_id), _ANY_LOOP)
        ahead = [self._before(key, 20, position) for key in keys]
        while (newest := max((found for found in ahead if found is not None), default=None)) is not None:
            yield self.revision(newest)
            ahead = [self._before(k, 20, newest - 1) if at == newest else at for k, at in zip(keys, ahead, strict=True)]

    def not_after(self, time: int, position: int) -> Iterator[str]:
        """The commits up to *position* of which the first that is not after *time* is the newest such."""
        low, high = 0, position + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._field(middle, 2) <= time else (low, middle)
        # Where the clock was set back a commit may be older than one before it.
        behind = self._before(_BEHIND, 20, position)
        while behind is not None and behind >= low:
            yield self.revision(behind)
            behind = self._before(_BEHIND, 20, behind - 1)
        if low:
            yield self.revision(low - 1)

    def earlier(self, position: int, steps: int) -> str | None:
        """The commit so many *steps* before the one at *position*, if it is noted."""
        wanted = self._field(position, 3) - steps
        low, high = 0, position
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._field(middle, 3) < wanted else (low, middle)
        return self.revision(low) if self._field(low, 3) == wanted else None


def read_index(directory: Directory) -> Index | None:
    """The index; ``None`` without a whole one."""
    try:
        raw = directory.read(CHANGES, LARGEST) or b""
    except (NotAFileError, StorageError):
        return None
    whole = raw and len(raw) % _SIZE == 0 and _CRC.unpack(raw[-4:])[0] == zlib.crc32(memoryview(raw)[:-4])
    return Index(raw) if whole else None


def last_noted(directory: Directory) -> str | None:
    """The commit that the index ends with, as far as its last record says."""
    raw = _last_record(directory)
    return None if raw is None else raw[:20].hex()


def _last_record(directory: Directory) -> bytes | None:
    size, raw = directory.tail(CHANGES, _SIZE)
    return raw if size and size % _SIZE == 0 and len(raw) == _SIZE else None


def note(directory: Directory, commits: Sequence[Noted], *, anew: bool) -> None:
    """Add commits, the oldest first, to the end of the index, or begin it *anew* with them.

    Raises:
        StorageError: the file system refused.
    """
    last = None if anew else _last_record(directory)
    time, number, crc = 0, 0, 0
    if last is not None:
        _, _, time, number = _RECORD.unpack(last[:-4])
        crc, number = zlib.crc32(last[-4:], _CRC.unpack(last[-4:])[0]), number + 1
    records = bytearray()
    for commit in commits:
        time = max(time, min(max(commit.time, 0), _LATEST))
        loops = commit.loop_ids
        keys = [_ANY_LOOP] if loops is None else [_key(loop_id) for loop_id in loops] or [_NO_LOOP]
        keys += [_BEHIND] if commit.time < time else []
        for key in keys:
            record = _RECORD.pack(bytes.fromhex(commit.revision), key, time, number)
            crc = zlib.crc32(record, crc)
            sealed = _CRC.pack(crc)
            crc = zlib.crc32(sealed, crc)
            records += record + sealed
        number += 1
    if last is None:
        directory.write(CHANGES, bytes(records), durable=False)
    else:
        directory.append(CHANGES, bytes(records))
