"""The one way to write: every mutation is one pass through here, down once and up once.

1 validate (the caller's pure part), 2 acquire, 3 reconcile, 4 read, 5 apply,
6 write, 7 publish, 8 project. Before step 7 nothing can be seen; after it
nothing raises. See ``docs/explanation/durability.md``.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from gitstate import layout, process, reconcile
from gitstate.beginning import Beginning
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.errors import (
    CorruptStateError,
    DamageWarning,
    GitStateError,
    LeaseLostError,
    RefusedError,
    StorageError,
    logged,
    warn,
)
from gitstate.guard import BRIEFLY, Guard
from gitstate.layout import ARCHIVE, LOOPS
from gitstate.lease import Lease, LeaseKeeper
from gitstate.loops import Apply, Done, Outcome
from gitstate.note import Note
from gitstate.noting import Noting
from gitstate.operation import Operation, planned
from gitstate.projection import GLIMPSE, Found, Projection, Survey
from gitstate.results import Change
from gitstate.settling import settle
from gitstate.snapshot import Snapshot, changes_of
from gitstate.store.refs import BranchMovedError
from gitstate.store.revisions import Revision, Revisions, author_of
from gitstate.upkeep import Upkeep
from gitstate.verdicts import Unreadable

_STEPS = 8  # more rounds of reconciling than this mean that somebody keeps writing
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
                head = self._reconciled(lease)
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
                    self._warn(problem)

    @contextmanager
    def proven(self, lease: Lease) -> Iterator[None]:
        """The guard, for what only the holder of the lease may do."""
        with self.keeper.guard.hold(self._patience):
            self.keeper.prove(lease)
            yield

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
            self.revisions.recent.make_durable(before.revision or "", self._guarded)
            return Done(before, outcome.operation)
        parent = self.revisions.read(before.revision or "")
        operation = self._signed(outcome.operation, lease, reason)
        compared = after.compared()  # later there might be nothing left to read them from
        revision = self._commit(lease, parent, after, operation, now, last=True)

        def described() -> Change:
            change = planned(operation, time=revision.time, revision=revision.id, parent=parent.id)
            return replace(change, fields=tuple(changes_of(compared)))

        return Done(Snapshot(self.revisions.tree(revision.id)), operation, described)

    def _signed(self, operation: Operation, lease: Lease, reason: str | None) -> Operation:
        return operation.by(
            generation=lease.generation, actor=self.actor, host=process.hostname(), pid=lease.pid, reason=reason
        )

    def _commit(
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
        is_first = prepared.publication.number == 1
        try:
            with self.keeper.guard.hold(self._patience):
                self.keeper.prove(lease)
                recent.publish(prepared)
                self.revisions.keep_at_hand(revision, made)
                # The commit point is passed: from here on nothing is raised.
                problems = [*self._evidence(parent, revision, operation)]
                untagged = self._tag(tags)
                problems += untagged
                changed = paths | frozenset(after.edits)
                problems += self._project(lease, parent, revision, changed, seen or {}, whole=not untagged)
                if last:
                    self._give_back(lease, proved=True)
                    if not is_first:
                        self.upkeep.leave(lease)  # before others can come, who would look for what it stands for
        except BaseException as error:
            recent.discard(prepared)
            if not isinstance(error, GitStateError):  # it may have come at any place at all
                self.directory.is_littered = True
            raise
        for problem in problems:
            self._warn(f"{revision.id[:7]} is committed, but {problem}; the next mutation makes it good")
        if last and is_first:
            self.upkeep.keep_few()
        return revision

    def _evidence(self, parent: Revision, revision: Revision, operation: Operation) -> Iterator[str]:
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

    def _project(
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
            marks = noted.marks if isinstance(noted, Note) else None
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

    # --- reconciling ---

    def _reconciled(self, lease: Lease) -> str:
        """Step 3: the head, once files and history agree."""
        self._check_out_of_the_way()
        head = self.revisions.head()
        lease.noted = self._confirmed(head)
        if lease.noted is not None:
            return head
        seen = Survey()
        self._make_durable(head)
        for _ in range(_STEPS):
            self._remake_tags(lease, head)  # before anything is committed on top: only the head's own are looked for
            seen = self.projection.survey()
            step = reconcile.next_step(self.revisions, head, seen, owner=self.actor, now=self.clock.now())
            if step is None or step.is_done:
                break
            head = self._take(lease, head, step)
        with self.keeper.guard.hold(self._patience):
            self.keeper.prove(lease)
            revision = self.revisions.read(head)
            for problem in self._project(lease, revision, revision, frozenset(), seen):
                self._warn(problem)
        return head

    def _confirmed(self, head: str) -> Note | None:
        """The note, if this head was projected to the end, and the files are still as they were written then."""
        note, boot = self.notes.read(), process.boot_id()
        return None if note is None or note.head != head or boot is None else self.notes.confirmed(note, boot)

    def _make_durable(self, head: str) -> None:
        """What somebody may have put in place right before he was interrupted: the repository, a moved loop, a tag, the head.

        A power cut that undid it would part it from what is built upon it now, the files that say it among that.
        """
        self.revisions.recent.make_durable(head, self._guarded)
        for name in ("", LOOPS, ARCHIVE):
            if self.directory.is_directory(name) or not name:
                self.directory.sync(name)
        with suppress(CorruptStateError):  # as below
            for ref in reconcile.tags_at(self.revisions, head):
                self.revisions.refs.make_tag_durable(ref)

    def is_unfinished(self) -> bool:
        """Whether files are not as the head has them, or something was left behind: the next mutation makes it good."""
        return self._confirmed(self.revisions.head()) is None or bool(self.directory.names(layout.ASIDE))

    def _take(self, lease: Lease, head: str, step: reconcile.Step) -> str:
        parent = self.revisions.read(head)
        for path in step.left_alone:
            self._warn(f"{path} is not gitstate's and is left alone: that loop lies elsewhere")
        if step.operation is None:
            with self.keeper.guard.hold(self._patience):
                self.keeper.prove(lease)
                for problem in self._project(lease, parent, parent, step.paths, step.seen):
                    self._warn(problem)
            return head
        if step.damages and self._was_a_glimpse(step):
            return head
        with self.keeper.guard.hold(self._patience):  # it may move what stands there, so it is only for the holder
            self.keeper.prove(lease)
            kept = self._quarantined(step)
        if step.operation.kind == "adopt":
            self.projection.make_durable(step.paths & step.seen.keys())
        now = self.clock.now()
        after = settle(step.snapshot, now, owner=self.actor, whole=True)
        operation = self._signed(step.operation, lease, None)
        revision = self._commit(lease, parent, after, operation, now, step.seen, step.paths)
        for words in kept:
            self._warn(words)
        return revision.id

    def _was_a_glimpse(self, step: reconcile.Step) -> bool:
        """Whether damage was only seen in the middle of somebody's write: two readings 50 ms apart must agree."""
        self.clock.sleep(GLIMPSE)
        return any(self.projection.found(damage.path) != damage.found for damage in step.damages)

    def _quarantined(self, step: reconcile.Step) -> list[str]:
        words = []
        for damage in step.damages:
            if not self.auto_repair and not self._explained(damage.found):
                raise CorruptStateError(
                    f"{damage.path}: {damage.damage}"
                    + (f"; {damage.revision[:7]} has it whole" if damage.revision else ""),
                    hint="gitstate repair",
                    path=damage.path,
                    damage=damage.damage,
                    revision=damage.revision,
                )
            where = (
                f"; the damaged bytes are kept in {self.projection.quarantine(damage.path, damage.found)}"
                if damage.found is not None
                else ""
            )
            words.append(damage.describe() + where)
        return words

    def _explained(self, found: Found) -> bool:
        """Whether a power cut explains it: empty or NULs, and another boot than the one that wrote the files."""
        note = self.notes.read()
        another = note is not None and note.boot not in (None, process.boot_id())
        return another and isinstance(found, bytes) and not found.strip(b"\0") and not isinstance(found, Unreadable)

    def _remake_tags(self, lease: Lease, head: str) -> None:
        try:
            wanted = reconcile.missing_tags(self.revisions, head)
        except CorruptStateError:  # what came before the head, or a tag, cannot be read: that is for check and repair
            return
        for ref in wanted:
            tag = self.revisions.build_tag(ref, self.revisions.read(head))
            self.revisions.objects.write([tag])
            with self.proven(lease):  # whoever packs tags removes directories that are empty
                self.revisions.refs.create_tag(ref, tag.id)

    def _check_out_of_the_way(self) -> None:
        """Refuse while the user is in the middle of something of git's, or elsewhere than on main."""
        names = self.directory.names(layout.GIT)
        for name, words, way_out in (
            ("MERGE_HEAD", "a merge", "merge --abort"),
            ("rebase-merge", "a rebase", "rebase --abort"),
            ("rebase-apply", "a rebase", "rebase --abort"),
            ("CHERRY_PICK_HEAD", "a cherry-pick", "cherry-pick --abort"),
            ("REVERT_HEAD", "a revert", "revert --abort"),
        ):
            if name in names:
                raise RefusedError(f"{words} is under way", hint=f"{self._git} {way_out}", path=str(self.base))
        where = self.revisions.refs.symbolic_head()
        if where != layout.BRANCH:
            raise RefusedError(
                f"HEAD is {'detached' if where is None else 'at ' + where.removeprefix('refs/heads/')}, not at main",
                hint=f"{self._git} checkout main",
                path=str(self.base),
            )

    @property
    def _git(self) -> str:
        return f"git -C {shlex.quote(str(self.base))}"

    # --- small things ---

    def _guarded(self) -> AbstractContextManager[None]:
        return self.keeper.guard.hold(self._patience)

    @property
    def _patience(self) -> float:
        """Seconds to wait for the guard once the lease is held: even where the lease is tried for only once."""
        return max(self.lock_timeout, BRIEFLY)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """A mutation inside a mutation of the same thread can only wait for itself: it is refused at once."""
        inside: set[str] = getattr(_INSIDE, "bases", set())
        key = f"{os.getpid()} {self._identity()}"  # a child forked meanwhile is in the middle of nothing
        if key in inside:
            raise RefusedError(
                "this thread is in the middle of a mutation of the same state directory",
                hint="use the open transaction's own methods, or return the changes from the function",
                path=str(self.base),
            )
        _INSIDE.bases = inside | {key}
        try:
            yield
        finally:
            _INSIDE.bases = inside

    def _identity(self) -> str:
        """What the state directory is called here, whichever way leads to it."""
        try:
            found = os.stat(self.base)
        except OSError:  # it is made in the course of this
            return os.path.realpath(self.base)
        return f"{found.st_dev} {found.st_ino}"

    def _release(self, lease: Lease) -> None:
        if self.keeper.holds(lease):
            try:
                with self.keeper.guard.hold(BRIEFLY):
                    self._give_back(lease)
            except GitStateError as error:
                self.keeper.abandon(lease)
                logged(f"the lease of generation {lease.generation} is left to expire: {error}")
        self.upkeep.leave(lease)

    def _give_back(self, lease: Lease, *, proved: bool = False) -> None:
        """Release under the guard that is held already. What was published stays published if this fails."""
        try:
            self.keeper.release(lease, proved=proved)
        except GitStateError as error:
            logged(f"the lease of generation {lease.generation} is left to expire: {error}")

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
            self.revisions.recent.learn()  # the head is in the journal: there it is found at once
            return self.revisions.newest_generation(self.revisions.head())
        except CorruptStateError:
            return 0

    def _warn(self, words: str) -> None:
        logged(words)
        warn(words, DamageWarning)
