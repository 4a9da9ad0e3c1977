"""What an object was before, found in the pack that it is copied into: it becomes a difference from that.

Each epoch begins with whole objects, since a pack holds everything that its entries build upon. When packs are joined,
what those objects were in the epoch before is in the same pack. Nobody says which it is; it is what begins like them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import NamedTuple

from gitstate.store.entries import relative, unpacked
from gitstate.store.objects import KINDS, Stored
from gitstate.store.packs import entry_in

SHORTEST = 400  # bytes of an entry with which this is worth it
_LONGEST = 64 * 1024  # bytes of an object: a mutation may have to wait for this
_KEPT = 32  # objects of a kind, the newest ones, among which it is looked for
_BEGINNING = 1024  # bytes by which it is known
_DEEPEST = 4  # entries that one may come to build upon whenever packs are joined, each on the next


class _Whole(NamedTuple):
    id: str
    stored: Stored
    depth: int


class Predecessors:
    """Objects that were whole before they were copied into one pack, the last few."""

    def __init__(self) -> None:
        self._kept: defaultdict[bytes, deque[_Whole]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def shortened(self, object_id: str, entry: bytes) -> bytes:
        """An object's *entry*, or a shorter one that builds upon an object whose entry was asked about before."""
        head = entry_in(entry)
        if head.kind not in KINDS or head.size > _LONGEST:
            return entry
        try:
            stored = unpacked(entry, _nothing)
        except ValueError:
            return entry
        if stored.id != object_id:  # nothing is to depend on what is damaged
            return entry
        kept, depth = self._kept[stored.kind], 0
        before = max(kept, key=lambda other: _alike(other.stored.raw, stored.raw), default=None)
        if before is not None:
            made = relative(object_id, stored.raw, before.id, before.stored.raw)
            # The whole entry goes: what takes its place is read back before.
            if (
                made is not None
                and len(made.raw) < len(entry)
                and unpacked(made.raw, lambda _: before.stored) == stored
            ):
                entry, depth = made.raw, before.depth + 1
        if depth < _DEEPEST:
            kept.appendleft(_Whole(object_id, stored, depth))
        return entry


def _nothing(object_id: str) -> Stored:
    raise ValueError(object_id)


def _alike(one: bytes, other: bytes) -> int:
    """How many bytes two begin with alike, as far as it matters."""
    first, second = (int.from_bytes(raw[:_BEGINNING].ljust(_BEGINNING, b"\0"), "big") for raw in (one, other))
    return _BEGINNING - ((first ^ second).bit_length() + 7) // 8
