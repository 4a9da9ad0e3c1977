"""An open transaction: several mutations that become one commit, on a state of their own until then."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from gitstate import requests
from gitstate.archival import Archival
from gitstate.encoding import Record
from gitstate.errors import RefusedError
from gitstate.loops import Apply, Done, Outcome
from gitstate.operation import Operation, planned
from gitstate.results import Change
from gitstate.settling import settle
from gitstate.snapshot import Snapshot, difference_between
from gitstate.verdicts import Unreadable

if TYPE_CHECKING:
    from gitstate.store.revisions import Revisions

Moment = str | datetime


class Transaction(Archival):
    """Several mutations that become one commit: the same mutators and reads, on the transaction's own state."""

    def __init__(self, repository: Archival, snapshot: Snapshot, now: datetime) -> None:
        self._repository = repository
        self._project_root = repository._project_root
        self._snapshot = snapshot
        self._now = now
        self._operations: list[Operation] = []
        self._planned_changes: list[Change] = []
        self._change: Change | None = None
        self._is_over = False
        self._pid, self._thread = os.getpid(), threading.get_ident()

    @property
    def change(self) -> Change | None:
        """The commit that was made, once the block is left; ``None`` before, or when nothing had to change."""
        return self._change

    @property
    def actor(self) -> str:
        """Who mutates."""
        return self._repository.actor

    @property
    def _revisions(self) -> Revisions:
        return self._repository._revisions

    def _mutate(self, purpose: str, apply: Apply, reason: str | None) -> Done:
        refusal = self._refusal()
        if refusal is not None:
            raise RefusedError(f"the transaction {refusal}", hint="begin another: with state.transaction() as tx")
        requests.reason(reason)
        before = self._settled(self._snapshot)
        outcome = apply(self._snapshot, self._now)
        after = self._settled(outcome.snapshot)
        change = plan_of(before, after, outcome.operation, self._now, self.actor)
        if not change.fields and before.contents() == after.contents() and before.new_tags == after.new_tags:
            return Done(before, outcome.operation)
        self._operations.append(outcome.operation)
        self._planned_changes.append(change)
        self._snapshot = outcome.snapshot
        return Done(after, outcome.operation, lambda: change)

    def _refusal(self) -> str | None:
        """Why nothing can be changed here now: a lease belongs to one process and thread."""
        if self._is_over:
            return "is over"
        if self._pid != os.getpid():
            return "belongs to the process that forked this one"
        return None if self._thread == threading.get_ident() else "belongs to another thread"

    def _settled(self, snapshot: Snapshot) -> Snapshot:
        return settle(snapshot, self._now, owner=self.actor)

    def _outcome(self, reason: str | None) -> Outcome:
        if len(self._operations) == 1:
            return Outcome(self._snapshot, self._operations[0])
        loop_ids = tuple(dict.fromkeys(loop_id for operation in self._operations for loop_id in operation.loop_ids))
        subject = f"transaction: {reason or f'{len(self._operations)} mutations'}"
        if reason is None and loop_ids:
            subject += f" of {', '.join(loop_ids)}"
        body = tuple(operation.subject for operation in self._operations)
        return Outcome(self._snapshot, Operation("transaction", subject, loop_ids, body=body))

    def _view(self) -> Snapshot:
        return self._settled(self._snapshot)

    def _view_at(self, at: Moment | None) -> Snapshot:
        return self._view() if at is None else self._repository._view_at(at)

    def _from_tag(self, loop_id: str) -> Record | None:
        return self._repository._from_tag(loop_id)

    def _is_unfinished(self) -> bool:
        return False  # files and history were brought in line when this was opened

    def _tagged_ids(self) -> list[str]:
        return self._repository._tagged_ids()

    def _legacy_state(self) -> bytes | Unreadable | None:
        return self._repository._legacy_state()


def plan_of(before: Snapshot, after: Snapshot, operation: Operation, now: datetime, actor: str) -> Change:
    """The change from one settled snapshot to another."""
    change = planned(operation._replace(actor=actor), time=now, parent=before.revision)
    return replace(change, fields=tuple(difference_between(before, after, operation.loop_ids)))
