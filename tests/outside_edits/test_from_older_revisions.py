"""What was made from an older revision is merged, and an older version as it was is rolled forward."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import git
from edits import ADOPT_ONE, ADOPT_REGISTRY, body, edit, path_of, reconcile, subprocess_bytes
from original import Original

import gitstate
from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


# --- a valid edit, made from an older revision -----------------------------------------------------------------------


def test_an_edit_of_an_older_revision_is_merged_by_top_level_keys(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    assert reconcile(state) == ADOPT_ONE
    found = state.get_loop("one")
    assert (found["note"], found["currentIteration"]) == ("by hand", 5)  # type: ignore[typeddict-item]
    assert body(state) == []


def test_where_both_sides_changed_a_key_the_edit_wins_and_the_commit_names_it(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"note": "by gitstate", "currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    found = state.get_loop("one")
    assert (found["note"], found["currentIteration"]) == ("by hand", 5)  # type: ignore[typeddict-item]
    assert body(state) == ["replaced what gitstate had: one/note"]
    assert state.get_loop("one", at="HEAD~1")["note"] == "by gitstate"  # type: ignore[typeddict-item]


def test_a_key_that_the_edit_of_an_older_revision_removed_is_removed(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.pop("note"))
    reconcile(state)
    assert "note" not in state.get_loop("one")
    assert state.get_loop("one")["currentIteration"] == 5


def test_a_merged_edit_carries_the_revision_after_the_head_s(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    now = state.get_loop("one")["gitstate"]["revision"]
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    assert state.get_loop("one")["gitstate"]["revision"] == now + 1


def test_a_merged_edit_keeps_the_process_that_gitstate_recorded(state: State) -> None:
    older = path_of(state).read_bytes()
    state.resume_loop("one")
    process = state.get_loop("one")["gitstate"]["process"]
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    found = state.get_loop("one")
    assert (found["currentPid"], found["gitstate"]["process"]) == (os.getpid(), process)


def test_an_edit_of_an_older_registry_is_merged_entry_by_entry(state: State) -> None:
    older = state.registry_path.read_bytes()
    state.update_entry("one", owner="agent:reviewer")
    state.set_max_concurrent_loops(6)
    state.registry_path.write_bytes(older)
    edit(state.registry_path, lambda found: found["active_loops"][0].update(priority="high"))
    assert reconcile(state) == ADOPT_REGISTRY
    entry = state.list_active_loops()[0]
    assert (entry["owner"], entry["priority"]) == ("agent:reviewer", "high")
    assert state.load_registry()["max_concurrent_loops"] == 6


def test_the_original_s_registry_of_a_moment_ago_does_not_take_back_what_gitstate_did_since(
    state: State, original: Original
) -> None:
    registry = original.read(state.registry_path)  # the original reads, and is slow
    state.create_loop("Three", "it is done", loop_id="three", pid=None)
    state.archive_loop("two", status="completed")
    original.replace(state.registry_path, {**registry, "updated_at": original.now})
    reconcile(state)
    registry_now = state.load_registry()
    assert [entry["loop_id"] for entry in registry_now["active_loops"]] == ["one", "three"]
    assert registry_now["total_completed"] == 2


def test_an_edit_without_a_stamp_is_made_from_the_newest_version_without_one(state: State, original: Original) -> None:
    original.create_loop("theirs")
    reconcile(state)
    read = original.read(original.state_path("theirs"))  # the original reads, and is slow
    state.update_loop("theirs", {"currentIteration": 5})
    original.replace(original.state_path("theirs"), {**read, "accumulatedLearnings": "by the original"})
    reconcile(state)
    found = state.get_loop("theirs")
    assert (found["currentIteration"], found["accumulatedLearnings"]) == (5, "by the original")
    assert body(state) == []


def test_what_an_edit_without_a_stamp_replaces_is_named(state: State, original: Original) -> None:
    original.create_loop("theirs")
    reconcile(state)
    read = original.read(original.state_path("theirs"))
    state.update_loop("theirs", {"accumulatedLearnings": "by gitstate"})
    original.replace(original.state_path("theirs"), {**read, "accumulatedLearnings": "by the original"})
    reconcile(state)
    assert state.get_loop("theirs")["accumulatedLearnings"] == "by the original"
    assert body(state) == ["replaced what gitstate had: theirs/accumulatedLearnings"]


def test_an_edit_that_dropped_the_stamp_of_every_version_is_taken_to_be_made_from_the_head(state: State) -> None:
    edit(path_of(state), lambda found: (found.pop("gitstate"), found.update(note="by hand")))
    assert reconcile(state) == ADOPT_ONE
    assert state.get_loop("one")["note"] == "by hand"  # type: ignore[typeddict-item]
    assert body(state) == []


def test_the_revision_goes_on_growing_after_an_edit_that_dropped_it(state: State) -> None:
    before = state.get_loop("one")["gitstate"]["revision"]
    edit(path_of(state), lambda found: (found.pop("gitstate"), found.update(note="by hand")))
    reconcile(state)
    state.update_loop("one", {"note": "x"})
    assert state.get_loop("one")["gitstate"]["revision"] > before


def test_an_edit_made_before_an_adoption_takes_back_nothing_that_gitstate_changed_after_it(
    state: State, original: Original
) -> None:
    read = original.read(path_of(state))  # one process of the original reads, and is slow
    original.update_loop("one", note="by the other")
    state.update_loop("one", {"note": "by gitstate"})
    original.replace(path_of(state), {**read, "currentIteration": 5})
    reconcile(state)
    found = state.get_loop("one")
    assert (found["currentIteration"], found["note"]) == (5, "by gitstate")  # type: ignore[typeddict-item]
    assert body(state) == []


def test_a_value_that_an_edit_sets_back_is_taken(state: State, original: Original) -> None:
    original.update_loop("one", status="running")
    reconcile(state)
    read = original.read(path_of(state))
    state.update_loop("one", {"currentIteration": 5})
    original.replace(path_of(state), {**read, "status": "paused"})  # as it was before, under the same number
    reconcile(state)
    assert state.get_loop("one")["status"] == "paused"


# --- older versions --------------------------------------------------------------------------------------------------


def test_a_file_checked_out_from_an_older_revision_is_rolled_forward_without_a_commit(state: State) -> None:
    state.update_loop("one", {"currentIteration": 5})
    revision, now = state.revision(), path_of(state).read_bytes()
    git(state.base_dir, "checkout", "-q", "HEAD~1", "--", "loops/one/session-state.json", "registry.json")
    assert path_of(state).read_bytes() != now
    state.init()
    assert (state.revision(), path_of(state).read_bytes()) == (revision, now)
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_any_version_that_history_holds_is_rolled_forward(state: State) -> None:
    for number in range(1, 6):
        state.record_iteration("one", {"number": number})
    revision, now = state.revision(), path_of(state).read_bytes()
    for line in git(state.base_dir, "log", "--format=%H", "--", "loops/one/session-state.json").stdout.split():
        path_of(state).write_bytes(subprocess_bytes(state.base_dir, "show", f"{line}:loops/one/session-state.json"))
        state.init()
        assert (state.revision(), path_of(state).read_bytes()) == (revision, now)


def test_a_version_that_was_adopted_from_the_original_is_rolled_forward_like_any_other(
    unpack: Callable[[str], Path],
) -> None:
    with gitstate.open(unpack("one-loop")) as state:
        loop_id = "ralph-raise-coverage-to-80-e2d007cf"
        first = path_of(state, loop_id).read_bytes()
        state.update_loop(loop_id, {"status": "paused"})
        revision = state.revision()
        path_of(state, loop_id).write_bytes(first)
        state.init()
        assert state.revision() == revision
        assert state.get_loop(loop_id)["status"] == "paused"


def test_a_version_from_before_a_stamp_was_dropped_is_rolled_forward(state: State) -> None:
    state.update_loop("one", {"currentIteration": 5})
    older = path_of(state).read_bytes()
    edit(path_of(state), lambda found: (found.pop("gitstate"), found.update(note="by hand")))
    state.update_loop("one", {"note": "x"})
    revision = state.revision()
    path_of(state).write_bytes(older)
    state.init()
    assert state.revision() == revision
    assert state.get_loop("one")["note"] == "x"  # type: ignore[typeddict-item]


def test_a_version_from_before_a_git_revert_is_rolled_forward(state: State) -> None:
    state.update_loop("one", {"currentIteration": 5})
    state.update_loop("one", {"currentIteration": 6})
    older = path_of(state).read_bytes()
    me = ("-c", "user.name=u", "-c", "user.email=u@h")
    git(state.base_dir, *me, "revert", "--no-commit", "HEAD", "HEAD~1")
    git(state.base_dir, *me, "commit", "-q", "-m", "Both taken back")
    state.init()
    revision = state.revision()
    path_of(state).write_bytes(older)
    state.init()
    assert state.revision() == revision
    assert state.get_loop("one")["currentIteration"] == 0
