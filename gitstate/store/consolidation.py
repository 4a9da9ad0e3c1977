"""Which packs are joined, and when: eight of a size become one, so that there are few of them, and each object moves rarely."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial

from gitstate.durable import Directory
from gitstate.errors import StorageError
from gitstate.medium import NotAFileError
from gitstate.store.hints import FEWEST, MOST, note_hints
from gitstate.store.joining import Joined, join
from gitstate.store.packindex import PackDamagedError, PackIndex, count_in, separate
from gitstate.store.packs import DERIVED, PACKS, open_index, pack_names

_TOGETHER = 8
_AT_MOST = 64  # packs that are open at once
_LARGE = 1 << 18  # the weight up to which a pack is joined with others at all: 50 MB, or 40,000 mutations
_LARGEST = 28_672  # the weight that is joined at once: a mutation may have to wait while it is copied
_HINTS = 2  # packs about which hints are made at once: that takes some 10 ms each
_USUAL = 192  # bytes of an entry; those that are longer weigh more than one


def consolidate(directory: Directory, *, leaving: Container[str] = ()) -> Joined | None:
    """Join a few packs of about the same size, if there are that many; what came of it, ``None`` if there are not.

    Eight become one, which is then one of eight for the next. What is joined at once is bounded, and so is the pause:
    nothing large is ever joined here. Nothing depends on who holds the lease, or on how many do this at once.

    Args:
        leaving: packs that are left as they are.

    Raises:
        StorageError: the file system refused; all packs are still there, and maybe the new one too.
    """
    remove_spent(directory)
    chosen = choose({name: weight for name, weight in joinable(directory).items() if name not in leaving})
    joined = join(directory, chosen) if chosen else None
    if joined is not None:
        hint(directory, _HINTS)
    return joined


def hint(directory: Directory, most: int = _AT_MOST) -> None:
    """Keep the hints about large packs as packs come and go; at most so many new ones."""
    sizes = {name: directory.status(f"{PACKS}/{name}.idx") for name in pack_names(directory)}
    large = [name for name, found in sizes.items() if found is not None and FEWEST <= count_in(found.st_size) <= MOST]
    with suppress(PackDamagedError, StorageError):  # they are only hints
        note_hints(directory, large, partial(_ids, directory), most)


def _ids(directory: Directory, name: str) -> Iterator[bytes]:
    with closing(open_index(directory, name)) as index:
        yield from (index.names(first, first)[1] for first in range(256))


def choose(weights: Mapping[str, int]) -> list[str]:
    """The packs to be joined now, in the order of *weights*; none, if there are too few of a size.

    Sizes are told apart by the number of octal digits of the weight, so eight of a size make one of the next.
    """
    sizes: dict[int, list[str]] = {}
    for name in sorted(weights, key=lambda name: weights[name]):
        sizes.setdefault(weights[name].bit_length() // 3, []).append(name)
    for _, names in sorted(sizes.items()):
        chosen: list[str] = []
        for name in names[:_TOGETHER] if len(names) >= _TOGETHER else []:
            if sum(weights[other] for other in chosen) + weights[name] <= _LARGEST:
                chosen.append(name)
        if len(chosen) > 1:
            return [name for name in weights if name in chosen]
    return []


def choose_large(weights: Mapping[str, int]) -> list[str]:
    """The packs to be joined step by step, in the order of *weights*; none, if there are too few.

    They are the first of those that are too large to be joined at once: whatever comes meanwhile, it stays with them.
    """
    large = [name for name, weight in weights.items() if _LARGEST // 2 < weight <= _LARGE // 2]
    chosen: list[str] = []
    for name in large[:_TOGETHER] if len(large) >= _TOGETHER else []:
        if sum(weights[other] for other in chosen) + weights[name] <= _LARGE:
            chosen.append(name)
    return chosen


def gather(weights: Mapping[str, int]) -> list[str]:
    """The packs to be joined next by whoever has time, in the order of *weights*; none, when as few are left as there can be.

    The smallest go first, so that none is copied often. What is large stays: a copy of everything would want as much
    room on the disk again, and more memory the longer history is.
    """
    chosen: list[str] = []
    total = 0
    for name in sorted(weights, key=lambda name: weights[name])[:_AT_MOST]:
        total += weights[name]
        if total > _LARGE:
            break
        chosen.append(name)
    return [name for name in weights if name in chosen] if len(chosen) > 1 else []


def joinable(directory: Directory) -> dict[str, int]:
    """The packs that may be joined, the oldest first, with their weights, in entries of usual length.

    They are pairs that nobody wants kept as they are.
    """
    endings: dict[str, set[str]] = {}
    for file in directory.names(PACKS):
        name, dot, ending = file.partition(".")
        endings.setdefault(name, set()).add(dot + ending)
    found = [
        name
        for name, there in endings.items()
        if name.startswith("pack-") and {".pack", ".idx"} <= there <= {".pack", ".idx", *DERIVED}
    ]
    with directory.kept_open():
        found.sort(key=lambda name: age_of(directory, name))
        return {name: weight_of(directory, name) for name in found}


def age_of(directory: Directory, name: str) -> int:
    """By which the pack comes first that was written first."""
    pack = directory.status(f"{PACKS}/{name}.pack")
    return 0 if pack is None else pack.st_mtime_ns


def weight_of(directory: Directory, name: str) -> int:
    """How much a pack weighs, in entries of usual length."""
    index, pack = (directory.status(f"{PACKS}/{name}{ending}") for ending in (".idx", ".pack"))
    return 0 if index is None or pack is None else max(count_in(index.st_size), pack.st_size // _USUAL)


# --- what a kill leaves ----------------------------------------------------------------------------------------------


def remove_spent(directory: Directory) -> None:
    """Remove the indexes without a pack that are not needed."""
    for name in [name for name in pack_names(directory) if _is_alone(directory, name)]:
        if is_spent(directory, name):
            directory.discard(f"{PACKS}/{name}.idx")


def is_spent(directory: Directory, name: str) -> bool:
    """Whether a name is that of an index without a pack, all of whose objects lie elsewhere, in packs or by themselves."""
    if not _is_alone(directory, name):
        return False
    with ExitStack() as stack, directory.kept_open():
        indexes = []
        for other in sorted(pack_names(directory), key=lambda other: other != name):
            if other == name or not _is_alone(directory, other):
                try:
                    indexes.append(stack.enter_context(closing(open_index(directory, other))))
                except (PackDamagedError, NotAFileError):
                    if other == name:
                        return False
        if not indexes[0].pieces.is_sealed():
            return False
        return all(_is_elsewhere(directory, first, *indexes) for first in range(256))


def _is_alone(directory: Directory, name: str) -> bool:
    return directory.status(f"{PACKS}/{name}.pack") is None


def _is_elsewhere(directory: Directory, first: int, index: PackIndex, *others: PackIndex) -> bool:
    missing = set(separate(index.names(first, first)[1]))
    for other in sorted(others, key=lambda other: -other.count):
        if not missing:
            break
        missing.difference_update(separate(other.names(first, first)[1]))
    loose = {f"{first:02x}{rest}" for rest in directory.names(f".git/objects/{first:02x}")} if missing else set()
    return {object_id.hex() for object_id in missing} <= loose
