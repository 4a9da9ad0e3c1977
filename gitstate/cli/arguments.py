"""What people type, as what the library takes: revisions, times, VALUEs, records."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

import click

from gitstate.encoding import Json, Record, decode, escape_pointer
from gitstate.errors import InvalidInputError, InvalidRecordError
from gitstate.fields import assign, lookup

# --- revisions and times ---------------------------------------------------------------------------------------------

_DAY = r"\d{4}-\d\d-\d\d"
_MOMENT = r"\d{4}-\d\d-\d\d[T ]\d\d:?\d\d.*"
_SPAN = r"(\d{1,4})(s|min|h|d|w)"
_UNITS: Final = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def time_in(text: str, *, end_of_day: bool) -> datetime | None:
    """The time that *text* says: ISO 8601 (local where it names no zone), ``yesterday``, ``2h``, ``3d``.

    A day alone is its end or its beginning; ``None`` is for what is no time at all.
    """
    now = datetime.now(UTC)
    if text == "now":
        return now
    if text == "yesterday":
        return now - timedelta(days=1)
    if span := re.fullmatch(_SPAN, text):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    if not (re.fullmatch(_DAY, text) or re.fullmatch(_MOMENT, text)):
        return None
    try:
        moment = datetime.fromisoformat(text)
        if re.fullmatch(_DAY, text) and end_of_day:
            moment += timedelta(days=1, microseconds=-1)
        return moment.astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no time that there is") from None


def revision(text: str) -> str | datetime:
    """REV: what git would take, or a time."""
    return time_in(text, end_of_day=True) or text


def beginning(text: str) -> str | datetime:
    """REV as the beginning of a period: a day alone is its first moment."""
    return time_in(text, end_of_day=False) or text


def span(text: str) -> timedelta:
    """AGE: ``90d``, ``12h``, ``2w``."""
    found = re.fullmatch(_SPAN, text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no length of time such as 90d, 12h or 2w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


# --- records ---------------------------------------------------------------------------------------------------------

RECORD_FILE: Final = click.Path(exists=True, dir_okay=False, allow_dash=True)


def read_record(source: str) -> Record:
    """The JSON object in the file *source*, or on stdin for ``-``."""
    name = "stdin" if source == "-" else source
    raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        value = decode(raw)
    except InvalidRecordError as error:
        raise InvalidRecordError(f"{name}: {error.message}", path=name) from None
    if not isinstance(value, dict):
        raise InvalidRecordError(f"{name}: a JSON object is wanted", path=name)
    return value


def parse_value(text: str) -> Json:
    """VALUE: what *text* says as JSON, or *text* itself where it is no JSON.

    Raises:
        InvalidRecordError: it is JSON, but not such as can be kept (a key twice, an integer beyond ±(2**53-1)).
    """
    try:
        return decode(text)
    except InvalidRecordError:
        if _is_json(text):
            raise
        return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_constant=_refuse)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def _refuse(name: str) -> None:
    raise ValueError(name)


# --- KEY=VALUE -------------------------------------------------------------------------------------------------------


class Edits:
    """What ``--set``, ``--set-string``, ``--unset`` and ``--from`` ask for, to be laid over a session state."""

    def __init__(
        self, values: Sequence[str], texts: Sequence[str], unset: Sequence[str], record: Record | None
    ) -> None:
        self._record = record or {}
        self._fields: dict[str, tuple[bool, Json]] = {}
        for option, assignments in (("--set", values), ("--set-string", texts)):
            for key, text in (_split(option, assignment) for assignment in assignments):
                self._put(key, True, parse_value(text) if option == "--set" else text)
        for key in unset:
            self._put(key, False, None)

    def __bool__(self) -> bool:
        return bool(self._record or self._fields)

    def _put(self, key: str, present: bool, value: Json) -> None:
        if not all(key.split(".")):
            raise click.UsageError(f"{key!r} is not a KEY")
        if key in self._fields:
            raise click.UsageError(f"{key} is given twice")
        self._fields[key] = (present, value)

    def over(self, state: Mapping[str, object]) -> tuple[Record, list[str]]:
        """The top-level keys of *state* that get another value, and those to remove."""
        edited = {**cast("Record", state), **self._record}
        for key, (present, value) in self._fields.items():
            pointer = _pointer(key)
            if not present and not lookup(edited, pointer)[0]:
                continue
            try:
                edited = assign(edited, pointer, present, value)
            except InvalidRecordError as error:
                raise InvalidInputError(f"{key}: {error.message}", path=pointer) from None
        touched = {*self._record, *(key.split(".")[0] for key in self._fields)}
        changes = {key: value for key, value in edited.items() if key in touched}
        return changes, [key for key in state if key in touched and key not in edited]


def _split(option: str, assignment: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    if not equals:
        raise click.UsageError(f"{option} wants KEY=VALUE, not {assignment!r}")
    return key, text


def _pointer(key: str) -> str:
    return "".join(f"/{escape_pointer(token)}" for token in key.split("."))


def whole_tags(tags: Iterable[str]) -> list[str] | None:
    """``--tag``: none given leaves the tags alone, a single empty one clears them."""
    found = list(tags)
    if not found:
        return None
    return [] if found == [""] else found
