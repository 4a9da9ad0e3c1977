"""The one JSON document of ``--json``, for results and for errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, TypedDict

import click

from gitstate.cli.answer import Answer, Outcome
from gitstate.clock import isoformat
from gitstate.encoding import Json, encode
from gitstate.errors import GitStateError

SCHEMA_VERSION: Final = 1


class Notice(TypedDict):
    """A warning, as the document carries it."""

    code: str
    message: str


class Failure(NamedTuple):
    """An error, as the command line tells it."""

    code: str
    message: str
    hint: str | None
    exit_code: int
    details: Mapping[str, object]

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What *error* is to somebody at the command line. There is no error that is not one."""
        if isinstance(error, GitStateError):
            return cls(error.code, error.message, error.hint, error.exit_code, error.facts)
        if isinstance(error, click.ClickException):
            context = error.ctx if isinstance(error, click.UsageError) else None
            path = context.command_path if context is not None else "gitstate"
            return cls("usage", error.format_message(), f"{path} --help", 2, {})
        if isinstance(error, click.Abort | KeyboardInterrupt):
            return cls("interrupted", "interrupted", None, 130, {})
        if isinstance(error, OSError) and error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            return cls("storage", f"{where}{error.strerror}", None, 9, {"errno": error.errno})
        return cls(
            "internal", f"internal: {type(error).__name__}: {error}", "report this: it is a bug in gitstate", 9, {}
        )


def answer_document(answer: Answer, warnings: Callable[[], Iterable[Notice]]) -> bytes:
    """The document of a result; *warnings* is asked last, since making the data may add to them."""
    document: dict[str, Json] = {"schema_version": SCHEMA_VERSION, "data": as_json(answer.data)}
    if isinstance(answer, Outcome):
        document["change"] = as_json(answer.change)
    if answer.looked_at is not None:
        document["looked_at"] = as_json(answer.looked_at)
    return encode({**document, "warnings": as_json(warnings())})


def error_document(failure: Failure, warnings: Iterable[Notice]) -> bytes:
    """The document of an error."""
    error = {"code": failure.code, "message": failure.message, "hint": failure.hint, "details": failure.details}
    return encode({"schema_version": SCHEMA_VERSION, "error": as_json(error), "warnings": as_json(warnings)})


def as_json(value: object) -> Json:
    """*value* as JSON can hold it; what it cannot hold becomes text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "to_dict"):
        return as_json(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return isoformat(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [as_json(item) for item in value]
    return str(value)
