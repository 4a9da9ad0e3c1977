"""Loose objects gathered into packs, a few thousand at a time."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator

from gitstate.durable import Directory
from gitstate.store.joining import place
from gitstate.store.objects import NUMBERS, ObjectDamagedError, Objects, Stored
from gitstate.store.packindex import Listed, index_of
from gitstate.store.packs import HEADER_SIZE, pack_header

_MOST = 8192  # objects in one pack
_LARGEST = 8 * 1024 * 1024  # bytes of entries that are in memory at once


def gathered(objects: Objects) -> Iterator[tuple[str, list[str]]]:
    """Loose objects written into packs, durably: the name of each pack, and the ids whose loose files may go now.

    Those that are damaged stay as they are.

    Raises:
        StorageError: the file system refused; all loose objects are still there.
    """
    entries: list[tuple[str, bytes]] = []
    size = 0
    for object_id in objects.loose_ids():
        try:
            stored = objects.read_loose(object_id)
        except ObjectDamagedError:
            continue
        if stored is None:  # gone meanwhile
            continue
        entries.append((object_id, entry_of(stored)))
        size += len(entries[-1][1])
        if len(entries) == _MOST or size >= _LARGEST:
            yield _written(objects.directory, entries), [name for name, _ in entries]
            entries, size = [], 0
    if entries:
        yield _written(objects.directory, entries), [name for name, _ in entries]


def entry_of(stored: Stored) -> bytes:
    """An object as a whole entry of a pack."""
    size = len(stored.raw)
    head = bytearray([NUMBERS[stored.kind] << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head) + zlib.compress(stored.raw, 1)


def _written(directory: Directory, entries: list[tuple[str, bytes]]) -> str:
    listed: list[Listed] = []
    pieces, position = [pack_header(len(entries))], HEADER_SIZE
    for object_id, raw in entries:
        listed.append((bytes.fromhex(object_id), position, zlib.crc32(raw)))
        pieces.append(raw)
        position += len(raw)
    body = b"".join(pieces)
    checksum = hashlib.sha1(body, usedforsecurity=False).digest()
    prepared: list[str] = []
    try:
        prepared.append(directory.prepare(body + checksum, mode=0o444))
        prepared.append(directory.prepare(index_of(listed, checksum), mode=0o444))
        return place(directory, *prepared)
    finally:
        for name in prepared:
            directory.drop(name)
