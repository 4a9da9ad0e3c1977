"""Collecting garbage: a few files where there were many. Nothing is thrown away, whether anything leads to it or not.

Whoever does not want to wait need not: the lease is held only to look around and to remove loose files, and what is
half done when it ends harms nothing. Why packs may be joined while others read and write: ``store/joining.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from gitstate import layout
from gitstate.audit import Progress
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, warn_of_damage
from gitstate.guard import BRIEFLY
from gitstate.marks import size_of
from gitstate.reports import GarbageReport
from gitstate.store import inspection
from gitstate.store.consolidation import gather, hint, joinable, remove_spent, weight_of
from gitstate.store.gathering import gathered
from gitstate.store.joining import join
from gitstate.store.objects import OBJECTS, path_of
from gitstate.store.packindex import count_in
from gitstate.store.packs import PACKS, pack_names
from gitstate.store.stepwise import drop_stale
from gitstate.store.tags import pack_tags
from gitstate.transaction import Writer

_TOGETHER = 64  # packs that are joined at once


def collect(writer: Writer, *, dry_run: bool, progress: Progress | None = None) -> GarbageReport:
    """A few packs of all packs and loose objects, and one file of all tags; what it came to.

    Raises:
        LeaseTimeoutError: the lease was not to be had in time; what was done until then stays done.
        StorageError: the file system refused; nothing is lost.
    """
    directory, began = writer.directory, writer.clock.monotonic()
    before = _Measure(directory)
    if inspection.inspect(directory) == "none":
        return before.report(before, writer.clock.monotonic() - began)
    if dry_run:
        return before.report(before.foreseen(), writer.clock.monotonic() - began)
    with writer.leased("gc"), writer.keeper.guard.hold(max(writer.lock_timeout, BRIEFLY)):
        _pack_tags(writer, progress)
        remove_spent(directory)
        weights = joinable(directory)
    for name in _gather(writer, progress):
        weights[name] = weight_of(directory, name)
    _join(directory, weights, progress)
    writer.revisions.objects.forget()
    return before.report(_Measure(directory), writer.clock.monotonic() - began)


def _pack_tags(writer: Writer, progress: Progress | None) -> None:
    try:
        count = pack_tags(writer.revisions.refs, writer.revisions.peel)
    except CorruptStateError as error:
        warn_of_damage(f"{error.message}; the tags stay as they are: gitstate repair")
        return
    if progress is not None:
        progress("tags", count, count)


def _gather(writer: Writer, progress: Progress | None) -> list[str]:
    """Loose objects into packs; the packs. A loose file goes while nobody is about to count on it."""
    objects, directory = writer.revisions.objects, writer.directory
    names, done = [], 0
    for name, object_ids in gathered(objects):
        with writer.leased("gc"):
            _remove_loose(directory, object_ids)
        names.append(name)
        done += len(object_ids)
        if progress is not None:
            progress("loose objects", done, 0)
    return names


def _remove_loose(directory: Directory, object_ids: Iterable[str]) -> None:
    fans: dict[str, None] = {}
    for object_id in object_ids:
        path = path_of(object_id)
        directory.discard(path)
        fans[path.rpartition("/")[0]] = None
    for fan in fans:
        directory.remove_empty(fan)


def _join(directory: Directory, weights: dict[str, int], progress: Progress | None) -> None:
    copied = 0

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("objects", copied + done, 0)

    while names := gather(weights):
        joined = join(directory, names, told)
        copied += joined.objects
        for name in names:
            del weights[name]
        if joined.name is not None:
            weights[joined.name] = weight_of(directory, joined.name)
        for name, damage in joined.damage.items():
            warn_of_damage(f"{PACKS}/{name}.pack is damaged ({damage}) and stays as it is: gitstate repair")
    drop_stale(directory)
    hint(directory)


class _Measure:
    """What ``.git`` takes at one moment."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.bytes = size_of(directory.path / layout.GIT)
        self.packs = len(pack_names(directory))
        self.packed = 0
        for name in pack_names(directory):
            index = directory.status(f"{PACKS}/{name}.idx")
            self.packed += 0 if index is None else count_in(index.st_size)
        self.loose = sum(len(directory.names(f"{OBJECTS}/{fan}")) for fan in _fans(directory))

    def foreseen(self) -> _Measure:
        """What it would take afterwards, about."""
        after, weights = _Measure(self.directory), joinable(self.directory)
        if self.loose:
            weights["loose"] = self.loose
            after.packs += 1
        while names := gather(weights):
            weights[f"{len(weights)} of them"] = sum(weights.pop(name) for name in names)
            after.packs -= len(names) - 1
            after.bytes -= 1104 * (len(names) - 1)
        after.packed, after.loose = self.packed + self.loose, 0
        return after

    def report(self, after: _Measure, seconds: float) -> GarbageReport:
        return GarbageReport(
            bytes_before=self.bytes,
            bytes_after=after.bytes,
            objects=after.packed + after.loose,
            packs_before=self.packs,
            packs_after=after.packs,
            seconds=round(seconds, 3),
        )


def _fans(directory: Directory) -> list[str]:
    return [name for name in directory.names(OBJECTS) if len(name) == 2]
