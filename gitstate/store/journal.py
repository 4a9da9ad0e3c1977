"""The journal: what the branch moved to since everything was last made durable, acknowledged by one write and one sync.

A file of a fixed size, written over in place, so that a sync has nothing to write but bytes. It holds a chain of
publications, each of which moves the branch from where the one before it left it, and brings the pack entries that this
takes. The first of a chain opens an *epoch*: it moves nothing, and what lies behind it from an earlier epoch no longer
counts. Within a boot the branch itself is the truth, and nobody but the next writer reads the journal; after a power
cut it says what was acknowledged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from gitstate.durable import Directory
from gitstate.errors import StorageError
from gitstate.layout import JOURNAL
from gitstate.medium import NotAFileError, readable
from gitstate.store.entries import Entry
from gitstate.store.epoch import HEAD as EPOCH
from gitstate.store.epoch import MAGIC, this_boot

SIZE = 1024 * 1024  # bytes of the file
MOST = 64  # publications in one epoch
_BLOCK = 4096  # publications begin on such a boundary, so that no two share a sector
_HEAD = struct.Struct(">8sI8s8sII20s20s12sI")
_SIZES = struct.Struct(">20sI")


class Publication(NamedTuple):
    """A move of the branch from *parent* to *head*, and the entries of the objects that it brings.

    *pack* ends the name of the pack that held all entries of the epoch then; *boot* tells boots of the machine apart.
    """

    epoch: bytes
    boot: bytes
    number: int
    parent: str
    head: str
    pack: bytes
    entries: tuple[Entry, ...]

    size: int  # bytes that it takes up in the file


def publication(
    epoch: bytes, number: int, parent: str, head: str, entries: Sequence[Entry], pack: bytes = b"\0" * 12
) -> Publication:
    """A publication of this boot."""
    length = _HEAD.size + sum(_SIZES.size + len(entry.raw) for entry in entries)
    return Publication(epoch, this_boot(), number, parent, head, pack, tuple(entries), _blocks(length))


def _blocks(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


Chain = tuple[Publication, ...]  # what the journal holds, the oldest first; empty where there is none


def has_room(chain: Chain, publication: Publication) -> bool:
    """Whether *publication* can follow all of *chain*."""
    return publication.number < MOST and _end(chain) + publication.size <= SIZE


def _end(chain: Chain) -> int:
    return sum([publication.size for publication in chain])


class Journal:
    """The journal of one repository."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    # --- reading ---

    def chain(self, known: Chain = ()) -> Chain:
        """What it holds, the oldest first: as far as it is whole. What is *known* of it is not read again."""
        try:
            with self.directory.opened(JOURNAL) as file, readable(JOURNAL):
                return _followed(file.fileno(), known)
        except NotAFileError:
            return ()

    # --- writing ---

    def begin(self, head: str, following: Publication | None) -> Chain:
        """Open an epoch at *head*, durably, if the publication *following* has room in it; empty if it was not opened.

        All that was published up to *head* must be durable: what was here is written over.

        Raises:
            StorageError: the file cannot be written.
        """
        epoch = os.urandom(8) if following is None else following.epoch
        first = publication(epoch, 0, head, head, ())
        if following is not None and first.size + following.size > SIZE:
            return ()
        try:
            self._write(first, 0)
        except StorageError:
            # Not there, not of its size, of another name as well, or it failed before: then no sync of it can be trusted.
            self.directory.write(JOURNAL, bytes(SIZE))
            self._write(first, 0)
        return (first,)

    def append(self, chain: Chain, publication: Publication) -> None:
        """Acknowledge a publication, which follows all of *chain*: it survives a power cut from here on.

        Raises:
            StorageError: it may not. No later sync of this file can tell that it does.
        """
        # What another thread read before somebody opened an epoch may have been taken for what is known since.
        self._write(publication, _end(chain), _encoded(chain[0]))

    def sync(self) -> None:
        """Make durable what another process may have written without having synced it.

        Raises:
            StorageError: the sync failed.
        """
        self.directory.overwrite(JOURNAL, b"", 0, SIZE)

    def drop(self) -> None:
        """Remove the file: whoever comes next begins another."""
        self.directory.drop(JOURNAL)

    def _write(self, publication: Publication, offset: int, beginning: bytes = b"") -> None:
        self.directory.overwrite(JOURNAL, _encoded(publication), offset, SIZE, beginning=beginning)


# --- the format ------------------------------------------------------------------------------------------------------


def _encoded(publication: Publication) -> bytes:
    entries = publication.entries
    body = b"".join(
        [
            *(_SIZES.pack(bytes.fromhex(entry.id), len(entry.raw)) for entry in entries),
            *(entry.raw for entry in entries),
        ]
    )
    head = _HEAD.pack(
        MAGIC,
        0,
        publication.epoch,
        publication.boot,
        publication.number,
        len(body),
        bytes.fromhex(publication.parent),
        bytes.fromhex(publication.head),
        publication.pack,
        len(entries),
    )
    crc = zlib.crc32(body, zlib.crc32(head[12:]))
    return b"".join((MAGIC, crc.to_bytes(4, "big"), head[12:], body))


def _followed(descriptor: int, chain: Chain) -> Chain:
    """What is there, of which *chain* was read before."""
    if chain:
        first = os.pread(descriptor, EPOCH.size, 0)
        if len(first) < EPOCH.size or EPOCH.unpack(first)[2] != chain[0].epoch:
            chain = ()
    return (*chain, *_read_on(descriptor, chain[-1] if chain else None, _end(chain)))


def _read_on(descriptor: int, last: Publication | None, offset: int) -> Iterator[Publication]:
    """The whole publications from *offset* on that follow *last*, each the one before it."""
    while True:
        raw = os.pread(descriptor, _BLOCK, offset)
        found = _decoded(raw, descriptor, offset)
        if found is None:
            return
        if last is None:
            if found.number != 0:
                return
        elif (found.epoch, found.number, found.parent) != (last.epoch, last.number + 1, last.head):
            return
        yield found
        last, offset = found, offset + found.size


def _decoded(raw: bytes, descriptor: int, offset: int) -> Publication | None:
    if len(raw) < _HEAD.size:
        return None
    magic, crc, epoch, boot, number, length, parent, head, pack, count = _HEAD.unpack_from(raw)
    if magic != MAGIC or length > SIZE:
        return None
    whole = _HEAD.size + length
    if whole > len(raw):
        raw += os.pread(descriptor, whole - len(raw), offset + len(raw))
    if len(raw) < whole or zlib.crc32(raw[12:whole]) != crc or count * _SIZES.size > length:
        return None
    table = list(_SIZES.iter_unpack(raw[_HEAD.size : _HEAD.size + count * _SIZES.size]))
    entries = _cut(raw[:whole], _HEAD.size + count * _SIZES.size, table)
    return Publication(epoch, boot, number, parent.hex(), head.hex(), pack, entries, _blocks(whole))


def _cut(raw: bytes, start: int, table: Sequence[tuple[bytes, int]]) -> tuple[Entry, ...]:
    ends = accumulate((size for _, size in table), initial=start)
    return tuple(Entry(name.hex(), raw[at : at + size]) for (name, size), at in zip(table, ends, strict=False))
