"""Changing what a loop's records say, if nobody changed it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from clocks import FakeClock
from one_loop import commits, edit, entry

import gitstate
from gitstate import InvalidInputError, StaleRevisionError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


# --- updating --------------------------------------------------------------------------------------------------------


def test_changes_replace_top_level_keys_and_remove_deletes_them(state: State, one: str) -> None:
    state.update_loop(one, {"note": {"a": 1, "b": 2}, "other": 1})
    updated: dict[str, Any] = dict(state.update_loop(one, {"note": {"c": 3}}, remove=["other", "was-never-there"]))
    assert updated["note"] == {"c": 3}
    assert "other" not in updated


def test_an_update_is_one_commit_of_state_and_registry(state: State, one: str, clock: FakeClock) -> None:
    before = commits(state)
    clock.advance(minutes=5)
    updated = state.update_loop(one, {"status": "paused", "currentIteration": 4, "maxIterations": 20})
    assert commits(state) == before + 1
    assert updated["lastUpdate"] == "2026-06-15T12:05:00.000Z"
    found = entry(state, one)
    assert (found["status"], found["iteration"], found["max_iterations"]) == ("paused", 4, 20)
    assert state.load_registry()["updated_at"] == "2026-06-15T12:05:00.000Z"


def test_an_update_that_changes_nothing_is_no_commit_and_returns_what_is_stored(
    state: State, one: str, clock: FakeClock
) -> None:
    stored = state.get_loop(one)
    before = state.revision()
    clock.advance(minutes=5)
    assert state.update_loop(one, {"status": "running", "maxIterations": 10.0, "lastUpdate": "now"}) == stored
    assert state.update_loop(one, {}, remove=["nothing"]) == stored
    assert (state.revision(), state.last_change) == (before, None)


def test_a_whole_record_can_be_passed_back(state: State, one: str) -> None:
    record: dict[str, Any] = dict(state.get_loop(one))
    record["status"] = "paused"
    assert state.update_loop(one, record)["status"] == "paused"


def test_a_whole_record_with_large_numbers_can_be_passed_back(state: State, one: str) -> None:
    large = {"a": 6.974433521061975e16, "b": 2.0**64, "c": 1e300, "d": 2.0**53}
    state.update_loop(one, large)
    record = state.get_loop(one)
    state.update_loop(one, record)
    assert state.last_change is None
    state.update_loop(one, large)
    assert state.last_change is None


@pytest.mark.parametrize("key", ["loopId", "version", "startTime", "gitstate"])
def test_protected_keys_keep_their_values(state: State, one: str, key: str) -> None:
    before = state.revision()
    present: dict[str, Any] = dict(state.get_loop(one))
    state.update_loop(one, {key: present[key]})
    for call in (
        lambda: state.update_loop(one, {key: "other"}),
        lambda: state.update_loop(one, {}, remove=[key]),
        lambda: state.modify_loop(one, lambda _: {key: "other"}),
    ):
        with pytest.raises(InvalidInputError, match=key) as caught:
            call()
        assert caught.value.path == f"/{key}"
    assert state.revision() == before


def test_any_other_key_is_a_key(state: State, one: str) -> None:
    keys = ["__proto__", "constructor", "", "a.b", "a/b", "~", "\0", "é", "x" * 10_000]
    for key in keys:
        updated: dict[str, Any] = dict(state.update_loop(one, {key: {"x": 1}}))
        assert updated[key] == {"x": 1}
    assert not {*keys} & {*state.update_loop(one, {}, remove=keys)}


def test_unknown_keys_survive_every_rewrite(state: State, one: str) -> None:
    edit(state, one, unknown={"a": [1]}, config={"model": "opus", "unknown": True})
    state.update_loop(one, {"status": "paused"})
    state.record_iteration(one, {"number": 1})
    state.archive_loop(one)
    found: dict[str, Any] = dict(state.restore_loop(one))
    assert (found["unknown"], found["config"]) == ({"a": [1]}, {"model": "opus", "unknown": True})


def test_a_key_cannot_be_set_and_removed_at_once(state: State, one: str) -> None:
    with pytest.raises(InvalidInputError, match="both set and removed"):
        state.update_loop(one, {"note": 1}, remove=["note"])


def test_the_stamp_counts_the_writes_of_a_file(state: State, one: str) -> None:
    for number in range(2, 5):
        assert state.update_loop(one, {"note": number})["gitstate"]["revision"] == number


# --- if_revision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["update", "iterate"])
def test_if_revision_goes_on_when_this_loop_is_as_it_was(state: State, one: str, method: str) -> None:
    revision = state.revision()
    state.create_loop("another", "done", loop_id="two", pid=None)
    state.update_loop("two", {"note": 1})
    if method == "update":
        state.update_loop(one, {"note": 1}, if_revision=revision)
    else:
        state.record_iteration(one, {}, if_revision=revision)
    assert state.last_change is not None


@pytest.mark.parametrize(
    "between",
    [
        lambda state: state.update_loop("one", {"note": 0}),
        lambda state: state.update_entry("one", owner="somebody"),
        lambda state: state.update_loop_pid("one", 12345),
    ],
    ids=["state", "entry", "pid"],
)
def test_if_revision_refuses_when_state_or_entry_changed(
    state: State, one: str, between: Callable[[State], object]
) -> None:
    revision = state.revision()
    between(state)
    after = state.revision()
    for call in (
        lambda: state.update_loop(one, {"note": 1}, if_revision=revision),
        lambda: state.record_iteration(one, {}, if_revision=revision),
    ):
        with pytest.raises(StaleRevisionError) as caught:
            call()
        assert (caught.value.expected, caught.value.actual, caught.value.loop_id) == (revision, after, one)
        assert "gitstate diff" in (caught.value.hint or "")
    assert state.revision() == after


def test_if_revision_takes_any_revision(state: State, one: str, clock: FakeClock) -> None:
    moment = clock.now()
    state.checkpoint(one, "start")
    clock.advance(hours=1)
    for revision in ((state.revision() or "")[:7], "HEAD", "HEAD~1", "main", "checkpoint/one/start", moment):
        assert state.update_loop(one, {}, if_revision=revision) == state.get_loop(one)
    state.update_loop(one, {"note": 0}, if_revision=moment)
    with pytest.raises(StaleRevisionError):
        state.update_loop(one, {"note": 1}, if_revision="HEAD~1")
    with pytest.raises(gitstate.RevisionNotFoundError):
        state.update_loop(one, {"note": 1}, if_revision="nowhere")


def test_if_revision_from_before_the_loop_is_stale(state: State, one: str) -> None:
    with pytest.raises(StaleRevisionError):
        state.update_loop(one, {"note": 1}, if_revision="HEAD~1")


# --- entries ---------------------------------------------------------------------------------------------------------


def test_an_entry_takes_owner_priority_and_tags(state: State, one: str) -> None:
    found = state.update_entry(one, owner="team:docs", priority="high", tags=["a", "b"])
    assert (found["owner"], found["priority"], found["tags"]) == ("team:docs", "high", ["a", "b"])
    assert state.last_change is not None
    assert {change.path for change in state.last_change.fields} == {
        "/active_loops/one/owner", "/active_loops/one/priority", "/active_loops/one/tags/0", "/active_loops/one/tags/1",
    }  # fmt: skip


def test_an_entry_keeps_what_is_left_out(state: State, one: str) -> None:
    state.update_entry(one, owner="x", tags=["a"])
    state.update_entry(one, priority="low")
    found = entry(state, one)
    assert (found["owner"], found["priority"], found["tags"]) == ("x", "low", ["a"])
    state.update_entry(one, tags=[])
    assert entry(state, one)["tags"] == []


def test_an_entry_that_stays_as_it_is_is_no_commit(state: State, one: str) -> None:
    before = state.revision()
    state.update_entry(one)
    state.update_entry(one, priority="medium", owner="user:alice", tags=())
    assert state.revision() == before


def test_an_entry_s_change_leaves_the_session_state_alone(state: State, one: str) -> None:
    before = state.get_loop(one)
    state.update_entry(one, owner="x")
    assert state.get_loop(one) == before
