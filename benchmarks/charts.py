"""Charts as SVG: lines, bars and stacked bars, readable on light and on dark paper, with nothing to install."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

# Tones between light and dark, told apart also by those who see colours otherwise (after Okabe and Ito).
COLOURS = ("#3a86c8", "#d9822b", "#2a9d78", "#b565a7", "#8a8f98", "#c9a227")
_INK, _GRID = "#7b838f", "#7b838f"
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
_WIDTH = 760


class Line(NamedTuple):
    """One curve: its name in the legend, and its points. A *dashed* one is there to compare with."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


class Bar(NamedTuple):
    """One bar: its name, its parts from left to right, and what is written behind it. A *pale* one is there to compare."""

    name: str
    parts: Sequence[float]
    words: str
    pale: bool = False


class _Page:
    """An SVG being written."""

    def __init__(self, title: str, height: float, words: str) -> None:
        self.height = height
        self._lines = [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height:g}' width='{_WIDTH}' "
            f"height='{height:g}' role='img' {_FONT} font-size='13' fill='{_INK}'>",
            f"<title>{escape(title)}</title>",
        ]
        self.text(16, 26, title, size=16, weight="600")
        if words:
            self.text(16, 46, words, size=12)

    def text(self, x: float, y: float, words: str, *, at: str = "start", size: float = 13, weight: str = "400") -> None:
        self._lines.append(
            f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{at}' font-size='{size:g}' font-weight='{weight}'>"
            f"{escape(words)}</text>"
        )

    def upright(self, x: float, y: float, words: str) -> None:
        self._lines.append(
            f"<text transform='translate({x:.1f} {y:.1f}) rotate(-90)' text-anchor='middle'>{escape(words)}</text>"
        )

    def rule(self, x1: float, y1: float, x2: float, y2: float, *, strong: bool = False) -> None:
        self._lines.append(
            f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{_GRID}' "
            f"stroke-opacity='{0.8 if strong else 0.22}'/>"
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> None:
        self._lines.append(
            f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{height:.1f}' rx='1.5' fill='{colour}' "
            f"fill-opacity='{opacity:g}'/>"
        )

    def curve(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool) -> None:
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = " stroke-dasharray='5 4'" if dashed else ""
        self._lines.append(
            f"<polyline points='{joined}' fill='none' stroke='{colour}' stroke-width='2' stroke-linejoin='round'{dashes}/>"
        )
        if not dashed:
            self._lines += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.6' fill='{colour}'/>" for x, y in points]

    @staticmethod
    def rows_of(names: Sequence[str]) -> int:
        """How many rows a legend of these takes."""
        x, rows = 16.0, 1
        for name in names:
            wide = 20 + 6.7 * len(name)
            if x + wide > _WIDTH - 16:
                x, rows = 16.0, rows + 1
            x += wide + 20
        return rows

    def legend(self, y: float, names: Sequence[tuple[str, str, bool]]) -> None:
        x = 16.0
        for name, colour, dashed in names:
            wide = 20 + 6.7 * len(name)
            if x + wide > _WIDTH - 16:
                x, y = 16.0, y + 20
            if dashed:
                self._lines.append(
                    f"<line x1='{x:.1f}' y1='{y - 4:.1f}' x2='{x + 16:.1f}' y2='{y - 4:.1f}' stroke='{colour}' "
                    "stroke-width='2' stroke-dasharray='5 4'/>"
                )
            else:
                self.box(x, y - 10, 12, 12, colour)
            self.text(x + 20, y, name)
            x += wide + 20

    def done(self) -> str:
        return "\n".join([*self._lines, "</svg>", ""])


# --- scales ----------------------------------------------------------------------------------------------------------


def _steps(top: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least *top*."""
    rough = max(top, 1e-9) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * number for number in range(math.ceil(top / step - 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten within, and what lies between them where there are few."""
    factors = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    found = [power * factor for power in _decades(low, high) for factor in factors]
    return [tick for tick in found if low * 0.999 <= tick <= high * 1.001]


def number(value: float) -> str:
    """A number as a reader wants it: 100,000, 2.5, 0.03."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


# --- charts ----------------------------------------------------------------------------------------------------------


def lines(
    title: str, words: str, across: str, up: str, curves: Sequence[Line], *, log_up: bool = False, height: float = 380
) -> str:
    """Curves over a logarithmic axis. *across* and *up* name the axes, with their units."""
    page = _Page(title, height, words)
    below = 20.0 * (page.rows_of([line.name for line in curves]) - 1)
    left, right, top, bottom = 78.0, _WIDTH - 24.0, 96.0 + below, height - 58.0
    xs = [x for line in curves for x, _ in line.points]
    ys = [y for line in curves for _, y in line.points]
    low, high = math.log10(min(xs)), math.log10(max(xs))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    marks = _decades(min(ys), max(ys)) if log_up else _steps(max(ys) * 1.05)

    def across_at(x: float) -> float:
        return left + (math.log10(x) - low) / (high - low) * (right - left)

    def up_at(y: float) -> float:
        if log_up:
            share = (math.log10(y) - math.log10(marks[0])) / (math.log10(marks[-1]) - math.log10(marks[0]))
        else:
            share = y / marks[-1]
        return bottom - share * (bottom - top)

    for mark in marks:
        page.rule(left, up_at(mark), right, up_at(mark), strong=mark == marks[0])
        page.text(left - 8, up_at(mark) + 4, number(mark), at="end")
    for mark in _ticks(10**low, 10**high):
        page.rule(across_at(mark), top, across_at(mark), bottom)
        page.text(across_at(mark), bottom + 20, number(mark), at="middle")
    page.text((left + right) / 2, height - 14, across, at="middle")
    page.upright(20, (top + bottom) / 2, up)
    for place, line in enumerate(curves):
        page.curve(
            [(across_at(x), up_at(y)) for x, y in line.points], _colour(place, dashed=line.dashed), dashed=line.dashed
        )
    page.legend(74, [(line.name, _colour(place, dashed=line.dashed), line.dashed) for place, line in enumerate(curves)])
    return page.done()


def _colour(place: int, *, dashed: bool) -> str:
    return COLOURS[4] if dashed else COLOURS[[0, 1, 2, 3, 5][place % 5]]


def bars(
    title: str,
    words: str,
    across: str,
    rows: Mapping[str, Sequence[Bar]],
    legend: Sequence[str] = (),
) -> str:
    """Horizontal bars from zero, in groups with headings; a bar's parts have a colour each, named by *legend*."""
    heading = 34.0 if any(rows) else 8.0
    top = 64.0 + (26 if legend else 0)
    height = top + sum(heading + 26 * len(group) for group in rows.values()) + 62
    page = _Page(title, height, words)
    every = [bar for group in rows.values() for bar in group]
    left = 32.0 + 7.2 * max(len(bar.name) for bar in every)
    right = _WIDTH - 24 - 6.8 * max(len(bar.words) for bar in every)
    marks = _steps(max(sum(bar.parts) for bar in every))
    bottom = height - 58

    def at(value: float) -> float:
        return left + value / marks[-1] * (right - left)

    for each in marks:
        page.text(at(each), bottom + 20, number(each), at="middle")
    page.text((left + right) / 2, height - 14, across, at="middle")
    if legend:
        page.legend(74, [(name, COLOURS[place], False) for place, name in enumerate(legend)])
    y = top
    for name, group in rows.items():
        if name:
            page.text(16, y + 24, name, weight="600")
        y += heading
        for each in marks:
            page.rule(at(each), y, at(each), y + 26 * len(group), strong=each == 0)
        for bar in group:
            x = left
            page.text(left - 10, y + 16, bar.name, at="end")
            for place, part in enumerate(bar.parts):
                width = at(part) - left
                page.box(x, y + 3, width, 18, COLOURS[4] if bar.pale else COLOURS[place])
                x += width
            page.text(x + 8, y + 16, bar.words)
            y += 26
    return page.done()
