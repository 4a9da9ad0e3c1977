"""The page that human output is written on: its width, its colours, its clock.

Everything that goes on it is one line of plain text: control characters are
escaped, so no record can move the cursor, and widths are counted in terminal
cells, so that wide and combining characters keep columns straight.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Final, NamedTuple, TextIO

import click

from gitstate.text import one_line

GAP: Final = "  "
# What a last column must be left with to be worth printing at all.
LEAST_LAST: Final = 16

_STEPS: Final = (
    ("s", 1, 60),
    ("min", 60, 60),
    ("h", 3600, 24),
    ("day", 86400, 60),
    ("month", 86400 * 30.44, 24),
    ("year", 86400 * 365.25, 10_000),
)


class Page(NamedTuple):
    """Where lines go. ``width`` is ``None`` off a terminal: nothing is cut or wrapped there."""

    width: int | None
    colour: bool
    now: datetime
    fancy: bool = True  # the encoding can write more than ASCII

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str]) -> Page:
        """The page that *stream* is."""
        terminal = stream.isatty()
        return cls(
            width=_terminal_width(environment) if terminal else None,
            colour=terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
            now=datetime.now(UTC),
            fancy="utf" in (getattr(stream, "encoding", None) or "ascii").lower(),
        )

    # --- text --------------------------------------------------------------------------------------------------------

    def paint(self, text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        """*text* in a colour, where there are colours."""
        if not self.colour or not text or not (colour or bold or dim):
            return text
        return click.style(text, fg=colour, bold=bold or None, dim=dim or None)

    def sign(self, fancy: str, plain: str) -> str:
        """A sign, or what stands for it where the encoding lacks it."""
        return fancy if self.fancy else plain

    def bar(self, part: int, whole: int, length: int = 10) -> str:
        """How much of *whole* is *part*, as a bar."""
        filled = max(0, min(length, round(length * part / whole) if whole > 0 else 0))
        return self.sign("▰", "#") * filled + self.paint(self.sign("▱", "-") * (length - filled), dim=True)

    def wrapped(self, text: str, *, indent: str = "", lines: int | None = None) -> Iterator[str]:
        """*text* in lines of this width, at most *lines* of them."""
        room = None if self.width is None else max(LEAST_LAST, self.width - cells(indent))
        found = (
            [one_line(" ".join(text.split()))] if room is None else list(_wrap(one_line(" ".join(text.split())), room))
        )
        if lines is not None and len(found) > lines and room is not None:
            found = [*found[: lines - 1], _head(found[lines - 1], room - 1).rstrip() + "…"]
        return (indent + line for line in found)

    def columns(self, rows: Sequence[Sequence[str]], *, fit: bool = False) -> Iterator[str]:
        """*rows* with their cells under each other.

        With *fit*, on a terminal, the last column gets what is left of the line, and columns that find no room are
        left out from the right; the first one is never cut.
        """
        widths = [max(map(cells, column)) for column in zip_longest(*rows, fillvalue="")]
        if fit and self.width is not None:
            widths = _fitted(widths, self.width)
        for row in rows:
            shown = [
                cut(cell, width) if fit and number else cell
                for number, (cell, width) in enumerate(zip(row, widths, strict=False))
            ]
            yield GAP.join(
                cell + " " * (width - cells(cell)) for cell, width in zip(shown, widths, strict=False)
            ).rstrip()

    # --- time --------------------------------------------------------------------------------------------------------

    def ago(self, moment: datetime) -> str:
        """*moment* as seen from now: ``3 min ago``, ``in 27 s``."""
        seconds = (self.now - moment).total_seconds()
        if -1 < seconds < 2:
            return "just now"
        span = duration(abs(seconds))
        return f"{span} ago" if seconds > 0 else f"in {span}"

    def when(self, moment: datetime) -> str:
        """*moment* as seen from now, with as much of the absolute one as tells it apart: ``3 min ago (10:18)``."""
        local, today = moment.astimezone(), self.now.astimezone()
        near = abs(self.now - moment) < timedelta(days=300)
        absolute = (
            f"{local:%H:%M}"
            if local.date() == today.date()
            else f"{local:%b %d %H:%M}"
            if near
            else f"{local:%Y-%m-%d}"
        )
        return f"{self.ago(moment)} ({absolute})"

    def exactly(self, moment: datetime) -> str:
        """*moment* in local time to the second, and as seen from now."""
        return f"{moment.astimezone().isoformat(' ', 'seconds')} ({self.ago(moment)})"

    def recorded(self, text: object, *, exact: bool = False) -> str:
        """As :meth:`when` or :meth:`exactly`, for a time as records hold it; what is none is shown as it is."""
        moment = moment_of(text)
        if moment is None:
            return one_line(str(text)) if text else "unknown"
        return self.exactly(moment) if exact else self.when(moment)


def moment_of(text: object) -> datetime | None:
    """The aware time that a record's text says, if it says one."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def duration(seconds: float) -> str:
    """A span of time in its largest sensible unit: ``45 s``, ``2 days``."""
    for unit, length, limit in _STEPS:
        number = int(seconds / length)
        if number < limit or unit == "year":
            return f"{number} {unit}{'s' if number != 1 and len(unit) > 2 and unit != 'min' else ''}"
    raise AssertionError("years have no limit")


# --- terminal cells --------------------------------------------------------------------------------------------------


def cells(text: str) -> int:
    """How many terminal cells *text* takes, colours aside."""
    return len(text) if text.isascii() and "\x1b" not in text else sum(map(_cells, click.unstyle(text)))


def _cells(character: str) -> int:
    import unicodedata  # few need it

    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """*text* in at most *width* cells, with an ellipsis where something is missing; colours are lost with it."""
    if cells(text) <= width:
        return text
    return _head(click.unstyle(text), width - 1).rstrip() + "…"


def _head(text: str, width: int) -> str:
    used = 0
    for position, character in enumerate(text):
        used += _cells(character)
        if used > width:
            return text[:position]
    return text


def _wrap(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        if line and cells(line) + 1 + cells(word) <= width:
            line += " " + word
            continue
        if line:
            yield line
        line = word
        while cells(line) > width:
            head = _head(line, width) or line[0]
            yield head
            line = line[len(head) :]
    yield line


def _fitted(widths: list[int], width: int) -> list[int]:
    """*widths* cut down to one line: the last column first, then whole columns from the right."""
    while len(widths) > 1:
        *others, last = widths
        room = width - sum(others) - len(GAP) * len(others)
        if room >= min(last, LEAST_LAST):
            return [*others, min(last, room)]
        widths = others
    return widths


def _terminal_width(environment: Mapping[str, str]) -> int:
    asked = environment.get("COLUMNS", "")
    if re.fullmatch("[1-9][0-9]{0,4}", asked):
        return int(asked)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80
