"""The mutators that put loops away and get them back: archive, restore, checkpoint, reap, migrate."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from functools import partial

from gitstate import archives, history, loops, migration, process, requests
from gitstate.encoding import Record
from gitstate.errors import CorruptStateError
from gitstate.ids import validate_known_id
from gitstate.layout import ARCHIVE, LEGACY
from gitstate.loops import Outcome
from gitstate.mutations import Mutations, dead_if_full, unused_id
from gitstate.operation import Operation
from gitstate.reading import liveness_of
from gitstate.records import LoopState
from gitstate.results import Change
from gitstate.snapshot import Snapshot
from gitstate.verdicts import Unreadable


class Archival(Mutations):
    """As :class:`~gitstate.mutations.Mutations`: each a commit, or none; what may be raised besides is said there."""

    def archive_loop(
        self, loop_id: str, *, status: str | None = None, force: bool = False, reason: str | None = None
    ) -> Change:
        """Move a loop to the archive, counted and tagged; *status* replaces the state's.

        Raises:
            LoopNotFoundError: no such active loop.
            RefusedError: another live process drives it, and *force* is off. The caller and its ancestors do not count.
        """
        validate_known_id(loop_id)
        word = None if status is None else requests.status(status)

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            seen = liveness_of(snapshot.active(loop_id))
            mine = seen.pid is not None and process.is_mine(seen.pid)
            return archives.archive(snapshot, loop_id, status=word, liveness=seen, mine=mine, force=force)

        return self._mutate(f"archive-{loop_id}", apply, reason).required

    def restore_loop(self, loop_id: str, *, force: bool = False, reason: str | None = None) -> LoopState:
        """Bring an archived loop back: its entry as the archiving removed it, the counter down, status ``paused``.

        A pruned loop comes back from its tag, without artifacts.

        Raises:
            LoopNotFoundError: no such loop.
            LoopExistsError: it is active.
            LoopLimitError: no slot is free, and *force* is off.
        """
        validate_known_id(loop_id)
        done = self._mutate(
            f"restore-{loop_id}", lambda snapshot, now: self._restored(snapshot, loop_id, force), reason
        )
        return self._state(done, loop_id)

    def _restored(self, snapshot: Snapshot, loop_id: str, force: bool) -> Outcome:
        place = snapshot.place(loop_id)
        find = history.pruned if place is None else history.archiving_of
        archiving = find(self._revisions, snapshot, loop_id)
        if place is None and archiving is None:
            snapshot.find(loop_id)
        if place is None or place.area == ARCHIVE:
            dead = dead_if_full(snapshot, force)
            if not force:
                loops.check_slot(snapshot, dead)
        state = snapshot.find(loop_id)[1] if place is not None else archiving.state if archiving is not None else {}
        entry = archiving.entry if archiving is not None else None
        if archiving is None:  # archived in this very transaction
            entry = Snapshot(snapshot.tree).entries.get(loop_id)
        return archives.restore(snapshot, loop_id, state, entry, owner=self.actor, pruned=place is None)

    def checkpoint(self, loop_id: str, name: str, *, reason: str | None = None) -> Change:
        """Name this moment of an active loop: the tag ``checkpoint/<loop_id>/<name>``, which serves as a revision.

        Raises:
            LoopNotFoundError: no such active loop.
            RefusedError: the loop has a checkpoint of that name; a tag never moves.
        """
        validate_known_id(loop_id)
        checked = requests.checkpoint_name(name)
        done = self._mutate(
            f"checkpoint-{loop_id}", lambda snapshot, now: archives.checkpoint(snapshot, loop_id, checked), reason
        )
        return done.required

    def reap_crashed_loops(
        self, *, archive: bool = False, foreign: bool = False, reason: str | None = None
    ) -> list[Change]:
        """Give every loop that is ``running`` while its process is gone the status ``crashed``; one commit each.

        Args:
            archive: put them away, too (a second commit each).
            foreign: also those whose process belongs to another host, of which nothing is known.
        """
        view = self._view()
        found: list[Change] = []
        for loop_id in view.entries:
            state = view.state_or_none(loop_id)
            if state is None or not self._is_gone(state, foreign):
                continue
            done = self._mutate(f"reap-{loop_id}", partial(self._reaped, loop_id, foreign), reason)
            if done.change is None:
                continue
            found.append(done.change)
            if archive:
                found.append(self.archive_loop(loop_id, reason=reason))
        return found

    def _is_gone(self, state: Record, foreign: bool) -> bool:
        verdict = liveness_of(state).verdict
        return state.get("status") == "running" and (verdict == "dead" or (foreign and verdict == "foreign"))

    def _reaped(self, loop_id: str, foreign: bool, snapshot: Snapshot, now: datetime) -> Outcome:
        """Judged again under the lease: somebody may have resumed it since."""
        state = snapshot.state_or_none(loop_id) if loop_id in snapshot.entries else None
        if state is None or not self._is_gone(state, foreign):
            return Outcome(snapshot, Operation("reap", f"reap {loop_id}: nothing to do"))
        return loops.reap(snapshot, loop_id, liveness_of(state))

    def migrate_legacy_state(self, *, reason: str | None = None) -> str | None:
        """Make the older single-loop manager's state, if there is one, a loop of its own; the loop's id, else ``None``.

        Its subdirectories move along; the file itself is kept in the loop's directory. Interrupted and called again,
        it goes on with the same loop.

        Raises:
            CorruptStateError: there is one, but it cannot be read.
        """
        found = self._legacy_state()
        if found is None:
            if self._is_unfinished():  # whoever moved the file away may have been killed right after
                self._mutate("migrate-legacy", _nothing_to_migrate, reason)
            return None
        legacy, damage = (None, found.damage) if isinstance(found, Unreadable) else migration.read_legacy(found)
        if legacy is None:
            raise CorruptStateError(
                f"{LEGACY}: {damage}",
                hint=f"look at it, and at {LEGACY}.bak beside it",
                path=LEGACY,
                damage=damage,
                revision=None,
            )
        ids: list[str] = []

        def apply(snapshot: Snapshot, now: datetime) -> Outcome:
            known = migration.find_migrated(snapshot, legacy)
            objective = legacy.get("objective")
            ids.append(known or unused_id(snapshot, objective if isinstance(objective, str) else "migrated loop"))
            if known is not None:
                return Outcome(snapshot, Operation("migrate", f"migrate {known}: nothing to do"))
            return migration.migrate(snapshot, ids[0], legacy, self.actor)

        self._mutate("migrate-legacy", apply, reason)
        return ids[0]

    @abstractmethod
    def _is_unfinished(self) -> bool:
        """Whether somebody was interrupted before all was written."""

    @abstractmethod
    def _legacy_state(self) -> bytes | Unreadable | None:
        """What the older single-loop manager left, if it did."""


def _nothing_to_migrate(snapshot: Snapshot, now: datetime) -> Outcome:
    return Outcome(snapshot, Operation("migrate", "migrate: nothing to do"))
