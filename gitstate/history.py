"""What happened: changes read back, compared, and found by time, loop or tag."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from gitstate import layout
from gitstate.encoding import Record
from gitstate.errors import CorruptStateError, InvalidInputError, RevisionNotFoundError, shown
from gitstate.fields import difference
from gitstate.operation import as_change
from gitstate.results import Change, FieldChange
from gitstate.snapshot import Nothing, Snapshot, difference_between
from gitstate.store.naming import resolve

if TYPE_CHECKING:
    from gitstate.reports import Checkpoint
    from gitstate.store.revisions import Revision, Revisions


def snapshot_at(revisions: Revisions, revision: str | None) -> Snapshot:
    """The snapshot of a revision; ``None`` is the one before everything."""
    return Snapshot(Nothing() if revision is None else revisions.tree(revision))


def no_history(name: str | datetime) -> RevisionNotFoundError:
    """The answer to every revision where nothing was committed yet."""
    return RevisionNotFoundError(
        f"no revision {name!s:.80}: there is no history yet", hint="gitstate init", revision=str(name)
    )


def change_of(revisions: Revisions, revision: Revision, *, fields: bool = False) -> Change:
    """A commit as a change."""
    foreign = revision.operation is None
    touched = tuple(touched_by(revisions, revision)) if foreign else ()
    change = as_change(
        revision.message,
        revision=revision.id,
        parent=revision.parent,
        time=revision.time,
        author=revision.author,
        touched=touched,
    )
    return replace(change, fields=tuple(fields_of(revisions, revision))) if fields else change


def fields_of(revisions: Revisions, revision: Revision) -> list[FieldChange]:
    """The fields that a commit changed."""
    before, after = snapshot_at(revisions, revision.parent), snapshot_at(revisions, revision.id)
    return difference_between(before, after, touched_by(revisions, revision))


def touched_by(revisions: Revisions, revision: Revision) -> list[str]:
    """The loops whose files a commit changed, moved or removed."""
    before = {} if revision.parent is None else _states(revisions, revision.parent)
    after = _states(revisions, revision.id)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return sorted({place.loop_id for place in map(layout.place_of, paths) if place is not None})


def _states(revisions: Revisions, revision: str) -> dict[str, str]:
    return {path: blob for path, _, blob in revisions.tree(revision).files()}


def log(
    revisions: Revisions,
    *,
    loop_id: str | None = None,
    limit: int | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    fields: bool = False,
) -> Iterator[Change]:
    """Changes, newest first, read as they are asked for; names are resolved at once.

    *since* and *until* are aware datetimes (inclusive) or revisions (``since`` exclusive, as in ``git log since..``).
    """
    start = revisions.head() if until is None or isinstance(until, datetime) else resolve(revisions, until)
    stop = None if since is None or isinstance(since, datetime) else resolve(revisions, since)

    def changes() -> Iterator[Change]:
        given = 0
        for revision in revisions.walk(start) if loop_id is None or stop else revisions.trail(start, loop_id):
            if revision.id == stop or (limit is not None and given >= limit):
                return
            # Committer times never run backwards, so an older one ends the search; author times may.
            if isinstance(since, datetime) and revision.committed < int(since.timestamp()):
                return
            if isinstance(since, datetime) and revision.time.timestamp() < int(since.timestamp()):
                continue
            if isinstance(until, datetime) and revision.time > until:
                continue
            change = change_of(revisions, revision)
            if loop_id is None or loop_id in change.loop_ids:
                given += 1
                yield replace(change, fields=tuple(fields_of(revisions, revision))) if fields else change

    return changes()


def diff(before: Snapshot, after: Snapshot, loop_id: str | None) -> list[FieldChange]:
    """The fields in which two snapshots differ, of one loop (its entry included) or of everything."""
    if loop_id is None:
        return difference_between(before, after)
    prefix = f"/active_loops/{loop_id}"
    entry = [change for change in difference_between(before, after, ()) if f"{change.path}/".startswith(f"{prefix}/")]
    return [*difference_between(before, after, [loop_id], registry=False), *entry]


def steps_back(revisions: Revisions, start: str, loop_id: str | None, steps: int) -> str:
    """The revision before the newest *steps* changes (of a loop) that lead to *start*.

    Raises:
        InvalidInputError: there are not so many.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInputError(f"steps: a whole number from 1 is wanted, not {shown(steps, 40)}")
    count = 0
    for revision in revisions.walk(start) if loop_id is None else revisions.trail(start, loop_id):
        change = change_of(revisions, revision)
        if loop_id is None or loop_id in change.loop_ids:
            count += 1
            if count == steps and revision.parent is not None:
                return revision.parent
    raise InvalidInputError(
        f"there are only {count} changes{f' of {loop_id}' if loop_id else ''}, the first one included",
        hint=f"gitstate log {loop_id or ''}".rstrip(),
        steps=steps,
    )


class Archiving(NamedTuple):
    """How a loop was put away: the commit, the session state as archived, and the entry as it was removed."""

    revision: Revision
    tag: str
    state: Record
    entry: Record | None


def archiving_of(revisions: Revisions, snapshot: Snapshot, loop_id: str) -> Archiving | None:
    """The newest archiving of a loop that has a tag; ``None`` without one."""
    tags = [ref for ref in snapshot.tree.tags(loop_id) if ref.startswith(layout.ARCHIVE_TAGS)]
    for ref in sorted(tags, key=_nth, reverse=True):
        try:
            revision = revisions.read(resolve(revisions, ref))
            state = Snapshot(revisions.tree(revision.id)).record(layout.archived_path(loop_id))
            before = snapshot_at(revisions, revision.parent)
            if state is not None:
                return Archiving(revision, ref.removeprefix("refs/tags/"), state, before.entries.get(loop_id))
        except CorruptStateError:
            continue
    return None


def pruned(revisions: Revisions, snapshot: Snapshot, loop_id: str) -> Archiving | None:
    """As :func:`archiving_of`, of a loop that is out of the tree, with its state as it was last in the archive."""
    found = archiving_of(revisions, snapshot, loop_id)
    if found is None:
        return None
    path = layout.archived_path(loop_id)
    with suppress(CorruptStateError):  # then the tag is all that is left of it
        for revision in revisions.trail(snapshot.revision or revisions.head(), loop_id):
            for name in (revision.id, *revision.parents):
                state = snapshot_at(revisions, name).record(path)
                if state is not None:
                    return found._replace(state=state)
    return found


def _nth(ref: str) -> int:
    match = re.search(r"\.([0-9]+)\Z", ref)
    return int(match[1]) if match else 1


def checkpoints(revisions: Revisions, loop_id: str | None) -> list[Checkpoint]:
    """The checkpoints of a loop or of all, newest first."""
    from gitstate.reports import Checkpoint

    prefix = layout.CHECKPOINT_TAGS + (f"{loop_id}/" if loop_id is not None else "")
    found = []
    for ref in filter(revisions.names_itself, revisions.refs.below(prefix)):
        owner, _, name = ref.removeprefix(layout.CHECKPOINT_TAGS).rpartition("/")
        revision = revisions.read(resolve(revisions, ref))
        change = change_of(revisions, revision)
        tag = ref.removeprefix("refs/tags/")
        checkpoint = Checkpoint(owner, name, tag, revision.id, change.time, change.actor, change.reason)
        found.append((revision.order, checkpoint))
    return [checkpoint for _, checkpoint in sorted(found, key=lambda item: item[0], reverse=True)]


def newest_of(revisions: Revisions, head: str, loop_ids: list[str]) -> dict[str, Change]:
    """The newest change of each of these loops."""
    found = dict[str, Change]()
    for loop_id in loop_ids:
        if loop_id not in found:
            changes = (change_of(revisions, revision) for revision in revisions.trail(head, loop_id))
            newest = next((change for change in changes if loop_id in change.loop_ids), None)
            found.update({} if newest is None else {loop_id: newest})
    return found


def atomic_fields(before: Snapshot, after: Snapshot, loop_id: str) -> list[FieldChange]:
    """As :func:`diff` for one loop, with every list one field: what an undo takes back or finds in its way."""
    states = difference(before.state_or_none(loop_id), after.state_or_none(loop_id), loop_id=loop_id, into_lists=False)
    prefix = f"/active_loops/{loop_id}/"
    old, new = ({} if s.record(layout.REGISTRY) is None else {"active_loops": dict(s.entries)} for s in (before, after))
    entry = [c for c in difference(old, new, into_lists=False) if c.path.startswith(prefix)]  # type: ignore[arg-type]
    return [*states, *entry]
