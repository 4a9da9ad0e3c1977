"""Pruning: the one mutation that deletes what history does not hold, so it says first how much that is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from gitstate import archives, history, requests
from gitstate.errors import DamageWarning, warn
from gitstate.history import Archiving
from gitstate.layout import ARCHIVE, STATE_FILE, Place
from gitstate.marks import size_of
from gitstate.open_transaction import plan_of
from gitstate.operation import Operation, planned
from gitstate.questions import Questions
from gitstate.results import Change
from gitstate.rollbacks import Rollbacks
from gitstate.settling import settle
from gitstate.snapshot import Snapshot
from gitstate.text import size

if TYPE_CHECKING:
    from gitstate.transaction import Writer


class Pruning(Questions, Rollbacks):
    """Pruning of the archive. It is no part of a transaction: what it deletes, no exception could bring back."""

    @property
    @abstractmethod
    def _writer(self) -> Writer:
        """Whoever writes."""

    @abstractmethod
    def _remembered(self, change: Change | None) -> None:
        """Keep *change* as this thread's newest."""

    def prune_archives(
        self,
        *,
        older_than: timedelta,
        artifacts_only: bool = False,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> list[Change]:
        """Remove archived loops from the work tree, their artifacts included, the oldest first; one commit each.

        Their tags stay: ``get_loop`` and ``log`` go on answering, ``restore_loop`` brings them back without artifacts,
        and their ids stay taken. Artifacts are nowhere else: they are gone for good. Each change says in ``bytes`` what
        it frees. An archived loop whose tag is missing or damaged is left alone, with a ``DamageWarning``.

        Args:
            older_than: how long ago they were archived, at least.
            artifacts_only: delete what is not versioned and leave the loops in the archive. There is no commit, so the
                changes have no revision.
            dry_run: only say what would be done.

        Raises:
            InvalidInputError: *older_than* is negative, or no timedelta.
        """
        age, words = requests.age("older_than", older_than), requests.reason(reason)
        view, now = self._view(), self._clock.now()
        due = [found for found in (self._due(view, i, age, now) for i in view.loops(ARCHIVE)) if found]
        due.sort(key=lambda found: found[1].revision.order)
        changes = []
        self._remembered(None)
        for loop_id, archiving in due:
            if dry_run:
                change = self._plan(view, loop_id, archiving, now, artifacts_only)
            elif artifacts_only:
                change = self._without_artifacts(loop_id, age)
            else:
                change = self._pruned(loop_id, age, words)
            changes += [change] if change is not None else []
        if changes and not dry_run and not artifacts_only:
            self._remembered(changes[-1])
        return changes

    def _due(self, snapshot: Snapshot, loop_id: str, age: timedelta, now: datetime) -> tuple[str, Archiving] | None:
        """A loop with its archiving, if it is archived for long enough and its tag has all of it."""
        place = snapshot.place(loop_id)
        if place is None or place.area != ARCHIVE or not self._is_begun():
            return None
        archiving = history.archiving_of(self._revisions, snapshot, loop_id)
        if archiving is None:
            warn(f"{loop_id} has no tag of its archiving and is left alone: see gitstate check", DamageWarning)
            return None
        return (loop_id, archiving) if now - archiving.revision.time >= age else None

    def _plan(
        self, view: Snapshot, loop_id: str, archiving: Archiving, now: datetime, artifacts_only: bool
    ) -> Change | None:
        freed = self._bytes(loop_id, artifacts_only)
        if artifacts_only:
            return self._freed(loop_id, archiving, now, freed) if freed else None
        outcome = archives.prune(view, loop_id, archived=_day(archiving), size=size(freed))
        change = plan_of(view, settle(outcome.snapshot, now, owner=self.actor), outcome.operation, now, self.actor)
        return replace(change, bytes=freed)

    def _pruned(self, loop_id: str, age: timedelta, reason: str | None) -> Change | None:
        with self._writer.holding(f"prune-{loop_id}") as (lease, snapshot):
            now = self._clock.now()
            found = self._due(snapshot, loop_id, age, now)
            if found is None:
                return None  # restored meanwhile, or pruned by somebody else
            freed = self._bytes(loop_id, artifacts_only=False)
            outcome = archives.prune(snapshot, loop_id, archived=_day(found[1]), size=size(freed))
            self._writer.projection.disposal.ask(loop_id)
            done = self._writer.finish(lease, snapshot, outcome, now, reason)
        return replace(done.required, bytes=freed)

    def _without_artifacts(self, loop_id: str, age: timedelta) -> Change | None:
        with self._writer.holding(f"prune-{loop_id}") as (lease, snapshot):
            now = self._clock.now()
            found = self._due(snapshot, loop_id, age, now)
            freed = self._bytes(loop_id, artifacts_only=True)
            if found is None or not freed:
                return None
            directory, disposal = Place(ARCHIVE, loop_id).directory, self._writer.projection.disposal
            with self._writer.publishing.proven(lease):
                names = self._writer.directory.names(directory)
                disposal.put_aside(f"{directory}/{name}" for name in names if name != STATE_FILE)
        return self._freed(loop_id, found[1], now, freed)

    def _bytes(self, loop_id: str, artifacts_only: bool) -> int:
        place = Place(ARCHIVE, loop_id)
        state = self._directory.status(place.path) if artifacts_only else None
        return size_of(self.base_dir / place.directory, whole=True) - (state.st_size if state is not None else 0)

    def _freed(self, loop_id: str, archiving: Archiving, now: datetime, freed: int) -> Change:
        words = f"prune {loop_id}: archived {_day(archiving)}, frees {size(freed)} of artifacts"
        operation = Operation("prune", words, (loop_id,), actor=self.actor)
        return replace(planned(operation, time=now), bytes=freed)


def _day(archiving: Archiving) -> str:
    return f"{archiving.revision.time:%Y-%m-%d}"
