"""The mutators of loops, which a repository and an open transaction share."""

from __future__ import annotations

import os
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from gitstate import iterations, loops, process, requests
from gitstate.clock import isoformat
from gitstate.encoding import Record
from gitstate.errors import InvalidInputError, LoopLimitWarning, StaleRevisionError, shown, warn
from gitstate.fields import difference
from gitstate.ids import generate_loop_id, validate_known_id, validate_loop_id
from gitstate.loops import Apply, Done, Driver, NewLoop, Outcome
from gitstate.reading import Reads, copied, crashed, liveness_of
from gitstate.records import LoopState, ProcessRecord, Registry, RegistryEntry
from gitstate.snapshot import Snapshot
from gitstate.store.naming import resolve

if TYPE_CHECKING:
    from gitstate.store.revisions import Revisions

Pid = int | Literal["self"] | None


class Mutations(Reads):
    """Every method is one commit, or none when nothing had to change.

    ``reason`` is free text on one line, kept with the commit. Every method may raise, besides what it names:
    ``InvalidInputError`` for what is out of bounds; ``LeaseTimeoutError`` when the lease is not to be had in time;
    ``LeaseLostError`` when another writer overtook this one (nothing was published); ``RefusedError`` inside another
    mutation of the same thread, on a clone, or while the user is in the middle of a merge; ``CorruptStateError`` when
    damage cannot or must not be repaired; ``StorageError`` for the file system's refusals.
    """

    _project_root: Path

    @abstractmethod
    def _mutate(self, purpose: str, apply: Apply, reason: str | None) -> Done:
        """Apply one pure function: a whole pass, or a step of the open transaction."""

    @property
    @abstractmethod
    def _revisions(self) -> Revisions:
        """History, for what has to be fetched from it."""

    @property
    @abstractmethod
    def actor(self) -> str:
        """Who mutates."""

    # --- creating ---

    def create_loop(
        self,
        objective: str,
        completion_criteria: str,
        *,
        loop_id: str | None = None,
        max_iterations: int = 10,
        model: str = "opus",
        budget_per_iteration: float = 2.0,
        timeout_minutes: float = 60,
        mcp_config: Mapping[str, object] | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        gitea_integration: Mapping[str, object] | None = None,
        owner: str | None = None,
        priority: Literal["low", "medium", "high", "critical"] = "medium",
        tags: Iterable[str] = (),
        pid: Pid = "self",
        force: bool = False,
        reason: str | None = None,
    ) -> LoopState:
        """Create a loop: its directory, session state and registry entry, status ``running``.

        Args:
            objective: what the loop is to reach; not blank.
            completion_criteria: how to tell that it has.
            loop_id: an id of the grammar; drawn from the objective without one.
            budget_per_iteration: dollars, above 0.
            timeout_minutes: minutes, above 0.
            working_dir: the project root without one.
            owner: the actor without one.
            pid: the process that drives the loop: ``"self"``, a pid, or ``None``.
            force: go over the limit of concurrent loops, with a ``LoopLimitWarning``.

        Raises:
            LoopExistsError: the id is taken, or was ever archived or checkpointed.
            LoopLimitError: as many loops are active as the registry allows.
        """
        config: Record = {
            "model": requests.text("model", model),
            "budgetPerIteration": requests.amount("budget_per_iteration", budget_per_iteration),
            "timeoutMinutes": requests.amount("timeout_minutes", timeout_minutes),
            "mcpConfig": None if mcp_config is None else requests.record("mcp_config", mcp_config),
            "workingDir": str(self._project_root) if working_dir is None else _path("working_dir", working_dir),
        }
        chosen = None if loop_id is None else validate_loop_id(loop_id)
        number = _pid(pid)
        new = NewLoop(
            loop_id=chosen or "",
            objective=requests.text("objective", objective),
            completion_criteria=requests.text("completion_criteria", completion_criteria),
            session_id=str(uuid.uuid4()),
            started="",
            owner=self.actor if owner is None else requests.line("owner", owner),
            pid=number,
            process=_identity(number),
            max_iterations=requests.whole("max_iterations", max_iterations, 1),
            priority=requests.priority(priority),
            tags=tuple(requests.tags(tags)),
            gitea_integration=None
            if gitea_integration is None
            else requests.record("gitea_integration", gitea_integration),
            config=config,
        )

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            named = new._replace(loop_id=chosen or unused_id(snapshot, objective), started=isoformat(now))
            return loops.create(snapshot, named, force=force, dead=dead_if_full(snapshot, force))

        done = self._mutate("create-loop", apply, reason)
        return self._state(done, done.operation.loop_ids[0])

    # --- changing ---

    def update_loop(
        self,
        loop_id: str,
        changes: Mapping[str, object],
        *,
        remove: Iterable[str] = (),
        if_revision: str | datetime | None = None,
        reason: str | None = None,
    ) -> LoopState:
        """Replace top-level keys of a session state by *changes*, and delete those in *remove*.

        ``loopId``, ``version``, ``startTime`` and ``gitstate`` are protected: they may be given only with their
        present values, so that a whole record can be passed back.

        Args:
            if_revision: go on only if this loop's state and entry are as they were at that revision.

        Raises:
            LoopNotFoundError: no such active loop.
            StaleRevisionError: the loop changed since *if_revision*.
        """
        validate_known_id(loop_id)
        given, removed = requests.record("changes", changes), tuple(_keys(remove))

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            self._expect(snapshot, loop_id, if_revision)
            return loops.update(snapshot, loop_id, given, removed)

        return self._state(self._mutate(f"update-{loop_id}", apply, reason), loop_id)

    def modify_loop(
        self, loop_id: str, function: Callable[[LoopState], Mapping[str, object] | None], *, reason: str | None = None
    ) -> LoopState:
        """Read, decide and write in one step: *function* gets a copy of the state and returns changes, or ``None``.

        It is called once, while this process holds the lease, so that nothing can come between. What it raises passes
        through, and nothing is written. It must not mutate the same state directory itself.

        Raises:
            LoopNotFoundError: no such active loop.
        """
        validate_known_id(loop_id)

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            changes = function(copied(snapshot.active(loop_id)))
            return loops.update(snapshot, loop_id, {} if changes is None else requests.record("changes", changes))

        return self._state(self._mutate(f"update-{loop_id}", apply, reason), loop_id)

    def record_iteration(
        self,
        loop_id: str,
        record: Mapping[str, object],
        *,
        if_revision: str | datetime | None = None,
        reason: str | None = None,
    ) -> LoopState:
        """Append what an iteration left; the very same record again changes nothing.

        ``number`` counts from 1 (left out: the next). ``learnings`` (text or list of texts) are appended to
        ``accumulatedLearnings``, ``filesModified`` joins the loop's, ``currentIteration`` never falls.

        Raises:
            LoopNotFoundError: no such active loop.
            RefusedError: another record has that number; ``amend_iteration`` is for that.
            StaleRevisionError: the loop changed since *if_revision*.
        """
        validate_known_id(loop_id)
        given = iterations.check_record(requests.record("record", record))

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            self._expect(snapshot, loop_id, if_revision)
            return iterations.record(snapshot, loop_id, given)

        return self._state(self._mutate(f"iterate-{loop_id}", apply, reason), loop_id)

    def amend_iteration(
        self, loop_id: str, number: int, changes: Mapping[str, object], *, reason: str | None = None
    ) -> LoopState:
        """Replace fields of one iteration's record and recompute what derives from it; ``{"learnings": []}`` forgets.

        Raises:
            LoopNotFoundError: no such active loop.
            InvalidInputError: no such iteration.
        """
        validate_known_id(loop_id)
        which = requests.whole("number", number, 1)
        given = iterations.check_record(requests.record("changes", changes))
        done = self._mutate(
            f"amend-{loop_id}", lambda snapshot, now: iterations.amend(snapshot, loop_id, which, given), reason
        )
        return self._state(done, loop_id)

    def update_loop_pid(self, loop_id: str, pid: Pid, *, reason: str | None = None) -> LoopState:
        """Record the process that drives a loop: ``"self"``, a pid of this host, or ``None``.

        Raises:
            LoopNotFoundError: no such active loop.
        """
        validate_known_id(loop_id)
        number = _pid(pid)
        identity = _identity(number)
        done = self._mutate(
            f"update-pid-{loop_id}", lambda snapshot, now: loops.update_pid(snapshot, loop_id, number, identity), reason
        )
        return self._state(done, loop_id)

    def resume_loop(
        self,
        loop_id: str,
        *,
        pid: Pid = "self",
        max_iterations: int | None = None,
        force: bool = False,
        reason: str | None = None,
    ) -> LoopState:
        """Take a loop over: status ``running``, pid and process identity, in one commit.

        Changes nothing for the process that drives it already.

        Raises:
            LoopNotFoundError: no such active loop.
            RefusedError: another live process drives it; or, without *force*, its process belongs to another host or
                its status is ``completed``, ``failed``, ``aborted`` or ``limit_reached``.
        """
        validate_known_id(loop_id)
        number = _pid(pid)
        identity = _identity(number)
        limit = None if max_iterations is None else requests.whole("max_iterations", max_iterations, 1)

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            driver = Driver(number, identity, liveness_of(snapshot.active(loop_id)))
            return loops.resume(snapshot, loop_id, driver, max_iterations=limit, force=force)

        return self._state(self._mutate(f"resume-{loop_id}", apply, reason), loop_id)

    def update_entry(
        self,
        loop_id: str,
        *,
        owner: str | None = None,
        priority: Literal["low", "medium", "high", "critical"] | None = None,
        tags: Iterable[str] | None = None,
        reason: str | None = None,
    ) -> RegistryEntry:
        """Change what only the registry knows of an active loop.

        Raises:
            LoopNotFoundError: no such active loop.
        """
        validate_known_id(loop_id)
        changes: Record = {}
        if owner is not None:
            changes["owner"] = requests.line("owner", owner)
        if priority is not None:
            changes["priority"] = requests.priority(priority)
        if tags is not None:
            changes["tags"] = list(requests.tags(tags))
        done = self._mutate(
            f"update-{loop_id}", lambda snapshot, now: loops.update_entry(snapshot, loop_id, changes), reason
        )
        return cast("RegistryEntry", copied(done.snapshot.entries[loop_id]))

    def set_max_concurrent_loops(self, n: int, *, reason: str | None = None) -> Registry:
        """Set how many loops may be active at once, from 1."""
        limit = requests.whole("max_concurrent_loops", n, 1)
        done = self._mutate("limit", lambda snapshot, now: loops.set_limit(snapshot, limit), reason)
        return cast("Registry", copied(done.snapshot.registry))

    # --- what they share ---

    def _state(self, done: Done, loop_id: str) -> LoopState:
        return cast("LoopState", done.snapshot.fresh(loop_id))

    def _expect(self, snapshot: Snapshot, loop_id: str, if_revision: str | datetime | None) -> None:
        """Raises StaleRevisionError if the loop's state or entry is not as it was at *if_revision*."""
        if if_revision is None:
            return
        revision = resolve(self._revisions, if_revision)
        then = Snapshot(self._revisions.tree(revision))
        current = snapshot.active(loop_id)
        changes = difference(then.state_or_none(loop_id), current, loop_id=loop_id)
        changes += difference(then.entries.get(loop_id), snapshot.entries.get(loop_id), loop_id=loop_id)
        if changes:
            raise StaleRevisionError(
                f"{loop_id} changed since {revision[:7]}: {', '.join(change.path for change in changes[:8])}",
                hint=f"gitstate diff {revision[:7]} --loop {loop_id}",
                loop_id=loop_id,
                expected=revision,
                actual=snapshot.revision,
            )


def unused_id(snapshot: Snapshot, objective: str) -> str:
    """An id drawn for *objective* that no loop has or had."""
    while True:
        drawn = generate_loop_id(objective)
        if snapshot.place(drawn) is None and not snapshot.tags(drawn):
            return drawn


def dead_if_full(snapshot: Snapshot, force: bool) -> list[str]:
    """Where no slot is free, the dead loops, for the refusal to tell of; with *force* there is a warning instead."""
    words = loops.over_limit(snapshot)
    if words is None:
        return []
    if force:
        warn(words, LoopLimitWarning)
        return []
    return crashed(snapshot)


def _pid(pid: object) -> int | None:
    return os.getpid() if pid == "self" else requests.pid(pid)


def _path(name: str, value: str | os.PathLike[str]) -> str:
    try:
        return requests.text(name, os.fspath(value))
    except TypeError:
        raise InvalidInputError(f"{name}: a path is wanted, not {shown(value)}") from None


def _identity(pid: int | None) -> ProcessRecord | None:
    return None if pid is None else process.identity(pid)


def _keys(remove: Iterable[str]) -> list[str]:
    # One text is many keys of one letter to a type checker, and never what was meant.
    keys = list(remove) if isinstance(remove, Iterable) and not isinstance(remove, str) else None
    if keys is None or not all(isinstance(key, str) for key in keys):
        raise InvalidInputError(f"remove: a list of keys is wanted, not {shown(remove)}")
    return keys
