"""Going back is a new commit that puts fields back; it never creates, removes or moves a loop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from listings import listing
from original import Original
from processes import dead_pid, live_process

from gitstate import (
    InvalidInputError,
    LoopNotFoundError,
    RefusedError,
    RevisionNotFoundError,
    StateRepository,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(project: Path, clock: FakeClock) -> Iterator[State]:
    with StateRepository(project, actor="user:alice", clock=clock) as repository:
        repository.create_loop("First", "done", loop_id="one", pid=None)
        clock.advance(hours=1)
        yield repository


def found(state: State, loop_id: str = "one") -> dict[str, Any]:
    return dict(state.get_loop(loop_id))


def own(record: dict[str, Any]) -> dict[str, Any]:
    """A session state without what every write changes."""
    return {key: item for key, item in record.items() if key not in ("lastUpdate", "gitstate")}


def advance(state: State, count: int = 3) -> None:
    for number in range(1, count + 1):
        state.update_loop("one", {"currentIteration": number, "status": "paused"})


# --- where to --------------------------------------------------------------------------------------------------------


def test_rolling_back_is_a_new_commit(state: State) -> None:
    advance(state)
    before = state.revision()
    change = state.rollback("one", to="HEAD~2", reason="went astray")
    assert (change.operation, change.loop_id, change.parent, change.reason) == (
        "rollback",
        "one",
        before,
        "went astray",
    )
    assert change.revision == state.revision()
    assert found(state)["currentIteration"] == 1


def test_a_rollback_says_where_to_and_what_it_did(state: State) -> None:
    advance(state)
    target = state.show("HEAD~2").revision or ""
    change = state.rollback("one", to=target)
    assert change.summary == f"rollback one to {target[:7]}: iteration 3 → 1"
    assert next((field.path, field.before, field.after) for field in change.fields) == ("/currentIteration", 3, 1)


def test_a_name_given_is_told_with_the_revision_it_meant(state: State) -> None:
    state.checkpoint("one", "start")
    advance(state)
    change = state.rollback("one", to="checkpoint/one/start")
    assert change.summary.startswith("rollback one to checkpoint/one/start (")


def test_a_step_is_one_change_that_the_log_of_the_loop_lists(state: State) -> None:
    advance(state)
    state.create_loop("Second", "done", loop_id="two", pid=None)
    state.update_loop("two", {"note": 1})
    state.rollback("one", steps=1)
    assert found(state)["currentIteration"] == 2
    state.rollback("one", steps=3)  # the rollback itself is one, then 3 and 2
    assert found(state)["currentIteration"] == 1


def test_rolling_back_to_a_moment(state: State, clock: FakeClock) -> None:
    advance(state, 1)
    moment = clock.now()
    clock.advance(minutes=1)
    state.update_loop("one", {"currentIteration": 9})
    state.rollback("one", to=moment)
    assert found(state)["currentIteration"] == 1


@pytest.mark.parametrize("given", [{}, {"to": "HEAD", "steps": 1}])
def test_exactly_one_of_to_and_steps_is_wanted(state: State, given: Any) -> None:
    for call in (lambda: state.rollback("one", **given), lambda: state.rollback_registry(**given)):
        with pytest.raises(InvalidInputError, match="exactly one of to and steps") as caught:
            call()
        assert caught.value.hint == "give --to REV or --steps N"


@pytest.mark.parametrize("steps", [0, -1, 1.5, "1", True, 99])
def test_steps_are_a_number_from_1_to_as_many_as_there_are(state: State, steps: Any) -> None:
    before = state.revision()
    with pytest.raises(InvalidInputError):
        state.rollback("one", steps=steps)
    assert state.revision() == before


def test_before_it_was_created_there_is_nothing_to_go_back_to(state: State) -> None:
    advance(state)
    for target in ({"to": "HEAD~4"}, {"steps": 4}):
        with pytest.raises(RevisionNotFoundError, match="one was not there") as caught:
            state.rollback("one", **target)  # type: ignore[arg-type]
        assert caught.value.hint == "gitstate log one"


def test_rolling_back_to_where_things_are_is_no_commit(state: State) -> None:
    state.update_loop("one", {"status": "paused"})
    before = state.revision()
    change = state.rollback("one", to="HEAD")
    assert (change.revision, change.fields, state.last_change, state.revision()) == (None, (), None, before)


# --- what is put back ------------------------------------------------------------------------------------------------


def test_fields_come_back_go_away_and_change(state: State) -> None:
    state.update_loop("one", {"status": "paused", "kept": 1, "gone": {"a": 1}, "changed": [1]})
    before = own(found(state))
    state.update_loop("one", {"new": 1, "changed": [1, 2]}, remove=["gone"])
    state.record_iteration("one", {"learnings": "x", "filesModified": ["f"]})
    state.rollback("one", steps=2)
    assert own(found(state)) == before


def test_identity_process_and_stamp_are_never_touched(state: State, clock: FakeClock) -> None:
    state.update_loop_pid("one", dead_pid())
    state.update_loop("one", {"status": "paused"})
    state.update_loop_pid("one", "self")
    before = found(state)
    clock.advance(hours=1)
    state.rollback("one", steps=3)
    after = found(state)
    for key in ("loopId", "version", "startTime", "sessionId", "currentPid"):
        assert after[key] == before[key]
    assert after["gitstate"]["process"] == before["gitstate"]["process"]
    assert after["gitstate"]["revision"] == before["gitstate"]["revision"] + 1
    assert after["lastUpdate"] == "2026-06-15T14:00:00.000Z"


def test_the_registry_follows_and_its_totals_stay(state: State) -> None:
    state.create_loop("Second", "done", loop_id="two", pid=None)
    state.update_loop("one", {"status": "paused", "currentIteration": 3, "maxIterations": 5})
    state.archive_loop("two")
    totals = {key: item for key, item in state.load_registry().items() if key.startswith("total")}
    state.rollback("one", to="HEAD~2")
    (entry,) = state.list_active_loops()
    assert (entry["status"], entry["iteration"], entry["max_iterations"]) == ("paused", 0, 10)
    assert {key: item for key, item in state.load_registry().items() if key.startswith("total")} == totals


def test_the_entry_s_own_fields_are_the_registry_s_affair(state: State) -> None:
    state.update_loop("one", {"note": 1})
    state.update_entry("one", owner="somebody")
    state.rollback("one", steps=2)
    assert state.list_active_loops()[0]["owner"] == "somebody"


@pytest.mark.parametrize("status", ["running", "completing"])
@pytest.mark.parametrize("driver", ["nobody", "dead", "self"])
def test_what_was_driven_comes_back_paused_unless_its_present_process_lives(
    state: State, status: str, driver: str
) -> None:
    state.update_loop("one", {"status": status, "note": 1})
    state.update_loop("one", {"status": "failed", "note": 2})
    pid: Any = {"nobody": None, "dead": dead_pid(), "self": "self"}[driver]
    state.update_loop_pid("one", pid)
    state.rollback("one", to="HEAD~2" if driver != "nobody" else "HEAD~1")
    assert found(state)["status"] == (status if driver == "self" else "paused")
    assert found(state)["note"] == 1


@pytest.mark.parametrize("status", ["waiting", "completed", "failed", "crashed", "limit_reached"])
def test_any_other_status_comes_back_as_it_was(state: State, status: str) -> None:
    state.update_loop("one", {"status": status})
    state.update_loop("one", {"status": "paused"})
    state.rollback("one", steps=1)
    assert found(state)["status"] == status


def test_another_s_loops_are_left_alone(state: State) -> None:
    state.create_loop("Second", "done", loop_id="two", pid=None)
    state.update_loop("two", {"note": 1})
    state.update_loop("one", {"note": 1})
    before = found(state, "two")
    state.rollback("one", to="HEAD~2")
    assert found(state, "two") == before


def test_a_loop_can_be_rolled_back_to_when_it_was_archived(state: State) -> None:
    state.update_loop("one", {"status": "completed", "note": 1})
    state.archive_loop("one")
    state.restore_loop("one")
    state.update_loop("one", {"note": 2})
    state.rollback("one", to="archive/one")
    assert (found(state)["status"], found(state)["note"]) == ("completed", 1)
    assert state.list_active_loops()[0]["loop_id"] == "one"


def test_an_archived_loop_is_not_rolled_back(state: State) -> None:
    advance(state)
    state.archive_loop("one")
    with pytest.raises(LoopNotFoundError, match="archived, not active") as caught:
        state.rollback("one", steps=2)
    assert caught.value.hint == "gitstate restore one"


def test_corrupted_content_can_be_rolled_back(state: State) -> None:
    """What is valid, but nonsense, was adopted; rollback is how to get rid of it."""
    state.record_iteration("one", {"learnings": "worth keeping"})
    before = own(found(state))
    path = state.get_loop_dir("one") / "session-state.json"
    path.write_text(json.dumps({"status": "paused", "loopId": "one", "iterations": [], "nonsense": [[[]]]}))
    state.rollback("one", to=state.revision())
    del before["currentPid"]  # of the present process nothing is said, and nothing is brought back
    assert own(found(state)) == {**before, "status": "paused"}
    assert [change.operation for change in state.log("one", limit=2)] == ["rollback", "adopt"]


# --- who may ---------------------------------------------------------------------------------------------------------


def test_rolling_back_is_refused_while_another_live_process_drives_the_loop(state: State) -> None:
    advance(state)
    with live_process() as pid:
        state.update_loop_pid("one", pid)
        before = state.revision()
        for call in (
            lambda: state.rollback("one", steps=2),
            lambda: state.rollback("one", steps=2, dry_run=True),
            lambda: state.rollback_all(to="HEAD~2"),
            lambda: state.undo("one"),
        ):
            with pytest.raises(RefusedError, match=f"process {pid}") as caught:
                call()
            assert (caught.value.pid, caught.value.loop_id) == (pid, "one")
        assert state.revision() == before
        state.rollback("one", steps=2, force=True)
        assert (found(state)["currentIteration"], found(state)["currentPid"]) == (2, pid)


def test_the_process_that_drives_it_may_roll_it_back(state: State) -> None:
    advance(state)
    state.update_loop_pid("one", os.getpid())
    state.rollback("one", steps=2)
    assert found(state)["currentIteration"] == 2


# --- a plan ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda state, **dry: state.rollback("one", steps=2, **dry),
        lambda state, **dry: state.rollback_all(to="HEAD~3", **dry),
        lambda state, **dry: state.rollback_registry(to="HEAD~3", **dry),
        lambda state, **dry: state.undo("one", **dry),
    ],
    ids=["one", "all", "registry", "undo"],
)
def test_a_dry_run_is_the_plan_of_what_would_be_done_and_writes_nothing(state: State, call: Callable[..., Any]) -> None:
    state.set_max_concurrent_loops(9)
    advance(state)
    state.set_max_concurrent_loops(5)
    before = listing(state.base_dir)
    plan = call(state, dry_run=True)
    assert listing(state.base_dir) == before
    assert (plan.revision, plan.parent, plan.generation) == (None, state.revision(), None)
    change = call(state)
    assert change.revision is not None
    assert (plan.operation, plan.loop_ids, plan.summary, plan.fields) == (
        change.operation, change.loop_ids, change.summary, change.fields,
    )  # fmt: skip


# --- all, and the registry -------------------------------------------------------------------------------------------


def test_all_active_loops_and_the_registry_go_back_in_one_commit(state: State) -> None:
    state.create_loop("Second", "done", loop_id="two", pid=None, tags=["t"])
    target = state.revision() or ""
    state.update_loop("one", {"note": 1})
    state.update_loop("two", {"note": 2, "currentIteration": 5})
    state.update_entry("two", tags=["other"], priority="low")
    state.set_max_concurrent_loops(9)
    before = len(list(state.log()))
    change = state.rollback_all(to=target, reason="start over")
    assert len(list(state.log())) == before + 1
    assert (change.operation, change.loop_ids, change.reason) == ("rollback", ("one", "two"), "start over")
    assert ("note" in found(state, "one"), "note" in found(state, "two"), found(state, "two")["currentIteration"]) == (
        False, False, 0,
    )  # fmt: skip
    assert (state.list_active_loops()[1]["tags"], state.list_active_loops()[1]["priority"]) == (["t"], "medium")
    assert state.load_registry()["max_concurrent_loops"] == 4


def test_loops_that_the_target_lacks_or_that_are_archived_now_are_left_alone_and_named(state: State) -> None:
    state.create_loop("Second", "done", loop_id="two", pid=None)
    target = state.revision() or ""
    state.update_loop("one", {"note": 1})
    state.create_loop("Third", "done", loop_id="three", pid=None)
    state.update_loop("three", {"note": 3})
    state.archive_loop("two", status="completed")
    change = state.rollback_all(to=target)
    assert change.summary.endswith("left alone: three, two")
    assert change.loop_ids == ("one",)
    assert found(state, "three")["note"] == 3
    assert sorted(entry["loop_id"] for entry in state.list_active_loops()) == ["one", "three"]
    assert (state.load_registry()["total_active"], state.load_registry()["total_completed"]) == (2, 1)


def test_the_registry_goes_back_where_only_it_knows(state: State) -> None:
    path = state.registry_path
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "unknown": {"a": 1}}))
    state.update_entry("one", owner="x", priority="high", tags=["a"])
    state.set_max_concurrent_loops(7)
    target = state.revision() or ""
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "unknown": {"a": 2}, "another": 1}))
    state.update_entry("one", owner="y", priority="low", tags=[])
    state.set_max_concurrent_loops(2)
    state.update_loop("one", {"status": "failed", "currentIteration": 3})
    state.create_loop("Second", "done", loop_id="two", pid=None)
    before = dict(state.load_registry())
    change = state.rollback_registry(to=target)
    after: dict[str, Any] = dict(state.load_registry())
    assert (change.operation, change.loop_ids) == ("rollback", ())
    assert (after["max_concurrent_loops"], after["unknown"], "another" in after) == (7, {"a": 1}, False)
    one, two = after["active_loops"]
    assert (one["owner"], one["priority"], one["tags"]) == ("x", "high", ["a"])
    assert (one["status"], one["iteration"], two["loop_id"]) == ("failed", 3, "two")
    assert {key: after[key] for key in ("version", "total_active", "total_completed", "total_aborted")} == {
        key: before[key] for key in ("version", "total_active", "total_completed", "total_aborted")
    }


def test_the_registry_s_steps_are_those_of_the_whole_log(state: State) -> None:
    state.set_max_concurrent_loops(7)
    state.update_loop("one", {"note": 1})
    state.rollback_registry(steps=2)
    assert state.load_registry()["max_concurrent_loops"] == 4
    assert found(state)["note"] == 1


# --- and back again --------------------------------------------------------------------------------------------------


def test_a_rollback_can_be_undone(state: State) -> None:
    advance(state)
    before = own(found(state))
    state.rollback("one", steps=2)
    state.undo("one")
    assert own(found(state)) == before
    state.undo("one")
    assert found(state)["currentIteration"] == 1


def test_a_rollback_of_all_can_be_undone_for_each_loop(state: State) -> None:
    state.create_loop("Second", "done", loop_id="two", pid=None)
    target = state.revision() or ""
    state.update_loop("one", {"note": 1})
    state.update_loop("two", {"note": 2})
    state.update_entry("two", owner="x")
    revision = state.rollback_all(to=target).revision
    state.undo("two", revision=revision)
    assert (found(state, "two")["note"], "note" in found(state, "one")) == (2, False)
    assert [entry["owner"] for entry in state.list_active_loops()] == ["user:alice", "x"]
    state.undo("one", revision=revision)
    assert found(state, "one")["note"] == 1


def test_the_original_goes_on_after_a_rollback(state: State) -> None:
    advance(state)
    state.rollback("one", steps=2)
    Original(state.project_root).update_loop("one", currentIteration=8)
    assert found(state)["currentIteration"] == 8
