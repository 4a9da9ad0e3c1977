"""The note of which head was written out, and what the files looked like then; whether they still do.

A file that was compared once is not read again while its mark stands: device, inode, size and both times. Times move in
steps, so a mark that was taken within the step of the file's last change proves nothing, and that file is read. The
moment that counts is the file system's own: when the lease record was made that the mark was taken under.

Archived loops are many and lie still. Of them a few are looked at in each mutation, in turn, and all of them when
anything else is not as it was noted. What is found changed there has the next mutation look at everything.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from gitstate import layout
from gitstate.digest import sha1
from gitstate.encoding import encode, parse
from gitstate.errors import StorageError
from gitstate.ids import is_servable
from gitstate.layout import STATE_FILE
from gitstate.marks import Mark, mark_of
from gitstate.projection import Found, Projection, blob_id

_LIMIT = 4 * 1024 * 1024  # bytes that are read


@dataclass(slots=True, eq=False, repr=False)
class Note:
    """What was written out in which boot, and what it looked like.

    ``files`` has the blob ids of the registry and of active session states, ``marks`` their marks, ``areas`` the marks of
    ``loops/`` and ``archive/`` with a digest of the names in them, ``others`` what lies in these and is no loop.
    ``since`` is the moment (of the file system, in nanoseconds) from which on the marks were taken. ``index`` is the
    checksum of the index that was written, ``turn`` the archived state that is looked at next.
    """

    head: str
    boot: str | None
    files: Mapping[str, str]
    marks: Mapping[str, Mark]
    areas: Mapping[str, tuple[Mark, str]]
    others: tuple[str, ...]
    since: int
    index: str
    turn: str

    def is_settled(self, mark: Mark) -> bool:
        """Whether what was marked lay still when that was done, so that any later change is seen in its mark."""
        return max(mark[3], mark[4]) < self.since


class Notes:
    """The note of one state directory. *held* gives the bytes of a blob, where they are at hand."""

    def __init__(self, projection: Projection, held: Callable[[str], bytes | None] | None = None) -> None:
        self.projection = projection
        self.directory = projection.directory
        self._held = held or (lambda blob: None)
        self._newest: tuple[bytes, Note] | None = None  # whose bytes these are

    # --- the file ---

    def read(self) -> Note | None:
        """The note; ``None`` without a whole one."""
        try:
            raw = self.directory.read(layout.NOTE, _LIMIT)
            if raw is None:
                return None
            newest = self._newest
            if newest is None or newest[0] != raw:
                self._newest = newest = raw, _parsed(raw)
            return newest[1]
        except (StorageError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def drop(self) -> None:
        """Forget it, so that the next mutation looks at everything."""
        with suppress(StorageError):
            self.directory.jot(layout.NOTE, b"-", cut=False)

    def write(self, note: Note) -> None:
        """Remember."""
        raw = _encoded(note)
        self._newest = raw, note
        self.directory.jot(layout.NOTE, raw)

    # --- comparing ---

    def confirmed(self, note: Note, boot: str | None) -> Note | None:
        """The note with the marks as they are now, if the files are as it says; archived ones are not looked at.

        Without *boot*, the id of this one, files are compared by their bytes. A note of another boot says nothing: a power
        cut may leave the marks of files and take their bytes.
        """
        if boot is None:
            note = replace(note, since=0)
        elif boot != note.boot:
            return None
        marks, areas = {}, {}
        for path, blob in note.files.items():
            mark = self._mark_of(path, blob, note)
            if mark is None:
                return None
            marks[path] = mark
        for area, (noted, digest) in note.areas.items():
            found = self.directory.status(area)
            if found is None:
                return None
            mark = mark_of(found)
            if (mark != noted or not note.is_settled(mark)) and digest_of(self.directory.names(area)) != digest:
                return None
            areas[area] = mark, digest
        if any(self._is_state(name) for name in note.others):
            return None
        return replace(note, marks=marks, areas=areas)

    def _mark_of(self, path: str, blob: str, note: Note) -> Mark | None:
        noted = note.marks.get(path)
        if noted is not None and note.is_settled(noted):
            found = self.directory.status(path)
            if found is not None and mark_of(found) == noted:
                return noted
        raw, found = self.projection.look(path)
        return mark_of(found) if found is not None and self._is_blob(raw, blob) else None

    def _is_blob(self, found: Found, blob: str) -> bool:
        """Whether what stands there are the bytes of a blob. Comparing them with those takes less than naming them."""
        held = self._held(blob)
        if held is not None:
            return found == held
        if not isinstance(found, bytes) or blob_id(found) != blob:
            return False
        self.met(blob, found)
        return True

    def met(self, blob: str, raw: bytes) -> None:
        """A file was found to hold that blob."""

    def _is_state(self, name: str) -> bool:
        """Whether there is a session state by now in what was no loop."""
        return is_servable(name.partition("/")[2]) and self.directory.status(f"{name}/{STATE_FILE}") is not None


def digest_of(names: Iterable[str]) -> str:
    """What tells the names in a directory from others."""
    return sha1("\0".join(names).encode("utf-8", "surrogateescape")).hex()


# --- the file ---

_CHECK = b',\n  "check": '  # what is written over in place may be torn


def _encoded(note: Note) -> bytes:
    record = {name: getattr(note, name) for name in Note.__dataclass_fields__}
    # Times in nanoseconds are larger than a number in JSON may be, and text that looks like one is looked at twice.
    record["marks"] = {path: _text(mark) for path, mark in note.marks.items()}
    record["areas"] = {area: f"{_text(mark)} {digest}" for area, (mark, digest) in note.areas.items()}
    record["since"] = f"{note.since:x}"
    raw = encode(record)[: -len("\n}\n")]
    return b"%s%s%d\n}\n" % (raw, _CHECK, zlib.crc32(raw))


def _parsed(raw: bytes) -> Note:
    """Raises whatever meets damage first."""
    body, _, rest = raw.rpartition(_CHECK)
    if rest != b"%d\n}\n" % zlib.crc32(body):
        raise ValueError("not a whole note")
    record = cast("dict[str, Any]", parse(raw))  # it is whole, so it is as it was written
    del record["check"]
    areas = {area: text.rpartition(" ") for area, text in record["areas"].items()}
    record["marks"] = {path: _mark(text) for path, text in record["marks"].items()}
    record["areas"] = {area: (_mark(mark), digest) for area, (mark, _, digest) in areas.items()}
    return Note(**{**record, "others": tuple(record["others"]), "since": int(record["since"], 16)})


def _text(mark: Mark) -> str:
    return " ".join(f"{number:x}" for number in mark)


def _mark(text: str) -> Mark:
    return cast("Mark", tuple(int(number, 16) for number in text.split(" ")))
