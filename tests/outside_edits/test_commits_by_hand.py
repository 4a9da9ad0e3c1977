"""Commits of other hands: with damage in them, and without loops that were there."""

from __future__ import annotations

import pytest
from conftest import git
from edits import edit, in_head, last_of, path_of, reconcile

from gitstate import DamageWarning, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_a_foreign_commit_with_a_damaged_file_is_repaired_from_the_last_good_version(state: State) -> None:
    good, last = path_of(state).read_bytes(), last_of(state, "one")
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    (subject,) = reconcile(state)
    assert subject.startswith("repair loops/one/session-state.json: not JSON: ")
    assert subject.endswith(f", restored from {last}")
    assert path_of(state).read_bytes() == good == in_head(state, "loops/one/session-state.json")


def test_damage_in_the_head_itself_keeps_no_edit_from_being_adopted(state: State) -> None:
    path_of(state, "one").write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    edit(path_of(state, "two"), lambda found: found.update(note="by hand"))
    with pytest.warns(DamageWarning, match="^loops/one"):
        assert state.get_loop("two")["note"] == "by hand"  # type: ignore[typeddict-item]
    adopted, repaired = reconcile(state)
    assert adopted == "adopt loops/two/session-state.json: edited outside gitstate"
    assert repaired.startswith("repair loops/one/session-state.json: not JSON")
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]


def test_a_damaged_registry_in_the_head_keeps_no_edit_from_being_adopted(state: State) -> None:
    state.registry_path.write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    edit(path_of(state, "two"), lambda found: found.update(status="paused"))
    adopted, repaired = reconcile(state)
    assert adopted == "adopt loops/two/session-state.json: edited outside gitstate"
    assert repaired.startswith("repair registry.json: not JSON")
    assert [entry["status"] for entry in state.list_active_loops()] == ["paused", "paused"]
    assert state.load_registry()["total_completed"] == 1


def test_a_hand_s_own_repair_of_damage_in_the_head_is_an_edit(state: State) -> None:
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    path_of(state).write_bytes(b'{"loopId": "one", "status": "waiting"}')
    reconcile(state)
    assert state.get_loop("one") == {"loopId": "one", "status": "waiting"}


def test_damage_in_the_head_and_other_damage_of_the_same_file_is_one_repair(state: State) -> None:
    good = path_of(state).read_bytes()
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    path_of(state).write_bytes(b"")
    (subject,) = reconcile(state)
    assert subject.startswith("repair loops/one/session-state.json: empty, restored from")
    assert path_of(state).read_bytes() == good


def test_a_loop_that_was_moved_while_the_head_s_own_version_is_damaged_is_repaired(state: State) -> None:
    good = path_of(state).read_bytes()
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    (state.loops_dir / "one").rename(state.archive_dir / "one")
    reconcile(state)
    assert path_of(state).read_bytes() == good
    assert not (state.archive_dir / "one").exists()


def test_a_foreign_commit_that_removed_a_loop_takes_its_entry_along(state: State) -> None:
    git(state.base_dir, "rm", "-rq", "loops/two")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "Away with it")
    assert reconcile(state) == ["repair registry.json: brought in line with the session states"]
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one"]


def test_a_foreign_commit_that_archives_a_loop_is_tagged_and_counted(state: State) -> None:
    git(state.base_dir, "mv", "loops/two", "archive/two")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "Put away")
    reconcile(state)
    assert next(loop.tag for loop in state.list_archived_loops() if loop.loop_id == "two") == "archive/two"
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (1, 1, 1)
