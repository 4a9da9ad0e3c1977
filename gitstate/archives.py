"""Putting loops away, getting them back, and naming moments of them."""

from __future__ import annotations

from gitstate.encoding import Record
from gitstate.errors import LoopExistsError, RefusedError
from gitstate.layout import ARCHIVE, archive_tag, archived_path, checkpoint_tag, state_path
from gitstate.loops import Outcome
from gitstate.operation import Operation
from gitstate.registry import COUNTED_AS_COMPLETED, entry_of
from gitstate.results import Liveness
from gitstate.snapshot import Snapshot


def archive(
    snapshot: Snapshot, loop_id: str, *, status: str | None, liveness: Liveness, mine: bool, force: bool
) -> Outcome:
    """A loop moved to the archive, counted and tagged.

    Raises:
        LoopNotFoundError: no such active loop.
        RefusedError: a live process that is not the caller's (*mine*) drives it, and *force* is off.
    """
    state = snapshot.active(loop_id)
    if liveness.verdict == "alive" and not mine and not force:
        raise RefusedError(
            f"{loop_id} is driven by process {liveness.pid}: {liveness.reason}",
            hint=f"end process {liveness.pid} first, or gitstate archive {loop_id} --force",
            loop_id=loop_id,
            pid=liveness.pid,
        )
    after = state if status is None else {**state, "status": status}
    moved = snapshot.with_record(state_path(loop_id), None).with_record(archived_path(loop_id), after)
    subject = f"archive {loop_id}: {after.get('status')} after {after.get('currentIteration', 0)} of {after.get('maxIterations', '?')} iterations"
    return Outcome(moved.with_tag(next_archive_tag(snapshot, loop_id)), Operation("archive", subject, (loop_id,)))


def next_archive_tag(snapshot: Snapshot, loop_id: str) -> str:
    """The tag of the next archiving of a loop: the first that is free."""
    taken = set(snapshot.tags(loop_id))
    nth = 1
    while archive_tag(loop_id, nth) in taken:
        nth += 1
    return archive_tag(loop_id, nth)


def archived_between(before: Snapshot, after: Snapshot) -> list[str]:
    """The loops that lie in the archive of *after* and did not in *before*'s."""
    earlier = set(before.loops(ARCHIVE))
    return [loop_id for loop_id in after.loops(ARCHIVE) if loop_id not in earlier]


def restore(
    snapshot: Snapshot, loop_id: str, state: Record, entry: Record | None, *, owner: str, pruned: bool
) -> Outcome:
    """An archived loop back among the active ones: paused, nobody driving it, its *entry* as the archiving removed it.

    *state* is what was archived; when *pruned* it comes from the tag alone.
    """
    place = snapshot.place(loop_id)
    if place is not None and place.area != ARCHIVE:
        raise LoopExistsError(
            f"{loop_id} is active, not archived", hint=f"gitstate status {loop_id}", loop_id=loop_id, place="active"
        )
    back: Record = {**state, "status": "paused", "currentPid": None}
    after = snapshot.with_record(archived_path(loop_id), None).with_state(loop_id, back)
    after = after.with_entry(entry or entry_of(loop_id, state, owner))
    if pruned:
        key = "total_completed" if state.get("status") in COUNTED_AS_COMPLETED else "total_aborted"
        total = snapshot.registry.get(key)
        after = after.with_registry(**{key: total - 1 if isinstance(total, int) and total > 0 else 0})
    subject = f"restore {loop_id}: status {state.get('status')} → paused"
    return Outcome(after, Operation("restore", subject, (loop_id,)))


def prune(snapshot: Snapshot, loop_id: str, *, archived: str, size: str) -> Outcome:
    """An archived loop out of the work tree; its tag keeps it. *archived* says since when it was there, for people."""
    after = snapshot.with_record(archived_path(loop_id), None)
    return Outcome(after, Operation("prune", f"prune {loop_id}: archived {archived}, frees {size}", (loop_id,)))


def checkpoint(snapshot: Snapshot, loop_id: str, name: str) -> Outcome:
    """A moment of an active loop named; the name is given once.

    Raises:
        RefusedError: the loop has a checkpoint of that name.
    """
    state = snapshot.active(loop_id)
    tag = checkpoint_tag(loop_id, name)
    if tag in snapshot.tags(loop_id):
        raise RefusedError(
            f"{loop_id} has a checkpoint {name} already; a tag never moves",
            hint=f"gitstate checkpoints {loop_id}",
            loop_id=loop_id,
            name=name,
        )
    subject = f"checkpoint {loop_id}: {name}, iteration {state.get('currentIteration', 0)}"
    return Outcome(snapshot.with_tag(tag), Operation("checkpoint", subject, (loop_id,)))
