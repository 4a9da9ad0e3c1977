"""Loose objects gathered into packs, a few thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator

from gitstate.durable import Directory
from gitstate.store.entries import Entry, Packed, whole
from gitstate.store.joining import place
from gitstate.store.objects import ObjectDamagedError, Objects

_MOST = 8192  # objects in one pack
_LARGEST = 8 * 1024 * 1024  # bytes of entries that are in memory at once


def gathered(objects: Objects) -> Iterator[tuple[str, list[str]]]:
    """Loose objects written into packs, durably: the name of each pack, and the ids whose loose files may go now.

    Those that are damaged stay as they are.

    Raises:
        StorageError: the file system refused; all loose objects are still there.
    """
    entries: list[Entry] = []
    size = 0
    for object_id in objects.loose_ids():
        try:
            stored = objects.read_loose(object_id)
        except ObjectDamagedError:
            continue
        if stored is None:  # gone meanwhile
            continue
        entries.append(whole(object_id, stored))
        size += len(entries[-1].raw)
        if len(entries) == _MOST or size >= _LARGEST:
            yield _written(objects.directory, entries), [entry.id for entry in entries]
            entries, size = [], 0
    if entries:
        yield _written(objects.directory, entries), [entry.id for entry in entries]


def _written(directory: Directory, entries: list[Entry]) -> str:
    pack, index = Packed().with_entries(entries).as_files()
    prepared: list[str] = []
    try:
        prepared.append(directory.prepare(pack, mode=0o444))
        prepared.append(directory.prepare(index, mode=0o444))
        return place(directory, *prepared)
    finally:
        for name in prepared:
            directory.drop(name)
