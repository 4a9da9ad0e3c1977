"""What a file of the projection is, compared with history: the one rule that reads, writes and ``check`` share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from gitstate.encoding import Record, encode, parse
from gitstate.fields import STAMP, Merge, difference, merge_registry, merge_state, same
from gitstate.layout import REGISTRY
from gitstate.records import describe_damage, read_record, revision_of, stamped


class Unreadable(NamedTuple):
    """What stands where a file should be, in words."""

    damage: str


class Past(Protocol):
    """The versions of one file that history holds, newest first, the head's own included."""

    def __iter__(self) -> Iterator[bytes]: ...

    def may_hold(self, raw: bytes) -> bool:
        """Whether an object with these bytes exists at all; a cheap no."""
        ...


class Verdict(NamedTuple):
    """``same`` as the head; ``stale``: an older version; ``edit``: to be adopted as ``raw``, ``replaced`` naming the
    keys where it overrules the head; ``missing``; ``damaged``, with the ``damage`` in words."""

    kind: Literal["same", "stale", "edit", "missing", "damaged"]
    raw: bytes | None = None
    verbatim: bool = False
    replaced: tuple[str, ...] = ()
    damage: str = ""


def judge(path: str, found: bytes | Unreadable | None, head: bytes | None, past: Past) -> Verdict:
    """The verdict on the file *path*, *found* in the work tree, where the head has *head*."""
    if isinstance(found, Unreadable):
        return Verdict("damaged", damage=found.damage)
    if found is None:
        return Verdict("missing" if head is not None else "same")
    if found == head:
        return Verdict("same", raw=found)
    record, damage = read_record(found, registry=path == REGISTRY)
    if is_held(found, past):
        return Verdict("stale", raw=head)
    if record is None:
        return Verdict("damaged", damage=damage or describe_damage(found))
    current = None if head is None else read_record(head, registry=path == REGISTRY)[0]
    if head is None or current is None:
        return Verdict("edit", raw=found, verbatim=True)
    return _merged(path, found, record, current, past)


def is_held(found: bytes, past: Past) -> bool:
    """Whether history holds exactly these bytes. Stamps are no shortcut: a ``git revert`` makes them fall."""
    return past.may_hold(found) and any(version == found for version in past)


def _parsed(version: bytes) -> Record | None:
    try:
        value = parse(version)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _merged(path: str, found: bytes, edit: Record, head: Record, past: Past) -> Verdict:
    base, merge = _merge(path, edit, head, past)
    # An edit that lost the stamp is written anew: taken as it is, it would have the revisions begin again.
    if base is head and revision_of(edit) == revision_of(head) and _alike(merge.record, edit):
        return Verdict("edit", raw=found, verbatim=True)
    if not difference(head, merge.record):
        return Verdict("stale", raw=encode(head))
    return Verdict("edit", raw=encode(stamped(merge.record, head)), replaced=merge.replaced)


def _merge(path: str, edit: Record, head: Record, past: Past) -> tuple[Record, Merge]:
    """The version that *edit* was made from, and what comes of it: where it may be one of several, the newest of those
    from which it takes back the least."""
    tried: list[tuple[Record, Merge]] = []
    for base in bases_of(edit, head, past):
        tried.append((base, (merge_registry if path == REGISTRY else merge_state)(base, edit, head)))
        if not tried[-1][1].replaced:
            break
    return min(tried, key=lambda one: len(one[1].replaced))


def bases_of(edit: Record, head: Record, past: Past) -> Iterator[Record]:
    """The versions that *edit* may have been made from, newest first: all with its stamp, or without one if it has none;
    else the head's."""
    mine, known = revision_of(edit), False
    if mine == revision_of(head):
        yield head
        return
    for version in past:
        value = _parsed(version)
        stamp = None if value is None else revision_of(value)
        if value is not None and stamp == mine:
            known = True
            yield value
        if (stamp or 0) < (mine or 0):
            break
    if not known:
        yield head


def _alike(one: Record, other: Record) -> bool:
    return same({**one, STAMP: None}, {**other, STAMP: None})
