"""An edit of the registry: what is taken from it, and what follows the session states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edits import ADOPT_REGISTRY, body, edit, in_head, reconcile, subprocess_bytes
from original import Original, stringify

import gitstate
from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_derived_fields_of_the_registry_follow_the_session_states(state: State) -> None:
    revision = state.revision()

    def wrong(found: dict[str, Any]) -> None:
        found["active_loops"][0].update(status="failed", iteration=99, max_iterations=1, pid=1)
        found.update(total_active=7, total_completed=70, total_aborted=700)

    edit(state.registry_path, wrong)
    state.init()
    assert state.revision() == revision  # nothing in it was to be taken, so there is nothing to tell
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (2, 1, 0)
    entry = registry["active_loops"][0]
    assert (entry["status"], entry["iteration"], entry["max_iterations"], entry["pid"]) == ("paused", 0, 10, None)
    assert state.registry_path.read_bytes() == in_head(state, "registry.json")


def test_what_only_the_registry_knows_is_taken_from_an_edit(state: State) -> None:
    def change(found: dict[str, Any]) -> None:
        found["max_concurrent_loops"] = 12
        found["team"] = "blue"
        found["active_loops"][1].update(
            owner="user:dana", priority="critical", tags=["a"], task_summary="Else", ticket=17, started_at="long ago"
        )

    edit(state.registry_path, change)
    reconcile(state)
    registry = state.load_registry()
    assert (registry["max_concurrent_loops"], registry["team"]) == (12, "blue")  # type: ignore[typeddict-item]
    entry: Any = registry["active_loops"][1]
    assert (entry["owner"], entry["priority"], entry["tags"], entry["task_summary"], entry["ticket"]) == (
        "user:dana",
        "critical",
        ["a"],
        "Else",
        17,
    )
    state.update_loop("two", {"status": "paused"})
    assert state.list_active_loops()[1]["ticket"] == 17  # type: ignore[typeddict-item]


def test_an_edit_of_derived_and_other_fields_is_taken_by_halves(state: State) -> None:
    edit(state.registry_path, lambda found: found["active_loops"][0].update(status="failed", priority="low"))
    reconcile(state)
    entry = state.list_active_loops()[0]
    assert (entry["status"], entry["priority"]) == ("paused", "low")


def test_an_entry_that_was_removed_by_hand_comes_back(state: State) -> None:
    edit(state.registry_path, lambda found: (found["active_loops"].pop(0), found.update(max_concurrent_loops=5)))
    reconcile(state)
    registry = state.load_registry()
    assert {entry["loop_id"] for entry in registry["active_loops"]} == {"one", "two"}
    assert registry["max_concurrent_loops"] == 5
    assert next(e for e in registry["active_loops"] if e["loop_id"] == "one")["owner"] == "user:alice"


def test_an_entry_without_any_state_is_dropped_and_named(state: State) -> None:
    ghost = {"loop_id": "ghost", "status": "running"}
    edit(state.registry_path, lambda found: (found["active_loops"].append(ghost), found.update(total_active=3)))
    assert reconcile(state) == ADOPT_REGISTRY
    assert body(state) == ["dropped, no session state: ghost"]
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]
    assert b"ghost" not in state.registry_path.read_bytes()


def test_a_ghost_in_a_registry_that_is_adopted_is_dropped_and_named(project: Path) -> None:
    original = Original(project)
    original.base.mkdir(parents=True)
    with gitstate.open(project) as state:
        registry = {**state.load_registry(), "active_loops": [{"loop_id": "ghost", "status": "running"}]}
        state.registry_path.write_bytes(stringify(registry))
        state.init()
        assert body(state) == ["ghost dropped, it has no session state"]
        assert state.list_active_loops() == []
        assert json.loads(subprocess_bytes(state.base_dir, "show", "HEAD~1:registry.json"))["active_loops"] != []
