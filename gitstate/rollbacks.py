"""Going back as a mutation: rollback and undo, each a new commit that can itself be undone."""

from __future__ import annotations

import os
from abc import abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING

from gitstate import archives, history, process, rewinds
from gitstate.archival import Archival
from gitstate.errors import InvalidInputError, RefusedError, RevisionNotFoundError
from gitstate.ids import validate_known_id
from gitstate.layout import ARCHIVE, LOOPS
from gitstate.loops import Apply, Outcome
from gitstate.operation import Operation
from gitstate.reading import liveness_of
from gitstate.records import process_of
from gitstate.results import Change
from gitstate.snapshot import Snapshot
from gitstate.store.naming import resolve

if TYPE_CHECKING:
    from gitstate.store.revisions import Revision

Target = str | datetime


class Rollbacks(Archival):
    """Rollback and undo. With *dry_run* nothing is locked or written, and the change has no revision."""

    @abstractmethod
    def _planned(self, purpose: str, apply: Apply, *, dry_run: bool, reason: str | None) -> Change:
        """The change that *apply* makes, or would make."""

    def rollback(
        self,
        loop_id: str,
        *,
        to: Target | None = None,
        steps: int | None = None,
        dry_run: bool = False,
        force: bool = False,
        reason: str | None = None,
    ) -> Change:
        """Put the fields of an active loop's session state back to what they were, in a new commit.

        Never touched: pid, process, ``loopId``, ``version``, ``startTime``, ``gitstate``, totals. A loop that was
        ``running`` or ``completing`` comes back ``paused`` unless its present process lives.

        Args:
            to: a revision or an aware datetime.
            steps: how many of the changes that ``log(loop_id)`` lists to go back; exactly one of the two.
            force: also while another live process drives the loop.

        Raises:
            RevisionNotFoundError: no such revision, or the loop was not there then.
            RefusedError: another live process drives the loop, and *force* is off.
        """
        validate_known_id(loop_id)
        _one_of(to, steps)

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            current = snapshot.active(loop_id)
            self._refuse_if_driven(snapshot, loop_id, force)
            revision = self._target(snapshot, to, steps, loop_id)
            state = history.snapshot_at(self._revisions, revision).state_or_none(loop_id)
            if state is None:
                raise RevisionNotFoundError(
                    f"{loop_id} was not there in {revision[:7]}",
                    hint=f"gitstate log {loop_id}",
                    revision=revision,
                    loop_id=loop_id,
                )
            alive = liveness_of(current).verdict == "alive"
            return rewinds.rollback(snapshot, loop_id, state, _label(to, revision), alive=alive)

        return self._planned(f"rollback-{loop_id}", apply, dry_run=dry_run, reason=reason)

    def rollback_registry(
        self, *, to: Target | None = None, steps: int | None = None, dry_run: bool = False, reason: str | None = None
    ) -> Change:
        """Put back what only the registry knows: the limit, owners, priorities, tags, unknown keys.

        Raises:
            RevisionNotFoundError: no such revision.
        """
        _one_of(to, steps)

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            revision = self._target(snapshot, to, steps, None)
            target = history.snapshot_at(self._revisions, revision)
            return rewinds.rollback_registry(snapshot, target.registry, _label(to, revision))

        return self._planned("rollback-registry", apply, dry_run=dry_run, reason=reason)

    def rollback_all(
        self, *, to: Target, dry_run: bool = False, force: bool = False, reason: str | None = None
    ) -> Change:
        """Every active loop and the registry, put back in one commit. Loops not active at both ends are left alone and named.

        Raises:
            RevisionNotFoundError: no such revision.
            RefusedError: another live process drives one of the loops, and *force* is off.
        """

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            revision = self._target(snapshot, to, None, None)
            target = history.snapshot_at(self._revisions, revision)
            then, active = set(target.loops()), set(snapshot.loops())
            for loop_id in sorted(then & active):
                self._refuse_if_driven(snapshot, loop_id, force)
            alive = frozenset(i for i in active if liveness_of(snapshot.active(i)).verdict == "alive")
            alone = tuple(sorted(then ^ active))
            return rewinds.rollback_all(snapshot, target, _label(to, revision), alive=alive, left_alone=alone)

        return self._planned("rollback-all", apply, dry_run=dry_run, reason=reason)

    def undo(
        self,
        loop_id: str,
        *,
        revision: Target | None = None,
        dry_run: bool = False,
        force: bool = False,
        reason: str | None = None,
    ) -> Change:
        """Invert one change of a loop: *revision*, or its newest. Field by field; undoing an undo is the redo.

        Raises:
            RevisionNotFoundError: no such change of that loop.
            RefusedError: a later change set some of the fields again (``fields`` lists them); the change is of a kind
                that cannot be undone (the hint says what to use); or another live process drives the loop.
        """
        validate_known_id(loop_id)

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            if snapshot.place(loop_id) is None and snapshot.tags(loop_id):
                raise RefusedError(
                    f"{loop_id} was pruned, which cannot be undone",
                    hint=f"gitstate restore {loop_id}",
                    loop_id=loop_id,
                )
            snapshot.find(loop_id)
            self._refuse_if_driven(snapshot, loop_id, force)
            target = self._revisions.read(self._change_to_undo(snapshot, loop_id, revision))
            return self._undone(snapshot, loop_id, target, force)

        return self._planned(f"undo-{loop_id}", apply, dry_run=dry_run, reason=reason)

    # --- pieces ---

    def _undone(self, snapshot: Snapshot, loop_id: str, target: Revision, force: bool) -> Outcome:
        before = history.snapshot_at(self._revisions, target.parent)
        after = history.snapshot_at(self._revisions, target.id)
        label, summary = target.id[:7], target.message.split("\n", 1)[0].replace(f" {loop_id}", "", 1)
        was, became, now = (s.place(loop_id) for s in (before, after, snapshot))
        change = history.change_of(self._revisions, target)
        kind = "create" if was is None else change.operation
        if kind not in rewinds.UNDOABLE or was is None or became is None:
            raise RefusedError(
                f"a change of the kind {change.operation} cannot be undone ({label})",
                hint=_INSTEAD.get(kind, f"gitstate rollback {loop_id} --to {label}~1").format(
                    loop=loop_id, revision=label
                ),
                loop_id=loop_id,
                revision=target.id,
            )
        if was.area != became.area:
            if now != became:
                raise RefusedError(
                    f"cannot undo {label}: {loop_id} was moved again since",
                    hint=f"gitstate log {loop_id}",
                    loop_id=loop_id,
                )
            outcome = self._moved_back(snapshot, loop_id, became.area, before, force)
            return outcome._replace(operation=Operation("undo", f"undo {loop_id}: {label}, {summary}", (loop_id,)))
        fields, driver = history.atomic_fields(before, after, loop_id), process_of(before.find(loop_id)[1])
        return rewinds.undo(snapshot, loop_id, fields, label, summary, driver)

    def _moved_back(self, snapshot: Snapshot, loop_id: str, area: str, before: Snapshot, force: bool) -> Outcome:
        if area == ARCHIVE:
            restored = self._restored(snapshot, loop_id, force)
            state = rewinds.put_back(restored.snapshot.active(loop_id), before.active(loop_id), alive=False)
            return restored._replace(snapshot=restored.snapshot.with_state(loop_id, state))
        status = str(before.find(loop_id)[1].get("status"))
        seen = liveness_of(snapshot.active(loop_id))
        return archives.archive(snapshot, loop_id, status=status, liveness=seen, mine=False, force=force)

    def _change_to_undo(self, snapshot: Snapshot, loop_id: str, revision: Target | None) -> str:
        head = snapshot.revision or self._revisions.head()
        if revision is None:
            newest = history.newest_of(self._revisions, head, [loop_id]).get(loop_id)
            if newest is None or newest.revision is None:
                raise RevisionNotFoundError(f"{loop_id} has no changes", hint=f"gitstate log {loop_id}", revision=None)
            return newest.revision
        found = resolve(self._revisions, revision, head=head)
        if loop_id not in history.change_of(self._revisions, self._revisions.read(found)).loop_ids:
            raise RevisionNotFoundError(
                f"{found[:7]} is not a change of {loop_id}",
                hint=f"gitstate log {loop_id}",
                revision=revision,
                loop_id=loop_id,
            )
        return found

    def _target(self, snapshot: Snapshot, to: Target | None, steps: int | None, loop_id: str | None) -> str:
        head = snapshot.revision or self._revisions.head()
        if to is not None:
            return resolve(self._revisions, to, head=head)
        return history.steps_back(self._revisions, head, loop_id, steps or 0)

    def _refuse_if_driven(self, snapshot: Snapshot, loop_id: str, force: bool) -> None:
        place, state = snapshot.find(loop_id)
        seen = liveness_of(state)
        if force or place.area != LOOPS or seen.verdict != "alive" or seen.pid is None or process.is_mine(seen.pid):
            return
        raise RefusedError(
            f"{loop_id} is driven by process {seen.pid}: {seen.reason}",
            hint="pause it first, or repeat the command with --force",
            loop_id=loop_id,
            pid=seen.pid,
            asked_by=os.getpid(),
        )


_INSTEAD = {
    "create": "gitstate archive {loop} --status aborted",
    "checkpoint": "a checkpoint changes nothing; it stays",
    "prune": "gitstate restore {loop}",
    "transaction": "gitstate rollback {loop} --to {revision}~1",
    "repair": "gitstate show {revision}",
}


def _label(to: Target | None, revision: str) -> str:
    return (
        revision[:7] if to is None or isinstance(to, datetime) or revision.startswith(to) else f"{to} ({revision[:7]})"
    )


def _one_of(to: Target | None, steps: int | None) -> None:
    if (to is None) == (steps is None):
        raise InvalidInputError("exactly one of to and steps is wanted", hint="give --to REV or --steps N")
