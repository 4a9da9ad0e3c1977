"""Going back, by going on: rollback and undo put fields back; they never create, remove or move a loop."""

from __future__ import annotations

from typing import Final

from gitstate.encoding import Record
from gitstate.errors import RefusedError
from gitstate.fields import DERIVED_IN_ENTRY, apply_inverse, entries_of
from gitstate.loops import Outcome, describe, with_process
from gitstate.operation import Operation
from gitstate.records import ProcessRecord
from gitstate.registry import new_registry
from gitstate.results import FieldChange
from gitstate.snapshot import Snapshot
from gitstate.text import one_line

# What no going back touches: who the loop is, who drives it, and what gitstate keeps.
KEPT: Final = ("loopId", "version", "startTime", "lastUpdate", "currentPid", "gitstate")
_IDENTITY: Final = ("loopId", "version", "startTime")
_KEPT_IN_REGISTRY: Final = (
    "version",
    "updated_at",
    "active_loops",
    "total_active",
    "total_completed",
    "total_aborted",
    "gitstate",
)
_DRIVEN: Final = ("running", "completing")


def put_back(current: Record, target: Record, *, alive: bool) -> Record:
    """*current* with the fields of *target*; a loop that nobody drives does not come back running."""
    back: Record = {key: item for key, item in target.items() if key not in KEPT}
    for key in KEPT:
        if key in current:
            back[key] = current[key]
        elif key in _IDENTITY and key in target:
            back[key] = target[key]  # lost since; nothing else brings it back
    if back.get("status") in _DRIVEN and not alive:
        back["status"] = "paused"
    order = [*(key for key in current if key in back), *(key for key in back if key not in current)]
    return {key: back[key] for key in order}


def rollback(snapshot: Snapshot, loop_id: str, target: Record, label: str, *, alive: bool) -> Outcome:
    """The session state of an active loop as *target* has it, called *label*."""
    before = snapshot.active(loop_id)
    after = put_back(before, target, alive=alive)
    subject = f"rollback {loop_id} to {label}: {one_line(describe(before, after), 140)}"
    return Outcome(snapshot.with_state(loop_id, after), Operation("rollback", subject, (loop_id,)))


def rollback_registry(snapshot: Snapshot, target: Record, label: str) -> Outcome:
    """What only the registry knows, as *target* has it: the limit, owners, priorities, tags, unknown keys."""
    before = snapshot.registry
    kept: Record = {key: before[key] for key in _KEPT_IN_REGISTRY if key in before}
    base = new_registry()
    back: Record = {key: item for key, item in target.items() if key not in _KEPT_IN_REGISTRY}
    registry: Record = {
        key: kept.get(key, back.get(key, base.get(key))) for key in before if key in kept or key in back
    }
    registry.update({key: item for key, item in back.items() if key not in registry})
    after = snapshot.with_registry(**registry)
    dropped = [key for key in before if key not in registry]
    if dropped:
        after = snapshot.with_record("registry.json", registry)
    old_entries = entries_of(target)
    for loop_id, entry in entries_of(before).items():
        if loop_id in old_entries:
            own = {key: item for key, item in old_entries[loop_id].items() if key not in DERIVED_IN_ENTRY}
            derived = {key: item for key, item in entry.items() if key in DERIVED_IN_ENTRY}
            after = after.with_entry(
                {key: {**own, **derived}[key] for key in [*entry, *own] if key in own or key in derived}
            )
    return Outcome(after, Operation("rollback", f"rollback registry.json to {label}"))


def rollback_all(
    snapshot: Snapshot, target: Snapshot, label: str, *, alive: frozenset[str], left_alone: tuple[str, ...]
) -> Outcome:
    """Every active loop that *target* has, and the registry; *left_alone* names those it has not."""
    after, parts, touched = snapshot, [], []
    for loop_id in snapshot.loops():
        state = target.state_or_none(loop_id)
        if state is None or loop_id in left_alone:
            continue
        outcome = rollback(after, loop_id, state, label, alive=loop_id in alive)
        after = outcome.snapshot
        parts.append(outcome.operation.subject)
        touched.append(loop_id)
    after, operation = rollback_registry(after, target.registry, label)
    parts.append(operation.subject)
    parts += [f"left alone: {loop_id}, not active at both ends" for loop_id in left_alone]
    subject = f"rollback all to {label}: {len(touched)} loops" + (
        f", left alone: {', '.join(left_alone)}" if left_alone else ""
    )
    return Outcome(after, Operation("rollback", subject, tuple(touched), body=tuple(parts)))


_REGISTRY_PREFIX: Final = "/active_loops/"
UNDOABLE: Final = (
    "update", "iterate", "amend", "pid", "resume", "reap", "rollback", "undo", "adopt", "archive", "restore",
)  # fmt: skip


def undo(
    snapshot: Snapshot, loop_id: str, changes: list[FieldChange], label: str, summary: str, driver: ProcessRecord | None
) -> Outcome:
    """The fields of one change of one loop as they were before it. *driver* is whom the pid meant then, if it comes back.

    Raises:
        RefusedError: a later change set some of the fields again; ``fields`` lists them.
    """
    keep = frozenset(("lastUpdate", "gitstate", "loopId", "version", "startTime"))
    before = snapshot.active(loop_id)
    after, conflicts = apply_inverse(before, [c for c in changes if c.loop_id == loop_id], keep)
    prefix = f"{_REGISTRY_PREFIX}{loop_id}/"
    inner = [
        FieldChange(None, "/" + change.path.removeprefix(prefix), change.kind, change.before, change.after)
        for change in changes
        if change.loop_id is None and change.path.startswith(prefix)
    ]
    entry, more = apply_inverse(snapshot.entries.get(loop_id, {}), inner, frozenset(DERIVED_IN_ENTRY))
    if conflicts or more:
        paths = (*conflicts, *(f"entry{path}" for path in more))
        raise RefusedError(
            f"cannot undo {label}: later changes of {loop_id} set {', '.join(paths)} again",
            hint=f"gitstate log {loop_id} -p",
            loop_id=loop_id,
            fields=paths,
        )
    if after.get("currentPid") != before.get("currentPid"):
        after = with_process(after, driver)
    result = snapshot.with_state(loop_id, after)
    if inner:
        result = result.with_entry(entry)
    subject = f"undo {loop_id}: {label}, {one_line(summary, 120)}"
    return Outcome(result, Operation("undo", subject, (loop_id,)))
