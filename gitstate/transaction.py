"""The one way to write: every mutation is one pass through here, down once and up once.

1 validate (the caller's pure part), 2 acquire, 3 reconcile, 4 read, 5 apply,
6 write, 7 publish, 8 project. Before step 7 nothing can be seen; after it
nothing raises. See ``docs/explanation/durability.md``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from gitstate import layout
from gitstate.beginning import Beginning
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.errors import (
    CorruptStateError,
    GitStateError,
    LeaseLostError,
    RefusedError,
    StorageError,
    logged,
    warn_of_damage,
)
from gitstate.guard import BRIEFLY, Guard
from gitstate.lease import Lease, LeaseKeeper
from gitstate.loops import Apply, Done, Outcome
from gitstate.noting import Noting
from gitstate.operation import planned
from gitstate.projection import Projection
from gitstate.publishing import Publishing
from gitstate.reconciling import Reconciling
from gitstate.results import Change
from gitstate.settling import settle
from gitstate.snapshot import Snapshot, changes_of
from gitstate.store.refs import BranchMovedError
from gitstate.store.revisions import Revisions
from gitstate.upkeep import Upkeep

_INSIDE = threading.local()  # the state directories that this thread is mutating right now


@dataclass
class Writer:
    """Whoever mutates one state directory. ``lock_timeout`` and ``lease_seconds`` in seconds."""

    base: Path
    clock: Clock
    actor: str
    lock_timeout: float
    lease_seconds: float
    auto_repair: bool
    directory: Directory
    projection: Projection
    revisions: Revisions
    keeper: LeaseKeeper = field(init=False)
    notes: Noting = field(init=False)
    _kept_up: str = field(default="", init=False)  # the head that was read last while waiting
    upkeep: Upkeep = field(init=False)
    publishing: Publishing = field(init=False)
    reconciling: Reconciling = field(init=False)

    def __post_init__(self) -> None:
        self.notes = Noting(self.projection, self.revisions.objects)
        self.keeper = LeaseKeeper(
            self.directory,
            guard=Guard(self.directory, layout.GUARD, self.clock),
            turn=Guard(self.directory, layout.TURN, self.clock),
            clock=self.clock,
            seconds=self.lease_seconds,
            newest_generation=self._newest_generation,
            meanwhile=self._keep_up,
        )
        self.upkeep = Upkeep(self.directory, self.projection, self.revisions, self.keeper)
        self.publishing = Publishing(
            self.actor,
            max(self.lock_timeout, BRIEFLY),  # even where the lease is tried for only once
            self.directory,
            self.projection,
            self.revisions,
            self.keeper,
            self.notes,
            self.upkeep,
        )
        self.reconciling = Reconciling(
            self.base,
            self.clock,
            self.actor,
            self.auto_repair,
            self.directory,
            self.projection,
            self.revisions,
            self.notes,
            self.publishing,
        )

    # --- one mutation ---

    def run(self, purpose: str, apply: Apply, reason: str | None = None) -> Done:
        """One mutation, all eight steps. *apply* is pure, and called once."""
        with self.holding(purpose) as (lease, snapshot):
            now = self.clock.now()
            outcome = apply(snapshot, now)
            return self.finish(lease, snapshot, outcome, now, reason)

    def prepare(self, *, complete: bool = False) -> bool:
        """Make sure that there is a repository, adopting what lies there; whether it was made now.

        Raises:
            RefusedError: the project tracks files of the state directory; or, without *complete*, this is a clone.
        """
        beginning = Beginning(self.base, self.clock, self.actor, self.directory, self.projection, self.revisions)
        made = beginning.prepare(complete=complete)
        if complete:
            self.notes.drop()  # everything is looked at
            with suppress(GitStateError):
                self.revisions.note_all()
        return made

    @contextmanager
    def leased(self, purpose: str) -> Iterator[Lease]:
        """The lease alone, for what changes no state: for the length of the block nobody else mutates."""
        with self._entered(), self.directory.kept_open():
            self.prepare()
            lease = self.keeper.acquire(purpose, self.lock_timeout, first=self.upkeep.clear_up)
            try:
                yield lease
            finally:
                self._release(lease)

    @contextmanager
    def holding(self, purpose: str) -> Iterator[tuple[Lease, Snapshot]]:
        """Steps 2 to 4: the lease, and the snapshot of a head that the files agree with; then the lease is given back."""
        with self._entered(), self.directory.kept_open():
            self.prepare()
            lease = self.keeper.acquire(purpose, self.lock_timeout, first=self.upkeep.clear_up)
            try:
                head = self.reconciling.reconciled(lease)
                yield lease, Snapshot(self.revisions.tree(head))
            except BranchMovedError as error:
                raise self._overtaken(lease, error) from None
            except StorageError as error:
                if error.code == "outcome_unknown" or self.keeper.is_mine(lease):
                    raise
                raise self.keeper.lost(lease) from error
            finally:
                self._release(lease)
                for problem in self.projection.disposal.free():
                    warn_of_damage(problem)

    def _overtaken(self, lease: Lease, error: BranchMovedError) -> LeaseLostError:
        """The head moved: under another lease, or by a commit that is not gitstate's."""
        if not self.keeper.is_mine(lease):
            return self.keeper.lost(lease)
        return LeaseLostError(
            f"{error.message}: somebody else committed; nothing was published",
            hint="repeat the command: it starts from the present state",
            generation=lease.generation,
        )

    def finish(self, lease: Lease, before: Snapshot, outcome: Outcome, now: datetime, reason: str | None) -> Done:
        """Steps 5 (its end) to 8."""
        after = settle(outcome.snapshot, now, owner=self.actor)
        if not after.edits and not after.new_tags:
            self.revisions.recent.make_durable(before.revision or "", self.publishing.guarded)
            return Done(before, outcome.operation)
        parent = self.revisions.read(before.revision or "")
        operation = self.publishing.signed(outcome.operation, lease, reason)
        compared = after.compared()  # later there might be nothing left to read them from
        revision = self.publishing.commit(lease, parent, after, operation, now, last=True)

        def described() -> Change:
            change = planned(operation, time=revision.time, revision=revision.id, parent=parent.id)
            return replace(change, fields=tuple(changes_of(compared)))

        return Done(Snapshot(self.revisions.tree(revision.id)), operation, described)

    # --- small things ---

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """A mutation inside a mutation of the same thread can only wait for itself: it is refused at once."""
        inside: tuple[tuple[int, Path], ...] = getattr(_INSIDE, "bases", ())
        # A child forked meanwhile is in the middle of nothing.
        if any(pid == os.getpid() and self._is_at(base) for pid, base in inside):
            raise RefusedError(
                "this thread is in the middle of a mutation of the same state directory",
                hint="use the open transaction's own methods, or return the changes from the function",
                path=str(self.base),
            )
        _INSIDE.bases = *inside, (os.getpid(), self.base)
        try:
            yield
        finally:
            _INSIDE.bases = inside

    def _is_at(self, base: Path) -> bool:
        """Whether the state directory is the one at *base*, whichever way leads to it."""
        try:
            return os.path.samefile(self.base, base)
        except OSError:  # it is made in the course of this
            return os.path.realpath(self.base) == os.path.realpath(base)

    def _release(self, lease: Lease) -> None:
        if self.keeper.holds(lease):
            try:
                with self.keeper.guard.hold(BRIEFLY):
                    self.publishing.give_back(lease)
            except GitStateError as error:
                self.keeper.abandon(lease)
                logged(f"the lease of generation {lease.generation} is left to expire: {error}")
        self.upkeep.leave(lease)

    def _keep_up(self) -> None:
        """Have at hand what a mutation reads of the head."""
        with suppress(GitStateError):
            self.revisions.recent.learn()
            head = self.revisions.head()
            if head != self._kept_up:
                snapshot = Snapshot(self.revisions.tree(head))
                snapshot.loops()
                snapshot.record(layout.REGISTRY)
                self._kept_up = head

    def _newest_generation(self) -> int:
        try:
            head = self.revisions.head()
            if head == self.publishing.newest[0]:
                return self.publishing.newest[1]
            if not self.revisions.recent.is_known(head):
                self.revisions.recent.learn()  # the head is in the journal: there it is found at once
            return self.revisions.newest_generation(head)
        except CorruptStateError:
            return 0
