"""Steps 6 to 8 of a mutation: its objects are written, its commit is published, its files are projected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

from gitstate import process
from gitstate.durable import Directory
from gitstate.errors import GitStateError, logged, warn_of_damage
from gitstate.lease import Lease, LeaseKeeper
from gitstate.note import Note
from gitstate.noting import Noting
from gitstate.operation import Operation
from gitstate.projection import Found, Projection, Survey
from gitstate.snapshot import Snapshot
from gitstate.store.revisions import Revision, Revisions, author_of
from gitstate.upkeep import Upkeep

_NOTED_TOGETHER = 8  # commits that go into the index of changes at once: one takes about as long as eight


@dataclass(eq=False, repr=False)
class Publishing:
    """Whoever moves the branch of one state directory, and writes the files of what it moved to."""

    actor: str
    patience: float  # seconds to wait for the guard once the lease is held
    directory: Directory
    projection: Projection
    revisions: Revisions
    keeper: LeaseKeeper
    notes: Noting
    upkeep: Upkeep
    newest: tuple[str, int] = field(default=("", 0), init=False)  # what was published last, and under which generation

    def signed(self, operation: Operation, lease: Lease, reason: str | None) -> Operation:
        """An operation with who made it, and under which lease."""
        return operation.by(
            generation=lease.generation, actor=self.actor, host=process.hostname(), pid=lease.pid, reason=reason
        )

    def commit(
        self,
        lease: Lease,
        parent: Revision,
        after: Snapshot,
        operation: Operation,
        now: datetime,
        seen: Mapping[str, Found] | None = None,
        paths: frozenset[str] = frozenset(),
        *,
        last: bool = False,
    ) -> Revision:
        """Steps 6 to 8: write the objects, publish, project; the *last* of a pass also gives the lease back."""
        revision, made = self.revisions.build(parent, after.contents(), operation, now)
        tags = [(ref, made.add_stored(self.revisions.build_tag(ref, revision))) for ref in after.new_tags]
        recent = self.revisions.recent
        prepared = recent.prepare(parent.id, revision.id, made.objects, made.bases)
        number = prepared.publication.number
        is_first = number == 1
        try:
            with self.keeper.guard.hold(self.patience):
                self.keeper.prove(lease)
                recent.publish(prepared)
                self.revisions.keep_at_hand(revision, made)
                self.newest = revision.id, lease.generation
                # The commit point is passed: from here on nothing is raised.
                problems = [*self._evidence(parent, revision, operation, is_noted=number % _NOTED_TOGETHER == 1)]
                untagged = self._tag(tags)
                problems += untagged
                changed = paths | frozenset(after.edits)
                problems += self.project(lease, parent, revision, changed, seen or {}, whole=not untagged)
                if last:
                    self.give_back(lease, proved=True)
                    if not is_first:
                        self.upkeep.leave(
                            lease, guarded=True
                        )  # before others can come, who would look for what it stands for
        except BaseException as error:
            if not isinstance(error, GitStateError):  # it may have come at any place at all
                self.directory.is_littered = True
            raise
        for problem in problems:
            warn_of_damage(f"{revision.id[:7]} is committed, but {problem}; the next mutation makes it good")
        if last and is_first:
            self.upkeep.keep_few()
        return revision

    def _evidence(self, parent: Revision, revision: Revision, operation: Operation, *, is_noted: bool) -> Iterator[str]:
        if is_noted:
            with suppress(GitStateError):  # it is derived, and caught up with by the next one
                self.revisions.note(revision)
        try:
            self.revisions.refs.note_move(
                parent.id, revision.id, author_of(operation), revision.committed, operation.subject
            )
        except GitStateError as error:
            yield f"its line in the reflog is missing: {error.message}"

    def _tag(self, tags: list[tuple[str, str]]) -> list[str]:
        problems = []
        for ref, object_id in tags:
            try:
                self.revisions.refs.create_tag(ref, object_id)
            except GitStateError as error:
                problems.append(f"its tag {ref.removeprefix('refs/tags/')} is missing: {error.message}")
        return problems

    def project(
        self,
        lease: Lease,
        before: Revision,
        after: Revision,
        paths: frozenset[str],
        seen: Mapping[str, Found],
        *,
        whole: bool = True,
    ) -> list[str]:
        """Step 8, under the guard: files, symlink, index, and last the note that the *whole* of it was done."""
        old, new = self.revisions.tree(before.id), self.revisions.tree(after.id)
        noted, lease.noted = lease.noted, None
        try:
            self.notes.drop()
            marks = noted.marks if isinstance(noted, Note) else {}
            problems, unlike = self.projection.apply(old, new, paths, seen, marks)
            self.projection.follow_legacy(new)
            if isinstance(noted, Note) and not problems and not unlike:
                note = self.notes.brought_on(noted, old, new, paths, lease.since)
            else:
                survey = seen if isinstance(seen, Survey) else Survey()
                note = self.notes.anew(new, survey, process.boot_id(), lease.since)
            if note is not None and whole and not problems and not unlike:
                self.notes.write(note)
                lease.noted = note
        except GitStateError as error:
            return [f"its files are not all written: {error.message}"]
        return [f"its files are not all written: {problem}" for problem in problems]

    # --- under the guard ---

    def guarded(self) -> AbstractContextManager[None]:
        """The guard, for what anybody may do whose lease was looked at."""
        return self.keeper.guard.hold(self.patience)

    @contextmanager
    def proven(self, lease: Lease) -> Iterator[None]:
        """The guard, for what only the holder of the lease may do."""
        with self.keeper.guard.hold(self.patience):
            self.keeper.prove(lease)
            yield

    def give_back(self, lease: Lease, *, proved: bool = False) -> None:
        """Release under the guard that is held already. What was published stays published if this fails."""
        try:
            self.keeper.release(lease, proved=proved)
        except GitStateError as error:
            logged(f"the lease of generation {lease.generation} is left to expire: {error}")
