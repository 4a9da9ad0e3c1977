"""Step 3 of a mutation: files and head are brought together, each step decided anew, and published like any other change."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitstate import layout, process, reconcile
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, RefusedError, warn_of_damage
from gitstate.layout import ARCHIVE, LOOPS
from gitstate.lease import Lease
from gitstate.note import Note
from gitstate.noting import Noting
from gitstate.projection import GLIMPSE, Found, Projection, Survey
from gitstate.publishing import Publishing
from gitstate.settling import settle
from gitstate.store.revisions import Revisions
from gitstate.verdicts import Unreadable

_UNDER_WAY = {
    "MERGE_HEAD": ("a merge", "merge --abort"),
    "rebase-merge": ("a rebase", "rebase --abort"),
    "rebase-apply": ("a rebase", "rebase --abort"),
    "CHERRY_PICK_HEAD": ("a cherry-pick", "cherry-pick --abort"),
    "REVERT_HEAD": ("a revert", "revert --abort"),
}
_STEPS = 8  # more rounds of reconciling than this mean that somebody keeps writing


@dataclass(eq=False, repr=False)
class Reconciling:
    """Whoever brings the files of one state directory and its head together."""

    base: Path
    clock: Clock
    actor: str
    auto_repair: bool
    directory: Directory
    projection: Projection
    revisions: Revisions
    notes: Noting
    publishing: Publishing

    def reconciled(self, lease: Lease) -> str:
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
        with self.publishing.proven(lease):
            revision = self.revisions.read(head)
            for problem in self.publishing.project(lease, revision, revision, frozenset(), seen):
                warn_of_damage(problem)
        return head

    def _confirmed(self, head: str) -> Note | None:
        """The note, if this head was projected to the end, and the files are still as they were written then."""
        note, boot = self.notes.read(), process.boot_id()
        return None if note is None or note.head != head or boot is None else self.notes.confirmed(note, boot)

    def _make_durable(self, head: str) -> None:
        """What somebody may have put in place right before he was interrupted: the repository, a moved loop, a tag, the head.

        A power cut that undid it would part it from what is built upon it now, the files that say it among that.
        """
        self.revisions.recent.make_durable(head, self.publishing.guarded)
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
            warn_of_damage(f"{path} is not gitstate's and is left alone: that loop lies elsewhere")
        if step.operation is None:
            with self.publishing.proven(lease):
                for problem in self.publishing.project(lease, parent, parent, step.paths, step.seen):
                    warn_of_damage(problem)
            return head
        if step.damages and self._was_a_glimpse(step):
            return head
        with self.publishing.proven(lease):  # it may move what stands there, so it is only for the holder
            kept = self._quarantined(step)
        if step.operation.kind == "adopt":
            self.projection.make_durable(step.paths & step.seen.keys())
        now = self.clock.now()
        after = settle(step.snapshot, now, owner=self.actor, whole=True)
        operation = self.publishing.signed(step.operation, lease, None)
        revision = self.publishing.commit(lease, parent, after, operation, now, step.seen, step.paths)
        for words in kept:
            warn_of_damage(words)
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
            with self.publishing.proven(lease):  # whoever packs tags removes directories that are empty
                self.revisions.refs.create_tag(ref, tag.id)

    def _check_out_of_the_way(self) -> None:
        """Refuse while the user is in the middle of something of git's, or elsewhere than on main."""
        for name in self.directory.existing(layout.GIT, _UNDER_WAY):
            words, way_out = _UNDER_WAY[name]
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
