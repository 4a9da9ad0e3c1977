"""Differences between records, field by field, and the merge of an edit made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gitstate.encoding import Json, Record, encodes_alike, escape_pointer
from gitstate.errors import InvalidRecordError

if TYPE_CHECKING:
    from gitstate.results import FieldChange

# What gitstate keeps for itself in a record: nobody's field, so no difference of it is shown, merged or undone.
STAMP = "gitstate"


def difference(
    before: Record | None, after: Record | None, *, loop_id: str | None = None, into_lists: bool = True
) -> list[FieldChange]:
    """The fields in which two versions of a record differ, in the order of the newer one; ``None`` is no record.

    The revision stamp is left out. With *into_lists* off a list is one field.
    """
    comparison = _Comparison(loop_id, into_lists)
    comparison.compare("", {} if before is None else before, {} if after is None else after)
    return comparison.found


class _Comparison:
    """The differences found so far."""

    def __init__(self, loop_id: str | None, into_lists: bool) -> None:
        self.found: list[FieldChange] = []
        self._loop_id, self._into_lists = loop_id, into_lists

    def compare(self, path: str, old: Json, new: Json) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            self._each(path, old, new)
        elif self._into_lists and isinstance(old, list) and isinstance(new, list):
            if not encodes_alike(old, new):
                self._each(path, dict(enumerate(old)), dict(enumerate(new)))
        elif not same(old, new):
            self._add(path, "changed", old, new)

    def _each(self, above: str, old: Mapping[Any, Json], new: Mapping[Any, Json]) -> None:
        for key, item in new.items():
            # A version is mostly made from the one before it, and then what did not change is the very same value.
            if key not in old or old[key] is not item:
                path = f"{above}/{escape_pointer(str(key))}"
                if key not in old:
                    self._add(path, "added", None, item)
                elif path != f"/{STAMP}":
                    self.compare(path, old[key], item)
        for key, item in old.items():
            if key not in new:
                self._add(f"{above}/{escape_pointer(str(key))}", "removed", item, None)

    def _add(self, path: str, kind: Literal["added", "removed", "changed"], old: Json, new: Json) -> None:
        from gitstate.results import FieldChange  # reading needs none

        if path != f"/{STAMP}":
            self.found.append(FieldChange(self._loop_id, path, kind, old, new))


def same(one: Json, other: Json) -> bool:
    """Equal as JSON values: ``1`` and ``1.0`` are, ``1`` and ``true`` are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def tokens(path: str) -> list[str]:
    """The keys of a JSON pointer."""
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]


def lookup(record: Record, path: str) -> tuple[bool, Json]:
    """Whether there is a field at *path* (through objects only), and its value."""
    node: Json = record
    for token in tokens(path):
        if not isinstance(node, dict) or token not in node:
            return False, None
        node = node[token]
    return True, node


def assign(record: Record, path: str, present: bool, value: Json) -> Record:
    """A copy of *record* with the field at *path* set, or removed when not *present*; objects on the way are made."""
    head, *rest = tokens(path)
    copy = dict(record)
    if rest:
        inner = copy.get(head, {})
        if not isinstance(inner, dict):
            raise InvalidRecordError(f"{head} is not an object, so {path} is not in it", path=path)
        copy[head] = assign(inner, "/" + "/".join(escape_pointer(token) for token in rest), present, value)
    elif present:
        copy[head] = value
    else:
        copy.pop(head, None)
    return copy


# --- merging ---------------------------------------------------------------------------------------------------------


class Merge(NamedTuple):
    """A merged record, and the keys where the edit replaced what the head had changed meanwhile."""

    record: Record
    replaced: tuple[str, ...]


def merge_state(base: Record, edit: Record, head: Record) -> Merge:
    """Take from *edit*, which was made from *base*, what differs from it, and everything else from *head*.

    Only top-level keys are merged, since that is what the original replaces. Where both sides changed a key the edit
    wins. When *head* is *base*, the result equals *edit* but for the stamp.
    """
    merged = dict(head)
    replaced: list[str] = []
    for key in [*edit, *(key for key in base if key not in edit)]:
        if key == STAMP or _agree(base, edit, key):
            continue
        if not _agree(base, head, key) and not _agree(edit, head, key) and key != "lastUpdate":
            replaced.append(key)
        if key in edit:
            merged[key] = edit[key]
        else:
            merged.pop(key, None)
    return Merge(merged, tuple(replaced))


def _agree(one: Record, other: Record, key: str) -> bool:
    return (key in one) == (key in other) and (key not in one or same(one[key], other[key]))


# What the session states and the archives say; an edit of it from outside is not taken.
DERIVED_IN_ENTRY = ("loop_id", "status", "iteration", "max_iterations", "pid")
DERIVED_IN_REGISTRY = ("active_loops", "total_active", "total_completed", "total_aborted")


def merge_registry(base: Record, edit: Record, head: Record) -> Merge:
    """As :func:`merge_state`, for what only the registry knows: derived fields, and which entries exist, are the head's."""
    merged, replaced = merge_state(
        _without(base, DERIVED_IN_REGISTRY), _without(edit, DERIVED_IN_REGISTRY), _without(head, DERIVED_IN_REGISTRY)
    )
    theirs, bases = entries_of(edit), entries_of(base)
    entries: list[Json] = []
    for loop_id, entry in entries_of(head).items():
        if loop_id in theirs:
            inner, lost = merge_state(
                _without(bases.get(loop_id, {}), DERIVED_IN_ENTRY),
                _without(theirs[loop_id], DERIVED_IN_ENTRY),
                _without(entry, DERIVED_IN_ENTRY),
            )
            kept = {key: item for key, item in entry.items() if key in DERIVED_IN_ENTRY or key in inner}
            entries.append({**kept, **inner})
            replaced += tuple(f"{loop_id}/{key}" for key in lost if loop_id in bases)
        else:
            entries.append(entry)
    # A new entry stays if a loop comes with it; that is for whoever knows the session states to see.
    known = {**bases, **entries_of(head)}
    entries += [entry for loop_id, entry in theirs.items() if loop_id not in known]
    result: Record = {
        key: merged.get(key, item) for key, item in head.items() if key in merged or key in DERIVED_IN_REGISTRY
    }
    return Merge({**result, **merged, "active_loops": entries}, replaced)


def entries_of(registry: Record) -> dict[str, Record]:
    """The entries of a valid registry by id; where an id is there twice, the first counts."""
    found: dict[str, Record] = {}
    entries = registry.get("active_loops")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            loop_id = entry.get("loop_id")
            if isinstance(loop_id, str):
                found.setdefault(loop_id, entry)
    return found


def _without(record: Record, keys: tuple[str, ...]) -> Record:
    return {key: item for key, item in record.items() if key not in keys}


def apply_inverse(current: Record, changes: list[FieldChange], keep: frozenset[str]) -> tuple[Record, list[str]]:
    """*current* with *changes* taken back, and the paths where that is impossible because a later change set them again.

    Fields whose first key is in *keep* are left as they are.
    """
    conflicts: list[str] = []
    for change in changes:
        if not change.path or tokens(change.path)[0] in keep:
            continue
        present, value = lookup(current, change.path)
        before, after = _json(change.before), _json(change.after)
        if not _is_object(current, change.path.rpartition("/")[0]):
            conflicts.append(change.path)  # what it was a field of is no more
            continue
        if present == (change.kind != "added") and (not present or same(value, before)):
            continue  # already back
        if present != (change.kind != "removed") or (present and not same(value, after)):
            conflicts.append(change.path)
            continue
        current = assign(current, change.path, change.kind != "added", before)
    return current, conflicts


def _is_object(record: Record, path: str) -> bool:
    return not path or isinstance(lookup(record, path)[1], dict)


def _json(value: object) -> Json:
    return value  # type: ignore[return-value]  # a FieldChange holds JSON values; its type says object for callers
