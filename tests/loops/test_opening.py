"""Opening a state directory, and beginning one."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import git
from listings import contents, listing

import gitstate
from gitstate import StateRepository, process

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


# --- opening ---------------------------------------------------------------------------------------------------------


def test_opening_writes_nothing(project: Path) -> None:
    before = listing(project)
    with gitstate.open(project) as state:
        state.load_registry()
        state.list_archived_loops()
        state.status()
        assert state.lease_info() is None
        assert list(state.log()) == []
        assert state.revision() is None
    assert listing(project) == before


def test_the_actor_is_the_login_name_of_the_uid_unless_given(project: Path) -> None:
    assert gitstate.open(project).actor == f"user:{process.login_name()}"
    assert gitstate.open(project, actor="agent:reviewer").actor == "agent:reviewer"


def test_the_environment_is_not_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "GITSTATE_ACTOR", "GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "RALPH_LOOP_ID"):
        monkeypatch.setenv(name, "mallory")
    with gitstate.open(project) as state:
        state.create_loop("Fix", "it is fixed", loop_id="one")
        assert "mallory" not in git(state.base_dir, "cat-file", "-p", state.revision() or "").stdout


def test_nothing_is_printed(state: State, one: str, capfd: pytest.CaptureFixture[str]) -> None:
    state.update_loop(one, {"x": 1})
    state.archive_loop(one)
    assert capfd.readouterr() == ("", "")


def test_closing_is_optional_and_idempotent(state: State, one: str) -> None:
    state.close()
    state.close()
    assert state.get_loop(one)["loopId"] == one


def test_all_paths_are_absolute(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    state = gitstate.open(project.name)
    base = project / ".aiwg" / "ralph-external"
    assert state.project_root == project
    assert [state.base_dir, state.loops_dir, state.archive_dir, state.shared_dir, state.registry_path, state.lock_path] == [
        base, base / "loops", base / "archive", base / "shared", base / "registry.json", base / "registry.json.lock",
    ]  # fmt: skip


def test_paths_of_a_loop_are_the_original_s(state: State, one: str) -> None:
    directory = state.base_dir / "loops" / "one"
    assert state.get_loop_dir(one) == directory
    assert state.get_iteration_dir(one, 7) == directory / "iterations" / "007"
    assert state.get_prompt_path(one, 12) == directory / "prompts" / "012-prompt.md"
    outputs = state.get_output_paths(one, 1234)
    assert (outputs.stdout, outputs.stderr) == (
        directory / "outputs" / "1234-stdout.log",
        directory / "outputs" / "1234-stderr.log",
    )


def test_the_paths_of_an_archived_loop_lie_in_the_archive(state: State, one: str) -> None:
    state.archive_loop(one)
    assert state.get_loop_dir(one) == state.archive_dir / "one"
    assert state.get_prompt_path(one, 1).parent == state.archive_dir / "one" / "prompts"


@pytest.mark.parametrize(("n", "paths"), [(0, 0), (1, 0), (2, 1), (4, 6), (5, 10), (100, 4950)])
def test_n_loops_have_n_times_n_minus_1_halves_paths_between_them(n: int, paths: int) -> None:
    assert gitstate.calculate_communication_paths(n) == paths


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_makes_the_first_commit_and_a_second_one_nothing(state: State) -> None:
    change = state.init()
    assert change is not None
    assert (change.operation, change.revision, change.parent, change.generation) == ("init", state.revision(), None, 1)
    before = contents(state.base_dir, without=())
    assert state.init() is None
    assert {name for name, raw in contents(state.base_dir, without=()).items() if before.get(name) != raw} <= {
        ".git/gitstate/generation",
        ".git/gitstate/projected",  # all files were looked at
        ".git/gitstate/spare/index",
    }


def test_init_can_set_the_limit(state: State) -> None:
    change = state.init(max_concurrent_loops=7)
    assert change is not None
    assert state.load_registry()["max_concurrent_loops"] == 7


def test_the_first_mutation_begins_history_by_itself(state: State, one: str) -> None:
    assert [change.operation for change in state.log()] == ["create", "init"]
