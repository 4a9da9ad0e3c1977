"""What may be typed where: LOOP, REV, KEY=VALUE, and the options that work everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gitstate import StateRepository
from gitstate.cli import root

Run = Callable[..., Result]

ONE = "ralph-fix-the-tests-aaaa1111"
TWO = "ralph-write-the-docs-bbbb2222"


@pytest.fixture
def run(project: Path) -> Run:
    """Runs a command in the project; ``env`` comes on top of the environment."""

    def go(*words: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(root, ["-C", str(project), *words], input=stdin, env=env)

    return go


@pytest.fixture
def two(state: StateRepository) -> StateRepository:
    """A project with two active loops."""
    for loop_id in (ONE, TWO):
        state.create_loop("x", "true", loop_id=loop_id, pid=None)
    return state


@pytest.fixture
def one(state: StateRepository) -> StateRepository:
    """A project with one active loop."""
    state.create_loop("x", "true", loop_id=ONE, pid=None)
    return state


def loop_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["loopId"])


# --- LOOP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ONE, "ralph-fix", "fix-the", "aaaa1111", "aaaa"])
def test_loop_is_an_id_or_a_unique_beginning_of_one(run: Run, two: StateRepository, text: str) -> None:
    assert loop_of(run("cat", text)) == ONE


@pytest.mark.parametrize("text", ["ralph", "aaa", "nothing-like-it", "", "a/b"])
def test_what_fits_no_loop_or_several_is_an_error(run: Run, two: StateRepository, text: str) -> None:
    result = run("cat", text)
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")


def test_active_loops_come_first_and_archived_ones_when_none_fits(run: Run, two: StateRepository) -> None:
    two.archive_loop(ONE)
    assert loop_of(run("cat", "fix-the")) == ONE
    assert loop_of(run("cat", "ralph")) == TWO


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("cat",), None),
        (("update", "--set", "note=1"), None),
        (("iterate", "-"), '{"summary": "x"}'),
        (("amend", "1", "-"), '{"summary": "y"}'),
        (("pid", "none"), None),
        (("pause",), None),
        (("resume",), None),
        (("archive",), None),
        (("checkpoint", "name"), None),
        (("path",), None),
        (("path", "--prompt", "3"), None),
        (("undo",), None),
    ],
)
@pytest.mark.parametrize("how", ["only", "environment"])
def test_loop_may_be_left_out_also_when_other_arguments_follow(
    run: Run, one: StateRepository, words: tuple[str, ...], stdin: str | None, how: str
) -> None:
    one.record_iteration(ONE, {"number": 1})
    if how == "environment":
        one.create_loop("x", "true", loop_id=TWO, pid=None)
    result = run(*words, stdin=stdin, env={"GITSTATE_LOOP": ONE} if how == "environment" else None)
    assert result.exit_code == 0, result.output
    if how == "environment":
        assert [change.operation for change in one.log(TWO)] == ["create"]


def test_with_all_arguments_the_first_is_loop(run: Run, two: StateRepository) -> None:
    assert run("iterate", TWO, "-", stdin="{}").exit_code == 0
    assert run("amend", TWO, "1", "-", stdin='{"summary": "s"}').exit_code == 0
    assert run("pid", TWO, "none").exit_code == 0
    assert run("checkpoint", TWO, "name").exit_code == 0
    assert [len(two.get_loop(loop_id)["iterations"]) for loop_id in (ONE, TWO)] == [0, 1]


@pytest.mark.parametrize("words", [("iterate", "a", "b", "-"), ("pause", "a", "b"), ("cat", "a", "b")])
def test_more_arguments_than_there_are_is_a_usage_error(run: Run, two: StateRepository, words: tuple[str, ...]) -> None:
    assert run(*words, stdin="{}").exit_code == 2


def test_left_out_among_several_it_is_an_error_that_lists_them(run: Run, two: StateRepository) -> None:
    result = run("cat")
    assert result.exit_code == 3
    assert ONE in result.stderr
    assert TWO in result.stderr


def test_left_out_where_none_is_active_it_is_an_error(run: Run, state: StateRepository) -> None:
    assert run("cat").exit_code == 3


@pytest.mark.parametrize("variable", ["GITSTATE_LOOP", "RALPH_LOOP_ID"])
def test_the_environment_names_the_loop(run: Run, two: StateRepository, variable: str) -> None:
    assert loop_of(run("cat", env={variable: TWO})) == TWO


def test_gitstate_loop_goes_before_ralph_loop_id_and_an_argument_before_both(run: Run, two: StateRepository) -> None:
    both = {"GITSTATE_LOOP": ONE, "RALPH_LOOP_ID": TWO}
    assert loop_of(run("cat", env=both)) == ONE
    assert loop_of(run("cat", TWO, env={"GITSTATE_LOOP": ONE})) == TWO
    assert loop_of(run("cat", env={**both, "GITSTATE_LOOP": ""})) == TWO


@pytest.mark.parametrize("variable", ["GITSTATE_LOOP", "RALPH_LOOP_ID"])
@pytest.mark.parametrize("value", ["nothing-like-it", "ralph-fix", "aaaa1111"])
def test_a_variable_is_taken_exactly_and_an_unknown_id_names_it(
    run: Run, one: StateRepository, variable: str, value: str
) -> None:
    result = run("pause", env={variable: value})
    assert result.exit_code == 3
    assert variable in result.stderr
    assert one.get_loop(ONE)["status"] == "running"


@pytest.mark.parametrize("words", [("status",), ("log",), ("list",), ("checkpoints",)])
def test_no_loop_means_all_loops_whatever_the_environment_says(
    run: Run, two: StateRepository, words: tuple[str, ...]
) -> None:
    for loop_id in (ONE, TWO):
        two.checkpoint(loop_id, "name")
    for env in (None, {"GITSTATE_LOOP": ONE}, {"GITSTATE_LOOP": "unknown"}):
        result = run(*words, env=env)
        assert result.exit_code == 0, result.output
        assert ONE in result.stdout
        assert TWO in result.stdout


@pytest.mark.parametrize("env", [None, {"GITSTATE_LOOP": ONE}])
def test_rollback_wants_loop_spelled_out(run: Run, one: StateRepository, env: dict[str, str] | None) -> None:
    one.update_loop(ONE, {"note": 1})
    assert run("rollback", "--steps", "1", "--yes", env=env).exit_code == 2
    assert run("rollback", ONE, "--steps", "1", "--yes").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("rollback", ONE, "--all", "--to", "HEAD"),
        ("rollback", ONE, "--registry", "--to", "HEAD"),
        ("rollback", ONE),
        ("rollback", ONE, "--to", "HEAD", "--steps", "1"),
        ("rollback", "--all", "--steps", "1"),
        ("path", "--prompt", "1", "--stdout", "1"),
        ("update",),
        ("restore",),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    run: Run, one: StateRepository, words: tuple[str, ...]
) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("words", [("update", "status=paused"), ("update", ONE, "status=paused"), ("pause", "a=b")])
def test_a_loop_with_an_equals_sign_is_answered_with_what_was_meant(
    run: Run, one: StateRepository, words: tuple[str, ...]
) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "write --set before each KEY=VALUE" in result.stderr


# --- REV -------------------------------------------------------------------------------------------------------------


def test_a_revision_is_an_id_a_beginning_of_it_a_tag_head_or_a_time(run: Run, one: StateRepository) -> None:
    one.checkpoint(ONE, "here")
    revision = one.revision() or ""
    one.update_loop(ONE, {"status": "paused"})
    for text in (revision, revision[:7], f"checkpoint/{ONE}/here", "HEAD~1", "HEAD^"):
        assert json.loads(run("cat", ONE, "--at", text).stdout)["status"] == "running", text
    for text in ("HEAD", "main", "0s", "2999-01-01", "2999-01-01T00:00:00Z"):
        assert json.loads(run("cat", ONE, "--at", text).stdout)["status"] == "paused", text


@pytest.mark.parametrize("text", ["yesterday", "2h", "2001-01-01", "nonsense", "HEAD~99"])
def test_a_revision_that_there_is_not_is_not_found(run: Run, one: StateRepository, text: str) -> None:
    assert run("cat", ONE, "--at", text).exit_code == 3


# --- the options that work everywhere --------------------------------------------------------------------------------


def test_the_options_work_before_and_after_the_command(project: Path, one: StateRepository) -> None:
    before = CliRunner().invoke(root, ["-C", str(project), "--json", "--actor", "a", "-m", "why", "pause", ONE])
    assert json.loads(before.stdout)["change"]["reason"] == "why"
    after = CliRunner().invoke(root, ["resume", ONE, "-C", str(project), "--json", "--actor", "a", "-m", "why"])
    change = json.loads(after.stdout)["change"]
    assert (change["reason"], change["actor"]) == ("why", "a")


def test_after_the_command_goes_over_before(project: Path, tmp_path: Path, one: StateRepository) -> None:
    result = CliRunner().invoke(
        root, ["-C", str(tmp_path), "--actor", "a", "pause", "-C", str(project), "--actor", "b"]
    )
    assert result.exit_code == 0, result.output
    assert one.show("HEAD").actor == "b"


def test_the_actor_is_the_options_else_the_environments(run: Run, one: StateRepository) -> None:
    run("pause", env={"GITSTATE_ACTOR": "agent:one"})
    assert one.show("HEAD").actor == "agent:one"
    run("resume", "--actor", "agent:two", env={"GITSTATE_ACTOR": "agent:one"})
    assert one.show("HEAD").actor == "agent:two"


@pytest.mark.parametrize(
    "words",
    [("--dry-run", "pause"), ("--yes", "list"), ("-m", "why", "log"), ("list", "--yes"), ("pause", "--dry-run")],
)
def test_an_option_that_a_command_does_not_take_is_never_ignored(
    run: Run, one: StateRepository, words: tuple[str, ...]
) -> None:
    assert run(*words).exit_code == 2
    assert one.get_loop(ONE)["status"] == "running"


@pytest.mark.parametrize(
    "words", [("init",), ("create", "x", "--completion", "y"), ("pause",), ("limit", "5"), ("reap",)]
)
def test_yes_is_accepted_and_idle_where_nothing_is_asked(
    run: Run, one: StateRepository, words: tuple[str, ...]
) -> None:
    assert run(*words, "--yes").exit_code == 0


def test_a_directory_that_does_not_exist_is_an_error(run: Run, tmp_path: Path) -> None:
    assert CliRunner().invoke(root, ["-C", str(tmp_path / "nowhere"), "list"]).exit_code == 2


def test_the_project_is_found_upwards(one: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = one.project_root / "src" / "deep"
    deep.mkdir(parents=True)
    for directory in (deep, one.loops_dir / ONE):
        monkeypatch.chdir(directory)
        assert CliRunner().invoke(root, ["list", "-q"]).stdout == f"{ONE}\n"


def test_a_lock_timeout_of_0_tries_once(run: Run, one: StateRepository) -> None:
    command = [sys.executable, "-m", "gitstate", "-C", str(one.project_root), "pause", "--lock-timeout", "0"]
    with one.transaction():
        assert subprocess.run(command, capture_output=True).returncode == 4


@pytest.mark.parametrize("value", ["-1", "soon"])
def test_a_lock_timeout_is_a_number_of_seconds(run: Run, value: str) -> None:
    assert run("list", "--lock-timeout", value).exit_code == 2


def test_a_value_is_json_and_a_string_never_is(run: Run, one: StateRepository) -> None:
    run("update", "--set", "a=3", "--set", "b=three", "--set", 'c={"d": [true]}', "--set-string", "e=3")
    found = dict(one.get_loop(ONE))
    assert [found[key] for key in "abce"] == [3, "three", {"d": [True]}, "3"]
