"""What is missing is restored."""

from __future__ import annotations

import shutil

import pytest
from conftest import git
from edits import path_of, reconcile, subprocess_bytes
from original import Original

from gitstate import DamageWarning, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_a_missing_session_state_is_restored_without_a_commit(state: State) -> None:
    good, revision = path_of(state).read_bytes(), state.revision()
    path_of(state).unlink()
    state.init()
    assert (path_of(state).read_bytes(), state.revision()) == (good, revision)


def test_a_deleted_registry_is_restored_and_never_recreated_empty(state: State) -> None:
    good, revision = state.registry_path.read_bytes(), state.revision()
    state.registry_path.unlink()
    with pytest.warns(DamageWarning, match="^registry.json: missing"):
        assert len(state.list_active_loops()) == 2
    state.create_loop("Three", "it is done", loop_id="three", pid=None)
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two", "three"]
    assert state.load_registry()["total_completed"] == 1
    assert subprocess_bytes(state.base_dir, "show", "HEAD~1:registry.json") == good
    assert state.revision("one") != state.revision() != revision


def test_the_empty_registry_that_the_original_makes_of_a_deleted_one_takes_nothing_away(
    state: State, original: Original
) -> None:
    state.set_max_concurrent_loops(6)
    state.registry_path.unlink()
    empty = {"version": "2.0.0", "max_concurrent_loops": 4, "updated_at": original.now, "active_loops": []}
    original.replace(state.registry_path, {**empty, "total_active": 0, "total_completed": 0, "total_aborted": 0})
    reconcile(state)
    registry = state.load_registry()
    assert {entry["loop_id"] for entry in registry["active_loops"]} == {"one", "two"}
    assert registry["active_loops"][0]["owner"] == "user:alice"
    assert registry["total_completed"] == 1


@pytest.mark.parametrize("name", ["loops/one", "loops", "archive/old", "archive"])
def test_a_missing_directory_is_restored(state: State, name: str) -> None:
    revision = state.revision()
    shutil.rmtree(state.base_dir / name)
    state.init()
    assert state.revision() == revision
    assert state.get_loop("one")["objective"] == "One"
    assert state.get_loop("old")["objective"] == "Zero"
    assert (state.base_dir / name).is_dir()
    if name.startswith("loops"):
        assert sorted(path.name for path in (state.loops_dir / "one").iterdir() if path.is_dir()) == [
            "analysis",
            "checkpoints",
            "iterations",
            "outputs",
            "prompts",
        ]
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_a_missing_directory_that_holds_nothing_of_ours_is_back_with_the_next_change(state: State) -> None:
    shutil.rmtree(state.shared_dir)
    state.update_loop("one", {"note": "x"})
    assert state.shared_dir.is_dir()


def test_everything_missing_at_once_is_restored(state: State) -> None:
    revision = state.revision()
    for path in state.base_dir.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    state.init()
    assert state.revision() == revision
    assert len(state.list_active_loops()) == 2
    assert state.get_loop("old")["status"] == "completed"
