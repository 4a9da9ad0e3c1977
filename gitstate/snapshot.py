"""What a revision says, with changes laid over it: the value that transitions take and give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from gitstate import layout
from gitstate.encoding import Json, Record, fresh, parse
from gitstate.errors import CorruptStateError, LoopNotFoundError
from gitstate.fields import DERIVED_IN_ENTRY, difference, entries_of
from gitstate.ids import is_servable
from gitstate.layout import ARCHIVE, LOOPS, REGISTRY, Place
from gitstate.records import fresh_record, known_record, valid_record, written_record
from gitstate.registry import new_registry

if TYPE_CHECKING:
    from gitstate.results import FieldChange


class Tree(Protocol):
    """The files of one revision. ``revision`` is its commit id."""

    @property
    def revision(self) -> str | None: ...

    def read(self, path: str) -> bytes | None:
        """The bytes of a versioned file, ``None`` if it has none of that name."""
        ...

    def loops(self, area: str) -> Sequence[str]:
        """The ids with a session state in ``loops`` or ``archive``, sorted."""
        ...

    def tags(self, loop_id: str) -> Sequence[str]:
        """The archive and checkpoint refs that exist for a loop, whatever the revision."""
        ...


class Nothing:
    """The tree of no revision."""

    revision = None

    def read(self, path: str) -> bytes | None:
        return None

    def loops(self, area: str) -> Sequence[str]:
        return ()

    def tags(self, loop_id: str) -> Sequence[str]:
        return ()


class Overlay:
    """A settled snapshot as the tree that it would be, to begin from."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._contents = snapshot.contents()
        self.revision = snapshot.revision

    def read(self, path: str) -> bytes | None:
        return self._contents[path] if path in self._contents else self._snapshot.tree.read(path)

    def loops(self, area: str) -> Sequence[str]:
        return self._snapshot.loops(area)

    def tags(self, loop_id: str) -> Sequence[str]:
        return self._snapshot.tree.tags(loop_id)


class Compared(NamedTuple):
    """A record before and after, of a loop or, without one, of the registry."""

    loop_id: str | None
    before: Record | None
    after: Record | None


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """An immutable view: *tree* with *edits* (``None``: removed), new *tags*, and bytes to be taken *verbatim*."""

    tree: Tree
    edits: Mapping[str, Record | None] = field(default_factory=dict)
    verbatim: Mapping[str, bytes] = field(default_factory=dict)
    new_tags: tuple[str, ...] = ()

    # --- looking ---

    @property
    def revision(self) -> str | None:
        """The revision below; changes may lie over it."""
        return self.tree.revision

    def record(self, path: str) -> Record | None:
        """The record at *path*, or ``None``.

        Raises:
            CorruptStateError: what the revision holds there is not a valid record.
        """
        if path in self.edits:
            return self.edits[path]
        raw = self.tree.read(path)
        return None if raw is None else known_record(path, raw, self.tree.revision)

    @property
    def registry(self) -> Record:
        """The registry; an empty one where there is none yet."""
        found = self.record(REGISTRY)
        return new_registry() if found is None else found

    @property
    def entries(self) -> dict[str, Record]:
        """The registry's entries by id, in its order."""
        return entries_of(self.registry)

    def loops(self, area: str = LOOPS) -> list[str]:
        """The ids with a session state in *area*, sorted."""
        found = set(self.tree.loops(area))
        for path, record in self.edits.items():
            place = layout.place_of(path)
            if place is not None and place.area == area:
                (found.discard if record is None else found.add)(place.loop_id)
        return sorted(found)

    def place(self, loop_id: str) -> Place | None:
        """Where the session state of a loop lies."""
        for area in (LOOPS, ARCHIVE):
            place = Place(area, loop_id)
            if place.path in self.edits:
                if self.edits[place.path] is not None:
                    return place
            elif self.tree.read(place.path) is not None:
                return place
        return None

    def tags(self, loop_id: str) -> list[str]:
        """The tags of a loop, those asked for here included."""
        mine = (f"{layout.ARCHIVE_TAGS}{loop_id}", f"{layout.CHECKPOINT_TAGS}{loop_id}/")
        return [*self.tree.tags(loop_id), *(tag for tag in self.new_tags if tag.startswith(mine))]

    def find(self, loop_id: str) -> tuple[Place, Record]:
        """A loop, active or archived.

        Raises:
            LoopNotFoundError: there is none of that id.
        """
        place = self.place(loop_id)
        record = None if place is None else self.record(place.path)
        if place is None or record is None:
            raise self.unknown(loop_id)
        return place, record

    def active(self, loop_id: str) -> Record:
        """The session state of an active loop.

        Raises:
            LoopNotFoundError: there is none; the hint says how to get an archived one back.
        """
        place, record = self.find(loop_id)
        if place.area != LOOPS:
            raise LoopNotFoundError(
                f"{loop_id} is archived, not active", hint=f"gitstate restore {loop_id}", loop_id=loop_id
            )
        return record

    def unknown(self, loop_id: str) -> LoopNotFoundError:
        """The error for an id that no loop has, with those that look like it; or that of a loop that was pruned."""
        if is_servable(loop_id) and any(ref.startswith(layout.ARCHIVE_TAGS) for ref in self.tags(loop_id)):
            return LoopNotFoundError(
                f"{loop_id} was pruned: only history has it", hint=f"gitstate restore {loop_id}", loop_id=loop_id
            )
        import difflib  # only on the way to an error

        known = [*self.loops(), *self.loops(ARCHIVE)]
        close = difflib.get_close_matches(loop_id, known, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        return LoopNotFoundError(
            f"no loop {loop_id!r:.120}{meant}", hint="gitstate list", loop_id=loop_id, close=tuple(close)
        )

    # --- changing ---

    def with_record(self, path: str, record: Record | None) -> Snapshot:
        return Snapshot(self.tree, {**self.edits, path: record}, self.verbatim, self.new_tags)

    def with_state(self, loop_id: str, record: Record) -> Snapshot:
        """The active loop's session state replaced."""
        return self.with_record(layout.state_path(loop_id), record)

    def with_registry(self, **keys: Json) -> Snapshot:
        """Top-level keys of the registry replaced."""
        return self.with_record(REGISTRY, {**self.registry, **keys})

    def with_entry(self, entry: Record) -> Snapshot:
        """An entry replaced, or added at the end."""
        entries = {**self.entries, str(entry["loop_id"]): entry}
        return self.with_registry(active_loops=list(entries.values()))

    def with_tag(self, ref: str) -> Snapshot:
        return replace(self, new_tags=(*self.new_tags, ref))

    def with_bytes(self, path: str, raw: bytes) -> Snapshot:
        """A file taken as it is; it must be a valid record."""
        record = valid_record(path, raw)
        return replace(self, edits={**self.edits, path: record}, verbatim={**self.verbatim, path: raw})

    # --- the revision below ---

    def before(self, path: str) -> Record | None:
        """The record at *path* in the revision below; ``None`` where it is damaged, too."""
        raw = self.tree.read(path)
        try:
            return None if raw is None else known_record(path, raw)
        except CorruptStateError:
            return None

    def readable(self, path: str) -> Record | None:
        """The record at *path*; ``None`` where it is damaged, too: a repair of its own follows."""
        return self.edits[path] if path in self.edits else self.before(path)

    def moved_from(self, path: str) -> Record | None:
        """The record that the revision below has on the other side of an archive move; ``None`` if nothing moves."""
        place = layout.place_of(path)
        if place is None or self.edits.get(place.other.path, ...) is not None:
            return None
        return self.before(place.other.path)

    def fresh(self, loop_id: str) -> Record:
        """The session state of a loop, active or archived, which the caller may change.

        Raises:
            LoopNotFoundError: there is none of that id.
        """
        place, record = self.find(loop_id)
        raw = None if place.path in self.edits else self.tree.read(place.path)
        return cast("Record", fresh(record)) if raw is None else fresh_record(place.path, raw)

    # --- what came of it ---

    def contents(self) -> dict[str, bytes | None]:
        """The files that differ from the revision below, encoded; ``None`` for a removed one."""
        contents: dict[str, bytes | None] = {}
        for path, record in self.edits.items():
            if record is None:
                contents[path] = None
            elif path in self.verbatim and parse(self.verbatim[path]) == record:
                contents[path] = self.verbatim[path]
            else:
                contents[path] = self._moved_bytes(path, record) or written_record(path, record, self._below(path))
        return {path: raw for path, raw in contents.items() if raw != self.tree.read(path)}

    def _below(self, path: str) -> bytes | None:
        """What the revision below has at *path*, or else on the other side of an archive move."""
        raw, place = self.tree.read(path), layout.place_of(path)
        return self.tree.read(place.other.path) if raw is None and place is not None else raw

    def _moved_bytes(self, path: str, record: Record) -> bytes | None:
        place = layout.place_of(path)
        return self.tree.read(place.other.path) if place is not None and self.moved_from(path) == record else None

    def changes(self) -> list[FieldChange]:
        """The fields in which this differs from the revision below."""
        return changes_of(self.compared())

    def compared(self) -> list[Compared]:
        """The records that tell :meth:`changes`, read now."""
        touched = dict.fromkeys(place.loop_id for place in map(layout.place_of, self.edits) if place is not None)
        return list(_compared(Snapshot(self.tree), self, touched, registry=REGISTRY in self.edits))

    def state_or_none(self, loop_id: str) -> Record | None:
        """The session state of a loop wherever it lies; ``None`` without one, or with a damaged one."""
        try:
            place = self.place(loop_id)
            return None if place is None else self.record(place.path)
        except CorruptStateError:
            return None


def difference_between(
    before: Snapshot, after: Snapshot, loop_ids: Iterable[str] | None = None, *, registry: bool = True
) -> list[FieldChange]:
    """The fields in which two snapshots differ: of the given loops, or of all; then what only the registry knows."""
    names = loop_ids
    if names is None:
        names = dict.fromkeys(i for each in (before, after) for area in (LOOPS, ARCHIVE) for i in each.loops(area))
    return changes_of(_compared(before, after, names, registry=registry))


def _compared(before: Snapshot, after: Snapshot, loop_ids: Iterable[str], *, registry: bool) -> Iterator[Compared]:
    for loop_id in loop_ids:
        yield Compared(loop_id, before.state_or_none(loop_id), after.state_or_none(loop_id))
    if registry:
        yield Compared(None, _by_id(before), _by_id(after))


def changes_of(pairs: Iterable[Compared]) -> list[FieldChange]:
    """The fields in which records differ from what they were."""
    return [_detached(change) for pair in pairs for change in difference(pair.before, pair.after, loop_id=pair.loop_id)]


def _detached(change: FieldChange) -> FieldChange:
    """The same, with values of its own: what it was made from is shared."""
    if not isinstance(change.before, dict | list) and not isinstance(change.after, dict | list):
        return change
    return replace(change, before=fresh(cast("Json", change.before)), after=fresh(cast("Json", change.after)))


def _by_id(snapshot: Snapshot) -> Record | None:
    """The registry without what follows from the session states, its entries by id: positions shift, ids do not."""
    try:
        registry = snapshot.record(REGISTRY)
    except CorruptStateError:
        return None
    if registry is None:
        return None
    entries: Record = {
        loop_id: {key: item for key, item in entry.items() if key not in DERIVED_IN_ENTRY}
        for loop_id, entry in entries_of(registry).items()
    }
    kept = {key: item for key, item in registry.items() if key not in ("total_active", "updated_at")}
    return {**kept, "active_loops": entries}
