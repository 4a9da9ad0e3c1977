"""Trees: the files of a revision, read and built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from dulwich.objects import parse_tree

from gitstate.ids import is_servable
from gitstate.layout import STATE_FILE
from gitstate.store.objects import Objects, Stored, unreadable
from gitstate.store.refs import Refs

FILE, DIRECTORY = 0o100644, 0o40000
_UNSAFE_NAMES = (b"", b".", b"..", b".git")


class CommitTree:
    """The files of one revision; the :class:`~gitstate.snapshot.Tree` that the store offers."""

    def __init__(self, objects: Objects, refs: Refs, revision: str | None, root: str) -> None:
        self._objects, self._refs = objects, refs
        self._revision, self.root = revision, root
        self._found: dict[str, tuple[int, str] | None] = {}

    @property
    def revision(self) -> str | None:
        return self._revision

    def entry(self, path: str) -> tuple[int, str] | None:
        """The mode of a file and the id of its blob, ``None`` if there is no such file."""
        if path not in self._found:
            self._found[path] = self._find(path)
        return self._found[path]

    def _find(self, path: str) -> tuple[int, str] | None:
        node = self.root
        *above, last = path.split("/")
        for part in above:
            mode, node = self._entries(node).get(part.encode(), (0, ""))
            if mode != DIRECTORY:
                return None
        mode, node = self._entries(node).get(last.encode(), (0, ""))
        return (mode, node) if mode & 0o170000 == 0o100000 else None

    def blob_id(self, path: str) -> str | None:
        """The id of a file's blob, ``None`` if there is no such file."""
        entry = self.entry(path)
        return None if entry is None else entry[1]

    def directory(self, area: str) -> str | None:
        """The id of a directory of the top, ``None`` if there is none of that name."""
        mode, inner = self._entries(self.root).get(area.encode(), (0, ""))
        return inner if mode == DIRECTORY else None

    def names(self, area: str) -> Sequence[str]:
        """The names in a directory of the top, whatever they are."""
        mode, inner = self._entries(self.root).get(area.encode(), (0, ""))
        return [name.decode("utf-8", "surrogateescape") for name in self._entries(inner)] if mode == DIRECTORY else []

    def read(self, path: str) -> bytes | None:
        blob = self.blob_id(path)
        return None if blob is None else self._objects.read(blob, b"blob").raw

    def loops(self, area: str) -> Sequence[str]:
        mode, area_id = self._entries(self.root).get(area.encode(), (0, ""))
        if mode != DIRECTORY:
            return ()
        found = []
        for name, (inner_mode, inner) in self._entries(area_id).items():
            loop_id = name.decode("utf-8", "surrogateescape")
            if inner_mode == DIRECTORY and is_servable(loop_id) and STATE_FILE.encode() in self._entries(inner):
                found.append(loop_id)
        return found

    def tags(self, loop_id: str) -> Sequence[str]:
        return self._refs.tags(loop_id)

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Every file: its path, mode and blob id, in git's order."""
        yield from self._files(self.root, "")

    def _files(self, node: str, above: str) -> Iterator[tuple[str, int, str]]:
        for name, (mode, inner) in self._entries(node).items():
            path = above + name.decode("utf-8", "surrogateescape")
            if mode == DIRECTORY:
                yield from self._files(inner, f"{path}/")
            else:
                yield path, mode, inner

    def _entries(self, tree_id: str) -> Mapping[bytes, tuple[int, str]]:
        return read_tree(self._objects, tree_id)


def read_tree(objects: Objects, tree_id: str) -> Mapping[bytes, tuple[int, str]]:
    """The entries of a tree object by name: mode and id."""
    return objects.parsed(tree_id, b"tree", _parsed_tree)


def _parsed_tree(tree_id: str, raw: bytes) -> Mapping[bytes, tuple[int, str]]:
    try:
        entries = {name: (mode, sha.decode()) for name, mode, sha in parse_tree(raw, sha_len=20)}
        if any(b"/" in name or name.lower() in _UNSAFE_NAMES for name in entries):
            raise ValueError("a name that is no name of a file")  # it would lead out of the state directory
        return MappingProxyType(entries)
    except Exception as error:  # dulwich meets damage with many types
        raise unreadable(tree_id, error) from None


@dataclass(eq=False, repr=False)
class Made:
    """Objects made and not written yet, by id; ``bases`` has what a file or directory was before, where it was one.

    ``trees`` has what reading the trees among them would give.
    """

    objects: dict[str, Stored] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    trees: dict[str, Mapping[bytes, tuple[int, str]]] = field(default_factory=dict)

    def add(self, kind: bytes, raw: bytes, base: str | None = None) -> str:
        """The id of an object that is added."""
        object_id = self.add_stored(Stored(kind, raw))
        if base is not None and base != object_id:
            self.bases[object_id] = base
        return object_id

    def add_stored(self, stored: Stored) -> str:
        """The id of an object that is added as it is."""
        object_id = stored.id
        self.objects[object_id] = stored
        return object_id


def grown(objects: Objects, tree_id: str | None, changes: dict[str, object], made: Made) -> str | None:
    """The id of a tree with nested *changes* laid over it; ``None`` when nothing is left in it."""
    entries = {} if tree_id is None else dict(read_tree(objects, tree_id))
    for name, change in changes.items():
        key = name.encode("utf-8", "surrogateescape")
        if isinstance(change, dict):
            mode, inner = entries.get(key, (0, ""))
            below = grown(objects, inner if mode == DIRECTORY else None, change, made)
            entries.pop(key, None)
            if below is not None:
                entries[key] = (DIRECTORY, below)
        elif isinstance(change, bytes):
            mode, before = entries.get(key, (0, ""))
            entries[key] = (FILE, made.add(b"blob", change, before if mode == FILE else None))
        else:
            entries.pop(key, None)
    if not entries:
        return None
    # In git's order a directory sorts as if its name ended in a slash.
    ordered = sorted(entries.items(), key=lambda item: item[0] + b"/" if item[1][0] == DIRECTORY else item[0])
    raw = b"".join([b"%o %s\0%s" % (mode, name, bytes.fromhex(inner)) for name, (mode, inner) in ordered])
    made_id = made.add(b"tree", raw, tree_id)
    made.trees[made_id] = MappingProxyType(dict(ordered))
    return made_id


def nested(contents: Mapping[str, bytes | None]) -> dict[str, object]:
    """Files by path as directories within directories."""
    top: dict[str, object] = {}
    for path, raw in contents.items():
        *above, last = path.split("/")
        node = top
        for part in above:
            inner = node.setdefault(part, {})
            node = cast("dict[str, object]", inner)
        node[last] = raw
    return top
