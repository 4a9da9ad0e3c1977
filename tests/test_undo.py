"""Undo inverts one change of one loop, field by field; undoing an undo is the redo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from original import Original
from processes import dead_pid

from gitstate import (
    LoopLimitError,
    LoopNotFoundError,
    RefusedError,
    RevisionNotFoundError,
    StateRepository,
    process,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(project: Path, clock: FakeClock) -> Iterator[State]:
    with StateRepository(project, actor="user:alice", clock=clock) as repository:
        repository.create_loop("First", "done", loop_id="one", pid=None, tags=["t"])
        repository.record_iteration("one", {"learnings": "One.", "filesModified": ["a"]})
        repository.update_loop("one", {"status": "paused", "note": {"a": 1, "b": 1}})
        yield repository


def found(state: State) -> dict[str, Any]:
    return dict(state.get_loop("one"))


def told(state: State) -> dict[str, Any]:
    """Everything of the loop that people see: its state and its entry, without what every write changes."""
    record = {key: item for key, item in found(state).items() if key not in ("lastUpdate", "gitstate")}
    stamp = found(state).get("gitstate", {})
    entries = [entry for entry in state.list_active_loops() if entry["loop_id"] == "one"]
    return {**record, "process": stamp.get("process"), "entry": entries}


def edited_outside(state: State) -> None:
    Original(state.project_root).update_loop("one", status="failed", note={"a": 2})
    state.init()


CHANGES: dict[str, Callable[[State], object]] = {
    "update": lambda state: state.update_loop("one", {"status": "failed", "note": {"a": 2, "c": 3}}, remove=["config"]),
    "update of the entry": lambda state: state.update_entry("one", owner="x", priority="low", tags=["u", "v"]),
    "iterate": lambda state: state.record_iteration("one", {"learnings": "Two.", "filesModified": ["b"]}),
    "amend": lambda state: state.amend_iteration("one", 1, {"learnings": [], "filesModified": []}),
    "pid": lambda state: state.update_loop_pid("one", "self"),
    "resume": lambda state: state.resume_loop("one", max_iterations=20),
    "rollback": lambda state: state.rollback("one", steps=1),
    "adopt": edited_outside,
    "undo": lambda state: state.undo("one"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_undone_is_as_if_it_never_was(state: State, kind: str) -> None:
    before = told(state)
    CHANGES[kind](state)
    undone = state.revision()
    assert told(state) != before
    change = state.undo("one", reason="a mistake")
    assert told(state) == before
    assert (change.operation, change.loop_id, change.parent, change.reason) == ("undo", "one", undone, "a mistake")
    assert change.summary.startswith(f"undo one: {(undone or '')[:7]}, ")


@pytest.mark.parametrize("kind", CHANGES)
def test_undoing_an_undo_is_the_redo(state: State, kind: str) -> None:
    CHANGES[kind](state)
    after = told(state)
    state.undo("one")
    state.undo("one")
    assert told(state) == after


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_further_back_is_undone_when_nothing_touched_its_fields_since(state: State, kind: str) -> None:
    before = told(state)
    CHANGES[kind](state)
    revision = state.revision()
    state.update_loop("one", {"elsewhere": 1})
    state.create_loop("Second", "done", loop_id="two", pid=None)
    state.undo("one", revision=revision)
    assert told(state) == {**before, "elsewhere": 1}


def test_reaping_can_be_undone(state: State) -> None:
    state.update_loop("one", {"status": "running", "currentPid": dead_pid()})
    state.reap_crashed_loops()
    state.undo("one")
    assert found(state)["status"] == "running"


def test_the_process_comes_back_with_its_pid(state: State) -> None:
    state.update_loop_pid("one", "self")
    state.update_loop_pid("one", None)
    state.undo("one")
    assert (found(state)["currentPid"], found(state)["gitstate"]["process"]) == (
        os.getpid(),
        process.identity(os.getpid()),
    )
    assert state.is_loop_alive("one")


def test_what_the_loop_is_and_when_it_began_stays(state: State, clock: FakeClock) -> None:
    before = found(state)
    clock.advance(hours=1)
    state.undo("one")
    after = found(state)
    assert [after[key] for key in ("loopId", "version", "startTime", "sessionId")] == [
        before[key] for key in ("loopId", "version", "startTime", "sessionId")
    ]
    assert after["lastUpdate"] == "2026-06-15T13:00:00.000Z"
    assert after["gitstate"]["revision"] == before["gitstate"]["revision"] + 1


def test_the_registry_follows(state: State) -> None:
    state.update_loop("one", {"status": "failed", "currentIteration": 9})
    state.undo("one")
    (entry,) = state.list_active_loops()
    assert (entry["status"], entry["iteration"]) == ("paused", 1)


def test_a_change_is_named_by_any_revision(state: State, clock: FakeClock) -> None:
    clock.advance(hours=1)
    state.update_loop("one", {"x": 1})
    moment = clock.now()
    clock.advance(hours=1)
    state.update_loop("one", {"y": 1})
    state.undo("one", revision="HEAD~1")
    assert "x" not in found(state)
    state.undo("one", revision=(state.revision() or "")[:10])
    assert found(state)["x"] == 1
    state.undo("one", revision=moment)
    assert ("x" in found(state), found(state)["y"]) == (False, 1)


def test_another_loop_s_changes_are_not_this_one_s(state: State) -> None:
    state.create_loop("Second", "done", loop_id="two", pid=None)
    state.undo("one")  # not the creation of the other
    assert "note" not in found(state)
    with pytest.raises(RevisionNotFoundError, match="not a change of one") as caught:
        state.undo("one", revision="HEAD~1")
    assert caught.value.hint == "gitstate log one"


# --- conflicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "later", "fields"),
    [
        ({"x": 1}, {"x": 2}, ("/x",)),
        ({"status": "failed", "x": 1}, {"status": "crashed", "x": 2}, ("/status", "/x")),
        ({"note": {"a": 5, "b": 1}}, {"note": {"a": 6, "b": 1}}, ("/note/a",)),
        ({"note": {"a": 1}}, {"note": "text"}, ("/note/b",)),
        ({"list": [1]}, {"list": [1, 2]}, ("/list",)),
    ],
)
def test_a_field_that_a_later_change_set_again_is_a_conflict(
    state: State, change: dict[str, object], later: dict[str, object], fields: tuple[str, ...]
) -> None:
    state.update_loop("one", change)
    revision = state.revision()
    state.update_loop("one", later)
    before, head = found(state), state.revision()
    with pytest.raises(RefusedError) as caught:
        state.undo("one", revision=revision)
    assert caught.value.fields == fields
    assert all(field in str(caught.value) for field in fields)
    assert (found(state), state.revision()) == (before, head)


def test_a_conflict_in_one_field_keeps_the_others_as_they_are(state: State) -> None:
    state.update_loop("one", {"x": 1, "y": 1})
    revision = state.revision()
    state.update_loop("one", {"x": 2})
    with pytest.raises(RefusedError):
        state.undo("one", revision=revision)
    assert (found(state)["x"], found(state)["y"]) == (2, 1)


def test_a_conflict_in_the_entry_is_one_too(state: State) -> None:
    state.update_entry("one", owner="x")
    revision = state.revision()
    state.update_entry("one", owner="y")
    with pytest.raises(RefusedError) as caught:
        state.undo("one", revision=revision)
    assert caught.value.fields == ("entry/owner",)


def test_of_two_iterations_only_the_later_can_be_undone(state: State) -> None:
    state.record_iteration("one", {"learnings": "Two."})
    with pytest.raises(RefusedError) as caught:
        state.undo("one", revision="HEAD~2")  # the first iteration: the list was set again
    assert "/iterations" in caught.value.fields
    state.undo("one")
    assert [item["number"] for item in found(state)["iterations"]] == [1]


def test_a_field_in_another_part_of_the_same_object_is_no_conflict(state: State) -> None:
    state.update_loop("one", {"note": {"a": 5, "b": 1}})
    revision = state.revision()
    state.update_loop("one", {"note": {"a": 5, "b": 6}})
    state.undo("one", revision=revision)
    assert found(state)["note"] == {"a": 1, "b": 6}


def test_what_was_taken_back_already_is_no_commit(state: State) -> None:
    state.update_loop("one", {"x": 1})
    revision = state.revision()
    state.update_loop("one", {}, remove=["x"])
    head = state.revision()
    assert state.undo("one", revision=revision).revision is None
    assert state.revision() == head


# --- archive and restore ---------------------------------------------------------------------------------------------


def test_undoing_an_archiving_brings_the_loop_back(state: State) -> None:
    before = told(state)
    state.archive_loop("one", status="completed")
    state.undo("one")
    assert told(state) == before
    assert (state.load_registry()["total_active"], state.load_registry()["total_completed"]) == (1, 0)


def test_undoing_the_archiving_of_a_running_loop_leaves_it_paused_with_nobody_driving_it(state: State) -> None:
    state.resume_loop("one")
    state.archive_loop("one")
    state.undo("one")
    assert (found(state)["status"], found(state)["currentPid"]) == ("paused", None)


def test_undoing_a_restoring_puts_the_loop_away_again(state: State) -> None:
    state.archive_loop("one", status="completed")
    state.restore_loop("one")
    state.undo("one")
    assert state.list_active_loops() == []
    assert (found(state)["status"], state.load_registry()["total_completed"]) == ("completed", 1)
    assert [loop.tag for loop in state.list_archived_loops()] == ["archive/one.2"]


def test_undoing_there_and_back_again(state: State) -> None:
    before = told(state)
    state.archive_loop("one", status="completed")
    for area in ("active", "archived", "active"):
        state.undo("one")
        assert [loop["loop_id"] for loop in state.list_active_loops()] == (["one"] if area == "active" else [])
    assert told(state) == before


def test_undoing_an_archiving_wants_a_free_slot(state: State) -> None:
    state.archive_loop("one")
    state.set_max_concurrent_loops(1)
    state.create_loop("Second", "done", loop_id="two", pid=None)
    with pytest.raises(LoopLimitError):
        state.undo("one")


def test_an_archiving_that_was_followed_by_another_move_cannot_be_undone(state: State) -> None:
    revision = state.archive_loop("one").revision
    state.restore_loop("one")
    with pytest.raises(RefusedError, match="moved again since"):
        state.undo("one", revision=revision)


def test_a_change_before_the_archiving_wants_the_loop_back_first(state: State) -> None:
    state.archive_loop("one")
    with pytest.raises(LoopNotFoundError) as caught:
        state.undo("one", revision="HEAD~1")
    assert caught.value.hint == "gitstate restore one"


def test_the_original_s_archiving_can_be_undone(state: State) -> None:
    Original(state.project_root).archive_loop("one")
    state.undo("one")
    assert [loop["loop_id"] for loop in state.list_active_loops()] == ["one"]
    assert (state.loops_dir / "one" / "session-state.json").exists()


# --- what cannot be undone -------------------------------------------------------------------------------------------


def in_a_transaction(state: State) -> None:
    with state.transaction("both") as tx:
        tx.update_loop("one", {"x": 1})
        tx.update_entry("one", owner="x")


def archived_in_a_transaction(state: State) -> None:
    with state.transaction("both") as tx:
        tx.update_loop("one", {"x": 1})
        tx.archive_loop("one")


def new_outside(state: State) -> None:
    Original(state.project_root).create_loop("new")
    state.init()


@pytest.mark.parametrize(
    ("make", "loop_id", "hint"),
    [
        (
            lambda state: state.create_loop("New", "done", loop_id="new", pid=None),
            "new",
            "gitstate archive new --status aborted",
        ),
        (new_outside, "new", "gitstate archive new --status aborted"),
        (lambda state: state.checkpoint("one", "here"), "one", "a checkpoint changes nothing"),
        (in_a_transaction, "one", "gitstate rollback one --to "),
        (archived_in_a_transaction, "one", "gitstate rollback one --to "),
    ],
    ids=["create", "created outside", "checkpoint", "transaction", "transaction that archived"],
)
def test_other_changes_are_refused_with_what_to_use_instead(
    state: State, make: Callable[[State], object], loop_id: str, hint: str
) -> None:
    make(state)
    newest = state.revision(loop_id)
    before, head = state.get_loop(loop_id), state.revision()
    with pytest.raises(RefusedError, match="cannot be undone") as caught:
        state.undo(loop_id, revision=newest)
    assert (caught.value.hint or "").startswith(hint)
    assert (state.get_loop(loop_id), state.revision()) == (before, head)


def test_a_repair_is_refused(state: State) -> None:
    (state.get_loop_dir("one") / "session-state.json").write_bytes(b"")
    with pytest.warns(Warning, match="restored from"):
        state.init()
    with pytest.raises(RefusedError, match="kind repair") as caught:
        state.undo("one")
    assert (caught.value.hint or "").startswith("gitstate show ")


def test_an_unknown_loop_has_nothing_to_undo(state: State) -> None:
    with pytest.raises(LoopNotFoundError):
        state.undo("two")
