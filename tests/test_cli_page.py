"""The page: widths, wrapping, colours, times."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from gitstate.cli.fields import field_lines
from gitstate.cli.page import Page, cells, cut, duration, moment_of
from gitstate.results import FieldChange
from gitstate.text import size

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)


def page(width: int | None = None, *, colour: bool = False, fancy: bool = True) -> Page:
    return Page(width=width, colour=colour, now=NOW, fancy=fancy)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("abc", 3),
        ("тест", 4),
        ("試験", 4),
        ("e\u0301", 1),
        ("a\u200db", 2),
        ("\x1b[31mred\x1b[0m", 3),
        ("日本x", 5),
    ],
)
def test_widths_are_counted_in_terminal_cells(text: str, width: int) -> None:
    assert cells(text) == width


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 4, "abc…"),
        ("試験試験", 5, "試験…"),
        ("試験試験", 4, "試…"),
        ("тестовый", 5, "тест…"),
    ],
)
def test_what_is_too_long_is_cut_with_an_ellipsis(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert cells(cut(text, width)) <= width


@pytest.mark.parametrize("text", ["word " * 30, "試験" * 40, "слово " * 30, "x" * 100, "a " + "y" * 50])
def test_wrapped_lines_fit_and_lose_nothing(text: str) -> None:
    lines = list(page(30).wrapped(text, indent="  "))
    assert all(cells(line) <= 30 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_wrapping_stops_at_the_number_of_lines_with_an_ellipsis() -> None:
    lines = list(page(30).wrapped("word " * 30, lines=2))
    assert len(lines) == 2
    assert lines[-1].endswith("…")


def test_off_a_terminal_nothing_is_wrapped_or_cut() -> None:
    assert list(page(None).wrapped("word " * 30, lines=2)) == [("word " * 30).strip()]
    assert list(page(None).columns([["id", "x" * 300]], fit=True)) == ["id  " + "x" * 300]


def test_columns_stand_under_each_other_whatever_the_script() -> None:
    lines = list(page().columns([["試験", "a"], ["тест", "b"], ["abcdef", "c"]]))
    assert [cells(line[: -len("a")]) for line in lines] == [8, 8, 8]


def test_the_last_column_takes_what_is_left_and_is_left_out_when_that_is_too_little() -> None:
    row = ["ralph-fix-tests-a1b2c3d4", "running", "word " * 20]
    (wide,) = page(60).columns([row], fit=True)
    assert cells(wide) <= 60
    assert wide.endswith("…")
    (narrow,) = page(40).columns([row], fit=True)
    assert narrow == "ralph-fix-tests-a1b2c3d4  running"


def test_an_id_is_never_cut() -> None:
    (line,) = page(20).columns([["ralph-fix-tests-a1b2c3d4", "running", "task"]], fit=True)
    assert line == "ralph-fix-tests-a1b2c3d4"


def test_control_characters_do_not_reach_the_terminal() -> None:
    (line,) = page(80).wrapped("evil \x1b[2J text")
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (0, "just now"),
        (45, "45 s ago"),
        (60, "1 min ago"),
        (3 * 3600, "3 h ago"),
        (86400, "1 day ago"),
        (86400 * 3, "3 days ago"),
        (86400 * 100, "3 months ago"),
        (86400 * 800, "2 years ago"),
        (-27, "in 27 s"),
    ],
)
def test_times_are_relative(before: int, said: str) -> None:
    assert page().ago(NOW - timedelta(seconds=before)) == said


def test_the_absolute_time_is_at_hand() -> None:
    local = NOW.astimezone()
    today = NOW - timedelta(minutes=3)
    assert page().when(today) == f"3 min ago ({today.astimezone():%H:%M})"
    assert page().when(NOW - timedelta(days=3)) == f"3 days ago ({(local - timedelta(days=3)):%b %d %H:%M})"
    assert page().when(NOW - timedelta(days=800)).endswith(f"({(local - timedelta(days=800)):%Y-%m-%d})")
    assert f"{local:%Y-%m-%d %H:%M:%S}" in page().exactly(NOW)


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    assert moment_of("2026-01-01T00:00:00.000Z") == datetime(2026, 1, 1, tzinfo=UTC)
    assert page().recorded("long ago") == "long ago"
    assert page().recorded(None) == "unknown"


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (999, "999 B"), (48_200, "48.2 kB"), (3_000_000, "3.0 MB")])
def test_sizes_are_for_people(count: int, said: str) -> None:
    assert size(count) == said


def test_spans_are_told_in_their_largest_unit() -> None:
    assert [duration(seconds) for seconds in (1, 59, 61, 7200, 90_000)] == ["1 s", "59 s", "1 min", "2 h", "1 day"]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_only() -> None:
    assert Page.of(Terminal(), {}).colour
    assert not Page.of(io.StringIO(), {}).colour


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(environment: dict[str, str]) -> None:
    assert not Page.of(Terminal(), environment).colour


def test_an_empty_no_color_refuses_nothing() -> None:
    assert Page.of(Terminal(), {"NO_COLOR": ""}).colour


def test_columns_tells_the_width() -> None:
    assert Page.of(Terminal(), {"COLUMNS": "132"}).width == 132


def test_signs_fall_back_to_ascii_where_the_encoding_lacks_them() -> None:
    assert page().bar(3, 10) == "▰▰▰▱▱▱▱▱▱▱"
    assert page(fancy=False).bar(3, 10) == "###-------"


@pytest.mark.parametrize(("part", "whole"), [(0, 0), (20, 10), (-1, 10), (5, 10)])
def test_a_bar_has_its_length_whatever_the_numbers(part: int, whole: int) -> None:
    assert cells(page().bar(part, whole)) == 10


def fields(*changes: FieldChange) -> list[str]:
    return list(field_lines(page(), changes))


def test_field_changes_are_listed_record_by_record() -> None:
    assert fields(
        FieldChange("ralph-x", "/status", "changed", "running", "paused"),
        FieldChange("ralph-x", "/config/model", "changed", "opus", "sonnet"),
        FieldChange("ralph-x", "/note", "added", None, "3"),
        FieldChange(None, "/max_concurrent_loops", "changed", 4, 6),
        FieldChange(None, "/old", "removed", True, None),
    ) == [
        "ralph-x",
        "  ~ status        running → paused",
        "  ~ config.model  opus → sonnet",
        '  + note          "3"',
        "registry",
        "  ~ max_concurrent_loops  4 → 6",
        "  - old                   true",
    ]


def test_long_texts_are_shown_by_the_lines_that_differ() -> None:
    before = "\n".join(f"line {number}" for number in range(20))
    shown = fields(FieldChange("x", "/accumulatedLearnings", "changed", before, before + "\nline 20"))
    assert shown == ["x", "  ~ accumulatedLearnings", "        line 19", "      + line 20"]


def test_times_that_every_change_sets_are_not_shown() -> None:
    assert fields(FieldChange("x", "/lastUpdate", "changed", "a", "b")) == []


def test_an_object_that_was_added_is_shown_whole() -> None:
    shown = fields(FieldChange("x", "/iterations/3", "added", None, {"number": 4, "summary": "s" * 80}))
    assert shown[1] == "  + iterations.3"
    assert any('"number": 4' in line for line in shown)
