"""What callers may ask for: bounds and types, checked before anything is locked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from gitstate.encoding import SAFE_INTEGER, Record, plain
from gitstate.errors import InvalidInputError, InvalidRecordError, shown
from gitstate.fields import same
from gitstate.records import MAX_PID, PRIORITIES, STATUSES
from gitstate.text import one_line

PROTECTED: Final = ("loopId", "version", "startTime", "gitstate")
_CHECKPOINT = r"\A(?!.*\.\.)(?!.*\.lock\Z)[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?\Z"
_BREAK = r"[\x00-\x1f\x7f\x85\u2028\u2029]"


def text(name: str, value: object, *, empty: bool = False) -> str:
    """A string, not blank unless *empty*."""
    if not isinstance(value, str) or not (empty or value.strip()):
        raise InvalidInputError(
            f"{name}: {'a text' if empty else 'a text that is not empty'} is wanted, not {shown(value)}"
        )
    return value


def line(name: str, value: object) -> str:
    """A text on one line."""
    found = text(name, value)
    if re.search(_BREAK, found):
        raise InvalidInputError(f"{name}: one line is wanted, not {shown(found)}")
    return found


def reason(value: object) -> str | None:
    """Why, as one harmless line; ``None`` where nothing is said."""
    return None if value is None else one_line(text("reason", value, empty=True).strip()) or None


def age(name: str, value: object) -> timedelta:
    """A length of time, not negative."""
    if isinstance(value, timedelta) and value >= timedelta():
        return value
    raise InvalidInputError(f"{name}: a timedelta from 0 is wanted, not {shown(value)}", name=name)


def whole(name: str, value: object, least: int) -> int:
    """An integer of at least *least*; never a bool, never a rounded float."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not value.is_integer())
    ):
        raise InvalidInputError(f"{name}: a whole number is wanted, not {shown(value)}")
    if not least <= value <= SAFE_INTEGER:
        raise InvalidInputError(f"{name}: at least {least} is wanted, not {shown(value)}")
    return int(value)


def amount(name: str, value: object) -> float:
    """A finite number above 0, as it was given."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInputError(f"{name}: a number above 0 is wanted, not {shown(value)}")
    if isinstance(value, int) and value > SAFE_INTEGER:
        raise InvalidInputError(f"{name}: at most 2^53-1 is wanted, not {shown(value)}")
    return value


def pid(value: object) -> int | None:
    """A process id, or ``None``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PID:
        raise InvalidInputError(f"pid: 1 to 2147483647, or none, is wanted, not {shown(value)}")
    return value


def status(value: object) -> str:
    """A status that gitstate writes."""
    if not isinstance(value, str) or value not in STATUSES:
        raise InvalidInputError(f"status: one of {', '.join(STATUSES)} is wanted, not {shown(value)}")
    return value


def priority(value: object) -> str:
    """low, medium, high or critical."""
    if not isinstance(value, str) or value not in PRIORITIES:
        raise InvalidInputError(f"priority: one of {', '.join(PRIORITIES)} is wanted, not {shown(value)}")
    return value


def tags(value: object) -> list[str]:
    """Texts, each on one line."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidInputError(f"tags: a list of texts is wanted, not {shown(value)}")
    return [line("tag", tag) for tag in value]


def checkpoint_name(value: object) -> str:
    """A name that can end a ref."""
    if not isinstance(value, str) or not re.match(_CHECKPOINT, value):
        raise InvalidInputError(
            f"checkpoint: a name of letters, digits, '.', '_' and '-' is wanted, at most 100 characters, not {shown(value, 120)}"
        )
    return value


def record(name: str, value: object) -> Record:
    """A fresh copy of a mapping that JSON can hold."""
    if not isinstance(value, Mapping):
        raise InvalidRecordError(f"{name}: an object is wanted, not {shown(value)}")
    copy = plain(value)
    if not isinstance(copy, dict):
        raise InvalidRecordError(f"{name}: an object is wanted")
    return copy


def _texts(name: str, value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidRecordError(f"{name}: a list of texts is wanted, not {shown(value)}", path=f"/{name}")


def _mapping(name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise InvalidRecordError(f"{name}: an object is wanted, not {shown(value)}", path=f"/{name}")


def _config(value: object) -> None:
    _mapping("config", value)
    config = value if isinstance(value, dict) else {}
    for key, bound in (("budgetPerIteration", amount), ("timeoutMinutes", amount)):
        if key in config:
            bound(f"config.{key}", config[key])


def _iterations(value: object) -> None:
    if not isinstance(value, list):
        raise InvalidRecordError(f"iterations: a list is wanted, not {shown(value)}", path="/iterations")
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidRecordError(f"iterations[{number}]: an object is wanted", path=f"/iterations/{number}")


_OF_A_STATE = {
    "status": status,
    "objective": lambda value: text("objective", value),
    "completionCriteria": lambda value: text("completionCriteria", value, empty=True),
    "maxIterations": lambda value: whole("maxIterations", value, 1),
    "currentIteration": lambda value: whole("currentIteration", value, 0),
    "currentPid": pid,
    "sessionId": lambda value: text("sessionId", value, empty=True),
    "lastUpdate": lambda value: text("lastUpdate", value, empty=True),
    "iterations": _iterations,
    "accumulatedLearnings": lambda value: text("accumulatedLearnings", value, empty=True),
    "filesModified": lambda value: _texts("filesModified", value),
    "config": _config,
}


def check_changes(current: Record, changes: Record, remove: tuple[str, ...]) -> Record:
    """*current* with *changes* and without *remove*; only what really changes is judged.

    Raises:
        InvalidInputError: a protected key with another value, a key both set and removed, or a value out of bounds.
    """
    for key in remove:
        if key in changes:
            raise InvalidInputError(f"{key} is both set and removed")
        if key in PROTECTED or key in ("status", "objective", "iterations", "currentIteration", "currentPid"):
            raise InvalidInputError(f"{key} cannot be removed", path=f"/{key}")
    for key, value in changes.items():
        if key in current and same(current[key], value):
            continue
        if key in PROTECTED:
            raise InvalidInputError(
                f"{key} is not to be changed (it is {shown(current.get(key))}; the given one is {shown(value)})",
                hint="leave it out, or read the record again",
                path=f"/{key}",
            )
        if key in _OF_A_STATE:
            _OF_A_STATE[key](value)
    return {key: item for key, item in {**current, **changes}.items() if key not in remove}
