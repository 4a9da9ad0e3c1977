"""The project around the state directory, which may be a repository of the user's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from beginnings import a_repository, begin, shown
from conftest import assert_sound, git

import gitstate
from gitstate import RefusedError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
Unpack = Callable[[str], Path]


def test_a_project_that_is_a_repository_shows_nothing(state: State, project: Path) -> None:
    a_repository(project)
    begin(state)
    state.archive_loop("one")
    assert shown(project) == ""


def test_exactly_one_line_is_added_to_the_project_s_exclude_file_and_nothing_else_changes(
    state: State, project: Path
) -> None:
    a_repository(project)
    (project / ".git" / "info" / "exclude").write_text("*.tmp\n*.bak")  # no newline at the end
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    begin(state)
    state.init()
    after = {p: p.read_bytes() for p in project.rglob("*") if p.is_file() and state.base_dir not in p.parents}
    exclude = project / ".git" / "info" / "exclude"
    assert after.pop(exclude) == before.pop(exclude) + b"\n/.aiwg/ralph-external/\n"
    assert after == before


def test_a_project_in_a_subdirectory_of_a_repository_shows_nothing(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "mono")
    project = top / "packages" / "shop"
    project.mkdir(parents=True)
    with gitstate.open(project) as state:
        begin(state)
    assert shown(top) == ""
    assert (top / ".git" / "info" / "exclude").read_text().endswith("\n/packages/shop/.aiwg/ralph-external/\n")
    assert_sound(project)


@pytest.mark.parametrize(
    "name", ["a[1]b", "what?", "star*", "back\\slash", "#hash", "!bang", "blank ", "é ü", "\udcff"]
)
def test_a_project_whose_name_means_something_to_git_shows_nothing(tmp_path: Path, name: str) -> None:
    top = a_repository(tmp_path / "mono")
    project = top / name
    try:
        project.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    with gitstate.open(project) as state:
        begin(state)
    assert shown(top) == ""


def test_a_project_in_a_linked_worktree_shows_nothing(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "main")
    project = tmp_path / "linked"
    git(top, "worktree", "add", "-q", str(project))
    assert (project / ".git").is_file()
    with gitstate.open(project) as state:
        begin(state)
    assert (shown(project), shown(top)) == ("", "")
    assert (top / ".git" / "info" / "exclude").read_text().endswith("\n/.aiwg/ralph-external/\n")
    assert_sound(project)


def test_a_project_that_is_a_submodule_shows_nothing(tmp_path: Path) -> None:
    part = a_repository(tmp_path / "part")
    top = a_repository(tmp_path / "whole")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part), "part")
    project = top / "part"
    assert (project / ".git").is_file()
    with gitstate.open(project) as state:
        begin(state)
    assert shown(project) == ""
    assert ".aiwg" not in shown(top)


def test_a_project_reached_through_a_symlink_shows_nothing(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "mono")
    (top / "shop").mkdir()
    (tmp_path / "link").symlink_to(top / "shop")
    with gitstate.open(tmp_path / "link") as state:
        begin(state)
    assert shown(top) == ""


def test_a_project_that_becomes_a_repository_later_shows_nothing_after_another_init(
    state: State, project: Path
) -> None:
    begin(state)
    git(project, "init", "-q")
    assert shown(project) == "?? .aiwg/ralph-external/\n"
    assert state.init() is None
    assert shown(project) == ""


def test_an_empty_directory_called_dot_git_is_no_repository(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "mono")
    project = top / "shop"
    (project / ".git").mkdir(parents=True)
    with gitstate.open(project) as state:
        begin(state)
    assert list((project / ".git").iterdir()) == []
    assert shown(top) == ""


def test_init_is_refused_while_the_project_tracks_files_of_the_state_directory(unpack: Unpack) -> None:
    project = a_repository(unpack("several-loops"))  # its first commit takes everything
    before = git(project, "status", "--porcelain").stdout
    with gitstate.open(project) as state, pytest.raises(RefusedError, match="tracks 45 files of the state") as caught:
        state.init()
    assert caught.value.hint == f"git -C {project} rm -r --cached .aiwg/ralph-external, then commit"
    assert not (project / ".aiwg" / "ralph-external" / ".git").exists()
    assert git(project, "status", "--porcelain").stdout == before


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_the_refusal_holds_for_every_version_of_the_project_s_index(unpack: Unpack, version: str) -> None:
    project = a_repository(unpack("one-loop"))
    git(project, "update-index", "--index-version", version)
    with gitstate.open(project) as state, pytest.raises(RefusedError, match="tracks"):
        state.init()


def test_the_command_that_the_refusal_names_is_the_way_out(unpack: Unpack) -> None:
    project = a_repository(unpack("several-loops"))
    with gitstate.open(project) as state:
        with pytest.raises(RefusedError) as caught:
            state.init()
        command = str(caught.value.hint).removesuffix(", then commit")
        subprocess.run([*command.split(), "-q"], check=True)
        git(project, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "untrack")
        state.init()
    assert shown(project) == ""
