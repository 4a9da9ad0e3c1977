"""What the library answers with: frozen, slotted, and ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

from gitstate.clock import isoformat
from gitstate.records import LoopState, RegistryEntry


class _Answer:
    """Gives a dataclass its ``to_dict``."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    # Written once for all of them: a dataclass that writes its own takes twice as long to make, and all are made at
    # every start of the command line.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = zip(type(self).__dataclass_fields__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown)})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in type(self).__dataclass_fields__)

    def to_dict(self) -> dict[str, object]:
        """The fields by name, with times as ISO 8601 text, tuples as lists and records as they are."""
        names: tuple[str, ...] = tuple(type(self).__dataclass_fields__)
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: object) -> object:
    if isinstance(value, _Answer):
        return value.to_dict()
    if isinstance(value, datetime):
        return isoformat(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FieldChange(_Answer):
    """One field that differs. ``loop_id`` is ``None`` for the registry, ``path`` a JSON pointer (RFC 6901);
    ``before`` is ``None`` when added, ``after`` when removed."""

    loop_id: str | None
    path: str
    kind: Literal["added", "removed", "changed"]
    before: object
    after: object


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Change(_Answer):
    """An operation read back from history.

    ``revision`` is the commit id (``None`` only for the plan of a dry run, and where artifacts were freed without a
    commit), ``time`` the author's, aware, UTC.
    ``generation``, ``host`` and ``pid`` are ``None`` for a commit that gitstate did not make; such a commit counts as
    ``adopt``. ``fields`` is filled by what made the change, by ``show`` and by ``log(fields=True)``; ``bytes`` by
    ``prune_archives``: what it frees.
    """

    revision: str | None
    parent: str | None
    time: datetime
    operation: str
    loop_ids: tuple[str, ...]
    generation: int | None
    actor: str
    host: str | None
    pid: int | None
    reason: str | None
    summary: str
    fields: tuple[FieldChange, ...] = ()
    bytes: int | None = None

    @property
    def loop_id(self) -> str | None:
        """The loop, when it is exactly one."""
        return self.loop_ids[0] if len(self.loop_ids) == 1 else None


Severity = Literal["note", "warning", "error"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Finding(_Answer):
    """Something that ``check``, ``repair`` or ``status`` noticed.

    ``code`` is from the closed list in ``docs/reference/findings.md``; ``revision`` the last good one; ``hint`` a
    command; ``action`` what ``repair`` did about it, ``None`` where nothing was done.
    """

    code: str
    severity: Severity
    message: str
    path: str | None = None
    loop_id: str | None = None
    revision: str | None = None
    hint: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Liveness(_Answer):
    """Whether the process that a loop names lives; ``foreign`` is one of another host, of which nothing is known."""

    verdict: Literal["alive", "dead", "foreign", "none"]
    pid: int | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LeaseInfo(_Answer):
    """Who holds the lease: what its record says, and what is true of its process here and now.

    ``holder`` is the purpose the record gives (the original's ``loopId``), ``alive`` is ``None`` when it cannot be
    known, ``reason`` says why; times are aware, UTC; ``generation`` is ``None`` for a holder that is not gitstate.
    """

    holder: str | None
    pid: int | None
    host: str | None
    alive: bool | None
    reason: str
    since: datetime | None
    expires: datetime | None
    expired: bool
    generation: int | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LoopReport(_Answer):
    """One loop, from all sides. ``entry`` is ``None`` for an archived one."""

    entry: RegistryEntry | None
    state: LoopState
    liveness: Liveness
    last_change: Change | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Overview(_Answer):
    """What is going on: loops in the registry's order, slots, the lease if held, and what the cheap part of ``check`` sees.

    ``size_bytes`` is what ``.git`` takes on disk.
    """

    loops: list[LoopReport]
    slots_used: int
    slots_max: int
    archived: int
    findings: list[Finding] = field(default_factory=list)
    lease: LeaseInfo | None = None
    size_bytes: int = 0
