"""The front door: one object for one state directory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from gitstate import history, requests
from gitstate.audit import Progress
from gitstate.clock import Clock
from gitstate.errors import CorruptStateError, GitStateError, InvalidInputError, shown
from gitstate.loops import Apply, Done, Outcome
from gitstate.open_transaction import Transaction, plan_of
from gitstate.operation import Operation
from gitstate.projection import Projection
from gitstate.pruning import Pruning
from gitstate.reading import liveness_of
from gitstate.results import Change, Finding, LeaseInfo
from gitstate.settling import settle
from gitstate.verdicts import Unreadable

if TYPE_CHECKING:
    from gitstate.reports import GarbageReport
    from gitstate.transaction import Writer


class StateRepository(Pruning):
    """The state directory of one project: reads, mutations, history and health.

    Making one writes nothing. Threads may share it; it is synchronous; after ``fork`` the child's copy works and holds
    nothing. Records are plain dicts and fresh copies.

    Args:
        project_root: the directory that holds ``.aiwg/``.
        actor: who mutates (``user:alice``, ``agent:reviewer``); ``user:`` and the login name without one.
        lock_timeout: seconds to wait for the lease; 0 tries once.
        lease_seconds: seconds after which a lease of ours may be taken over.
        auto_repair: replace damaged files by history's version, keeping the bytes; otherwise ``CorruptStateError``.
        clock: where all time comes from.

    Raises:
        InvalidInputError: a path that cannot be one, an actor that is not one line of at most 200 characters without
            ``<`` and ``>``, or a negative or infinite time.
    """

    def __init__(
        self,
        project_root: str | os.PathLike[str],
        *,
        actor: str | None = None,
        lock_timeout: float = 35.0,
        lease_seconds: float = 30.0,
        auto_repair: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(project_root, actor=actor, clock=clock)
        self._lock_timeout = _seconds("lock_timeout", lock_timeout, least=0)
        self._lease_seconds = _seconds("lease_seconds", lease_seconds, least=0.001)
        self._auto_repair = auto_repair
        self._last = threading.local()

    @cached_property
    def _writer(self) -> Writer:
        from gitstate.transaction import Writer  # the writing floor: whoever only reads does without it

        return Writer(
            base=self.base_dir,
            clock=self._clock,
            actor=self.actor,
            lock_timeout=self._lock_timeout,
            lease_seconds=self._lease_seconds,
            auto_repair=self._auto_repair,
            directory=self._directory,
            projection=Projection(self._directory),
            revisions=self._revisions,
        )

    @property
    def last_change(self) -> Change | None:
        """What this thread's newest mutation through this object changed; ``None`` if it had nothing to change."""
        found: Change | Done | None = getattr(self._last, "change", None)
        return found.change if isinstance(found, Done) else found

    # --- mutating ---

    def init(self, *, max_concurrent_loops: int | None = None) -> Change | None:
        """Create, adopt or complete the repository now rather than at the first mutation; ``None``: nothing changed.

        Raises:
            RefusedError: the project tracks files of the state directory.
            UnsafeRepositoryError: a repository is there that gitstate did not make.
        """
        limit = (
            None if max_concurrent_loops is None else requests.whole("max_concurrent_loops", max_concurrent_loops, 1)
        )
        self._last.change = None
        made = self._writer.prepare(complete=True)
        self._mutate("init", lambda snapshot, now: Outcome(snapshot, Operation("init", "init: nothing to do")), None)
        if limit is not None:
            self.set_max_concurrent_loops(limit)
        if self.last_change is None and made:
            *_, first = self._revisions.walk(self._revisions.head())
            self._last.change = history.change_of(self._revisions, first, fields=True)
        return self.last_change

    def _mutate(self, purpose: str, apply: Apply, reason: str | None) -> Done:
        self._last.change = None
        done = self._writer.run(purpose, apply, requests.reason(reason))
        self._last.change = done
        return done

    @contextmanager
    def transaction(self, reason: str | None = None) -> Iterator[Transaction]:
        """Several mutations as one commit: all of them, or, if the block raises, none.

        The lease is held for the length of the block. If it expires meanwhile and nobody takes it over, the commit is
        made all the same; otherwise ``LeaseLostError``, and nothing was published.
        """
        words = requests.reason(reason)
        self._last.change = None
        with self._writer.holding("transaction") as (lease, snapshot):
            now = self._clock.now()
            open_transaction = Transaction(self, snapshot, now)
            try:
                yield open_transaction
            finally:
                open_transaction._is_over = True
            outcome = open_transaction._outcome(words)
            done = self._writer.finish(lease, snapshot, outcome, now, words)
            open_transaction._change = self._last.change = done.change

    def plan(self, function: Callable[[Transaction], object]) -> list[Change]:
        """What *function* would change, if it were given a transaction now. Nothing is locked or written."""
        trial = Transaction(self, self._view(), self._clock.now())
        function(trial)
        trial._is_over = True
        return list(trial._planned_changes)

    def _planned(self, purpose: str, apply: Apply, *, dry_run: bool, reason: str | None) -> Change:
        now = self._clock.now()
        if dry_run:
            view = self._view()
            outcome = apply(view, now)
            return plan_of(view, settle(outcome.snapshot, now, owner=self.actor), outcome.operation, now, self.actor)
        done = self._mutate(purpose, apply, reason)
        return done.change or plan_of(done.snapshot, done.snapshot, done.operation, now, self.actor)

    def _is_unfinished(self) -> bool:
        return self._is_readable() and self._writer.reconciling.is_unfinished()

    def _remembered(self, change: Change | None) -> None:
        self._last.change = change

    def _legacy_state(self) -> bytes | Unreadable | None:
        return self._writer.projection.legacy_state()

    # --- health ---

    def check(self, *, full: bool = False, progress: Progress | None = None) -> list[Finding]:
        """Everything that is wrong with the store, and what is worth a note; changes nothing.

        Args:
            full: look at every object, pack and tag, not only at every commit.
            progress: called now and then with what is looked at, how much is done and how much there is (0: unknown).
        """
        with self._directory.kept_open():
            return list(self._checker(progress).findings(full=full))

    def diagnose(self, *, progress: Progress | None = None) -> list[Finding]:
        """What surrounds the store: file system, project, dead loops, lease, clock, size. ``check`` judges the store.

        Tries the file system out with small files of its own in ``.git/gitstate``; writes nothing else.

        Args:
            progress: called with what is looked at, and how much of it there is, twice (0: it is not counted).
        """
        from gitstate.doctor import Doctor  # tries locks, too

        try:
            view = self._view()
        except CorruptStateError:  # that is for check and repair to tell of; the files say enough here
            view = self._reader.unadopted()
        states = {loop_id: view.state_or_none(loop_id) or {} for loop_id in view.loops()}
        loops = {loop_id: (str(state.get("status")), liveness_of(state)) for loop_id, state in states.items()}
        doctor = Doctor(self._directory, self._revisions, self._clock, loops, self.lease_info(), progress)
        return list(doctor.findings())

    def repair(self, *, dry_run: bool = False, progress: Progress | None = None) -> list[Finding]:
        """What was found, with what was done about each in ``action``; with *dry_run* nothing is done.

        *progress* as for :meth:`check`, which comes first and last.

        Raises:
            LeaseTimeoutError: the lease was not to be had in time.
        """
        from gitstate import repair  # writes

        before = self.revision() if self._is_readable() else None
        with self._directory.kept_open():
            findings = repair.repair(self._writer, dry_run=dry_run, progress=progress)
        after = self.revision() if self._is_readable() else None
        self._last.change = None if after in (None, before) else self.show(after)
        return findings

    def collect_garbage(self, *, dry_run: bool = False, progress: Progress | None = None) -> GarbageReport:
        """Put all objects into a few packs and all tags into one file; nobody should need it, and nothing is thrown away.

        Others read and write meanwhile; whatever interrupts it, nothing is lost, and the next one takes it up.

        Args:
            dry_run: say what it would come to, and write nothing.
            progress: as for :meth:`check`.

        Raises:
            RefusedError: this is a clone, which is to be completed first.
            LeaseTimeoutError: the lease was not to be had in time.
        """
        from gitstate import garbage  # writes

        return garbage.collect(self._writer, dry_run=dry_run, progress=progress)

    def _is_readable(self) -> bool:
        try:
            return self._is_begun() and bool(self._revisions.read(self._revisions.head()))
        except GitStateError:
            return False

    def break_lease(self, *, force: bool = False) -> LeaseInfo:
        """Remove the lease record; what it said.

        Raises:
            RefusedError: nobody holds the lease, or its holder lives and *force* is off.
        """
        return self._writer.keeper.break_lease(force=force, timeout=self._writer.lock_timeout)


def _seconds(name: str, value: object, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
        raise InvalidInputError(f"{name}: a number of seconds from {least:g} is wanted, not {shown(value, 60)}")
    return float(value)


def open(  # noqa: A001  # gitstate.open, as in the interface
    project_root: str | os.PathLike[str],
    *,
    actor: str | None = None,
    lock_timeout: float = 35.0,
    lease_seconds: float = 30.0,
    auto_repair: bool = True,
) -> StateRepository:
    """The state directory of a project; writes nothing. See :class:`StateRepository` for the arguments."""
    return StateRepository(
        project_root, actor=actor, lock_timeout=lock_timeout, lease_seconds=lease_seconds, auto_repair=auto_repair
    )
