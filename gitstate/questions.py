"""What people ask a repository: what is there, what happened, where things are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gitstate import history, layout, requests
from gitstate.audit import Progress
from gitstate.check import Checker
from gitstate.claim import find_claim
from gitstate.encoding import Record, fresh
from gitstate.errors import InvalidInputError
from gitstate.ids import validate_known_id
from gitstate.layout import ARCHIVE, LOOPS
from gitstate.marks import size_of
from gitstate.opened import Moment, Opened
from gitstate.reading import copied, liveness_of
from gitstate.records import RegistryEntry
from gitstate.registry import limit_of
from gitstate.results import Change, FieldChange, LeaseInfo, LoopReport, Overview
from gitstate.snapshot import Snapshot

if TYPE_CHECKING:
    from gitstate.reports import ArchivedLoop, Checkpoint, OutputPaths

_NEWEST = 20  # commits that the cheap check looks at


class Questions(Opened):
    """What a repository answers beyond what a transaction does: it has a history, a place and surroundings."""

    def _checker(self, progress: Progress | None = None) -> Checker:
        return Checker(self._reader.projection, self._revisions, self._clock.now(), progress)

    def lease_info(self) -> LeaseInfo | None:
        """Who holds the lease, what its record says, and whether its process lives; ``None`` when nobody does."""
        moment = self._clock.monotonic()
        claim = find_claim(self._directory, layout.LEASE_RECORD, moment)
        return None if claim is None else claim.info(moment, self._clock.now())

    # --- loops ---

    def list_archived_loops(self) -> list[ArchivedLoop]:
        """The loops in the archive, newest first."""
        from gitstate.reports import ArchivedLoop  # few ask

        view = self._view()
        found = []
        for loop_id in view.loops(ARCHIVE):
            state = view.state_or_none(loop_id) or {}
            archiving = history.archiving_of(self._revisions, view, loop_id) if self._is_begun() else None
            loop = ArchivedLoop(
                loop_id=loop_id,
                status=str(state.get("status")),
                objective=str(state.get("objective", "")),
                iteration=_number(state.get("currentIteration")),
                max_iterations=_number(state.get("maxIterations")),
                started_at=str(state["startTime"]) if "startTime" in state else None,
                archived_at=archiving.revision.time if archiving is not None else None,
                tag=archiving.tag if archiving is not None else None,
                bytes=size_of(self.base_dir / ARCHIVE / loop_id),
            )
            found.append((archiving.revision.order if archiving is not None else (0, 0), loop))
        return [loop for _, loop in sorted(found, key=lambda item: item[0], reverse=True)]

    def list_checkpoints(self, loop_id: str | None = None) -> list[Checkpoint]:
        """The checkpoints of a loop, or of all, newest first.

        Raises:
            LoopNotFoundError: no loop has, or had, that id.
        """
        if loop_id is not None:
            self._require_known(loop_id)
        return history.checkpoints(self._revisions, loop_id) if self._is_begun() else []

    def status(self) -> Overview:
        """What is going on: every loop, slots, the lease, and what the cheap part of ``check`` sees."""
        with self._directory.kept_open():
            return self._overview()

    def _overview(self) -> Overview:
        view = self._view()
        begun = self._is_begun()
        changes = history.newest_of(self._revisions, self._revisions.head(), view.loops()) if begun else {}
        return Overview(
            loops=[
                _report(view, loop_id, changes.get(loop_id))
                for loop_id in view.entries
                if view.place(loop_id) is not None
            ],
            slots_used=len(view.loops()),
            slots_max=limit_of(view.registry),
            archived=len(view.loops(ARCHIVE)),
            findings=list(self._checker().findings(newest=_NEWEST)),
            lease=self.lease_info(),
            size_bytes=size_of(self.base_dir / layout.GIT),
        )

    def report(self, loop_id: str) -> LoopReport:
        """One loop from all sides, active or archived.

        Raises:
            LoopNotFoundError: no loop has that id.
        """
        validate_known_id(loop_id)
        view = self._view()
        view.find(loop_id)
        changes = history.newest_of(self._revisions, self._revisions.head(), [loop_id]) if self._is_begun() else {}
        return _report(view, loop_id, changes.get(loop_id))

    def revision(self, loop_id: str | None = None) -> str | None:
        """The newest revision, or the newest that touched a loop; ``None`` without history.

        Raises:
            LoopNotFoundError: no loop has, or had, that id.
        """
        if loop_id is not None:
            self._require_known(loop_id)
        if not self._is_begun():
            return None
        if loop_id is None:
            return self._revisions.read(self._revisions.head()).id
        change = history.newest_of(self._revisions, self._revisions.head(), [loop_id]).get(loop_id)
        return None if change is None else change.revision

    def get_loop_dir(self, loop_id: str) -> Path:
        """Where a loop's files are: in the archive for an archived one, among the loops for any other id.

        Raises:
            InvalidLoopIdError: no loop can have that id.
        """
        validate_known_id(loop_id)
        archived = self.base_dir / ARCHIVE / loop_id
        active = self.base_dir / LOOPS / loop_id
        return archived if archived.is_dir() and not active.is_dir() else active

    def get_iteration_dir(self, loop_id: str, n: int) -> Path:
        """The directory of iteration *n*: ``iterations/NNN``."""
        return self.get_loop_dir(loop_id) / "iterations" / _padded(n)

    def get_prompt_path(self, loop_id: str, n: int) -> Path:
        """The prompt of iteration *n*: ``prompts/NNN-prompt.md``."""
        return self.get_loop_dir(loop_id) / "prompts" / f"{_padded(n)}-prompt.md"

    def get_output_paths(self, loop_id: str, n: int) -> OutputPaths:
        """The outputs of iteration *n*: ``outputs/NNN-stdout.log`` and ``outputs/NNN-stderr.log``."""
        from gitstate.reports import OutputPaths

        outputs = self.get_loop_dir(loop_id) / "outputs"
        return OutputPaths(outputs / f"{_padded(n)}-stdout.log", outputs / f"{_padded(n)}-stderr.log")

    def log(
        self,
        loop_id: str | None = None,
        *,
        limit: int | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        fields: bool = False,
    ) -> Iterator[Change]:
        """Changes, of one loop or all, newest first, read as they are asked for.

        Args:
            since, until: aware datetimes (inclusive), or revisions (``since`` exclusive).
            fields: fill each change's ``fields``.

        Raises:
            LoopNotFoundError: no loop has, or had, that id.
            RevisionNotFoundError: no such revision.
        """
        if loop_id is not None:
            self._require_known(loop_id)
        if limit is not None:
            requests.whole("limit", limit, 0)
        for moment in (since, until):
            if isinstance(moment, datetime) and moment.tzinfo is None:
                raise InvalidInputError("a moment without a time zone is ambiguous")
        if not self._is_begun():
            return iter(())
        return history.log(self._revisions, loop_id=loop_id, limit=limit, since=since, until=until, fields=fields)

    def _require_known(self, loop_id: str) -> None:
        validate_known_id(loop_id)
        view = self._view()
        if view.place(loop_id) is None and not view.tags(loop_id):
            view.find(loop_id)

    def show(self, revision: Moment) -> Change:
        """One change, with its fields.

        Raises:
            RevisionNotFoundError: no such revision.
        """
        return history.change_of(self._revisions, self._revisions.read(self._resolve(revision)), fields=True)

    def diff(self, a: Moment | None, b: Moment = "HEAD", *, loop_id: str | None = None) -> list[FieldChange]:
        """The fields in which two revisions differ, of one loop (with its entry) or of everything; *a* ``None``: nothing.

        Raises:
            RevisionNotFoundError: no such revision.
            LoopNotFoundError: no loop has, or had, that id.
        """
        if loop_id is not None:
            self._require_known(loop_id)
        before = history.snapshot_at(self._revisions, None if a is None else self._resolve(a))
        return history.diff(before, history.snapshot_at(self._revisions, self._resolve(b)), loop_id)


def _report(view: Snapshot, loop_id: str, change: Change | None) -> LoopReport:
    state = view.find(loop_id)[1]
    entry = view.entries.get(loop_id)
    return LoopReport(
        entry=_entry(entry) if entry is not None else None,
        state=copied(state),
        liveness=liveness_of(state),
        last_change=change,
    )


def _entry(entry: Record) -> RegistryEntry:
    return cast("RegistryEntry", fresh(entry))


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _padded(n: int) -> str:
    return f"{requests.whole('n', n, 0):03d}"
