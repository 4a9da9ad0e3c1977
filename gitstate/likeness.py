"""What two versions of a text have in common, found at the speed at which memory is compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

_FEW: Final = 256  # bytes in which the first that differs is computed, not searched for


_ANCHOR: Final = 24  # bytes that are looked for to find where two texts agree again
_PLACES: Final = 4  # where they are looked at in one of the texts
_ENOUGH: Final = 256  # bytes that agree beyond what is passed over: nothing better is looked for
_LINES: Final = 256  # lines of which they are the beginning
_NEAR: Final = 1 << 16  # bytes in which they are looked for
_LOOK: Final = 1 << 12  # bytes that could be searched while one place is looked at
_EFFORT: Final = 32  # bytes that are searched for each byte of the two texts, and
_AT_FIRST: Final = 1 << 24  # bytes in any case; after that, two texts that part again and again are only
_BRIEFLY: Final = (4, 1, 1 << 10)  # so many lines looked for, at so many places, so near


class Run(NamedTuple):
    """Bytes that two texts have in common: from where on in the one and in the other, and how many."""

    here: int
    there: int
    size: int


_newest: tuple[bytes, bytes, Sequence[Run]] = b"", b"", ()


def common_runs(one: bytes, other: bytes) -> Sequence[Run]:
    """What *other* has of *one*, in order. More may be there than is found: records keep the order of their lines."""
    # A state is compared with the one before when it is encoded, and soon again when it is stored.
    global _newest  # noqa: PLW0603
    found = _newest
    if found[0] is not one or found[1] is not other:
        _newest = found = one, other, tuple(_runs(one, other))
    return found[2]


def _runs(one: bytes, other: bytes) -> Iterator[Run]:
    run = Run(0, 0, _common_start(one, other))
    left = _AT_FIRST + _EFFORT * (len(one) + len(other))
    while True:
        here, there, size = run
        if size:
            yield run
        if there + size == len(other):
            return
        run, spent = _meeting(one, other, here + size, there + size, is_brief=left < 0)
        left -= spent


def unlike_lines(one: bytes, other: bytes) -> bytes:
    """The lines of *other* but for those that were found to be whole lines of *one* as well."""
    lines: list[bytes] = []
    done = 0
    for run in common_runs(one, other):
        stop = run.there + run.size
        # Right after a line break, a line begins in both.
        start = 0 if run.here == run.there == 0 else other.find(b"\n", run.there, stop) + 1
        end = other.rfind(b"\n", run.there, stop) + 1
        if start < end:
            lines.append(other[done:start])
            done = end
    lines.append(other[done:])
    return b"".join(lines)


def _meeting(one: bytes, other: bytes, here: int, there: int, *, is_brief: bool) -> tuple[Run, int]:
    """Where two texts that part at *here* and *there* agree again, and what it took to find, in bytes searched."""
    # Lists have many lines that begin alike: what counts is how much agrees from there on, less what is passed over.
    best: Run | None = None
    gained = -len(one) - len(other)
    enough = min(_ENOUGH, (len(other) - there) // 8)
    line = other.find(b"\n", there)
    lines, places, near = _BRIEFLY if is_brief else (_LINES, _PLACES, _NEAR)
    spent = 0
    for _ in range(lines):
        anchor = other[line : line + _ANCHOR]
        if line < 0 or len(anchor) < _ANCHOR or gained >= enough - (line - there):
            break
        found = here - 1
        for _ in range(places):
            begin, end = found + 1, min(here + near, len(one))
            found = one.find(anchor, begin, end)
            spent += _LOOK + (end if found < 0 else found) - begin
            if found < 0:
                break
            same = _common_start(one, other, found, line)
            spent += same
            gain = same - (found - here) - (line - there)
            if gain > gained:
                best, gained = Run(found, line, same), gain
                if gained >= enough:
                    break
        line = other.find(b"\n", line + 1)
    if best is None:
        same = _common_end(one, other, min(len(one) - here, len(other) - there))
        best = Run(len(one) - same, len(other) - same, same)
    return best, spent


def _common_start(one: bytes, other: bytes, here: int = 0, there: int = 0) -> int:
    """How many bytes are the same from *here* in *one* and from *there* in *other* on."""
    most = min(len(one) - here, len(other) - there)
    # What differs soon is the usual case, then what does not differ at all.
    same, end = 0, min(_FEW, most)
    if one.startswith(other[there : there + end], here):
        view = memoryview(other)[there:]
        same, end = end, most
        if one.startswith(view[same:end], here + same):
            return most
        while end - same > _FEW:
            middle = (same + end) // 2
            if one.startswith(view[same:middle], here + same):
                same = middle
            else:
                end = middle
    return same + _alike(one[here + same : here + end], other[there + same : there + end], "big")


def _common_end(one: bytes, other: bytes, most: int) -> int:
    """How many bytes, at most *most*, are the same at the end of both."""
    same, end = 0, min(_FEW, most)
    if one.endswith(other[len(other) - end :]):
        view = memoryview(other)
        same, end = end, most
        while end - same > _FEW:
            middle = (same + end + 1) // 2
            if one.endswith(view[len(other) - middle : len(other) - same], 0, len(one) - same):
                same = middle
            else:
                end = middle
    return same + _alike(one[len(one) - end : len(one) - same], other[len(other) - end : len(other) - same], "little")


def _alike(one: bytes, other: bytes, order: Literal["big", "little"]) -> int:
    """How many bytes of two of one length are the same, from the beginning (``big``) or from the end (``little``)."""
    differing = int.from_bytes(one, order) ^ int.from_bytes(other, order)
    return len(one) - (differing.bit_length() + 7) // 8
