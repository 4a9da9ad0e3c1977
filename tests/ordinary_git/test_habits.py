"""What a user may do with git in the state directory, and what is refused in the middle of something."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from beginnings import begin
from conftest import git

import gitstate
from gitstate import RefusedError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


# --- what a user may do with git -------------------------------------------------------------------------------------


HABITS: dict[str, list[list[str]]] = {
    "gc": [["gc", "-q"]],
    "gc --prune=now --aggressive": [["gc", "-q", "--prune=now", "--aggressive"]],
    "repack -ad": [["repack", "-a", "-d", "-q"]],
    "pack-refs": [["pack-refs", "--all", "--prune"]],
    "tag": [["tag", "v1"], ["-c", "user.name=u", "-c", "user.email=u@h", "tag", "-a", "-m", "mine", "v2"]],
    "branch": [["branch", "mine"], ["branch", "-f", "mine", "HEAD~1"]],
    "remote": [["remote", "add", "origin", "https://example.invalid/x.git"]],
    "config": [["config", "user.name", "Dana"], ["config", "user.email", "d@h"], ["config", "gitstate.note", "x"]],
    "reflog expire": [["reflog", "expire", "--expire=now", "--all"]],
    "commit-graph": [["commit-graph", "write", "--reachable"]],
    "update-index": [["update-index", "--index-version", "4"], ["update-index", "--refresh"]],
    "stash list": [["stash", "list"], ["status"], ["diff"]],
    "notes": [["-c", "user.name=u", "-c", "user.email=u@h", "notes", "add", "-m", "seen"]],
}


@pytest.mark.parametrize("name", HABITS)
def test_everything_goes_on_after_what_a_user_does_with_git(state: State, name: str) -> None:
    begin(state)
    state.archive_loop("two")
    for words in HABITS[name]:
        git(state.base_dir, *words)
    assert state.get_loop("one")["status"] == "running"
    assert len(list(state.log())) == 5
    state.update_loop("one", {"status": "paused"})
    state.restore_loop("two")
    state.archive_loop("two")
    with gitstate.open(state.project_root) as other:
        assert [loop.tag for loop in other.list_archived_loops()] == ["archive/two.2"]
        assert other.get_loop("one")["status"] == "paused"
        assert len(list(other.log())) == 8
    assert git(state.base_dir, "status", "--porcelain").stdout == ""
    for words in HABITS[name][:1]:
        if name not in ("tag", "branch", "remote", "notes"):
            git(state.base_dir, *words)
    assert state.get_loop("two")["status"] == "paused"


def test_a_repository_object_that_is_open_still_finds_everything_when_gc_replaces_its_packs(state: State) -> None:
    begin(state)
    git(state.base_dir, "repack", "-d", "-q")
    state.update_loop("two", {"status": "paused"})
    git(state.base_dir, "repack", "-d", "-q")
    with gitstate.open(state.project_root) as other:
        assert next(other.log()).operation == "update"  # one of the two packs is known by its index alone now
        git(state.base_dir, "gc", "-q", "--prune=now")
        assert [change.operation for change in other.log()] == ["update", "create", "iterate", "create", "init"]
        assert other.get_loop("two", at="HEAD~1")["status"] == "running"


def test_a_clone_of_it_can_be_fetched_from_and_pushed_to_by_the_user(state: State, tmp_path: Path) -> None:
    begin(state)
    backup = tmp_path / "backup.git"
    git(tmp_path, "init", "-q", "--bare", str(backup))
    git(state.base_dir, "remote", "add", "backup", str(backup))
    git(state.base_dir, "push", "-q", "backup", "main")
    state.update_loop("one", {"status": "paused"})
    git(state.base_dir, "push", "-q", "backup", "main")
    assert git(backup, "rev-parse", "main").stdout.strip() == state.revision()


# --- in the middle of something --------------------------------------------------------------------------------------


def refused(state: State) -> RefusedError:
    before = git(state.base_dir, "rev-parse", "main").stdout
    with pytest.raises(RefusedError) as caught:
        state.update_loop("one", {"note": "x"})
    assert git(state.base_dir, "rev-parse", "main").stdout == before
    assert not state.lock_path.exists()
    return caught.value


def run(command: str | None) -> None:
    """Run the command of a hint as a person would: in a shell."""
    subprocess.run(str(command), shell=True, check=True, capture_output=True)


def test_a_detached_head_is_refused_with_the_command_to_go_back(state: State) -> None:
    begin(state)
    git(state.base_dir, "checkout", "-q", "HEAD~1")
    error = refused(state)
    assert error.message == "HEAD is detached, not at main"
    assert error.hint == f"git -C {state.base_dir} checkout main"
    run(error.hint)
    assert state.update_loop("one", {"note": "x"})["note"] == "x"  # type: ignore[typeddict-item]


def test_another_branch_is_refused_with_the_command_to_go_back(state: State) -> None:
    begin(state)
    git(state.base_dir, "checkout", "-q", "-b", "idea/one")
    error = refused(state)
    assert error.message == "HEAD is at idea/one, not at main"
    run(error.hint)
    state.update_loop("one", {"note": "x"})


def test_a_merge_under_way_is_refused_with_the_command_to_end_it(state: State) -> None:
    begin(state)
    me = ("-c", "user.name=u", "-c", "user.email=u@h")
    git(state.base_dir, "branch", "side", "HEAD~1")
    git(state.base_dir, *me, "merge", "-q", "--no-commit", "--no-ff", "-s", "ours", "side", check=False)
    (state.base_dir / ".git" / "MERGE_HEAD").write_text(git(state.base_dir, "rev-parse", "side").stdout)
    error = refused(state)
    assert error.message == "a merge is under way"
    assert error.hint == f"git -C {state.base_dir} merge --abort"
    run(error.hint)
    state.update_loop("one", {"note": "x"})


def test_a_rebase_under_way_is_refused_with_the_command_to_end_it(state: State) -> None:
    begin(state)
    state.update_loop("one", {"status": "paused"})
    editor = "sed -i 1s/pick/edit/"
    me = ("-c", "user.name=u", "-c", "user.email=u@h", "-c", f"sequence.editor={editor}")
    git(state.base_dir, *me, "rebase", "-q", "-i", "HEAD~1")
    error = refused(state)
    assert error.message == "a rebase is under way"
    assert error.hint == f"git -C {state.base_dir} rebase --abort"
    run(error.hint)
    state.update_loop("one", {"note": "x"})


def test_the_command_to_go_back_can_be_pasted_whatever_the_project_is_called(tmp_path: Path) -> None:
    project = tmp_path / "my project; it's"
    project.mkdir()
    with gitstate.open(project) as state:
        begin(state)
        git(state.base_dir, "checkout", "-q", "--detach")
        run(refused(state).hint)
        state.update_loop("one", {"note": "x"})


def test_reading_goes_on_while_head_is_elsewhere(state: State) -> None:
    begin(state)
    git(state.base_dir, "checkout", "-q", "--detach", "HEAD~1")
    with pytest.warns(gitstate.DamageWarning, match="^loops/two/session-state.json: missing"):
        assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]
    assert len(list(state.log())) == 4
    git(state.base_dir, "checkout", "-q", "main")
