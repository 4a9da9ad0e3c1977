"""The original's records: their types, and what counts as valid."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple, NotRequired, TypedDict, cast

from gitstate.encoding import Json, Record, copied, decode, is_table, parse, reread, write
from gitstate.errors import CorruptStateError, InvalidRecordError
from gitstate.layout import REGISTRY

Status = Literal[
    "running",
    "paused",
    "waiting",
    "completing",
    "completed",
    "failed",
    "aborted",
    "limit_reached",
    "interrupted",
    "crashed",
]
Priority = Literal["low", "medium", "high", "critical"]

STATUSES: Final = (
    "running", "paused", "waiting", "completing", "completed", "failed", "aborted", "limit_reached", "interrupted", "crashed",
)  # fmt: skip
ENDED: Final = ("completed", "failed", "aborted", "limit_reached")
PRIORITIES: Final = ("low", "medium", "high", "critical")

REGISTRY_VERSION: Final = "2.0.0"
STATE_VERSION: Final = "1.0.0"
MAX_PID: Final = 2**31 - 1


class ProcessRecord(TypedDict):
    """Who drives a loop: enough to tell a recycled pid from the process meant. ``startTime`` in clock ticks of its boot."""

    pid: int
    host: str
    bootId: str | None
    startTime: int | None
    pidNamespace: NotRequired[int]


class StampRecord(TypedDict):
    """What gitstate adds to a file: ``revision`` counts its own writes of it; ``process`` only in a session state."""

    revision: int
    process: NotRequired[ProcessRecord]


class LoopConfig(TypedDict, total=False):
    """How iterations are run: budget in dollars, timeout in minutes."""

    model: str
    budgetPerIteration: float
    timeoutMinutes: float
    mcpConfig: object
    workingDir: str


class LoopState(TypedDict):
    """A session state, key for key the original's; unknown keys are kept and may be there."""

    version: str
    loopId: str
    objective: str
    completionCriteria: str
    status: str
    maxIterations: int
    currentIteration: int
    startTime: str
    lastUpdate: str
    sessionId: str
    currentPid: int | None
    iterations: list[dict[str, object]]
    accumulatedLearnings: str
    filesModified: list[str]
    giteaIntegration: object
    config: LoopConfig
    gitstate: NotRequired[StampRecord]
    legacyLoopId: NotRequired[str]


class RegistryEntry(TypedDict):
    """A loop's line in the registry. ``pid``, ``status``, ``iteration`` and ``max_iterations`` follow its session state."""

    loop_id: str
    task_summary: str
    status: str
    started_at: str
    owner: str
    pid: int | None
    iteration: int
    max_iterations: int
    completion_criteria: str
    priority: str
    tags: list[str]


class Registry(TypedDict):
    """The registry, key for key the original's."""

    version: str
    max_concurrent_loops: int
    updated_at: str
    active_loops: list[RegistryEntry]
    total_active: int
    total_completed: int
    total_aborted: int
    gitstate: NotRequired[StampRecord]


# --- validity --------------------------------------------------------------------------------------------------------


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def damage_of_registry(value: Json) -> str | None:
    """Why *value* cannot be taken for a registry; ``None`` when it can."""
    if not isinstance(value, dict):
        return "not an object"
    entries = value.get("active_loops")
    if not isinstance(entries, list):
        return "active_loops is not a list"
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("loop_id"), str):
            return f"active_loops[{number}] is not an object with a loop_id"
    return None


def damage_of_state(value: Json) -> str | None:
    """Why *value* cannot be taken for a session state; ``None`` when it can."""
    if not isinstance(value, dict):
        return "not an object"
    if not isinstance(value.get("status"), str):
        return "status is not a string"
    if "currentIteration" in value and not _is_count(value["currentIteration"]):
        return "currentIteration is not a number"
    if "iterations" in value and not isinstance(value["iterations"], list):
        return "iterations is not a list"
    pid = value.get("currentPid")
    if pid is not None and not _is_count(pid):
        return "currentPid is neither a number nor null"
    return None


def describe_damage(raw: bytes) -> str:
    """What happened to *raw*, which did not decode, in two or three words."""
    if not raw:
        return "empty"
    if not raw.strip(b"\0"):
        return "nothing but NULs"
    if b"\0" in raw:
        return "NULs inside"
    try:
        decode(raw)
    except InvalidRecordError as error:
        if raw.lstrip()[:1] in (b"{", b"[") and raw.rstrip()[-1:] not in (b"}", b"]"):
            return "truncated"
        return error.message
    return "not the record expected"


def read_record(raw: bytes, *, registry: bool) -> tuple[Record, None] | tuple[None, str]:
    """The record that bytes found on disk hold, or the damage in words."""
    try:
        value = decode(raw)
    except InvalidRecordError:
        return None, describe_damage(raw)
    damage = damage_of_registry(value) if registry else damage_of_state(value)
    if damage is not None or not isinstance(value, dict):
        return None, damage or "not an object"
    return value, None


def revision_of(record: Mapping[str, object]) -> int | None:
    """The ``gitstate.revision`` of a record, if it carries one."""
    stamp = record.get("gitstate")
    number = stamp.get("revision") if isinstance(stamp, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def stamped(record: Record, before: Mapping[str, object] | None) -> Record:
    """A copy of *record* that carries the revision after *before*'s: what gitstate is about to write."""
    last = (revision_of(before) if before is not None else None) or 0
    stamp = record.get("gitstate")
    kept: Record = {key: item for key, item in stamp.items() if key != "revision"} if isinstance(stamp, dict) else {}
    return {**record, "gitstate": {"revision": last + 1, **kept}}


def valid_record(path: str, raw: bytes, revision: str | None = None) -> Record:
    """The record that *raw* holds as the file *path*.

    Raises:
        CorruptStateError: it is not a valid one.
    """
    try:
        value = parse(raw)
    except InvalidRecordError:
        value, damage = None, describe_damage(raw)
    else:
        damage = _damage_of(path, value) or ""
    if damage or not isinstance(value, dict):
        raise CorruptStateError(
            f"{path}{f' in revision {revision[:7]}' if revision else ''}: {damage or 'not an object'}",
            hint="gitstate repair",
            path=path,
            damage=damage,
            revision=revision,
        )
    return value


def _damage_of(path: str, value: Json) -> str | None:
    return damage_of_registry(value) if path == REGISTRY else damage_of_state(value)


# --- what is known already -------------------------------------------------------------------------------------------


class _Known(NamedTuple):
    """A record, and the bytes that hold it, which are plain if they were written plainly; the keys of its *tables*."""

    path: str
    raw: bytes
    record: Record
    is_plain: bool
    tables: frozenset[str] = frozenset()


_Name = tuple[bool, int, bytes, bytes]

_KNOWN: dict[_Name, _Known] = {}
_KNOWN_AT_MOST = 32  # records, and
_KNOWN_BYTES = 16 * 1024 * 1024  # bytes that they were made from
_ENDS = 512


def _name_of(path: str, raw: bytes) -> _Name:
    """What two versions hardly ever have in common: hashing all of their bytes would take longer than comparing them."""
    return path == REGISTRY, len(raw), raw[:_ENDS], raw[-_ENDS:]


def _recalled(path: str, raw: bytes) -> _Known | None:
    found = _KNOWN.get(_name_of(path, raw))
    return found if found is not None and found.raw == raw else None


def _remember(known: _Known) -> None:
    name = _name_of(known.path, known.raw)
    _KNOWN.pop(name, None)
    _KNOWN[name] = known
    size = sum([len(each.raw) for each in list(_KNOWN.values())])
    while len(_KNOWN) > _KNOWN_AT_MOST or (len(_KNOWN) > 1 and size > _KNOWN_BYTES):
        with suppress(KeyError, RuntimeError, StopIteration):  # another thread was faster
            size -= len(_KNOWN.pop(next(iter(_KNOWN))).raw)


def known_record(path: str, raw: bytes, revision: str | None = None) -> Record:
    """As :func:`valid_record`, made once: whoever asks for the same bytes gets the same record, which nobody may change.

    Raises:
        CorruptStateError: it is not a valid one.
    """
    found = _recalled(path, raw)
    if found is None:
        found = _Known(path, raw, valid_record(path, raw, revision), False)
        _remember(found)
    return found.record


def fresh_record(path: str, raw: bytes) -> Record:
    """As :func:`valid_record`, of bytes that are likely to be known: a record that the caller may change.

    Raises:
        CorruptStateError: it is not a valid one.
    """
    known = _recalled(path, raw)
    if known is None:
        return valid_record(path, raw)
    # Reading it again takes a fifth of what copying it takes, but for tables, which take a third of that.
    return copied(known.record, known.tables) if known.tables else cast("Record", parse(raw, is_plain=known.is_plain))


def written_record(path: str, record: Record, before: bytes | None) -> bytes:
    """*record* as the bytes of the file *path*, whose bytes were *before*. It counts as read from them: see
    :func:`known_record`.
    """
    known = None if before is None else _recalled(path, before)
    raw, is_plain = write(record, known.raw if known is not None and known.is_plain else b"")
    if is_plain and _damage_of(path, record) is None:
        made = cast("Record", reread(record, {} if known is None else known.record))
        _remember(_Known(path, raw, made, True, _tables(made, known)))
    return raw


def _tables(record: Record, known: _Known | None) -> frozenset[str]:
    """The keys of its tables; those of what is still as it was *known* are known."""
    seen, tables = (known.record, known.tables) if known is not None and known.is_plain else ({}, frozenset())
    return frozenset(
        [key for key, item in record.items() if (key in tables if item is seen.get(key) else is_table(item))]
    )


def process_of(state: Record) -> ProcessRecord | None:
    """The recorded identity of a loop's process; it counts only while its pid is the ``currentPid``."""
    stamp = state.get("gitstate")
    process = stamp.get("process") if isinstance(stamp, dict) else None
    if isinstance(process, dict) and process.get("pid") == state.get("currentPid"):
        return cast("ProcessRecord", process)
    return None
