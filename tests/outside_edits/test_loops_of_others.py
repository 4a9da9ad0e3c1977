"""Loops that others make, move and name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import git
from edits import ADOPT_REGISTRY, body, edit, in_head, path_of, reconcile
from listings import listing
from original import Original

import gitstate
from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_a_loop_that_the_original_made_is_adopted_as_a_loop(state: State, original: Original) -> None:
    made = original.create_loop("made-elsewhere", priority="high", tags=["x"])
    before = original.state_path("made-elsewhere").read_bytes()
    assert reconcile(state) == ["adopt loops/made-elsewhere/session-state.json, registry.json: edited outside gitstate"]
    assert body(state) == ["new outside gitstate: made-elsewhere"]
    assert state.get_loop("made-elsewhere") == made
    assert original.state_path("made-elsewhere").read_bytes() == before
    entry = state.list_active_loops()[-1]
    assert (entry["loop_id"], entry["owner"], entry["priority"], entry["tags"]) == (
        "made-elsewhere",
        "user:dana",
        "high",
        ["x"],
    )
    assert state.load_registry()["total_active"] == 3
    assert "made-elsewhere" in next(state.log()).loop_ids


def test_a_loop_whose_maker_did_not_get_to_the_registry_gets_an_entry(state: State, original: Original) -> None:
    before = state.registry_path.read_bytes()
    original.create_loop("half-made")
    state.registry_path.write_bytes(before)
    reconcile(state)
    entry = state.list_active_loops()[-1]
    assert (entry["loop_id"], entry["owner"], entry["task_summary"]) == (
        "half-made",
        "user:alice",
        "Made by the original",
    )
    assert entry["pid"] == os.getpid()


def test_a_loop_that_the_original_made_is_updated_archived_and_restored_like_any_other(
    state: State, original: Original
) -> None:
    original.create_loop("made-elsewhere")
    state.update_loop("made-elsewhere", {"status": "completing"})
    state.archive_loop("made-elsewhere")
    assert state.load_registry()["total_completed"] == 2
    assert state.restore_loop("made-elsewhere")["objective"] == "Made by the original"


def test_a_directory_without_a_session_state_is_no_loop(state: State) -> None:
    (state.loops_dir / "scratch" / "outputs").mkdir(parents=True)
    (state.loops_dir / "scratch" / "outputs" / "x.log").write_text("x")
    revision = state.revision()
    state.init()
    assert state.revision() == revision
    assert (state.loops_dir / "scratch" / "outputs" / "x.log").read_text() == "x"
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]


def test_a_new_loop_with_an_invalid_session_state_goes_to_quarantine(state: State, original: Original) -> None:
    original.create_loop("broken")
    original.state_path("broken").write_bytes(b'{"status"')
    adopted, repaired = reconcile(state)
    assert adopted == ADOPT_REGISTRY[0]
    assert repaired == "repair loops/broken/session-state.json: truncated, nothing to restore it from"
    (kept,) = (state.base_dir / ".git" / "gitstate" / "quarantine").iterdir()
    assert kept.read_bytes() == b'{"status"'
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]


def test_a_loop_that_the_original_archived_is_recorded_counted_and_tagged(state: State, original: Original) -> None:
    (state.loops_dir / "one" / "outputs" / "001-stdout.log").write_text("kept")
    original.update_loop("one", status="completed")
    original.archive_loop("one")
    before = (state.archive_dir / "one" / "session-state.json").read_bytes()
    assert reconcile(state) == ["adopt archive/one/session-state.json, registry.json: edited outside gitstate"]
    assert body(state) == ["archived outside gitstate: one"]
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (1, 2, 0)
    assert [loop.tag for loop in state.list_archived_loops() if loop.loop_id == "one"] == ["archive/one"]
    assert git(state.base_dir, "rev-parse", "archive/one^{}").stdout.strip() == state.revision()
    assert (state.archive_dir / "one" / "session-state.json").read_bytes() == before
    assert (state.archive_dir / "one" / "outputs" / "001-stdout.log").read_text() == "kept"


def test_a_directory_that_was_only_moved_is_archived_byte_for_byte(state: State) -> None:
    before = path_of(state).read_bytes()
    (state.loops_dir / "one").rename(state.archive_dir / "one")
    assert reconcile(state) == ["adopt archive/one/session-state.json: edited outside gitstate"]
    assert in_head(state, "archive/one/session-state.json") == before
    assert state.load_registry()["total_aborted"] == 1
    assert git(state.base_dir, "tag").stdout.split() == ["archive/old", "archive/one"]


def test_what_the_original_archived_can_be_restored_with_its_entry(state: State, original: Original) -> None:
    state.update_entry("one", owner="agent:reviewer", priority="high")
    original.archive_loop("one")
    state.restore_loop("one")
    entry = next(entry for entry in state.list_active_loops() if entry["loop_id"] == "one")
    assert (entry["owner"], entry["priority"]) == ("agent:reviewer", "high")


def test_an_archived_loop_that_was_moved_back_by_hand_is_moved_to_the_archive_again(state: State) -> None:
    (state.archive_dir / "old" / "outputs" / "x.log").write_text("x")
    (state.archive_dir / "old").rename(state.loops_dir / "old")
    revision = state.revision()
    reconcile(state)
    assert state.revision() == revision
    assert (state.archive_dir / "old" / "outputs" / "x.log").read_text() == "x"
    assert not (state.loops_dir / "old").exists()


def test_an_interrupted_move_is_rolled_forward_as_a_move(state: State) -> None:
    for name in ("a.log", "b.log"):
        (state.loops_dir / "one" / "outputs" / name).write_text(name)
    state.archive_loop("one")
    (state.loops_dir / "one" / "outputs").mkdir(parents=True)
    (state.archive_dir / "one" / "outputs" / "b.log").rename(state.loops_dir / "one" / "outputs" / "b.log")
    (state.archive_dir / "one" / "session-state.json").rename(path_of(state))
    reconcile(state)
    assert not (state.loops_dir / "one").exists()
    assert {path.name for path in (state.archive_dir / "one" / "outputs").iterdir()} == {"a.log", "b.log"}


def test_a_move_into_a_directory_that_is_there_overwrites_nothing(state: State) -> None:
    (state.loops_dir / "one" / "outputs" / "x.log").write_text("of the loop")
    (state.archive_dir / "one" / "outputs").mkdir(parents=True)
    (state.archive_dir / "one" / "outputs" / "x.log").write_text("was there")
    state.archive_loop("one")
    found = {path.read_text() for path in state.base_dir.rglob("x.log")}
    assert found == {"of the loop", "was there"}
    assert (state.archive_dir / "one" / "outputs" / "x.log").read_text() == "was there"
    assert state.get_loop("one")["objective"] == "One"


@pytest.mark.parametrize("loop_id", ["CamelCase", "with_underscore", "v1.2.3", "Ünïcode", "a,b", "x" * 120, "a+b=c"])
def test_a_foreign_id_is_kept_and_served(state: State, original: Original, loop_id: str) -> None:
    original.create_loop(loop_id)
    state.update_loop(loop_id, {"status": "paused"})
    assert state.get_loop(loop_id)["status"] == "paused"
    state.checkpoint(loop_id, "here")
    state.archive_loop(loop_id)
    assert next(loop.tag for loop in state.list_archived_loops()) == f"archive/{loop_id}"
    assert state.restore_loop(loop_id)["loopId"] == loop_id
    assert [checkpoint.loop_id for checkpoint in state.list_checkpoints(loop_id)] == [loop_id]
    assert state.resolve_loop_id(loop_id) == loop_id


@pytest.mark.parametrize(
    "name", [".hidden", "-rf", "a b", "a..b", "x.lock", "ends.", "back\\slash", "new\nline", "tab\t", "@"]
)
def test_a_name_that_cannot_be_kept_is_left_alone_and_reported(state: State, original: Original, name: str) -> None:
    before = state.registry_path.read_bytes()
    original.create_loop(name)
    state.registry_path.write_bytes(before)
    kept = listing(state.loops_dir / name)
    revision = state.revision()
    state.init()
    state.update_loop("one", {"note": "x"})
    assert state.show("HEAD~1").revision == revision
    assert listing(state.loops_dir / name) == kept
    (finding,) = state.check()
    assert (finding.code, finding.severity, finding.path) == ("name_unusable", "note", f"loops/{name}")
    assert git(state.base_dir, "ls-files").stdout.count("session-state.json") == 3
    shutil.rmtree(state.loops_dir / name)


def test_an_entry_that_names_another_place_is_no_way_out_of_the_directory(state: State, tmp_path: Path) -> None:
    (tmp_path / "session-state.json").write_bytes(b'{"status": "running"}')
    away = os.path.relpath(tmp_path, state.loops_dir)
    edit(state.registry_path, lambda found: found["active_loops"].append({"loop_id": away, "status": "running"}))
    reconcile(state)
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]
    with pytest.raises(gitstate.InvalidLoopIdError):
        state.get_loop(away)
