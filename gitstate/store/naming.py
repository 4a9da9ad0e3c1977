"""The names that people give to revisions: ids and how they begin, tags, branches, moments, and steps back from these."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from gitstate.errors import InvalidInputError, RevisionNotFoundError, shown
from gitstate.store.changes import opened_index
from gitstate.store.pages import IndexDamagedError

if TYPE_CHECKING:
    from gitstate.store.revisions import Revisions

_FEW = 64  # commits that are walked back rather than looked for in the index


def resolve(revisions: Revisions, text: str | datetime, *, head: str | None = None) -> str:
    """The full id of the commit that a name means; a moment means the newest change not after it.

    Raises:
        InvalidInputError: neither a text nor an aware datetime.
        RevisionNotFoundError: nothing, or more than one thing, has that name.
    """
    head = head or revisions.head()
    if isinstance(text, datetime):
        return _at(revisions, text, head)
    if not isinstance(text, str):
        raise InvalidInputError(f"revision: a text or a datetime is wanted, not {shown(text)}")
    match = re.fullmatch(r"([^\x00-\x20~^:\ud800-\udfff]{1,1000}?)((?:~[0-9]{0,9}|\^[0-9]{0,9})*)", text)
    if match is None:
        raise _not_found(text, "not a revision")
    current = _named(revisions, match[1], head)
    for step in re.findall(r"~[0-9]*|\^[0-9]*", match[2]):
        number = int(step[1:] or 1)
        count = number if step[0] == "~" else min(number, 1)
        if step[0] == "^" and number > 1:
            raise _not_found(text, "history is linear: there is no second parent")
        noted = _noted_before(revisions, current, count) if count > _FEW else None
        if noted is not None:
            current, count = noted, 0
        for _ in range(count):
            parent = revisions.read(current).parent
            if parent is None:
                raise _not_found(text, "history does not go back that far")
            current = parent
    return current


def _noted_before(revisions: Revisions, revision: str, steps: int) -> str | None:
    """The commit so many *steps* before another, if it is noted."""
    with opened_index(revisions.objects.directory) as index, suppress(IndexDamagedError):
        newer, position = (0, None) if index is None else revisions.reach(index, revision)
        if index is not None and position is not None and steps >= newer:
            return index.earlier(position, steps - newer)
    return None


def _at(revisions: Revisions, moment: datetime, head: str) -> str:
    if moment.tzinfo is None:
        raise InvalidInputError(f"a moment without a time zone is ambiguous: {moment.isoformat()}")
    oldest = None
    with opened_index(revisions.objects.directory) as index, suppress(IndexDamagedError):
        newer, position = (0, None) if index is None else revisions.reach(index, head)
        if index is not None and position is not None:
            for found in islice(revisions.walk(head), newer):
                if found.time <= moment:
                    return found.id
            for found in map(revisions.read, index.not_after(int(moment.timestamp()), position)):
                if found.time <= moment:
                    return found.id
            head = index.first
    for revision in revisions.walk(head):
        if revision.time <= moment:
            return revision.id
        oldest = revision.time
    began = f"; history begins at {oldest:%Y-%m-%d %H:%M:%S} UTC" if oldest is not None else ""
    raise _not_found(moment.isoformat(timespec="seconds"), f"nothing is that old{began}")


def _named(revisions: Revisions, name: str, head: str) -> str:
    if name == "HEAD":
        return head
    if re.fullmatch(r"[0-9a-f]{40}", name) and revisions.is_commit(name):  # as in git, no ref hides it
        return name
    longest = max(len(part.encode()) for part in name.split("/"))
    if ".." not in name and not name.startswith(("/", "-")) and longest < 256:
        for ref in (name, f"refs/{name}", f"refs/tags/{name}", f"refs/heads/{name}", f"refs/remotes/{name}"):
            if ref.startswith("refs/") and not revisions.refs.is_folder(ref):
                found = revisions.refs.read(ref)
                if found is not None:
                    return _peeled(revisions, found, name)
    if not re.fullmatch(r"[0-9a-f]{4,40}", name):
        raise _not_found(name, "there is no such tag or branch, and it is not the beginning of a commit id")
    fitting = [i for i in revisions.objects.beginning_with(name) if revisions.is_commit(i)]
    if len(fitting) > 1:
        raise _not_found(name, "several begin like that: " + ", ".join(i[: len(name) + 3] for i in fitting[:5]))
    if not fitting:
        raise _not_found(name, "no commit begins like that")
    return fitting[0]


def _peeled(revisions: Revisions, object_id: str, name: str) -> str:
    found = revisions.peel(object_id)
    if revisions.objects.read(found).kind != b"commit":
        raise _not_found(name, "it does not name a commit")
    return found


def _not_found(name: str, why: str) -> RevisionNotFoundError:
    return RevisionNotFoundError(f"no revision {name!r:.120}: {why}", hint="gitstate log", revision=name)
