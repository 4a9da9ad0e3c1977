"""An operation as a commit message, and back.

Subject, then a body if several mutations share the commit, then the
trailers of git-interpret-trailers(1) in the last paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gitstate.text import one_line

if TYPE_CHECKING:
    from gitstate.results import Change

KINDS: Final = (
    "init", "create", "update", "iterate", "amend", "pid", "resume", "archive", "restore", "checkpoint", "reap",
    "rollback", "undo", "migrate", "adopt", "repair", "prune", "transaction",
)  # fmt: skip

SUMMARY_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class Operation:
    """What one commit records. ``subject`` is its first line, ``body`` the lines below (the subjects of a transaction's parts)."""

    kind: str
    subject: str
    loop_ids: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # the refs that it asks for; not part of the message
    generation: int | None = None
    actor: str = ""
    host: str | None = None
    pid: int | None = None
    reason: str | None = None

    def by(self, *, generation: int, actor: str, host: str, pid: int, reason: str | None) -> Operation:
        """The same, done by somebody under a lease."""
        return replace(self, generation=generation, actor=actor, host=host, pid=pid, reason=reason)


_TRAILER = re.compile(r"\AGitstate-([A-Z][A-Za-z-]*): (.*)\Z")


def to_message(operation: Operation) -> str:
    """The commit message of *operation*."""
    trailers: list[tuple[str, object]] = [("Operation", operation.kind)]
    trailers += [("Loop", loop_id) for loop_id in operation.loop_ids]
    trailers += [
        ("Generation", operation.generation),
        ("Actor", operation.actor),
        ("Host", operation.host),
        ("Pid", operation.pid),
        ("Reason", operation.reason),
    ]
    lines = [f"Gitstate-{key}: {one_line(str(value))}" for key, value in trailers if value not in (None, "")]
    paragraphs = [one_line(operation.subject)]
    if operation.body:
        paragraphs.append("\n".join(one_line(line) for line in operation.body))
    return "\n\n".join([*paragraphs, "\n".join(lines)]) + "\n"


@lru_cache(maxsize=64)  # each is asked for what it says several times in a mutation
def from_message(message: str) -> Operation | None:
    """The operation that a commit message records; ``None`` when gitstate did not write it."""
    *paragraphs, last = message.rstrip("\n").split("\n\n")
    found: dict[str, list[str]] = {}
    for line in last.split("\n"):
        match = _TRAILER.match(line)
        if match is None:
            return None
        found.setdefault(match[1], []).append(match[2])
    kind = found.get("Operation", [""])[0]
    generation = _number(found.get("Generation"))
    if not paragraphs or kind not in KINDS or generation is None:
        return None
    return Operation(
        kind=kind,
        subject=paragraphs[0],
        loop_ids=tuple(found.get("Loop", ())),
        body=tuple("\n\n".join(paragraphs[1:]).split("\n")) if len(paragraphs) > 1 else (),
        generation=generation,
        actor=found.get("Actor", [""])[0],
        host=found.get("Host", [None])[0],
        pid=_number(found.get("Pid")),
        reason=found.get("Reason", [None])[0],
    )


def _number(values: list[str] | None) -> int | None:
    return int(values[0]) if values and re.fullmatch(r"[0-9]{1,18}", values[0]) else None


def as_change(
    message: str, *, revision: str, parent: str | None, time: datetime, author: str, touched: Iterable[str] = ()
) -> Change:
    """A commit as a change; one without our trailers counts as an adoption of the loops it *touched*."""
    from gitstate.results import Change  # whoever only records an operation reads none back

    operation = from_message(message)
    if operation is None:
        return Change(
            revision=revision,
            parent=parent,
            time=time,
            operation="adopt",
            loop_ids=tuple(touched),
            generation=None,
            actor=author,
            host=None,
            pid=None,
            reason=None,
            summary=one_line(message.split("\n", 1)[0], SUMMARY_LIMIT),
        )
    return planned(operation, time=time, revision=revision, parent=parent)


def planned(operation: Operation, *, time: datetime, revision: str | None = None, parent: str | None = None) -> Change:
    """The change that *operation* is (or, without a revision, would be)."""
    from gitstate.results import Change

    return Change(
        revision=revision,
        parent=parent,
        time=time,
        operation=operation.kind,
        loop_ids=operation.loop_ids,
        generation=operation.generation,
        actor=operation.actor,
        host=operation.host,
        pid=operation.pid,
        reason=operation.reason,
        summary=one_line(operation.subject),  # as the message has it
    )
