"""The pointers of a damaged repository set right: HEAD, the branch, packed refs, tags.

The branch goes to the newest intact revision with evidence that it was published, never to one without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial

from gitstate import layout, reconcile
from gitstate.errors import CorruptStateError, GitStateError, StorageError
from gitstate.results import Finding
from gitstate.salvage import Salvage
from gitstate.store.naming import resolve
from gitstate.store.objects import Stored
from gitstate.store.refs import PACKED_REFS, RefDamagedError, Refs, format_packed, parse_packed
from gitstate.store.revisions import COMMITTER, Revision, Revisions
from gitstate.transaction import Writer

_BRANCH = f".git/{layout.BRANCH}"
_FOREIGN_LOCK = 10.0  # seconds that somebody else's ref lock must stand unchanged
_NAMED = 5  # lost commits that are named one by one


@dataclass
class Pointers:
    """The pointers of one repository, whose objects were salvaged. Each finding says in ``action`` what was done."""

    writer: Writer
    salvage: Salvage

    @property
    def _revisions(self) -> Revisions:
        return self.writer.revisions

    @property
    def _refs(self) -> Refs:
        return self.writer.revisions.refs

    # --- HEAD, and the branch's lock ---

    def head(self) -> Iterator[Finding]:
        """HEAD names main again, unless it is at another branch that exists."""
        try:
            where = self._refs.symbolic_head()
            with contextlib.suppress(RefDamagedError):
                if where in (None, layout.BRANCH) or self._refs.read(where) is not None:
                    return
            code, message = "head_elsewhere", f"HEAD was at {where}, which does not exist"
        except CorruptStateError as error:
            code, message = "head_unreadable", error.message
        kept = self.salvage.keep(".git/HEAD", remove=False)
        self.writer.directory.write(".git/HEAD", f"ref: {layout.BRANCH}\n".encode())
        yield Finding(code, "error", message, path=".git/HEAD", action=f"HEAD names main again{kept}")

    def lock(self) -> Iterator[Finding]:
        """Somebody else's lock of the branch goes only after standing unchanged for 10 s."""
        lock, writer = f"{_BRANCH}.lock", self.writer
        said = partial(Finding, "left_behind", "warning", "a lock of the branch stood", path=lock)
        if self._refs.left_over(self._revisions.is_ours):
            yield said(action="removed: gitstate had left it")
            return
        found = writer.directory.status(lock)
        deadline = writer.clock.monotonic() + _FOREIGN_LOCK
        while found is not None and writer.clock.monotonic() < deadline:
            writer.clock.sleep(0.25)
            now = writer.directory.status(lock)
            if now is None or (now.st_ino, now.st_mtime_ns, now.st_size) != (
                found.st_ino,
                found.st_mtime_ns,
                found.st_size,
            ):
                return
        if found is not None:
            yield said(action=f"removed: unchanged for 10 s{self.salvage.keep(lock)}")

    # --- the branch ---

    def branch(self) -> Iterator[Finding]:
        """The branch at the newest revision that is intact and was published."""
        code, damage = self._damage_of_branch()
        if not damage:
            return
        found = self._newest_published()
        if found is None:
            yield Finding(
                code, "error", f"{damage}; no intact revision is known to have been published", path=_BRANCH,
                hint="move .git away and run gitstate init: the files are adopted anew",
            )  # fmt: skip
            return
        best, evidence = found
        kept = self.salvage.keep(_BRANCH, remove=False)
        self._make_room(_BRANCH)
        lost = self._lost_after(best.id)
        self._refs.reinstate(best.id)
        for log in (f".git/logs/{layout.BRANCH}", ".git/logs/HEAD"):
            self._refs.forget_moves(log, self._revisions.objects.has)
        with contextlib.suppress(GitStateError):  # what is lost must not count as published for ever
            why = f"repair: main is at {best.id[:7]} again"
            self._refs.note_move(best.id, best.id, COMMITTER, best.committed, why)
        yield Finding(
            code, "error", damage, path=_BRANCH, revision=best.id,
            action=f"main is at {best.id[:7]} again, the newest intact revision known from {evidence}{lost}{kept}",
        )  # fmt: skip

    def _damage_of_branch(self) -> tuple[str, str]:
        try:
            head = self._revisions.head()
            newer = self._revisions.overtaken_by(head)
        except CorruptStateError as error:
            return "head_unreadable", error.message
        if newer is not None:
            return "branch_behind", f"main is at {head[:7]}, behind {newer[:7]}, which was published"
        return "head_unreadable", "" if self.salvage.is_whole(head) else f"main is at {head[:7]}, which cannot be read"

    def _lost_after(self, revision: str) -> str:
        """The commits that the reflog names after *revision*, in words."""
        lost: list[str] = []
        for move in reversed(self._refs.reflog()):
            if move.new == revision:
                break
            lost.append(f"{move.new[:7]} {move.why}"[:120])
        if not lost:
            return ""
        more = f" and {len(lost) - _NAMED} before them" if len(lost) > _NAMED else ""
        return f"; lost from history: {'; '.join(lost[:_NAMED])}{more} (what they wrote is taken from the files)"

    def _newest_published(self) -> tuple[Revision, str] | None:
        """The newest intact revision with evidence that it was published, and which evidence."""
        best: tuple[Revision, str] | None = None
        for evidence, candidates in self._evidence():
            name = next(filter(self.salvage.is_whole, candidates()), None)
            found = None if name is None else self._revisions.read(name)
            if found is not None and (best is None or found.order[::-1] > best[0].order[::-1]):
                best = found, evidence
        return best

    def _evidence(self) -> Iterator[tuple[str, Callable[[], Iterator[str]]]]:
        """What is known to have been published, the newest of each kind first."""
        yield "the projection", self._noted
        yield "the reflog", lambda: (move.new for move in reversed(self._refs.reflog()))
        yield "the branch's own past", partial(self._past, self._refs.read)
        yield "packed-refs", partial(self._past, lambda ref: self._refs.packed().get(ref))
        yield "the files", self._written_out
        for ref in self._names("refs/tags"):
            yield f"the tag {ref.removeprefix('refs/tags/')}", partial(self._resolved, ref)

    def _noted(self) -> Iterator[str]:
        note = self.writer.notes.read()
        if note is not None:
            yield note.head

    def _written_out(self) -> Iterator[str]:
        """The commits that hold exactly what the files hold: a commit is written out after it was published.

        One that changed no file is passed over, since nothing of it can be seen in the files.
        """
        if any(True for _ in self._noted()):
            return  # says the same without looking at every object
        files = self.writer.projection.survey()
        root = next(reversed(self._revisions.made_of({p: f for p, f in files.items() if isinstance(f, bytes)})), None)
        found = []
        for object_id, _ in self._revisions.objects.entries():
            with contextlib.suppress(CorruptStateError):
                revision = self._revisions.read(object_id)
                if revision.tree == root and not self._has_tree(revision.parent, root):
                    found.append(revision)
        yield from (revision.id for revision in sorted(found, key=lambda revision: revision.order, reverse=True))

    def _has_tree(self, revision: str | None, tree: str) -> bool:
        with contextlib.suppress(CorruptStateError):
            return revision is not None and self._revisions.read(revision).tree == tree
        return False

    def _past(self, read: Callable[[str], str | None]) -> Iterator[str]:
        with contextlib.suppress(CorruptStateError):
            start = read(layout.BRANCH)
            if start is not None:
                yield from (revision.id for revision in self._revisions.walk(start))

    def _resolved(self, ref: str) -> Iterator[str]:
        with contextlib.suppress(GitStateError):
            yield resolve(self._revisions, ref, head="0" * 40)

    # --- packed refs and tags ---

    def packed(self, without: Container[str] = ()) -> Iterator[Finding]:
        """The file of packed refs, if it is damaged, written again with what can be read in it, but not *without*."""
        raw = self.writer.directory.read(PACKED_REFS)
        if raw is None:
            return
        damage = ""
        try:
            told = self._refs.peeled()
        except RefDamagedError as error:
            damage, told = error.message, {}
        found, _ = parse_packed(raw)
        refs = [(name, value, self._target(value)) for name, value, _ in found if name not in without]
        if not damage and any(told.get(name, target) != target for name, _, target in refs):
            damage = "packed-refs: what it says a tag leads to is not true"
        if damage or len(refs) < len(found):
            kept = self.salvage.keep(PACKED_REFS, remove=False)
            self.writer.directory.write(PACKED_REFS, format_packed(refs))
            if damage:
                action = f"written again with the {len(refs)} refs that could be read in it{kept}"
                yield Finding("ref_damaged", "error", damage, path=PACKED_REFS, action=action)

    def _target(self, object_id: str) -> str | None:
        try:
            target = self._revisions.peel(object_id)
        except CorruptStateError:
            return None
        return None if target == object_id else target

    def _names(self, top: str) -> list[str]:
        packed: list[str] = []
        with contextlib.suppress(RefDamagedError):
            packed = [name for name in self._refs.packed() if name.startswith(f"{top}/")]
        return sorted({*packed, *self._refs.loose_names(top)})

    def tags(self) -> Iterator[Finding]:
        """Refs that lead nowhere are put away, and the tags that history asks for made again."""
        lost: dict[str, str] = {}
        for ref in self._names("refs"):
            if ref == layout.BRANCH or (ref.startswith("refs/remotes/") and ref.endswith("/HEAD")):
                continue
            try:
                self._revisions.peel(self._refs.read(ref) or "")
            except CorruptStateError as error:
                lost[ref] = error.message + self.salvage.keep(f".git/{ref}")
        if lost:
            yield from self.packed(without=lost)
        for ref in self._made_again():
            code, damage = ("tag_damaged", lost.pop(ref)) if ref in lost else ("tag_missing", f"{ref} was missing")
            yield Finding(code, "error", damage, path=f".git/{ref}", action="made again, as history asks for it")
        for ref, damage in lost.items():
            code = "tag_damaged" if ref.startswith("refs/tags/") else "ref_damaged"
            yield Finding(code, "error", f"{ref}: {damage}", path=f".git/{ref}", action="lost: it led nowhere")

    def _made_again(self) -> Iterator[str]:
        reached: list[Revision] = []
        with contextlib.suppress(CorruptStateError):
            for revision in self._revisions.walk(self._revisions.head()):
                reached.append(revision)  # noqa: PERF402  # what was reached before the damage counts
        if reached and reached[-1].parent is not None:
            yield from self._reconnected(reached[-1].parent)
        for revision in reversed(reached):  # the first archiving of a loop gets the first name
            with contextlib.suppress(CorruptStateError):
                for ref in reconcile.missing_tags(self._revisions, revision.id) if revision.operation else ():
                    self._tag(ref, self._revisions.build_tag(ref, revision))
                    yield ref

    def _tag(self, ref: str, tag: Stored) -> None:
        self._revisions.objects.write([tag])
        self._make_room(f".git/{ref}")
        if not self._refs.create_tag(ref, tag.id):
            raise StorageError(f"the tag {ref} cannot be made", path=f".git/{ref}")

    def _reconnected(self, lost: str) -> Iterator[str]:
        """Behind a lost commit the rest of history may be whole: a tag keeps it, and makes it a revision to ask for."""
        earlier = next((move.old for move in self._refs.reflog() if move.new == lost and move.old != lost), None)
        if earlier is None or not self.salvage.is_whole(earlier):
            return
        ref = f"refs/tags/recovered/{earlier[:7]}"
        if self._refs.read(ref) is None:
            self._tag(ref, self._revisions.build_tag(ref, self._revisions.read(earlier)))
            yield ref

    def _make_room(self, path: str) -> None:
        """Take away what is no file where a ref belongs, and what is no directory above it."""
        directory, parts = self.writer.directory, path.split("/")
        for depth in range(2, len(parts)):
            above = "/".join(parts[:depth])
            if directory.status(above) is not None and not directory.is_directory(above):
                self.salvage.keep(above)
        if directory.status(path) is not None and not isinstance(self.writer.projection.found(path), bytes):
            self.salvage.keep(path)
        if not directory.is_directory(path.rpartition("/")[0]):
            directory.make(path.rpartition("/")[0], durable=True)
