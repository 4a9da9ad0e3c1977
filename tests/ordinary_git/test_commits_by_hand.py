"""Commits of other hands, and others who are there meanwhile."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest
from beginnings import begin, subject
from conftest import git
from original import Original

from gitstate import StateRepository
from gitstate.durable import Directory

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_a_foreign_commit_on_main_counts_as_an_adoption(state: State) -> None:
    begin(state)
    Original(state.project_root).update_loop("one", status="paused")
    me = ("-c", "user.name=Dana", "-c", "user.email=d@h")
    git(state.base_dir, *me, "commit", "-q", "-am", "Paused by hand")
    newest = next(state.log())
    assert (newest.operation, newest.loop_ids, newest.actor) == ("adopt", ("one",), "Dana")
    assert (newest.summary, newest.generation) == ("Paused by hand", None)
    assert state.get_loop("one")["status"] == "paused"
    state.update_loop("two", {"status": "paused"})
    assert [entry["status"] for entry in state.list_active_loops()] == ["paused", "paused"]
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_a_foreign_commit_of_a_session_state_alone_is_followed_by_a_repair_of_the_registry(state: State) -> None:
    begin(state)
    path = state.loops_dir / "one" / "session-state.json"
    path.write_bytes(path.read_bytes().replace(b'"running"', b'"paused"'))
    git(state.base_dir, "-c", "user.name=Dana", "-c", "user.email=d@h", "commit", "-q", "-am", "By hand")
    assert state.list_active_loops()[0]["status"] == "paused"
    state.init()
    assert subject(state) == "repair registry.json: brought in line with the session states"


def test_git_revert_of_a_change_is_a_foreign_commit_like_any_other(state: State) -> None:
    begin(state)
    state.update_loop("one", {"status": "paused"})
    git(state.base_dir, "-c", "user.name=Dana", "-c", "user.email=d@h", "revert", "--no-edit", "HEAD")
    assert state.get_loop("one")["status"] == "running"
    state.update_loop("one", {"note": "x"})
    assert [change.operation for change in state.log(limit=3)] == ["update", "adopt", "update"]


def test_a_file_of_the_user_s_in_a_foreign_commit_is_kept_and_git_status_tells_the_truth_about_it(state: State) -> None:
    begin(state)
    note = state.base_dir / "NOTES.md"
    note.write_text("one\n")
    git(state.base_dir, "add", "-f", "NOTES.md")
    git(state.base_dir, "-c", "user.name=Dana", "-c", "user.email=d@h", "commit", "-q", "-m", "Notes")
    state.update_loop("one", {"note": "x"})
    assert git(state.base_dir, "status", "--porcelain").stdout == ""
    note.write_text("two\n")
    os.utime(note, (1, 1))  # of another second than the index, so that git trusts the index
    state.update_loop("one", {"note": "y"})
    assert note.read_text() == "two\n"
    assert git(state.base_dir, "show", "HEAD:NOTES.md").stdout == "one\n"
    assert git(state.base_dir, "status", "--porcelain").stdout == " M NOTES.md\n"


def test_what_a_user_staged_besides_stays_in_the_work_tree(state: State) -> None:
    begin(state)
    (state.base_dir / "NOTES.md").write_text("mine\n")
    git(state.base_dir, "add", "-f", "NOTES.md")
    state.update_loop("one", {"note": "x"})
    assert (state.base_dir / "NOTES.md").read_text() == "mine\n"
    assert "NOTES.md" not in git(state.base_dir, "ls-tree", "-r", "--name-only", "HEAD").stdout


def test_git_reads_history_while_it_is_written(state: StateRepository) -> None:
    """The recent pack is replaced by every mutation; whoever opened the index of the one before finds the other."""
    state.create_loop("Fix the tests", "all pass", loop_id="busy", pid=None)
    over = threading.Event()

    def write() -> None:
        for number in itertools.count(1):
            if over.is_set():
                return
            state.update_loop("busy", {"currentIteration": number})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for words in (
            ["log", "--oneline"],
            ["log", "-p", "-3"],
            ["show", "HEAD:registry.json"],
            ["rev-list", "--objects", "HEAD"],
        ) * 5:
            shown = git(state.base_dir, *words)
            assert (shown.returncode, shown.stderr) == (0, "")
    finally:
        over.set()
        writer.join()


def test_who_is_killed_with_the_lock_of_the_branch_after_a_commit_by_hand_locks_nobody_out(project: Path) -> None:
    """The branch has moved, and its lock is still there; the commit below is not gitstate's."""
    state = StateRepository(project, actor="user:alice")
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    (state.base_dir / "NOTES.md").write_text("By hand.\n")
    git(state.base_dir, "add", "-f", "NOTES.md")
    git(state.base_dir, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "Take notes")
    child = os.fork()
    if not child:
        drop = Directory.drop

        def killed(self: Directory, name: str) -> None:
            if name.endswith("main.lock"):
                os._exit(9)
            drop(self, name)

        Directory.drop = killed  # type: ignore[method-assign]
        StateRepository(project, actor="agent:killed").update_loop("one", {"status": "paused"})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (state.base_dir / ".git/refs/heads/main.lock").exists()
    state.update_loop("one", {"note": "it goes on"})
    assert (state.get_loop("one")["status"], state.get_loop("one")["note"]) == ("paused", "it goes on")
