"""What people type, as what the library takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from gitstate.cli.arguments import Edits, parse_value, read_record, time_in
from gitstate.cli.invocation import find_project
from gitstate.errors import InvalidInputError, InvalidRecordError


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("3", 3),
        ("2.5", 2.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ('["a", 1]', ["a", 1]),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ("paused", "paused"),
        ("npm test", "npm test"),
        ("", ""),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("{not json", "{not json"),
        ("тест", "тест"),
        ("'quoted'", "'quoted'"),
    ],
)
def test_a_value_is_json_if_it_parses_as_json_else_the_text_itself(typed: str, value: object) -> None:
    assert parse_value(typed) == value
    assert type(parse_value(typed)) is type(value)


@pytest.mark.parametrize("typed", ['{"a": 1, "a": 2}', "9007199254740993", "1e400", "[" * 600 + "]" * 600])
def test_json_that_cannot_be_kept_is_refused_and_not_taken_for_text(typed: str) -> None:
    with pytest.raises(InvalidRecordError):
        parse_value(typed)


def edits(*, values: tuple[str, ...] = (), texts: tuple[str, ...] = (), unset: tuple[str, ...] = ()) -> Edits:
    return Edits(values, texts, unset, None)


def test_a_dot_in_a_key_goes_into_an_object_and_keeps_what_else_is_in_it() -> None:
    state = {"status": "running", "config": {"model": "opus", "timeoutMinutes": 60}}
    changes, remove = edits(values=("config.model=sonnet", "status=paused")).over(state)
    assert changes == {"config": {"model": "sonnet", "timeoutMinutes": 60}, "status": "paused"}
    assert remove == []


def test_objects_on_the_way_to_a_key_are_made() -> None:
    assert edits(values=("a.b.c=1",)).over({}) == ({"a": {"b": {"c": 1}}}, [])


def test_a_dot_does_not_go_into_what_is_no_object() -> None:
    with pytest.raises(InvalidInputError, match="status is not an object"):
        edits(values=("status.x=1",)).over({"status": "running"})


def test_set_string_never_parses() -> None:
    assert edits(texts=("x=3",)).over({}) == ({"x": "3"}, [])


def test_everything_after_the_first_equals_sign_is_the_value() -> None:
    assert edits(values=("x=a=b",)).over({}) == ({"x": "a=b"}, [])


def test_unset_removes_a_key_or_a_field_of_an_object() -> None:
    state = {"x": 1, "config": {"model": "opus", "y": 1}}
    changes, remove = edits(unset=("x", "config.y")).over(state)
    assert changes == {"config": {"model": "opus"}}
    assert remove == ["x"]


def test_unset_of_what_is_not_there_changes_nothing() -> None:
    assert edits(unset=("x", "a.b")).over({"y": 1}) == ({}, [])


@pytest.mark.parametrize("bad", [("x",), ("=1",), ("a..b=1",), (".a=1",)])
def test_what_is_no_key_and_value_is_a_usage_error(bad: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        edits(values=bad)


def test_a_key_given_twice_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="x is given twice"):
        Edits(("x=1",), (), ("x",), None)


def test_set_goes_over_what_from_brings() -> None:
    assert Edits(("a=2",), (), (), {"a": 1, "b": 1}).over({}) == ({"a": 2, "b": 1}, [])


@pytest.mark.parametrize(
    ("text", "span"),
    [("45s", 45), ("10min", 600), ("2h", 7200), ("3d", 3 * 86400), ("1w", 7 * 86400), ("yesterday", 86400), ("now", 0)],
)
def test_a_time_ago_counts_back_from_now(text: str, span: int) -> None:
    moment = time_in(text, end_of_day=True)
    assert moment is not None
    assert abs((datetime.now(UTC) - moment).total_seconds() - span) < 5


def test_a_time_names_its_zone_or_is_local() -> None:
    assert time_in("2026-01-31T10:18:03Z", end_of_day=True) == datetime(2026, 1, 31, 10, 18, 3, tzinfo=UTC)
    assert time_in("2026-01-31 10:18", end_of_day=True) == datetime(2026, 1, 31, 10, 18).astimezone()


def test_a_day_is_its_end_or_its_beginning() -> None:
    begin = datetime(2026, 1, 31).astimezone()
    assert time_in("2026-01-31", end_of_day=False) == begin
    assert time_in("2026-01-31", end_of_day=True) == begin + timedelta(days=1, microseconds=-1)


@pytest.mark.parametrize(
    "text", ["HEAD", "HEAD~2", "1f3a9c2", "20260131", "checkpoint/x/y", "archive/x", "12345678", ""]
)
def test_what_git_would_take_is_no_time(text: str) -> None:
    assert time_in(text, end_of_day=True) is None


def test_a_day_that_there_is_not_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError):
        time_in("2026-02-31", end_of_day=True)


def test_a_record_is_a_json_object(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text('{"number": 3, "summary": "тест"}', encoding="utf-8")
    assert read_record(str(file)) == {"number": 3, "summary": "тест"}


@pytest.mark.parametrize("text", ["[1]", "3", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "\ufeff{}", ""])
def test_a_file_that_holds_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRecordError, match=r"record\.json"):
        read_record(str(file))


def test_the_project_is_the_nearest_directory_upwards_with_a_state_directory(tmp_path: Path) -> None:
    (tmp_path / ".aiwg" / "ralph-external").mkdir(parents=True)
    (tmp_path / "src" / ".git").mkdir(parents=True)
    (tmp_path / "src" / "deep").mkdir()
    assert find_project(tmp_path / "src" / "deep") == tmp_path


def test_within_the_state_directory_the_project_is_the_one_around_it(tmp_path: Path) -> None:
    inside = tmp_path / ".aiwg" / "ralph-external" / "loops"
    inside.mkdir(parents=True)
    (tmp_path / ".aiwg" / "ralph-external" / ".git").mkdir()
    assert find_project(inside) == tmp_path


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_without_one_the_project_is_the_top_of_the_git_work_tree(tmp_path: Path, kind: str) -> None:
    if kind == "directory":
        (tmp_path / ".git").mkdir()
    else:
        (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    (tmp_path / "src").mkdir()
    assert find_project(tmp_path / "src") == tmp_path


def test_without_either_the_project_is_here(tmp_path: Path) -> None:
    assert find_project(tmp_path) == tmp_path
