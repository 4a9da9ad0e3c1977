"""Field changes for people: before and after, record by record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final, cast

from gitstate.cli.page import GAP, Page, cells
from gitstate.encoding import Json, encode
from gitstate.fields import tokens
from gitstate.text import one_line

if TYPE_CHECKING:
    from gitstate.results import FieldChange

_SIGNS: Final = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_LONG: Final = 60  # what is longer gets lines of its own
# Every change sets these; a change that sets nothing else is none.
_CLOCKWORK: Final = ("/lastUpdate", "/updated_at")
# A text that reads like something else is shown in quotes.
_NOT_TEXT: Final = r"(?s)|-?\d+(\.\d+)?([eE][-+]?\d+)?|true|false|null|[\[{\"].*|\s.*|.*\s"


def field_lines(page: Page, changes: Iterable[FieldChange], *, indent: str = "") -> Iterator[str]:
    """What changed: a heading for each record, a line for each field, and blocks for long values."""
    arrow = page.sign(" → ", " -> ")
    seen = [change for change in changes if change.path not in _CLOCKWORK]
    for loop_id, group in groupby(seen, key=lambda change: change.loop_id):
        yield indent + page.paint(one_line(loop_id or "registry"), bold=True)
        fields = [(change, one_line(".".join(tokens(change.path))), _inline(change, arrow)) for change in group]
        width = max((cells(name) for _, name, inline in fields if inline is not None), default=0)
        for change, name, inline in fields:
            sign, colour = _SIGNS[change.kind]
            line = f"{indent}{GAP}{page.paint(sign, colour)} {name}"
            if inline is not None:
                yield f"{line}{' ' * (width - cells(name))}{GAP}{inline}"
                continue
            yield line
            for text in _block(change):
                painted = page.paint(one_line(text), {"-": "red", "+": "green"}.get(text[0]))
                yield f"{indent}{GAP * 3}{painted}".rstrip()


def _values(change: FieldChange) -> list[object]:
    """What there is of before and after."""
    return {"added": [change.after], "removed": [change.before]}.get(change.kind, [change.before, change.after])


def _inline(change: FieldChange, arrow: str) -> str | None:
    """The values on one line, if they fit on one."""
    values = _values(change)
    shown = [_compact(value) for value in values]
    if sum(map(cells, shown)) > _LONG or any(isinstance(value, str) and "\n" in value for value in values):
        return None
    return arrow.join(shown)


def _compact(value: object) -> str:
    if isinstance(value, str) and not re.fullmatch(_NOT_TEXT, value):
        return one_line(value)
    return " ".join(line.strip() for line in _json_lines(value))


def _block(change: FieldChange) -> Iterator[str]:
    """The lines of a long value; where there are two values, those in which they differ, and their neighbours."""
    first, *others = (value.split("\n") if isinstance(value, str) else _json_lines(value) for value in _values(change))
    if not others:
        yield from (f"{_SIGNS[change.kind][0]} {line}" for line in first)
        return
    from difflib import unified_diff  # few need it

    for line in unified_diff(first, others[0], n=1, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield f"{line[0]} {line[1:]}"


def _json_lines(value: object) -> list[str]:
    return encode(cast("Json", value)).decode().splitlines()
