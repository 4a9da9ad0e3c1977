"""The pure transitions of loops and of the registry: ``(snapshot, request) -> Outcome``.

None of them knows the clock, the disk or a process: who lives is told to
them. Times and derived fields are set where the snapshot is settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, cast

from gitstate import requests
from gitstate.encoding import Json, Record
from gitstate.errors import LoopExistsError, LoopLimitError, RefusedError
from gitstate.fields import difference
from gitstate.layout import ARCHIVE
from gitstate.operation import Operation
from gitstate.records import ENDED, STATE_VERSION, ProcessRecord, process_of
from gitstate.registry import limit_of
from gitstate.results import Change, Liveness
from gitstate.snapshot import Snapshot
from gitstate.text import one_line


class Outcome(NamedTuple):
    """What a transition gives: the snapshot after it, and what to call it."""

    snapshot: Snapshot
    operation: Operation


@dataclass(eq=False)
class Done:
    """What a mutation led to: the snapshot that stands, the operation, and its change (``None``: nothing had to change)."""

    snapshot: Snapshot
    operation: Operation
    described: Callable[[], Change] | None = None

    @cached_property
    def change(self) -> Change | None:
        """Told to whoever asks: most do not."""
        return None if self.described is None else self.described()

    @property
    def required(self) -> Change:
        """The change of an operation that never leaves things as they were."""
        if self.change is None:
            raise AssertionError(f"{self.operation.kind} changed nothing")
        return self.change


Apply = Callable[[Snapshot, datetime], Outcome]


def calculate_communication_paths(n: int) -> int:
    """The number of pairs among *n* loops, n·(n−1)/2: how fast coordination grows (REF-088 of the original)."""
    return math.comb(n, 2) if n >= 0 else n * (n - 1) // 2


class NewLoop(NamedTuple):
    """A loop that is asked for; checked by :func:`new_loop`."""

    loop_id: str
    objective: str
    completion_criteria: str
    session_id: str
    started: str
    owner: str
    pid: int | None
    process: ProcessRecord | None
    max_iterations: int = 10
    priority: str = "medium"
    tags: tuple[str, ...] = ()
    gitea_integration: Json = None
    config: Mapping[str, Json] | None = None

    def state(self) -> Record:
        """The session state, keys in the original's order."""
        state: Record = {
            "version": STATE_VERSION,
            "loopId": self.loop_id,
            "objective": self.objective,
            "completionCriteria": self.completion_criteria,
            "status": "running",
            "maxIterations": self.max_iterations,
            "currentIteration": 0,
            "startTime": self.started,
            "lastUpdate": self.started,
            "sessionId": self.session_id,
            "currentPid": self.pid,
            "iterations": [],
            "accumulatedLearnings": "",
            "filesModified": [],
            "giteaIntegration": self.gitea_integration,
            "config": dict(self.config or {}),
        }
        return with_process(state, self.process)

    def entry(self) -> Record:
        """The registry entry, keys in the original's order."""
        return {
            "loop_id": self.loop_id,
            "task_summary": self.objective[:200],
            "status": "running",
            "started_at": self.started,
            "owner": self.owner,
            "pid": self.pid,
            "iteration": 0,
            "max_iterations": self.max_iterations,
            "completion_criteria": self.completion_criteria,
            "priority": self.priority,
            "tags": list(self.tags),
        }


def with_process(state: Record, process: ProcessRecord | None) -> Record:
    """*state* with the identity of the process that drives it, or without one."""
    stamp = state.get("gitstate")
    kept = {key: item for key, item in stamp.items() if key != "process"} if isinstance(stamp, dict) else {}
    if process is not None:
        kept["process"] = cast("Json", dict(process))
    without = {key: item for key, item in state.items() if key != "gitstate"}
    return {**without, "gitstate": kept} if kept else without


def create(snapshot: Snapshot, new: NewLoop, *, force: bool, dead: Iterable[str] = ()) -> Outcome:
    """A new loop.

    Raises:
        LoopExistsError: the id is taken, or was ever archived or checkpointed.
        LoopLimitError: no slot is free, and *force* is off.
    """
    check_unused(snapshot, new.loop_id)
    if not force:
        check_slot(snapshot, dead)
    after = snapshot.with_state(new.loop_id, new.state()).with_entry(new.entry())
    return Outcome(after, Operation("create", f"create {new.loop_id}: {one_line(new.objective, 120)}", (new.loop_id,)))


def check_unused(snapshot: Snapshot, loop_id: str) -> None:
    """An id names one loop, ever."""
    place = snapshot.place(loop_id)
    if place is None and not snapshot.tags(loop_id):
        return
    word = "tagged" if place is None else "archived" if place.area == ARCHIVE else "active"
    hint = f"gitstate status {loop_id}" if word == "active" else f"gitstate restore {loop_id}"
    raise LoopExistsError(f"the id {loop_id} is taken: that loop is {word}", hint=hint, loop_id=loop_id, place=word)


def over_limit(snapshot: Snapshot) -> str | None:
    """The original's words when one more loop would go over the registry's limit."""
    active, limit = len(snapshot.loops()), limit_of(snapshot.registry)
    if active < limit:
        return None
    return (
        f"Cannot create loop: {active} loops already active (max: {limit}).\n"
        f"Adding another would create {calculate_communication_paths(active + 1)} communication paths (REF-088).\n"
        "Use --force to override or complete/abort an existing loop."
    )


def check_slot(snapshot: Snapshot, dead: Iterable[str] = ()) -> None:
    """Raises LoopLimitError when no slot is free; the hint tells how many of the *active* loops are dead."""
    words = over_limit(snapshot)
    if words is None:
        return
    active, gone = len(snapshot.loops()), sorted(dead)
    hint = f"{len(gone)} of the {active} active loops are dead: gitstate reap --archive" if gone else "gitstate status"
    raise LoopLimitError(
        words,
        hint=hint,
        active=active,
        limit=limit_of(snapshot.registry),
        paths=calculate_communication_paths(active + 1),
        dead=tuple(gone),
    )


_QUIET = ("lastUpdate", "gitstate")
_NOTHING = "nothing"
_SHOWN_AS = {"currentIteration": "iteration", "currentPid": "pid"}


def describe(before: Record | None, after: Record) -> str:
    """The difference in a few words: ``status running → paused, iteration 3 → 4``; long values by name only."""
    words: list[str] = []
    for change in difference(before, after, into_lists=False):
        keys = change.path.lstrip("/").split("/")
        if keys[0] in _QUIET:
            continue
        name = _SHOWN_AS.get(keys[0], ".".join(keys).replace("~1", "/").replace("~0", "~"))
        if change.kind == "removed":
            words.append(f"{name} removed")
        elif _short(change.before) and _short(change.after):
            words.append(f"{name} {_word(change.before)} → {_word(change.after)}")
        else:
            words.append(name)
    words.sort(key=lambda word: not word.startswith("status "))
    return ", ".join(dict.fromkeys(words)) or _NOTHING


def _short(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 40)


def _word(value: object) -> str:
    if isinstance(value, str):
        return one_line(value) or "''"
    return (
        {None: "none", True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool | None)
        else f"{value}"
    )


def update(snapshot: Snapshot, loop_id: str, changes: Record, remove: tuple[str, ...] = ()) -> Outcome:
    """Top-level keys of a session state replaced and removed.

    Raises:
        LoopNotFoundError: no such active loop.
        InvalidInputError: a protected key, or a value out of bounds.
    """
    before = snapshot.active(loop_id)
    changes = {key: value for key, value in changes.items() if key != "lastUpdate"}
    after = requests.check_changes(before, changes, remove)
    subject = f"update {loop_id}: {one_line(describe(before, after), 160)}"
    return Outcome(snapshot.with_state(loop_id, after), Operation("update", subject, (loop_id,)))


def update_pid(snapshot: Snapshot, loop_id: str, pid: int | None, process: ProcessRecord | None) -> Outcome:
    """The process of a loop recorded, or forgotten."""
    before = snapshot.active(loop_id)
    after = with_process({**before, "currentPid": pid}, process)
    subject = f"pid {loop_id}: {_word(before.get('currentPid'))} → {_word(pid)}"
    return Outcome(snapshot.with_state(loop_id, after), Operation("pid", subject, (loop_id,)))


class Driver(NamedTuple):
    """The process that is to drive a loop, and what is known of the one recorded so far."""

    pid: int | None
    process: ProcessRecord | None
    current: Liveness


def resume(snapshot: Snapshot, loop_id: str, driver: Driver, *, max_iterations: int | None, force: bool) -> Outcome:
    """A loop taken over: running, with the new process, in one step. Changes nothing for the process that drives it.

    Raises:
        RefusedError: another live process drives it; or, without *force*, its process belongs to another host or its
            status is an ended one.
    """
    before = snapshot.active(loop_id)
    status = str(before.get("status"))
    if driver.current.verdict == "alive" and not _same_process(before, driver):
        raise RefusedError(
            f"{loop_id} is driven by process {driver.current.pid}: {driver.current.reason}",
            hint=f"end process {driver.current.pid} first, or gitstate pid {loop_id} none if it is not the loop's",
            loop_id=loop_id,
            pid=driver.current.pid,
        )
    if driver.current.verdict == "foreign" and not force:
        raise RefusedError(
            f"{loop_id} was last driven elsewhere: {driver.current.reason}",
            hint=f"gitstate resume {loop_id} --force, once that process is known to be gone",
            loop_id=loop_id,
            pid=driver.current.pid,
        )
    if status in ENDED and not force:
        raise RefusedError(
            f"{loop_id} has ended: its status is {status}",
            hint=f"gitstate resume {loop_id} --force",
            loop_id=loop_id,
            status=status,
        )
    after = {**before, "status": "running", "currentPid": driver.pid}
    if max_iterations is not None:
        after["maxIterations"] = max_iterations
    if not _same_process(before, driver) or driver.current.verdict != "alive":
        after = with_process(after, driver.process)
    words = describe(before, after)
    if words == _NOTHING:
        words = f"by another process {driver.pid} than before"
    subject = f"resume {loop_id}: {one_line(words, 160)}"
    return Outcome(snapshot.with_state(loop_id, after), Operation("resume", subject, (loop_id,)))


def _same_process(state: Record, driver: Driver) -> bool:
    if driver.pid is None or state.get("currentPid") != driver.pid:
        return False
    recorded = process_of(state)
    return recorded is None or driver.process is None or recorded["startTime"] in (None, driver.process["startTime"])


def reap(snapshot: Snapshot, loop_id: str, liveness: Liveness) -> Outcome:
    """A running loop whose process is gone: crashed. The pid stays, as evidence."""
    before = snapshot.active(loop_id)
    subject = f"reap {loop_id}: status {before.get('status')} → crashed, {one_line(liveness.reason, 120)}"
    after = snapshot.with_state(loop_id, {**before, "status": "crashed"})
    return Outcome(after, Operation("reap", subject, (loop_id,)))


def update_entry(snapshot: Snapshot, loop_id: str, changes: Record) -> Outcome:
    """What only the registry knows of an active loop: owner, priority, tags."""
    snapshot.active(loop_id)
    before = snapshot.entries.get(loop_id, {"loop_id": loop_id})
    after = {**before, **changes}
    subject = f"update {loop_id}: {one_line(describe(before, after), 160)}"
    return Outcome(snapshot.with_entry(after), Operation("update", subject, (loop_id,)))


def set_limit(snapshot: Snapshot, limit: int) -> Outcome:
    """How many loops may be active at once."""
    before = snapshot.registry.get("max_concurrent_loops")
    subject = f"update registry.json: max_concurrent_loops {_word(before)} → {limit}"
    return Outcome(snapshot.with_registry(max_concurrent_loops=limit), Operation("update", subject))
