"""The audit of a repository: what lies under history. Its places, configuration, refs, packs and objects.

What is wrong with one object or file is said once, by whoever comes upon it first and can say what it held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gitstate import layout
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError
from gitstate.marks import kind_of
from gitstate.medium import UnreadableError
from gitstate.results import Finding
from gitstate.store import inspection
from gitstate.store.consolidation import is_spent
from gitstate.store.objects import ObjectDamagedError, damaged
from gitstate.store.packs import PACKS, damage_of_pack, pack_names
from gitstate.store.refs import PACKED_REFS, RefDamagedError
from gitstate.store.revisions import Revision, Revisions
from gitstate.store.trees import DIRECTORY, read_tree

Progress = Callable[[str, int, int], None]
_EVERY = 256  # things between two words about progress


class Audit:
    """One look at a repository; it changes nothing. *progress* hears what is looked at, how much, and of how much."""

    def __init__(self, revisions: Revisions, progress: Progress | None = None) -> None:
        self.revisions, self.progress = revisions, progress
        self._looked_at: str | None = None  # the tree of the commit that was looked at before
        self._broken: dict[str, ObjectDamagedError] = {}
        self._said: set[str] = set()

    def say(self, what: str, done: int, total: int = 0, *, last: bool = False) -> None:
        """Tell how far things are."""
        if self.progress is not None and (last or done % _EVERY == 0):
            self.progress(what, done, total)

    # --- saying it once ---

    def about(self, error: CorruptStateError, where: str = "") -> Iterator[Finding]:
        """The finding for damage that was met; nothing if it was said before. *where* tells what is affected."""
        path = error.facts.get("path")
        key = str(error.facts.get("object_id") or path or error.message)
        if key in self._said:
            return
        self._said.add(key)
        code = "object_damaged" if isinstance(error, ObjectDamagedError) else "record_invalid"
        if isinstance(error, RefDamagedError):
            code = "tag_damaged" if str(path).startswith(".git/refs/tags/") else "ref_damaged"
        revision = error.facts.get("revision")
        yield Finding(
            code, "error", f"{error.message}: {where}" if where else error.message,
            path=str(path) if path else None, revision=revision if isinstance(revision, str) else None,
            hint=error.hint or "gitstate repair",
        )  # fmt: skip

    def not_read(self, error: UnreadableError) -> Iterator[Finding]:
        """The finding for what could not be read; nothing if it was said before."""
        path = str(error.facts.get("path") or "")
        if path not in self._said:
            self._said.add(path)
            yield Finding(
                "not_read", "error", f"{error.message}; what depends on it was not looked at", path=path or None,
                hint="gitstate check",
            )  # fmt: skip

    def head_unreadable(self, error: CorruptStateError) -> Finding:
        """The finding for damage that keeps the newest state from being read out of history."""
        revision = error.facts.get("revision")
        self._said.add(str(error.facts.get("object_id") or error.facts.get("path") or error.message))
        return Finding(
            "head_unreadable", "error", error.message, path=f".git/{layout.BRANCH}",
            revision=revision if isinstance(revision, str) else None, hint="gitstate repair",
        )  # fmt: skip

    # --- places ---

    def places(self) -> Iterator[Finding]:
        """Files and directories of the repository that are something else, and the configuration."""
        directory = self.revisions.refs.directory
        for path, mode in inspection.in_the_way(directory):
            yield Finding(
                "in_the_way", "warning", f"{path} is {kind_of(mode)}, which gitstate does not use", path=path,
                hint="gitstate repair",
            )  # fmt: skip
        damage = inspection.damage_of_config(directory)
        if damage is not None:
            yield Finding(
                "config_damaged", "warning", f"config: {damage}", path=inspection.CONFIG, hint="gitstate repair"
            )

    # --- refs ---

    def branch(self) -> Iterator[Finding]:
        """Where HEAD points, and whether the branch was overtaken by what its reflog says was published."""
        refs = self.revisions.refs
        try:
            where = refs.symbolic_head()
        except CorruptStateError as error:
            yield Finding("head_unreadable", "error", error.message, path=".git/HEAD", hint="gitstate repair")
        else:
            if where != layout.BRANCH:
                at = "detached" if where is None else f"at {where.removeprefix('refs/heads/')}"
                lost = where is not None and not self._exists(where)
                words = f"HEAD is {at}, not at main" + (", and there is no such branch" if lost else "")
                yield Finding(
                    "head_elsewhere", "warning", words, path=".git/HEAD", hint="gitstate repair" if lost else f"git -C {refs.directory.path} checkout main",
                )  # fmt: skip
        try:
            head = refs.read(layout.BRANCH)
            newer = None if head is None else self.revisions.overtaken_by(head)
            if newer is not None and refs.read(layout.BRANCH) != head:
                newer = None  # somebody committed between the two looks
        except CorruptStateError:
            return
        if head is not None and newer is not None:
            yield Finding(
                "branch_behind", "error", f"main is at {head[:7]}, but {newer[:7]}, which came after it, was published",
                path=f".git/{layout.BRANCH}", revision=newer, hint="gitstate repair",
            )  # fmt: skip

    def _exists(self, ref: str) -> bool:
        try:
            return self.revisions.refs.read(ref) is not None
        except CorruptStateError:
            return True

    def every_ref(self) -> Iterator[Finding]:
        """Every ref followed to its commit."""
        refs = self.revisions.refs
        try:
            packed = refs.packed()
            peeled = refs.peeled()
        except RefDamagedError as error:
            yield from self.about(error)
            packed, peeled = {}, {}
        names = sorted({*packed, *refs.loose_names("refs")})
        for number, ref in enumerate(names):
            self.say("refs", number, len(names))
            if ref.startswith("refs/replace/"):
                yield Finding(
                    "history_replaced", "warning", f"git shows something else in the place of {ref[13:20]}", path=f".git/{ref}", hint=f"git -C {refs.directory.path} replace -d {ref[13:]}",
                )  # fmt: skip
                continue
            if ref == layout.BRANCH or (ref.startswith("refs/remotes/") and ref.endswith("/HEAD")):
                continue  # judged by itself; and a name for another ref
            try:
                value = refs.read(ref)
                target = None if value is None else self.revisions.peel(value)
            except CorruptStateError as error:
                code = "tag_damaged" if ref.startswith("refs/tags/") else "ref_damaged"
                said = error.message if isinstance(error, RefDamagedError) else f"{ref}: {error.message}"
                yield Finding(code, "error", said, path=f".git/{ref}", hint="gitstate repair")
                self._said.add(f".git/{ref}")
                continue
            if packed.get(ref) == value and peeled.get(ref, target) != target:
                yield Finding(
                    "ref_damaged", "error", f"packed-refs: what it says {ref} leads to is not true",
                    path=PACKED_REFS, hint="gitstate repair",
                )  # fmt: skip
        self.say("refs", len(names), len(names), last=True)

    # --- objects ---

    def objects(self) -> Iterator[Finding]:
        """Every pack compared with its checksums, and every object with its name."""
        store, directory = self.revisions.objects, self.revisions.objects.directory
        for name in pack_names(directory):
            damage = _damage_of_pack(directory, name)
            if damage is not None and not is_spent(directory, name):
                yield Finding(
                    "pack_damaged", "error", f"{name}: {damage}", path=f"{PACKS}/{name}.pack", hint="gitstate repair"
                )
        total, number = store.count(), 0
        for number, (object_id, path) in enumerate(store.entries(), 1):
            self.say("objects", number, max(number, total))
            try:
                store.verify(object_id, path)
            except ObjectDamagedError as error:
                self._broken[object_id] = error
            except UnreadableError as error:
                self._broken[object_id] = damaged(object_id, f"unreadable ({error})", path)
        self.say("objects", number, number, last=True)

    def contents(self, revision: Revision) -> Iterator[Finding]:
        """What a commit holds and the one that was looked at before does not: every directory and file is there."""
        before, self._looked_at = self._looked_at, revision.tree
        yield from self._below(revision.tree, before, "", revision)

    def _below(self, tree_id: str, before: str | None, above: str, revision: Revision) -> Iterator[Finding]:
        if tree_id == before:
            return
        try:
            entries = read_tree(self.revisions.objects, tree_id)
        except ObjectDamagedError as error:
            yield from self.about(error, f"the list of files {f'in {above} ' if above else ''}of {revision.id[:7]}")
            return
        known = self._entries(before)
        for name, (mode, inner) in entries.items():
            path = above + name.decode("utf-8", "replace")
            other = known.get(name, (0, ""))
            if mode == DIRECTORY:
                yield from self._below(inner, other[1] if other[0] == DIRECTORY else None, f"{path}/", revision)
            elif (mode, inner) != other:
                yield from self._file(inner, path, revision)

    def _entries(self, tree_id: str | None) -> Mapping[bytes, tuple[int, str]]:
        try:
            return {} if tree_id is None else read_tree(self.revisions.objects, tree_id)
        except ObjectDamagedError:
            return {}

    def _file(self, blob: str, path: str, revision: Revision) -> Iterator[Finding]:
        try:
            self.revisions.objects.read(blob, b"blob")
        except ObjectDamagedError as error:
            yield from self.about(error, f"{path} of {revision.id[:7]}")

    def rest(self) -> Iterator[Finding]:
        """Damaged objects that nothing in the branch's history leads to, or that are whole elsewhere."""
        for object_id, error in self._broken.items():
            try:
                where = (
                    "it is whole in another place"
                    if self.revisions.objects.has(object_id)
                    else "nothing on main needs it"
                )
            except UnreadableError:
                where = "it may be whole"
            yield from self.about(error, where)


def _damage_of_pack(directory: Directory, name: str) -> str | None:
    try:
        return damage_of_pack(directory, name)
    except UnreadableError as error:
        return f"it cannot be read ({error})"
