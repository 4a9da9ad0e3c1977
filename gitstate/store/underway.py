"""What was done of joining large packs in steps, as the notes about it tell.

A note says what it tells of, how long it is, and is sealed by a SHA-1. What comes behind the first that is torn tells nothing.
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

from gitstate.digest import sha1
from gitstate.durable import Directory
from gitstate.medium import NotAFileError
from gitstate.store.packindex import Columns
from gitstate.store.packs import HEADER_SIZE

_NOTE = struct.Struct(">cI20s")  # what it tells of, how long it is, and the SHA-1 of that and all of it
STRETCH = struct.Struct(">IIQQI20s")  # as in :class:`Stretch`
FIRST = struct.Struct(">H")  # byte of the ids that are listed next


class OtherwiseError(Exception):
    """What was written is not what is there."""


class Stretch(NamedTuple):
    """What one step copied: of which old pack, how it goes on, up to where the body goes, how many entries, and a digest."""

    number: int
    next_number: int
    next_offset: int
    end: int
    entries: int
    digest: bytes


class Progress:
    """How far the joining of some packs is, as the notes tell."""

    def __init__(self) -> None:
        self.noted = 0  # bytes of notes
        self.number = 0  # of the old pack that is copied now
        self.offset = HEADER_SIZE  # from where on
        self.end = 0  # of the body
        self.entries = 0
        self.stretches: list[Stretch] = []
        self.runs: dict[int, array[int]] = {}  # of each old pack: from where, up to where, to where
        self.first = 0  # byte of the ids that are listed next
        self.counts: list[int] = []
        self.columns: list[Columns] = []
        self.checksum = b""  # of the pack, once it ends with that

    def follow(self, kind: bytes, raw: bytes) -> None:
        """What another note tells."""
        if kind == b"s":
            stretch = Stretch(*STRETCH.unpack_from(raw))
            self.stretches.append(stretch)
            self.runs.setdefault(stretch.number, array("Q")).frombytes(raw[STRETCH.size :])
            self.number, self.offset, self.end = stretch.next_number, stretch.next_offset, stretch.end
            self.entries += stretch.entries
            return
        if kind == b"t":
            self.checksum, self.end = raw, self.end + len(raw)
            return
        (following,) = FIRST.unpack_from(raw)
        counts, places, checksums = array("I"), array("I"), array("I")
        at = FIRST.size + counts.itemsize * (following - self.first)
        counts.frombytes(raw[FIRST.size : at])
        total = sum(counts)
        names, at = raw[at : at + 20 * total], at + 20 * total
        places.frombytes(raw[at : at + places.itemsize * total])
        checksums.frombytes(raw[at + places.itemsize * total :])
        self.counts += counts
        self.columns.append(([names], places, checksums))
        self.first = following


def noted(directory: Directory, name: str) -> Progress:
    """How far it is, as the notes tell up to the first that is torn."""
    try:
        raw = directory.read(name) or b""
    except NotAFileError:
        raise OtherwiseError from None
    progress = Progress()
    while len(raw) >= progress.noted + _NOTE.size:
        kind, size, digest = _NOTE.unpack_from(raw, progress.noted)
        begins = progress.noted + _NOTE.size
        contents = raw[begins : begins + size]
        if len(contents) != size or sha1(kind + contents) != digest:
            break
        try:
            progress.follow(kind, contents)
        except (struct.error, ValueError):
            raise OtherwiseError from None
        progress.noted = begins + size
    return progress


def note(directory: Directory, name: str, progress: Progress, kind: bytes, *parts: bytes) -> None:
    """Note what was done next; whatever stands behind the last note is written over."""
    contents = b"".join(parts)
    head = _NOTE.pack(kind, len(contents), sha1(kind + contents))
    directory.extend(name, head + contents, progress.noted)
