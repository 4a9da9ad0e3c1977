"""The check of a store: what it promises, verified from what lies on disk. It changes nothing.

It judges the store. Crashed loops, a stale lease, size and surroundings are
not its business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime

from gitstate import layout, process, reconcile
from gitstate.audit import Audit, Progress
from gitstate.encoding import Record
from gitstate.errors import CorruptStateError
from gitstate.fields import entries_of
from gitstate.layout import ARCHIVE, LOOPS, REGISTRY
from gitstate.medium import UnreadableError
from gitstate.projection import GLIMPSE, Projection
from gitstate.records import valid_record
from gitstate.registry import derived_fields
from gitstate.results import Finding
from gitstate.store import inspection
from gitstate.store.index import INDEX, index_differs
from gitstate.store.objects import ObjectDamagedError
from gitstate.store.revisions import Revision, Revisions
from gitstate.store.trees import CommitTree

# Commits of these kinds may hold what was found rather than what should be; so may the first, and foreign ones.
_MAY_DISAGREE = ("init", "adopt", "repair")
_TRIES = 6


class Checker:
    """One check of one state directory."""

    def __init__(
        self, projection: Projection, revisions: Revisions, now: datetime, progress: Progress | None = None
    ) -> None:
        self.projection, self.revisions = projection, revisions
        self.now, self.progress = now, progress
        self._derived: dict[str, Record] = {}  # of the states of the commit that was looked at before
        self._areas: dict[str, tuple[str | None, set[str]]] = {}  # the loops in it, by their directory
        self._audit = Audit(self.revisions, self.progress)

    def findings(self, *, newest: int | None = None, full: bool = False) -> Iterator[Finding]:
        """Everything that is wrong, and what is worth a note.

        *newest* limits how many commits are looked at; *full* adds every object, pack and ref, and every file of every
        commit.
        """
        yield from self._as_far_as_readable(self._all(newest, full=full))

    def _as_far_as_readable(self, findings: Iterator[Finding]) -> Iterator[Finding]:
        """What is found until the disk keeps something from being read; that is then the last of them."""
        try:
            yield from findings
        except UnreadableError as error:
            if self.projection.decides:  # to whoever repairs, what was not looked at would be mended
                raise
            yield from self._audit.not_read(error)

    def _all(self, newest: int | None, *, full: bool) -> Iterator[Finding]:
        state = inspection.inspect(self.projection.directory)
        if state == "none":
            yield Finding(
                "not_adopted", "note", "there is no history yet: the first mutation begins it", hint="gitstate init"
            )
            return
        if self.revisions.recent.is_overruled():
            yield Finding(
                "journal_pending", "note", "the machine stopped: what it lost of the newest changes is in the journal, and the next mutation puts it back",
                path=layout.JOURNAL, hint="gitstate repair",
            )  # fmt: skip
            yield from self._state(state, newest, full=False)
            return
        if newest is not None:
            yield from self._looked_at(state, newest, full=full)
            return
        known, self.revisions = self.revisions, self.revisions.from_disk()
        self._audit = Audit(self.revisions, self.progress)
        try:
            yield from self._looked_at(state, newest, full=full)
        finally:
            self.revisions.objects.close()
            self.revisions = known

    def _looked_at(self, state: str, newest: int | None, *, full: bool) -> Iterator[Finding]:
        if state == "clone":
            yield Finding("clone", "note", "this is a clone; it can be read, not mutated", hint="gitstate init")
        else:
            yield from self._as_far_as_readable(self._audit.places())
        yield from self._as_far_as_readable(self._audit.branch())
        if full:
            yield from self._as_far_as_readable(self._audit.objects())
            yield from self._as_far_as_readable(self._audit.every_ref())
        yield from self._as_far_as_readable(self._state(state, newest, full))
        yield from self._audit.rest()

    def _state(self, state: str, newest: int | None, full: bool) -> Iterator[Finding]:
        try:
            head = self.revisions.head()
            tree = self.revisions.tree(head)
            list(tree.files())
        except CorruptStateError as error:
            yield self._audit.head_unreadable(error)
            return
        yield from self._as_far_as_readable(self._history(head, newest, full))
        found: list[Finding] = []
        before: list[Finding] | None = None
        for _ in range(_TRIES):
            found = [*self._files(head), *(self._surface(tree) if state != "clone" else ())]
            now = self.revisions.head()
            if now == head:
                if found == before or all(finding.severity == "note" for finding in found):
                    break
                self.revisions.refs.clock.sleep(GLIMPSE)  # who writes is done by then: two looks must agree
            before = found if now == head else None
            head, tree = now, self.revisions.tree(now)  # somebody is writing: what was seen may be half of it
        yield from found

    # --- history ---

    def _history(self, head: str, newest: int | None, full: bool) -> Iterator[Finding]:
        later: Revision | None = None
        generation: int | None = None
        number = 0
        try:
            for number, revision in enumerate(self.revisions.walk(head), 1):
                self._audit.say("commits", number)
                operation = revision.operation
                if len(revision.parents) > 1:
                    yield Finding(
                        "history_not_linear", "warning", f"{revision.id[:7]} is a merge", revision=revision.id,
                        hint=f"gitstate show {revision.id[:7]}",
                    )  # fmt: skip
                mine = None if operation is None else operation.generation
                if mine is not None and generation is not None and mine > generation and later is not None:
                    yield Finding(
                        "generation_decreased", "error",
                        f"{later.id[:7]} has generation {generation}, below {mine} of {revision.id[:7]} before it",
                        revision=later.id, hint=f"gitstate show {later.id[:7]}",
                    )  # fmt: skip
                generation = mine if mine is not None else generation
                yield from self._commit(revision)
                if full:
                    yield from self._audit.contents(revision)
                later = revision
                if number == newest:
                    break
        except CorruptStateError as error:
            after = "" if later is None else f"the commit before {later.id[:7]}; history before it cannot be reached"
            yield from self._audit.about(error, after)
        self._audit.say("commits", number, number, last=True)

    def _commit(self, revision: Revision) -> Iterator[Finding]:
        """What one commit holds, by itself; damage in it does not end the walk."""
        try:
            tree = self.revisions.tree(revision.id)
            active, archived = self._loops(tree, LOOPS), self._loops(tree, ARCHIVE)
            for loop_id in sorted(active & archived):
                yield Finding(
                    "active_and_archived", "error", f"{loop_id} is both active and archived in {revision.id[:7]}",
                    loop_id=loop_id, revision=revision.id, hint=f"gitstate show {revision.id[:7]}",
                )  # fmt: skip
            operation = revision.operation
            if operation is None or operation.kind in _MAY_DISAGREE or revision.parent is None:
                yield from self._readable(tree, revision)
            else:
                yield from self._agreement(tree, revision, sorted(active))
            for ref in reconcile.missing_tags(self.revisions, revision.id) if operation is not None else ():
                name = ref.removeprefix("refs/tags/")
                yield Finding(
                    "tag_missing", "warning", f"{revision.id[:7]} asks for the tag {name}, which is not there",
                    path=f".git/{ref}", revision=revision.id, hint="gitstate repair",
                )  # fmt: skip
        except CorruptStateError as error:
            yield from self._audit.about(error, f"needed by {revision.id[:7]}")

    def _loops(self, tree: CommitTree, area: str) -> set[str]:
        """The loops in a directory; it is often the same as in the commit before."""
        directory = tree.directory(area)
        known = self._areas.get(area)
        if known is None or known[0] != directory:
            known = self._areas[area] = directory, set(tree.loops(area))
        return known[1]

    def _readable(self, tree: CommitTree, revision: Revision) -> Iterator[Finding]:
        for path, _, blob in tree.files():
            try:
                self.revisions.objects.read(blob, b"blob")
            except ObjectDamagedError as error:
                yield from self._audit.about(error, f"{path} of {revision.id[:7]}")

    def _agreement(self, tree: CommitTree, revision: Revision, active: list[str]) -> Iterator[Finding]:
        try:
            registry = valid_record(REGISTRY, tree.read(REGISTRY) or b"", revision.id)
            entries = entries_of(registry)
            wrong = sorted(set(entries) ^ set(active))
            known, self._derived = self._derived, {}
            for loop_id in sorted(set(entries) & set(active)):
                derived = self._derived_of(tree, layout.state_path(loop_id), known)
                if any(entries[loop_id].get(key, ...) != value for key, value in derived.items()):
                    wrong.append(loop_id)
            if registry.get("total_active") != len(active) and not wrong:
                wrong.append("total_active")
        except CorruptStateError as error:
            yield from self._audit.about(error, f"needed by {revision.id[:7]}")
            return
        if wrong:
            yield Finding(
                "registry_disagrees", "error",
                f"registry and session states of {revision.id[:7]} disagree about {', '.join(wrong)}",
                path=REGISTRY, revision=revision.id, hint="gitstate repair",
            )  # fmt: skip

    def _derived_of(self, tree: CommitTree, path: str, known: Mapping[str, Record]) -> Record:
        blob = tree.blob_id(path) or ""
        if blob in known:
            self._derived[blob] = known[blob]
        else:
            self._derived[blob] = derived_fields(valid_record(path, tree.read(path) or b"", tree.revision))
        return self._derived[blob]

    # --- files ---

    def _files(self, head: str) -> Iterator[Finding]:
        seen = self.projection.survey()
        self._audit.say("files", len(seen), len(seen), last=True)
        try:
            step = reconcile.next_step(self.revisions, head, seen, owner="user:unknown", now=self.now)
        except CorruptStateError as error:
            yield from self._audit.about(error, "needed to judge the files")
            return
        for name in self.projection.unservable():
            yield Finding(
                "name_unusable", "note", f"{name} is no name that gitstate can keep; it is left alone", path=name
            )
        if step is None:
            return
        for damage in step.noticed:
            place = layout.place_of(damage.path)
            yield Finding(
                "file_damaged", "error", f"{damage.path}: {damage.damage}", path=damage.path, revision=damage.revision,
                loop_id=place.loop_id if place else None, hint="gitstate repair",
            )  # fmt: skip
        for path in step.missing:
            yield Finding(
                "file_missing", "warning", f"{path} is missing", path=path, revision=head, hint="gitstate repair"
            )
        for path in step.left_alone:
            yield Finding(
                "left_alone", "warning", f"{path}: that loop lies elsewhere; this one is left alone", path=path
            )
        if step.operation is not None and step.operation.kind == "adopt":
            yield Finding(
                "outside_edit", "note", f"{step.operation.subject.removeprefix('adopt ')}; the next mutation adopts it"
            )
        elif step.operation is not None and not step.damages:
            yield Finding(
                "registry_disagrees",
                "warning",
                step.operation.subject.removeprefix("repair "),
                path=REGISTRY,
                hint="gitstate repair",
            )
        elif step.operation is None and set(step.paths) - set(step.missing):
            stale = ", ".join(sorted(set(step.paths) - set(step.missing)))
            yield Finding("projection_stale", "note", f"{stale}: older than the head; the next mutation writes it")

    def _surface(self, tree: CommitTree) -> Iterator[Finding]:
        directory = self.projection.directory
        if directory.status(f"{INDEX}.lock") is not None:
            yield Finding(
                "index_locked",
                "warning",
                "another git program is at the index, or died there",
                path=f"{INDEX}.lock",
                hint=f"rm {directory.path}/{INDEX}.lock, if no git command is running",
            )
        elif index_differs(directory, tree):
            yield Finding(
                "index_differs", "warning", "the index is not what the head says", path=INDEX, hint="gitstate repair"
            )
        if directory.status(f".git/{layout.BRANCH}.lock") is not None:
            yield Finding(
                "left_behind",
                "warning",
                "a lock of the branch stands",
                path=f".git/{layout.BRANCH}.lock",
                hint="gitstate repair",
            )
        lease = directory.status(layout.LEASE_RECORD)
        for name in directory.names(layout.ASIDE):
            owner = name.partition("-")[0]
            if owner.isdigit() and process.liveness(int(owner), None).verdict == "alive":
                continue  # in use
            found = directory.status(f"{layout.ASIDE}/{name}")
            if lease is not None and found is not None and os.path.samestat(lease, found):
                continue  # the sign of whoever holds the lease, and goes with it
            yield Finding(
                "left_behind",
                "warning",
                "a temporary file of gitstate's",
                path=f"{layout.ASIDE}/{name}",
                hint="gitstate repair",
            )
        for name in directory.names(""):
            if name.startswith(layout.GIT_ASIDE):
                yield Finding(
                    "left_behind", "warning", "a repository that was never finished", path=name, hint="gitstate repair"
                )
        if lease is not None:
            yield Finding(
                "lease_held", "note", "somebody holds the lease", path=layout.LEASE_RECORD, hint="gitstate lock show"
            )
