"""Hints: in which of the large packs an object cannot be. There are the more of these the longer history is.

They only say where to look last, so nothing depends on them: what is found nowhere else is looked for there as well.
They are derived, and never synced.

The file is a head, the names of packs, each in its place, and a plane of 128 KiB for each eight of them: a byte for each
beginning of an id, with a bit for each pack that has such ids.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from itertools import islice

from gitstate.durable import Directory
from gitstate.errors import StorageError
from gitstate.layout import HINTS
from gitstate.store.packindex import PackDamagedError, Pieces

FEWEST, MOST = 2048, 1 << 17  # objects in a pack that is worth a hint: one that has more may have almost any object
_HEAD = struct.Struct(">8sI")  # magic, and how many places there are
_MAGIC = b"GSHINTS1"
_NAME = re.compile(r"pack-([0-9a-f]{40})")
_NOBODY = bytes(20)
_PLANE = 1 << 17
_MOST = 4096  # places


class Hints:
    """What the file says. For one thread at a time."""

    def __init__(self, directory: Directory) -> None:
        self.names: list[str] = []  # by their places; one that is free has an empty name
        self._pieces: Pieces | None = None
        self._planes = 0  # where they begin
        try:
            self._pieces = Pieces(directory.opened(HINTS), HINTS)
            self._begin(self._pieces)
        except (StorageError, PackDamagedError, OSError):
            self.names = []

    def _begin(self, pieces: Pieces) -> None:
        magic, count = _HEAD.unpack(pieces.all(0, _HEAD.size))
        self._planes = _HEAD.size + 20 * count
        if magic == _MAGIC and count <= _MOST and pieces.size == self._planes + _PLANE * -(-count // 8):
            names = pieces.all(_HEAD.size, 20 * count)
            each = (names[at : at + 20] for at in range(0, len(names), 20))
            self.names = ["" if name == _NOBODY else f"pack-{name.hex()}" for name in each]

    def without(self, object_id: bytes) -> frozenset[str]:
        """The packs that cannot have an object."""
        found: list[str] = []
        for plane in range(-(-len(self.names) // 8)):
            bits = self._some(self._planes + plane * _PLANE + _beginning(object_id, 0), 1)
            names = self.names[plane * 8 : plane * 8 + 8]
            found += [name for place, name in enumerate(names) if bits and not bits[0] >> place & 1]
        return frozenset(found)

    def plane(self, number: int) -> bytes:
        """A plane as it is, or one that says nothing."""
        raw = self._some(self._planes + number * _PLANE, _PLANE) if number * 8 < len(self.names) else b""
        return raw if len(raw) == _PLANE else b"\xff" * _PLANE

    def _some(self, offset: int, size: int) -> bytes:
        try:
            return b"" if self._pieces is None else self._pieces.some(offset, size)
        except (StorageError, PackDamagedError):
            return b""

    def close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()


def note_hints(directory: Directory, packs: Collection[str], ids: Callable[[str], Iterable[bytes]], most: int) -> None:
    """Have hints about *packs* and no others; at most so many new ones, whose *ids* are asked for, one after the other.

    Raises:
        StorageError: the file system refused.
        PackDamagedError: the ids of a pack cannot be read.
    """
    with closing(Hints(directory)) as known:
        names = [name if name in packs else "" for name in known.names]
        new = list(islice((name for name in packs if name not in names and _NAME.fullmatch(name)), most))
        if names == known.names and not new:
            return
        planes = [bytearray(known.plane(number)) for number in range(-(-len(names) // 8))]
    for name in new:
        place = names.index("") if "" in names else len(names)
        names[place : place + 1] = [name]
        if place // 8 == len(planes):
            planes.append(bytearray(_PLANE))
        bit = 1 << place % 8
        plane = planes[place // 8] = planes[place // 8].translate(bytes(byte & ~bit for byte in range(256)))
        for some in ids(name):
            for at in range(0, len(some), 20):
                plane[_beginning(some, at)] |= bit
    parts = [bytes.fromhex(name.removeprefix("pack-")) if name else _NOBODY for name in names]
    if len(names) <= _MOST:
        directory.write(HINTS, b"".join([_HEAD.pack(_MAGIC, len(names)), *parts, *planes]), durable=False)


def _beginning(ids: bytes, at: int) -> int:
    return ids[at] << 9 | ids[at + 1] << 1 | ids[at + 2] >> 7
