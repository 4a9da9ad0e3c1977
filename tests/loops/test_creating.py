"""Creating loops: what a new one has, and under which id."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import git
from one_loop import commits, entry

from gitstate import LoopExistsError, StateRepository, mutations, process, records

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_a_new_loop_s_state_has_the_original_s_keys_in_its_order(state: State) -> None:
    made = state.create_loop("Fix all failing tests", "npm test passes", loop_id="one")
    assert list(made) == [
        "version", "loopId", "objective", "completionCriteria", "status", "maxIterations", "currentIteration",
        "startTime", "lastUpdate", "sessionId", "currentPid", "iterations", "accumulatedLearnings", "filesModified",
        "giteaIntegration", "config", "gitstate",
    ]  # fmt: skip


def test_a_new_loop_has_the_original_s_defaults(state: State, project: Path) -> None:
    made: dict[str, Any] = dict(state.create_loop("Fix all failing tests", "npm test passes", loop_id="one"))
    session, stamp = made.pop("sessionId"), made.pop("gitstate")
    assert made == {
        "version": "1.0.0",
        "loopId": "one",
        "objective": "Fix all failing tests",
        "completionCriteria": "npm test passes",
        "status": "running",
        "maxIterations": 10,
        "currentIteration": 0,
        "startTime": "2026-06-15T12:00:00.000Z",
        "lastUpdate": "2026-06-15T12:00:00.000Z",
        "currentPid": os.getpid(),
        "iterations": [],
        "accumulatedLearnings": "",
        "filesModified": [],
        "giteaIntegration": None,
        "config": {
            "model": "opus",
            "budgetPerIteration": 2,
            "timeoutMinutes": 60,
            "mcpConfig": None,
            "workingDir": str(project),
        },
    }
    assert len(session) == 36
    assert stamp == {"revision": 1, "process": process.identity(os.getpid())}


def test_a_new_loop_s_entry_is_the_original_s(state: State) -> None:
    state.create_loop("Fix all failing tests", "npm test passes", loop_id="one")
    assert list(entry(state, "one").items()) == [
        ("loop_id", "one"),
        ("task_summary", "Fix all failing tests"),
        ("status", "running"),
        ("started_at", "2026-06-15T12:00:00.000Z"),
        ("owner", "user:alice"),
        ("pid", os.getpid()),
        ("iteration", 0),
        ("max_iterations", 10),
        ("completion_criteria", "npm test passes"),
        ("priority", "medium"),
        ("tags", []),
    ]


def test_a_new_loop_takes_every_option(state: State) -> None:
    made = state.create_loop(
        "Fix", "it is fixed", loop_id="one", max_iterations=3, model="sonnet", budget_per_iteration=0.5,
        timeout_minutes=1.5, mcp_config={"servers": {"a": 1}}, working_dir=Path("/elsewhere"),
        gitea_integration={"issue": 7}, owner="team:docs", priority="critical", tags=("a", "b"), pid=None,
    )  # fmt: skip
    assert made["config"] == {
        "model": "sonnet",
        "budgetPerIteration": 0.5,
        "timeoutMinutes": 1.5,
        "mcpConfig": {"servers": {"a": 1}},
        "workingDir": "/elsewhere",
    }
    assert (made["maxIterations"], made["giteaIntegration"], made["currentPid"]) == (3, {"issue": 7}, None)
    found = entry(state, "one")
    assert (found["owner"], found["priority"], found["tags"], found["pid"], found["max_iterations"]) == (
        "team:docs", "critical", ["a", "b"], None, 3,
    )  # fmt: skip


def test_a_new_loop_gets_its_directories(state: State, one: str) -> None:
    assert sorted(path.name for path in state.get_loop_dir(one).iterdir()) == [
        "analysis", "checkpoints", "iterations", "outputs", "prompts", "session-state.json",
    ]  # fmt: skip


def test_a_summary_is_the_beginning_of_the_objective(state: State) -> None:
    objective = "x" * 199 + "😀" + "y" * 50
    state.create_loop(objective, "done", loop_id="one")
    assert entry(state, "one")["task_summary"] == objective[:200]
    assert state.get_loop("one")["objective"] == objective


def test_an_id_is_drawn_from_the_objective(state: State) -> None:
    made = state.create_loop("Fix the Build!", "done")
    assert made["loopId"].startswith("ralph-fix-the-build-")
    assert state.last_change is not None
    assert state.last_change.loop_id == made["loopId"]


def test_what_changed_is_told_when_nothing_is_left_to_read_it_from(state: State) -> None:
    state.create_loop("Fix the tests", "done", loop_id="one")
    state.update_loop("one", {"status": "paused"})
    state.base_dir.rename(state.base_dir.with_name("elsewhere"))
    for cache in (state._revisions.objects._cache, state._revisions.objects._parsed, records._KNOWN):
        cache.clear()
    assert state.last_change is not None
    assert [change.path for change in state.last_change.fields] == ["/status"]
    state.base_dir.with_name("elsewhere").rename(state.base_dir)


def test_an_id_is_drawn_again_when_it_is_taken(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["ralph-x-00000001", "ralph-x-00000001", "ralph-x-00000002", "ralph-x-00000003"])
    monkeypatch.setattr(mutations, "generate_loop_id", lambda objective: next(drawn))
    state.create_loop("x", "done")
    assert state.create_loop("x", "done")["loopId"] == "ralph-x-00000002"
    state.archive_loop("ralph-x-00000002")


@pytest.mark.parametrize("place", ["active", "archived", "tagged"])
def test_an_id_names_one_loop_ever(state: State, one: str, place: str) -> None:
    if place != "active":
        state.checkpoint(one, "first")
        state.archive_loop(one)
    if place == "tagged":  # as after pruning
        (state.archive_dir / one / "session-state.json").unlink()
        git(state.base_dir, "rm", "-q", "-r", "archive/one")
        git(state.base_dir, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "prune by hand")
    before = commits(state)
    with pytest.raises(LoopExistsError) as caught:
        state.create_loop("another", "done", loop_id=one)
    assert (caught.value.place, caught.value.loop_id) == (place, one)
    assert one in (caught.value.hint or "")
    assert commits(state) == before


def test_creating_counts_the_active_loops(state: State, one: str) -> None:
    state.create_loop("another", "done", loop_id="two")
    registry = state.load_registry()
    assert [loop["loop_id"] for loop in registry["active_loops"]] == ["one", "two"]
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (2, 0, 0)


def test_a_new_loop_is_written_as_the_original_would_write_it(state: State, one: str) -> None:
    path = state.get_loop_dir(one) / "session-state.json"
    assert path.read_text() == json.dumps(state.get_loop(one), indent=2) + "\n"
    assert state.registry_path.read_text() == json.dumps(state.load_registry(), indent=2) + "\n"
