"""What an iteration leaves in a session state, and what derives from it: learnings and files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from gitstate import requests
from gitstate.encoding import Json, Record
from gitstate.errors import InvalidInputError, InvalidRecordError, RefusedError, shown
from gitstate.fields import same
from gitstate.loops import Outcome, describe
from gitstate.operation import Operation
from gitstate.snapshot import Snapshot
from gitstate.text import one_line


def check_record(record: Record) -> Record:
    """*record*, if it can be an iteration's: ``number`` (from 1), ``learnings`` and ``filesModified`` have their types."""
    if "number" in record:
        record = {**record, "number": requests.whole("number", record["number"], 1)}
    learnings = record.get("learnings")
    if learnings is not None and not isinstance(learnings, str) and not _is_texts(learnings):
        raise InvalidRecordError(
            f"learnings: a text or a list of texts is wanted, not {shown(learnings)}", path="/learnings"
        )
    files = record.get("filesModified")
    if files is not None and not _is_texts(files):
        raise InvalidRecordError(f"filesModified: a list of texts is wanted, not {shown(files)}", path="/filesModified")
    return record


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def record(snapshot: Snapshot, loop_id: str, given: Record) -> Outcome:
    """An iteration appended; the same one again changes nothing.

    Raises:
        LoopNotFoundError: no such active loop.
        RefusedError: another record has that number already.
    """
    state = snapshot.active(loop_id)
    before = _iterations(state)
    current = _count(state.get("currentIteration"))
    number = given.get("number")
    if not isinstance(number, int):
        number = max([current, *(_count(_number_of(item)) for item in before)]) + 1
    new: Record = {"number": number, **given}
    operation = Operation("iterate", _subject(loop_id, state, new), (loop_id,))
    for item in before:
        if _number_of(item) == number:
            if same(item, new):
                return Outcome(snapshot, operation)
            raise RefusedError(
                f"{loop_id} has another record of iteration {number} already",
                hint=f"gitstate amend {loop_id} {number} FILE",
                loop_id=loop_id,
                number=number,
            )
    after: Record = {
        **state,
        "currentIteration": max(current, number),
        "iterations": [*before, new],
        "accumulatedLearnings": _joined(_text(state.get("accumulatedLearnings")), section(new)),
        "filesModified": _union(_texts(state.get("filesModified")), _texts(new.get("filesModified"))),
    }
    return Outcome(snapshot.with_state(loop_id, after), operation)


def _subject(loop_id: str, state: Record, new: Record) -> str:
    words = f"iterate {loop_id}: iteration {new['number']} of {state.get('maxIterations', '?')}"
    status, progress = new.get("status"), new.get("progress")
    for extra in (status, progress):
        if isinstance(extra, str) and extra:
            words += f", {one_line(extra, 60)}"
    return words


def amend(snapshot: Snapshot, loop_id: str, number: int, changes: Record) -> Outcome:
    """Fields of one iteration's record replaced, and what derives from it recomputed.

    Raises:
        InvalidInputError: no such iteration, or another number in *changes*.
    """
    state = snapshot.active(loop_id)
    before = _iterations(state)
    found = [(at, item) for at, item in enumerate(before) if isinstance(item, dict) and item.get("number") == number]
    if not found:
        known = ", ".join(str(_number_of(item)) for item in before[-10:]) or "none"
        raise InvalidInputError(
            f"{loop_id} has no iteration {number} (the latest recorded: {known})",
            hint=f"gitstate cat {loop_id}",
            number=number,
        )
    if changes.get("number", number) != number:
        raise InvalidInputError(f"number: iteration {number} keeps its number")
    position, old = found[0]
    new = {**old, **changes}
    after: Record = {
        **state,
        "iterations": [*before[:position], new, *before[position + 1 :]],
        "accumulatedLearnings": _relearned(state, before, old, new),
        "filesModified": _refiled(state, before, old, new),
    }
    subject = f"amend {loop_id}: iteration {number}, {one_line(describe(old, new), 120)}"
    return Outcome(snapshot.with_state(loop_id, after), Operation("amend", subject, (loop_id,)))


def section(item: Record) -> str:
    """The learnings of one iteration as they stand in ``accumulatedLearnings``; empty when it has none."""
    learnings = item.get("learnings")
    lines = [learnings] if isinstance(learnings, str) else _texts(learnings)
    text = "\n".join(line for line in lines if line)
    return f"### Iteration {item.get('number')}\n{text}" if text else ""


def _joined(*sections: str) -> str:
    return "\n\n".join(part for part in sections if part)


def _relearned(state: Record, before: list[Json], old: Record, new: Record) -> str:
    accumulated = _text(state.get("accumulatedLearnings"))
    was, now = section(old), section(new)
    if was == now:
        return accumulated
    known = [item for item in before if isinstance(item, dict)]
    replaced = [new if item is old else item for item in known]
    if accumulated == _joined(*map(section, known)):
        return _joined(*map(section, replaced))
    # Somebody wrote in it: only this iteration's own section is touched, wherever it stands.
    if was and f"\n\n{accumulated}\n\n".count(f"\n\n{was}\n\n") == 1:
        return f"\n\n{accumulated}\n\n".replace(f"\n\n{was}\n\n", f"\n\n{now}\n\n" if now else "\n\n").strip("\n")
    return _joined(accumulated, now)


def _refiled(state: Record, before: list[Json], old: Record, new: Record) -> list[Json]:
    listed = _texts(state.get("filesModified"))
    replaced = [new if item is old else item for item in before if isinstance(item, dict)]
    named = {file for item in replaced for file in _texts(item.get("filesModified"))}
    dropped = set(_texts(old.get("filesModified"))) - named
    return _union([file for file in listed if file not in dropped], _texts(new.get("filesModified")))


def _union(first: Iterable[str], second: Iterable[str]) -> list[Json]:
    return list(dict.fromkeys([*first, *second]))


def _iterations(state: Record) -> list[Json]:
    """The recorded iterations; what is no record among them (by another hand) is carried along."""
    found = state.get("iterations")
    return found if isinstance(found, list) else []


def _number_of(item: Json) -> Json:
    return item.get("number") if isinstance(item, dict) else None


def _texts(value: Json) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Json) -> int:
    return int(cast("float", value)) if isinstance(value, int | float) and not isinstance(value, bool) else 0
