"""--json: exactly one document on stdout, whatever happens; and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import gitstate
from gitstate import StateRepository, errors
from gitstate.cli import EXIT_CODES, root
from gitstate.cli.envelope import Failure, as_json
from gitstate.questions import Questions
from gitstate.reading import Reads

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(project: Path) -> Run:
    """Runs a command in the project: its exit code and its document, which is all of stdout."""

    def go(*words: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(root, ["-C", str(project), *words], env=env)
        return result.exit_code, json.loads(result.stdout)

    return go


@pytest.fixture
def loop(state: StateRepository) -> str:
    state.create_loop("x", "true", loop_id="fix-tests", pid=None)
    return "fix-tests"


def test_a_result_is_data_and_warnings(run: Run, loop: str) -> None:
    code, document = run("list", "--json")
    assert code == 0
    assert document.keys() == {"schema_version", "data", "warnings"}
    assert (document["schema_version"], document["warnings"]) == (1, [])


@pytest.mark.parametrize("words", [("pause",), ("archive", "--dry-run"), ("limit",), ("reap",), ("repair",), ("init",)])
def test_a_command_that_changes_something_says_what(run: Run, loop: str, words: tuple[str, ...]) -> None:
    examined = {"looked_at"} if words == ("repair",) else set()
    assert run(*words, "--json")[1].keys() == {"schema_version", "data", "change", "warnings"} | examined


@pytest.mark.parametrize(
    "words",
    [
        ("--json", "bogus"),
        ("bogus", "--json"),
        ("list", "--bogus", "--json"),
        ("--json", "list", "--bogus"),
        ("create", "--json"),
        ("update", "x=1", "--json"),
        ("--bogus", "--json"),
        ("amend", "--json"),
        ("lock", "--json"),
        ("lock", "bogus", "--json"),
        ("rollback", "--json", "--steps"),
        ("log", "-n", "x", "--json"),
        ("-C", "/nowhere", "list", "--json"),
        ("list", "--json", "--", "extra"),
    ],
)
def test_a_usage_error_is_a_document_too(run: Run, words: tuple[str, ...]) -> None:
    code, document = run(*words)
    assert code == 2
    assert document.keys() == {"schema_version", "error", "warnings"}
    assert document["error"].keys() == {"code", "message", "hint", "details"}
    assert document["error"]["code"] == "usage"
    assert document["error"]["hint"].endswith("--help")


def test_json_as_a_value_of_another_option_asks_for_nothing(project: Path, loop: str) -> None:
    result = CliRunner().invoke(root, ["-C", str(project), "pause", "-m", "--json"])
    assert result.exit_code == 0
    assert not result.stdout.startswith("{")


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list", "--help"), ("create", "--version"), ()])
def test_help_and_version_are_documents_too(run: Run, words: tuple[str, ...]) -> None:
    for arguments in ((*words, "--json"), ("--json", *words)):
        code, document = run(*arguments)
        assert code == 0
        assert isinstance(document["data"], str)


def test_an_error_carries_its_facts(run: Run, loop: str) -> None:
    code, document = run("cat", "nothing", "--json")
    assert code == 3
    assert document["error"]["code"] == "loop_not_found"
    assert document["error"]["details"]["loop_id"] == "nothing"


def test_warnings_of_the_library_are_in_the_document(run: Run, loop: str, state: StateRepository) -> None:
    (state.loops_dir / loop / "session-state.json").write_text("{")
    (warning,) = run("cat", loop, "--json")[1]["warnings"]
    assert warning.keys() == {"code", "message"}
    assert warning["code"] == "damage"
    run("repair", "--json")


def test_a_warning_that_comes_while_the_log_is_read_is_there_too(
    run: Run, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(self: StateRepository, *_: object, **__: object) -> Iterator[object]:
        warnings.warn("late", gitstate.DamageWarning, stacklevel=1)
        yield from ()

    monkeypatch.setattr(Questions, "log", log)
    assert run("log", "--json")[1]["warnings"] == [{"code": "damage", "message": "late"}]


def test_a_lone_surrogate_survives(run: Run, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"note": "\ud83d"})
    assert run("cat", "--json")[1]["data"]["note"] == "\ud83d"


def test_an_internal_error_is_one_line_and_exit_9(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: StateRepository) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(Reads, "list_active_loops", broken)
    result = CliRunner().invoke(root, ["-C", str(project), "list"])
    assert result.exit_code == 9
    assert result.stdout == ""
    assert result.stderr.splitlines()[0].startswith("error: internal: ZeroDivisionError: oh")
    assert "Traceback" not in result.stderr
    document = json.loads(CliRunner().invoke(root, ["-C", str(project), "list", "--json"]).stdout)
    assert document["error"]["code"] == "internal"


def test_an_interrupt_is_exit_130(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: StateRepository) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Reads, "list_active_loops", interrupted)
    result = CliRunner().invoke(root, ["-C", str(project), "list", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["code"]) == (130, "interrupted")


# --- exit codes ------------------------------------------------------------------------------------------------------


def test_every_error_of_the_library_has_its_exit_code_in_the_table() -> None:
    kinds = [
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, gitstate.GitStateError)
    ]
    assert {kind.exit_code for kind in kinds} == EXIT_CODES.keys() - {0, 1, 130}
    for kind in kinds:
        assert Failure.of(kind("x")).exit_code == kind.exit_code


def test_the_exit_codes_are_those_of_the_contract() -> None:
    assert sorted(EXIT_CODES) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("create", " ", "--completion", "x"), 2, "invalid_input"),
        (("create", "x", "--completion", "x", "--loop-id", "A"), 2, "invalid_loop_id"),
        (("create", "x", "--completion", "x", "--max-iterations", "0"), 2, "invalid_input"),
        (("update", "--set", "loopId=x"), 2, "invalid_input"),
        (("update", "--set", "x=9007199254740993"), 2, "invalid_record"),
        (("cat", "nothing"), 3, "loop_not_found"),
        (("show", "nonsense"), 3, "revision_not_found"),
        (("create", "x", "--completion", "x"), 7, "loop_limit"),
        (("archive", "driven"), 8, "refused"),
        (("create", "x", "--completion", "x", "--loop-id", "fix-tests", "--force"), 8, "loop_exists"),
        (("rollback", "fix-tests", "--to", "HEAD"), 8, "refused"),
    ],
)
def test_an_error_has_its_code_and_exit_code(
    run: Run, loop: str, state: StateRepository, words: tuple[str, ...], code: int, error: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        state.create_loop("x", "true", loop_id="driven", pid=process.pid)
        state.set_max_concurrent_loops(2)
        found, document = run(*words, "--json", env={"GITSTATE_LOOP": loop})
        process.communicate(b"\n")
    assert (found, document["error"]["code"]) == (code, error)


def test_corrupt_state_is_exit_6(run: Run, loop: str, state: StateRepository) -> None:
    branch = state.base_dir / ".git" / "refs" / "heads" / "main"
    whole = branch.read_bytes()
    branch.write_bytes(b"")
    code, document = run("pause", "--json")
    branch.write_bytes(whole)
    assert code == 6
    assert document["error"]["hint"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_the_file_system_refuses_is_exit_9(run: Run, project: Path) -> None:
    project.chmod(0o500)
    code, document = run("init", "--json")
    project.chmod(0o700)
    assert (code, document["error"]["code"]) == (9, "storage")


def test_a_repository_that_is_not_ours_is_exit_9(run: Run, state: StateRepository, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    base = elsewhere / ".aiwg" / "ralph-external"
    base.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(base)], check=True)
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=base, check=True)
    result = CliRunner().invoke(root, ["-C", str(elsewhere), "init", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["code"]) == (9, "unsafe_repository")


# --- the pieces ------------------------------------------------------------------------------------------------------


def test_whatever_an_error_carries_becomes_json() -> None:
    assert as_json({"path": Path("/x"), "ids": ("a", "b"), "n": None, 3: {"x"}}) == {
        "path": "/x",
        "ids": ["a", "b"],
        "n": None,
        "3": ["x"],
    }
