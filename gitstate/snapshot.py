"""What a revision says, with changes laid over it: the value that transitions take and give.

Registry and session states change together here. :meth:`Snapshot.settled` is
the one place that computes what the registry derives from the session states,
stamps revisions and times, and leaves out what did not really change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from gitstate import layout
from gitstate.clock import isoformat
from gitstate.encoding import Json, Record, encode, parse
from gitstate.errors import CorruptStateError, InvalidRecordError, LoopNotFoundError
from gitstate.fields import DERIVED_IN_ENTRY, STAMP, difference, entries_of, same
from gitstate.layout import ARCHIVE, LOOPS, REGISTRY, Place
from gitstate.records import REGISTRY_VERSION, damage_of_registry, damage_of_state, describe_damage, stamped
from gitstate.results import FieldChange

DEFAULT_LIMIT = 4
COUNTED_AS_COMPLETED = ("completed", "completing")


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


@dataclass(frozen=True)
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
        return None if raw is None else valid_record(path, raw, self.tree.revision)

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
        """The error for an id that no loop has, with those that look like it."""
        import difflib  # only on the way to an error

        known = [*self.loops(), *self.loops(ARCHIVE)]
        close = difflib.get_close_matches(loop_id, known, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        return LoopNotFoundError(
            f"no loop {loop_id!r:.120}{meant}", hint="gitstate list", loop_id=loop_id, close=tuple(close)
        )

    # --- changing ---

    def with_record(self, path: str, record: Record | None) -> Snapshot:
        return replace(self, edits={**self.edits, path: record})

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

    # --- settling ---

    def settled(self, now: datetime, *, owner: str = "user:unknown", whole: bool = False) -> Snapshot:
        """The same, brought in line: totals, entries, stamps and times as they follow; only real changes stay as edits.

        *owner* is for loops that have no entry yet. Entries of loops that are not touched are taken to agree, unless
        *whole* asks for all of them.
        """
        states = {path: record for path, record in self.edits.items() if path != REGISTRY}
        settled = replace(self, edits=self._stamped(states, now))
        before = self._before(REGISTRY)
        if before is None and REGISTRY not in self.edits and self.tree.read(REGISTRY) is not None:
            return settled  # damaged in the revision below: there is nothing to derive from before it is repaired
        registry = self._derived(before, owner, whole)
        if before is None or REGISTRY in self.verbatim or _changed(before, registry):
            settled = replace(settled, edits={**settled.edits, REGISTRY: self._dated_registry(before, registry, now)})
        return settled

    def _before(self, path: str) -> Record | None:
        raw = self.tree.read(path)
        try:
            return None if raw is None else valid_record(path, raw)
        except CorruptStateError:
            return None

    def _readable(self, path: str) -> Record | None:
        """The record at *path*, ``None`` where it is damaged, too: a repair of its own follows."""
        return self.edits[path] if path in self.edits else self._before(path)

    def _stamped(self, states: Mapping[str, Record | None], now: datetime) -> dict[str, Record | None]:
        kept: dict[str, Record | None] = {}
        for path, record in states.items():
            before = self._before(path)
            if record is None:
                if self.tree.read(path) is not None:
                    kept[path] = None
            elif path in self.verbatim:
                kept[path] = record
            else:
                origin = before or self._moved_from(path)
                if origin is None or _changed(origin, record):
                    # A merged edit brings its own time; whatever else changes, changes now.
                    dated = origin is not None and record.get("lastUpdate") != origin.get("lastUpdate")
                    kept[path] = stamped(record if dated else {**record, "lastUpdate": isoformat(now)}, origin)
                elif before is None:
                    kept[path] = origin
        return kept

    def _moved_from(self, path: str) -> Record | None:
        place = layout.place_of(path)
        if place is None or self.edits.get(place.other.path, ...) is not None:
            return None
        return self._before(place.other.path)

    def _derived(self, before: Record | None, owner: str, whole: bool) -> Record:
        registry, entries = self.registry, self.entries
        active = self.loops()
        ordered = [loop_id for loop_id in entries if loop_id in active]
        ordered += sorted((i for i in active if i not in entries), key=lambda i: (self._started(i), i))
        derived: list[Json] = []
        for loop_id in ordered:
            path = layout.state_path(loop_id)
            if whole or path in self.edits or loop_id not in entries:
                state = self._readable(path) or {}
                derived.append({**(entries.get(loop_id) or entry_of(loop_id, state, owner)), **derived_fields(state)})
            else:
                derived.append(entries[loop_id])
        # Where the registry is rebuilt from nothing, what lies in the archive is all that is known of the totals.
        known = before or self._readable(REGISTRY)
        completed, aborted = self._archived_in_all() if known is None else self._archived_since(known, active)
        return {
            **registry,
            "active_loops": derived,
            "total_active": len(derived),
            "total_completed": max(0, _number(registry, "total_completed") + completed),
            "total_aborted": max(0, _number(registry, "total_aborted") + aborted),
        }

    def _started(self, loop_id: str) -> str:
        return str((self._readable(layout.state_path(loop_id)) or {}).get("startTime", ""))

    def _archived_since(self, before: Record, active: Sequence[str]) -> tuple[int, int]:
        completed = aborted = 0
        touched = {place.loop_id for place in map(layout.place_of, self.edits) if place is not None}
        # A loop that has its entry yet and is not active was put away by somebody who did not get to count it.
        uncounted = entries_of(before).keys() - set(active)
        for loop_id in touched | uncounted:
            path = layout.archived_path(loop_id)
            if self.place(loop_id) is None or (path not in self.edits and loop_id not in uncounted):
                continue  # untouched, or pruned: it stays counted
            was = None if loop_id in uncounted else self._before(path)
            for record, step in ((was, -1), (self._readable(path), 1)):
                if record is not None:
                    counted = record.get("status") in COUNTED_AS_COMPLETED
                    completed, aborted = (completed + step, aborted) if counted else (completed, aborted + step)
        return completed, aborted

    def _archived_in_all(self) -> tuple[int, int]:
        statuses = [(self._readable(layout.archived_path(i)) or {}).get("status") for i in self.loops(ARCHIVE)]
        completed = sum(status in COUNTED_AS_COMPLETED for status in statuses)
        return completed, len(statuses) - completed

    def _dated_registry(self, before: Record | None, registry: Record, now: datetime) -> Record:
        if REGISTRY in self.verbatim and registry == self.edits[REGISTRY]:
            return registry
        return stamped({**registry, "updated_at": isoformat(now)}, before)

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
                contents[path] = self._moved_bytes(path, record) or encode(record)
        return {path: raw for path, raw in contents.items() if raw != self.tree.read(path)}

    def _moved_bytes(self, path: str, record: Record) -> bytes | None:
        place = layout.place_of(path)
        return self.tree.read(place.other.path) if place is not None and self._moved_from(path) == record else None

    def changes(self) -> list[FieldChange]:
        """The fields in which this differs from the revision below."""
        touched = dict.fromkeys(place.loop_id for place in map(layout.place_of, self.edits) if place is not None)
        return difference_between(Snapshot(self.tree), self, touched, registry=REGISTRY in self.edits)

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
    both = (before, after)
    names = loop_ids
    if names is None:
        names = dict.fromkeys(i for snapshot in both for area in (LOOPS, ARCHIVE) for i in snapshot.loops(area))
    found: list[FieldChange] = []
    for loop_id in names:
        found += difference(before.state_or_none(loop_id), after.state_or_none(loop_id), loop_id=loop_id)
    if registry:
        found += difference(_by_id(before), _by_id(after))
    return found


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


def valid_record(path: str, raw: bytes, revision: str | None = None) -> Record:
    """The record that *raw* holds as the file *path*.

    Raises:
        CorruptStateError: it is not a valid one.
    """
    try:
        value = parse(raw)
    except InvalidRecordError:
        value, damage = None, describe_damage(raw)
    else:
        damage = (damage_of_registry(value) if path == REGISTRY else damage_of_state(value)) or ""
    if damage or not isinstance(value, dict):
        raise CorruptStateError(
            f"{path}{f' in revision {revision[:7]}' if revision else ''}: {damage or 'not an object'}",
            hint="gitstate repair",
            path=path,
            damage=damage,
            revision=revision,
        )
    return value


def _changed(before: Record, after: Record) -> bool:
    # The process counts, though it is nobody's field: the next one may well have the same pid.
    return bool(difference(_undated(before), _undated(after))) or not same(_kept(before), _kept(after))


def _kept(record: Record) -> Record:
    """What gitstate keeps in a record besides counting its revisions: the process."""
    stamp = record.get(STAMP)
    return {key: item for key, item in stamp.items() if key != "revision"} if isinstance(stamp, dict) else {}


def _undated(record: Record) -> Record:
    return {key: item for key, item in record.items() if key not in ("lastUpdate", "updated_at")}


def _number(record: Record, key: str) -> int:
    value = record.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def new_registry() -> Record:
    """The registry as the original begins it."""
    return {
        "version": REGISTRY_VERSION,
        "max_concurrent_loops": DEFAULT_LIMIT,
        "updated_at": "",
        "active_loops": [],
        "total_active": 0,
        "total_completed": 0,
        "total_aborted": 0,
    }


def derived_fields(state: Record) -> Record:
    """What a registry entry takes from the session state; what the state does not say is left out."""
    names = {
        "status": "status",
        "currentPid": "pid",
        "currentIteration": "iteration",
        "maxIterations": "max_iterations",
    }
    return {name: state[key] for key, name in names.items() if key in state}


def entry_of(loop_id: str, state: Record, owner: str) -> Record:
    """The entry of a loop that has none, from its session state alone."""
    objective = state.get("objective")
    return {
        "loop_id": loop_id,
        "task_summary": objective[:200] if isinstance(objective, str) else "",
        "status": state.get("status"),
        "started_at": state.get("startTime", ""),
        "owner": owner,
        "pid": None,
        "iteration": 0,
        "max_iterations": 10,
        "completion_criteria": state.get("completionCriteria", "unknown"),
        "priority": "medium",
        "tags": [],
    }


def limit_of(registry: Record) -> int:
    """How many loops may be active at once: what the registry says, where that makes sense."""
    value = registry.get("max_concurrent_loops")
    return (
        int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 else DEFAULT_LIMIT
    )
