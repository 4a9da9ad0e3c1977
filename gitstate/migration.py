"""The older single-loop manager's state as one loop among several: what it becomes, and how it is known again."""

from __future__ import annotations

from gitstate.encoding import Record, decode
from gitstate.errors import InvalidRecordError
from gitstate.layout import ARCHIVE, LOOPS, state_path
from gitstate.loops import Outcome
from gitstate.operation import Operation
from gitstate.records import STATE_VERSION, damage_of_state, describe_damage
from gitstate.registry import derived_fields, entry_of
from gitstate.snapshot import Snapshot
from gitstate.text import one_line

_IDENTITY = ("sessionId", "startTime", "objective")


def read_legacy(raw: bytes) -> tuple[Record, None] | tuple[None, str]:
    """The older manager's state, or the damage in words. Without a status it is running, as the original has it."""
    try:
        value = decode(raw)
    except InvalidRecordError:
        return None, describe_damage(raw)
    if not isinstance(value, dict):
        return None, "not an object"
    legacy: Record = {**value, "status": value.get("status") or "running"}
    damage = damage_of_state(legacy)
    return (legacy, None) if damage is None else (None, damage)


def migrated_as(legacy: Record, state: Record) -> bool:
    """Whether *state* is what *legacy* became: by the id it had, and by what no two loops share."""
    return (
        "legacyLoopId" in state
        and state["legacyLoopId"] == legacy.get("loopId")
        and all(state.get(key) == legacy.get(key) for key in _IDENTITY if key in legacy)
    )


def find_migrated(snapshot: Snapshot, legacy: Record) -> str | None:
    """The loop that *legacy* became, active or archived; ``None`` if it was not migrated yet."""
    for area in (LOOPS, ARCHIVE):
        for loop_id in snapshot.loops(area):
            state = snapshot.state_or_none(loop_id)
            if state is not None and migrated_as(legacy, state):
                return loop_id
    return None


def migrate(snapshot: Snapshot, loop_id: str, legacy: Record, owner: str) -> Outcome:
    """*legacy* as the loop *loop_id*, with the original's defaults and its tag ``migrated``."""
    state: Record = {"version": STATE_VERSION, **legacy, "loopId": loop_id}
    state["legacyLoopId"] = legacy.get("loopId")
    objective = legacy.get("objective")
    words = objective if isinstance(objective, str) and objective else "Migrated loop"
    entry = entry_of(loop_id, state, owner)
    entry |= {"task_summary": words[:200], "tags": ["migrated"], **derived_fields(state)}
    after = snapshot.with_record(state_path(loop_id), state).with_entry(entry)
    return Outcome(after, Operation("migrate", f"migrate {loop_id}: {one_line(words, 120)}", (loop_id,)))
