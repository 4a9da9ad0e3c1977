"""Revisions: commits, the trees they hold, and the tags that name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from dulwich.objects import Commit, ObjectID, Tag

from gitstate.errors import CorruptStateError
from gitstate.layout import BRANCH
from gitstate.operation import Operation, from_message, to_message
from gitstate.store.changes import Ending, Index, Noted, Position, ending_of, note, opened_index
from gitstate.store.objects import ObjectDamagedError, Objects, Stored, damaged, unreadable
from gitstate.store.pages import IndexDamagedError
from gitstate.store.recent import Recent
from gitstate.store.refs import RefDamagedError, Refs
from gitstate.store.trees import CommitTree, Made, grown, nested

COMMITTER = b"gitstate <gitstate@localhost>"
_TAGS_OF_TAGS = 8
_ASTRAY = 64  # commits that the index does not know before nothing more is expected of it
_CATCH_UP = 256  # commits that are noted late, so that no mutation takes long
_FAR = 10_000  # commits that are walked to see whether one came after another


class Revision(NamedTuple):
    """A commit. Times are aware, UTC; ``author`` is the name alone."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    time: datetime
    committed: int
    message: str

    @property
    def parent(self) -> str | None:
        return self.parents[0] if self.parents else None

    @property
    def order(self) -> tuple[int, int]:
        """What puts revisions of one history in their order: commit time, and the generation within a second."""
        operation = self.operation
        return self.committed, (operation.generation or 0) if operation is not None else 0

    @property
    def operation(self) -> Operation | None:
        """What gitstate recorded; ``None`` for a commit that it did not make."""
        return from_message(self.message)


class Revisions:
    """The revisions of one repository."""

    def __init__(self, objects: Objects, refs: Refs) -> None:
        self.objects, self.refs = objects, refs
        self.recent = Recent(objects, refs)
        objects.recent = self.recent.find

    def from_disk(self) -> Revisions:
        """The same history as git finds it: without what memory and the journal know. The caller closes its objects."""
        found = Revisions(Objects(self.objects.directory), self.refs)
        found.objects.recent = None
        return found

    # --- reading ---

    def head(self) -> str:
        """The newest revision of the branch.

        Raises:
            CorruptStateError: the branch is missing or damaged; it is never taken for a new beginning.
        """
        if self.recent.is_overruled():
            return self._published()
        found = self.refs.loose(BRANCH)
        if found is not None:
            return found
        # What is packed may be older than a file that is lost; then the reflog knows more.
        found = self.refs.packed().get(BRANCH)
        newer = None if found is None else self.overtaken_by(found)
        if found is None or newer is not None:
            moved = self.refs.loose(BRANCH)  # it may have got a file of its own between the two looks
            if moved is not None:
                return moved
            raise CorruptStateError(
                "the branch main is missing" + (f"; {newer[:7]} was published" if newer is not None else ""),
                hint="gitstate repair",
                path=f".git/{BRANCH}",
                damage="missing",
                revision=newer,
            )
        return found

    def _published(self) -> str:
        """What the branch is at after a power cut: the journal's newest, unless the branch went on from there."""
        published = self.recent.published()
        with suppress(RefDamagedError):
            branch = self.refs.read(BRANCH)
            if branch is not None and branch not in published and self._went_on(branch, published[-1]):
                return branch
        return published[-1]

    def _went_on(self, branch: str, published: str) -> bool:
        """Whether *branch* came after *published*, and all that was added to it can be read."""
        try:
            known = {blob for _, _, blob in self.tree(published).files()}
            for revision in islice(self.walk(branch), _FAR):
                if revision.id == published:
                    return True
                for _, _, blob in self.tree(revision.id).files():
                    if blob not in known:
                        self.objects.read(blob)
        except CorruptStateError:
            pass
        return False

    def overtaken_by(self, revision: str) -> str | None:
        """The revision that the reflog names last, if it came after *revision*: then the branch is not where it was."""
        newest = self.refs.last_in_reflog()
        return newest if newest is not None and newest != revision and self._follows(newest, revision) else None

    def _follows(self, later: str, earlier: str) -> bool:
        try:
            return any(revision.id == earlier for revision in islice(self.walk(later), _FAR))
        except CorruptStateError:
            return False

    def read(self, revision: str) -> Revision:
        """A commit by its full id.

        Raises:
            ObjectDamagedError: it is missing or damaged.
        """
        return self.objects.parsed(revision, b"commit", _parsed_commit)

    def tree(self, revision: str) -> CommitTree:
        """The files of a revision."""
        return CommitTree(self.objects, self.refs, revision, self.read(revision).tree)

    def walk(self, start: str) -> Iterator[Revision]:
        """*start* and what came before it, newest first, along first parents."""
        current: str | None = start
        while current is not None:
            revision = self.read(current)
            yield revision
            current = revision.parent

    def trail(self, start: str, loop_id: str) -> Iterator[Revision]:
        """As :meth:`walk`, without most of those that do not concern a loop."""
        current: str | None = start
        with opened_index(self.objects.directory) as index:
            newer, position = (0, None) if index is None else self.reach(index, start)
            for revision in islice(self.walk(start), newer):
                yield revision
                current = revision.parent
            if index is not None and position is not None:
                with suppress(
                    IndexDamagedError
                ):  # what it leads to is before all that it knows, or where it is damaged
                    for revision in map(self.read, index.of_loop(loop_id, position)):
                        yield revision
                        current = revision.parent
                    current = self.read(index.first).parent
            if current is not None:
                yield from self.walk(current)

    def reach(self, index: Index, start: str) -> tuple[int, Position | None]:
        """How many commits from *start* back the index does not know yet, and where the next one is noted, if one is."""
        newer = 0
        with suppress(CorruptStateError):  # whoever walks there meets it
            for revision in islice(self.walk(start), _ASTRAY):
                position = self.position(index, revision.id)
                if position is not None:
                    return newer, position
                newer += 1
        return 0, None

    def position(self, index: Index, revision: str) -> Position | None:
        """Where a commit is noted, if it is."""
        try:
            return index.end(revision) or index.position(revision, self._times(revision))
        except IndexDamagedError:
            return None

    def _times(self, revision: str) -> tuple[int, int]:
        """The times under which a commit may be noted: its own, and the newest before it where the clock was set back."""
        found = self.read(revision)
        return int(found.time.timestamp()), found.committed

    def note(self, made: Revision) -> None:
        """Note a new commit in the index, with those before it that are missing there.

        Raises:
            StorageError: the file system refused.
        """
        try:
            self._note(made, ending_of(self.objects.directory))
        except IndexDamagedError:
            self._note(made, None)

    def note_all(self) -> None:
        """Note the whole of history, unless it is noted.

        Raises:
            StorageError: the file system refused.
        """
        head = self.head()
        with opened_index(self.objects.directory) as index:
            known = index is not None and index.is_whole and self.position(index, head) is not None
            if index is not None and known and self.read(index.first).parent is None:
                return
        ids = bytearray()
        for revision in self.walk(head):
            ids += bytes.fromhex(revision.id)
        oldest_first = (ids[at : at + 20].hex() for at in range(len(ids) - 20, -1, -20))
        note(self.objects.directory, (_noted(self.read(each)) for each in oldest_first), None)

    def _note(self, made: Revision, ending: Ending | None) -> None:
        missing: list[Noted] = []
        for revision in islice(self.walk(made.id), _CATCH_UP):
            if ending is not None and revision.id == ending.revision:
                break
            missing.append(_noted(revision))
        else:
            ending = None
        if missing:
            note(self.objects.directory, missing[::-1], ending)

    def versions(self, paths: Sequence[str], start: str) -> Iterator[tuple[str, str]]:
        """The versions of a file, newest first: the revision that brought each, and its blob id.

        The file is the first of *paths* that a revision has: one that moves keeps its past.
        """
        later: tuple[str, str] | None = None
        for revision in self.walk(start):
            tree = CommitTree(self.objects, self.refs, revision.id, revision.tree)
            blob = next((found for found in map(tree.blob_id, paths) if found is not None), None)
            if later is not None and blob != later[1]:
                yield later
            later = None if blob is None else (revision.id, blob)
        if later is not None:
            yield later

    def is_commit(self, object_id: str) -> bool:
        """Whether an object is there, intact, and a commit."""
        try:
            return self.objects.read(object_id).kind == b"commit"
        except ObjectDamagedError:
            return False

    def is_ours(self, revision: str) -> bool:
        """Whether a commit is there, intact, and made by gitstate."""
        try:
            return self.read(revision).operation is not None
        except CorruptStateError:
            return False

    def newest_generation(self, start: str) -> int:
        """The generation of the newest of our commits; 0 without any."""
        for revision in self.walk(start):
            operation = revision.operation
            if operation is not None and operation.generation is not None:
                return operation.generation
        return 0

    # --- tags ---

    def peel(self, object_id: str) -> str:
        """What an annotated tag leads to in the end; any other object leads to itself.

        Raises:
            ObjectDamagedError: the way there is broken.
        """
        for _ in range(_TAGS_OF_TAGS):
            if self.objects.read(object_id).kind != b"tag":
                return object_id
            object_id = self.objects.tag_target(object_id)
        raise damaged(object_id, "a tag of a tag without end")

    def names_itself(self, ref: str) -> bool:
        """Whether a tag has the name that it was given: another may be damage, where many share a file, or a copy."""
        value = self.refs.read(ref)
        if value is None or self.objects.read(value).kind != b"tag":
            return value is not None
        return self.objects.tag_name(value) == ref.removeprefix("refs/tags/")

    # --- making ---

    def build(
        self, parent: Revision | None, contents: Mapping[str, bytes | None], operation: Operation, now: datetime
    ) -> tuple[Revision, Made]:
        """The commit of *contents* over *parent*'s tree, and the objects it needs, itself the last. Nothing is written."""
        made = Made()
        root = grown(self.objects, None if parent is None else parent.tree, nested(contents), made)
        if root is None:
            root = made.add(b"tree", b"")
        when = max(0, int(now.timestamp()))
        committed = max(when, 0 if parent is None else parent.committed)
        author, message = author_of(operation), to_message(operation)
        raw = b"".join(
            (
                b"tree %s\n" % root.encode(),
                b"" if parent is None else b"parent %s\n" % parent.id.encode(),
                b"author %s %d +0000\ncommitter %s %d +0000\n\n" % (author, when, COMMITTER, committed),
                message.encode(),
            )
        )
        revision = Revision(
            id=made.add(b"commit", raw),  # two commits have little in common but what compresses well
            tree=root,
            parents=() if parent is None else (parent.id,),
            author=author.partition(b" <")[0].decode("utf-8", "replace"),
            time=datetime.fromtimestamp(when, UTC),
            committed=committed,
            message=message,
        )
        return revision, made

    def keep_at_hand(self, revision: Revision, made: Made) -> None:
        """What was built and published need not be taken apart again."""
        sizes = {object_id: len(stored.raw) for object_id, stored in made.objects.items()}
        self.objects.remember_parsed(revision.id, b"commit", revision, sizes[revision.id])
        for tree, entries in made.trees.items():
            self.objects.remember_parsed(tree, b"tree", entries, sizes[tree])

    def made_of(self, contents: Mapping[str, bytes]) -> dict[str, Stored]:
        """The files and directories that *contents* would be as objects, by id, the top last. Nothing is written."""
        made = Made()
        grown(self.objects, None, nested(contents), made)
        return made.objects

    def build_tag(self, ref: str, target: Revision) -> Stored:
        """The annotated tag object *ref* of a revision: its subject and who made it."""
        tag = Tag()
        tag.name = ref.removeprefix("refs/tags/").encode()
        tag.object = (Commit, ObjectID(target.id.encode()))
        operation = target.operation
        tag.tagger = COMMITTER if operation is None else author_of(operation)
        tag.tag_time = int(target.time.timestamp())
        tag.tag_timezone = 0
        tag.message = (target.message.split("\n", 1)[0] + "\n").encode()
        return Stored(b"tag", tag.as_raw_string())


def _noted(revision: Revision) -> Noted:
    operation = revision.operation
    loop_ids = None if operation is None else operation.loop_ids
    return Noted(revision.id, loop_ids, int(revision.time.timestamp()))


def author_of(operation: Operation) -> bytes:
    """The author of an operation: ``user:alice`` on devbox is ``alice <alice@devbox>``."""
    return _author(operation.actor, operation.host or "localhost")


@lru_cache(maxsize=64)
def _author(actor: str, host: str) -> bytes:
    name = re.sub(r"[<>\x00-\x1f\x7f]", "", actor.partition(":")[2] or actor).strip(" .,:;\"'") or "unknown"
    mail = re.sub(r"[^A-Za-z0-9._+-]", "-", name)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", host)
    return f"{name} <{mail}@{host}>".encode("utf-8", "replace")


def _parsed_commit(revision: str, raw: bytes) -> Revision:
    try:
        commit = Commit()
        commit.set_raw_string(raw)
        return _revision_of(revision, commit)
    except Exception as error:  # as above
        raise unreadable(revision, error) from None


def _revision_of(revision: str, commit: Commit) -> Revision:
    return Revision(
        id=revision,
        tree=commit.tree.decode(),
        parents=tuple(parent.decode() for parent in commit.parents),
        author=commit.author.partition(b" <")[0].decode("utf-8", "replace"),
        time=datetime.fromtimestamp(commit.author_time, UTC),
        committed=commit.commit_time,
        message=commit.message.decode("utf-8", "replace"),
    )
