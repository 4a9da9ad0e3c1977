"""Bringing a snapshot in line: the one place that computes what the registry derives from the session states.

It also stamps revisions and times, and leaves out what did not really change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from gitstate import layout
from gitstate.clock import isoformat
from gitstate.encoding import Json, Record, encodes_alike
from gitstate.fields import STAMP, entries_of, same
from gitstate.layout import ARCHIVE, REGISTRY
from gitstate.records import stamped
from gitstate.registry import COUNTED_AS_COMPLETED, derived_fields, entry_of, number_in
from gitstate.snapshot import Snapshot


def settle(snapshot: Snapshot, now: datetime, *, owner: str = "user:unknown", whole: bool = False) -> Snapshot:
    """The same, brought in line: totals, entries, stamps and times as they follow; only real changes stay as edits.

    *owner* is for loops that have no entry yet. Entries of loops that are not touched are taken to agree, unless
    *whole* asks for all of them.
    """
    states = {path: record for path, record in snapshot.edits.items() if path != REGISTRY}
    settled = _with_edits(snapshot, _stamped(snapshot, states, now))
    before = snapshot.before(REGISTRY)
    if before is None and REGISTRY not in snapshot.edits and snapshot.tree.read(REGISTRY) is not None:
        return settled  # damaged in the revision below: there is nothing to derive from before it is repaired
    registry = _derived(snapshot, before, owner, whole)
    if before is None or REGISTRY in snapshot.verbatim or _changed(before, registry):
        dated = _dated_registry(snapshot, before, registry, now)
        settled = _with_edits(settled, {**settled.edits, REGISTRY: dated})
    return settled


def _with_edits(snapshot: Snapshot, edits: Mapping[str, Record | None]) -> Snapshot:
    return Snapshot(snapshot.tree, edits, snapshot.verbatim, snapshot.new_tags)


def _stamped(snapshot: Snapshot, states: Mapping[str, Record | None], now: datetime) -> dict[str, Record | None]:
    kept: dict[str, Record | None] = {}
    for path, record in states.items():
        before = snapshot.before(path)
        if record is None:
            if snapshot.tree.read(path) is not None:
                kept[path] = None
        elif path in snapshot.verbatim:
            kept[path] = record
        else:
            origin = before or snapshot.moved_from(path)
            if origin is None or _changed(origin, record):
                # A merged edit brings its own time; whatever else changes, changes now.
                dated = origin is not None and record.get("lastUpdate") != origin.get("lastUpdate")
                kept[path] = stamped(record if dated else {**record, "lastUpdate": isoformat(now)}, origin)
            elif before is None:
                kept[path] = origin
    return kept


def _derived(snapshot: Snapshot, before: Record | None, owner: str, whole: bool) -> Record:
    registry, entries = snapshot.registry, snapshot.entries
    active = snapshot.loops()
    ordered = [loop_id for loop_id in entries if loop_id in active]
    ordered += sorted((i for i in active if i not in entries), key=lambda i: (_started(snapshot, i), i))
    derived: list[Json] = []
    for loop_id in ordered:
        path = layout.state_path(loop_id)
        if whole or path in snapshot.edits or loop_id not in entries:
            state = snapshot.readable(path) or {}
            derived.append({**(entries.get(loop_id) or entry_of(loop_id, state, owner)), **derived_fields(state)})
        else:
            derived.append(entries[loop_id])
    # Where the registry is rebuilt from nothing, what lies in the archive is all that is known of the totals.
    known = before or snapshot.readable(REGISTRY)
    completed, aborted = _archived_in_all(snapshot) if known is None else _archived_since(snapshot, known, active)
    return {
        **registry,
        "active_loops": derived,
        "total_active": len(derived),
        "total_completed": max(0, number_in(registry, "total_completed") + completed),
        "total_aborted": max(0, number_in(registry, "total_aborted") + aborted),
    }


def _started(snapshot: Snapshot, loop_id: str) -> str:
    return str((snapshot.readable(layout.state_path(loop_id)) or {}).get("startTime", ""))


def _archived_since(snapshot: Snapshot, before: Record, active: Sequence[str]) -> tuple[int, int]:
    completed = aborted = 0
    touched = {place.loop_id for place in map(layout.place_of, snapshot.edits) if place is not None}
    # A loop that has its entry yet and is not active was put away by somebody who did not get to count it.
    uncounted = entries_of(before).keys() - set(active)
    for loop_id in touched | uncounted:
        path = layout.archived_path(loop_id)
        if snapshot.place(loop_id) is None or (path not in snapshot.edits and loop_id not in uncounted):
            continue  # untouched, or pruned: it stays counted
        was = None if loop_id in uncounted else snapshot.before(path)
        for record, step in ((was, -1), (snapshot.readable(path), 1)):
            if record is not None:
                counted = record.get("status") in COUNTED_AS_COMPLETED
                completed, aborted = (completed + step, aborted) if counted else (completed, aborted + step)
    return completed, aborted


def _archived_in_all(snapshot: Snapshot) -> tuple[int, int]:
    statuses = [(snapshot.readable(layout.archived_path(i)) or {}).get("status") for i in snapshot.loops(ARCHIVE)]
    completed = sum(status in COUNTED_AS_COMPLETED for status in statuses)
    return completed, len(statuses) - completed


def _dated_registry(snapshot: Snapshot, before: Record | None, registry: Record, now: datetime) -> Record:
    if REGISTRY in snapshot.verbatim and registry == snapshot.edits[REGISTRY]:
        return registry
    return stamped({**registry, "updated_at": isoformat(now)}, before)


def _changed(before: Record, after: Record) -> bool:
    for key in _without_times(before) | _without_times(after):
        if key not in before or key not in after:
            return True
        one, other = before[key], after[key]
        if one is not other and not encodes_alike(one, other) and not same(one, other):
            return True
    # The process counts, though it is nobody's field: the next one may well have the same pid.
    return not same(_kept(before), _kept(after))


def _without_times(record: Record) -> set[str]:
    return record.keys() - {STAMP, "lastUpdate", "updated_at"}


def _kept(record: Record) -> Record:
    """What gitstate keeps in a record besides counting its revisions: the process."""
    stamp = record.get(STAMP)
    return {key: item for key, item in stamp.items() if key != "revision"} if isinstance(stamp, dict) else {}
