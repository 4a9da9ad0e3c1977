"""Writing the index and the note, from a look at everything or from what a mutation changed.

The latter costs the same whatever else there is: entries of the index are written over in place, and of the archived
states, which lie still, a few are looked at in turn.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from gitstate import layout
from gitstate.layout import ARCHIVE, LOOPS, REGISTRY
from gitstate.marks import Mark, mark_of
from gitstate.note import Note, Notes, digest_of
from gitstate.projection import Projection, Survey
from gitstate.store.index import Index, IndexLockedError, adopt_index, rewrite_index
from gitstate.store.objects import Objects, Stored
from gitstate.store.trees import CommitTree

SAMPLE = 16  # archived session states that a mutation looks at


class _Written(NamedTuple):
    """A file that was written: its mode and blob id, and what the file system says of it."""

    mode: int
    blob: str
    found: os.stat_result | None

    def mark(self, path: str, since: int) -> os.stat_result | None:
        """What the index is to say of it: git compares what is young once more, but the archive is not looked at so soon."""
        is_kept = self.found is not None and (_area(path) != ARCHIVE or _is_before(self.found, since))
        return self.found if is_kept else None


class Noting(Notes):
    """As :class:`~gitstate.note.Notes`, for whoever writes."""

    def __init__(self, projection: Projection, objects: Objects) -> None:
        super().__init__(projection, objects.held)
        self.objects = objects

    def met(self, blob: str, raw: bytes) -> None:
        """Looked up in history, what others wrote since would have to be put together from differences."""
        self.objects.remember(blob, Stored(b"blob", raw))

    def anew(self, tree: CommitTree, seen: Survey, boot: str | None, since: int) -> Note | None:
        """The index written from a look at everything, and the note of it; ``None`` where the files are not the tree's.

        Raises:
            StorageError: the file system refused.
        """

        def compared(path: str, blob: str) -> os.stat_result | None:
            found = seen.statuses.get(path)
            if found is None or not self._is_blob(seen.get(path), blob):
                return None
            return _Written(0, blob, found).mark(path, since)

        index = ""
        with suppress(IndexLockedError):
            index = rewrite_index(self.directory, tree, compared)
        blobs = {path: blob for path, _, blob in tree.files() if path == REGISTRY or layout.place_of(path) is not None}
        if blobs.keys() != seen.keys() or any(not self._is_blob(seen[path], blob) for path, blob in blobs.items()):
            return None
        files = {path: blob for path, blob in blobs.items() if _area(path) != ARCHIVE}
        marks = {path: mark_of(seen.statuses[path]) for path in files}
        loops = {place.directory for place in map(layout.place_of, blobs) if place is not None}
        areas: dict[str, tuple[Mark, str]] = {}
        others: list[str] = []
        for area, (found, names) in seen.areas.items():
            areas[area] = mark_of(found), digest_of(names)
            others += [f"{area}/{name}" for name in names if f"{area}/{name}" not in loops]
        if areas.keys() != {LOOPS, ARCHIVE}:
            return None
        return Note(tree.revision or "", boot, files, marks, areas, tuple(others), since, index, "")

    def brought_on(
        self, note: Note, before: CommitTree, after: CommitTree, paths: Iterable[str], since: int
    ) -> Note | None:
        """The index and the note brought from one head to the next, where only *paths* were written.

        ``None``: something is not as it should be, so that the next mutation is to look at everything.

        Raises:
            StorageError: the file system refused.
        """
        files, marks, areas = dict(note.files), dict(note.marks), dict(note.areas)
        written: dict[str, _Written | None] = {}
        is_well = True
        for path in paths:
            entry, found = after.entry(path), self.directory.status(path)
            is_well = is_well and (entry is None) == (found is None)
            files.pop(path, None)
            marks.pop(path, None)
            written[path] = None if entry is None else _Written(*entry, found)
            if entry is not None and found is not None and _area(path) != ARCHIVE:
                files[path], marks[path] = entry[1], mark_of(found)
        for area in {_area(path) for path in paths if (before.entry(path) is None) != (after.entry(path) is None)}:
            found, names = self.directory.status(area), self.directory.names(area)
            others = {name.partition("/")[2] for name in note.others if _area(name) == area}
            is_well = is_well and found is not None and set(names) == others | set(after.names(area))
            if found is not None:
                areas[area] = mark_of(found), digest_of(names)
        following = Note(
            after.revision or "", note.boot, files, marks, areas, note.others, since, note.index, note.turn
        )
        indexed = self._with_index(following, after, written)
        return indexed if is_well else None

    def _with_index(self, note: Note, tree: CommitTree, written: Mapping[str, _Written | None]) -> Note | None:
        try:
            index = Index.found(self.directory, note.index)
            if index is None:
                return self._with_another_index(note, tree, written)
            for path, entry in written.items():
                if entry is None:
                    index.drop(path)
                else:
                    index.put(path, entry.mode, entry.blob, entry.mark(path, note.since))
            is_well, turn = self._look_at_some(index, note)
            checksum = index.save(self.directory)
            if checksum is None:  # it was damaged
                return self._with_another_index(note, tree, written)
            return replace(note, index=checksum, turn=turn) if is_well else None
        except IndexLockedError:
            return replace(note, index="")

    def _with_another_index(self, note: Note, tree: CommitTree, written: Mapping[str, _Written | None]) -> Note:
        compared = {path: None if entry is None else entry.found for path, entry in written.items()}
        for path, mark in note.marks.items():
            found = self.directory.status(path)
            if found is not None and mark_of(found) == mark:
                compared[path] = found
        return replace(note, index=adopt_index(self.directory, tree, compared))

    def _look_at_some(self, index: Index, note: Note) -> tuple[bool, str]:
        """Whether the archived states whose turn it is are as the index has them, and whose turn it is then."""
        found = index.following(ARCHIVE, note.turn, SAMPLE + 1)
        if not found:
            return True, ""
        turn = found[SAMPLE].path if len(found) > SAMPLE else ""
        entries = found[:SAMPLE]
        names = [entry.path.partition("/")[2] for entry in entries]
        touched = [
            entry
            for entry, status in zip(entries, self.directory.statuses(ARCHIVE, names), strict=True)
            if status is None or not entry.is_of(status)
        ]
        for entry in touched:
            raw, status = self.projection.look(entry.path)
            if status is None or not self._is_blob(raw, entry.blob):
                return False, turn
            if _is_before(status, note.since):
                index.put(entry.path, entry.mode, entry.blob, status)
        return True, turn


def _area(path: str) -> str:
    return path.partition("/")[0]


def _is_before(found: os.stat_result, since: int) -> bool:
    return max(found.st_mtime_ns, found.st_ctime_ns) < since
