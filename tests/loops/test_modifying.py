"""Reading, deciding and writing in one step."""

from __future__ import annotations

from typing import Any

import pytest
from listings import contents

import gitstate
from gitstate import InvalidInputError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def test_modifying_reads_decides_and_writes_in_one_step(state: State, one: str) -> None:
    seen: list[object] = []

    def function(record: gitstate.LoopState) -> dict[str, object]:
        seen.append(record["maxIterations"])
        return {"maxIterations": record["maxIterations"] + 1}

    assert state.modify_loop(one, function)["maxIterations"] == 11
    assert seen == [10]


def test_modifying_gets_a_copy(state: State, one: str) -> None:
    def function(record: gitstate.LoopState) -> None:
        record["status"] = "failed"
        record["config"]["model"] = "none"

    assert state.modify_loop(one, function)["status"] == "running"
    assert state.last_change is None


def test_modifying_may_return_the_whole_copy(state: State, one: str) -> None:
    def function(record: gitstate.LoopState) -> gitstate.LoopState:
        record["status"] = "paused"
        return record

    assert state.modify_loop(one, function)["status"] == "paused"


def test_modifying_with_none_changes_nothing(state: State, one: str) -> None:
    before = state.revision()
    assert state.modify_loop(one, lambda record: None) == state.get_loop(one)
    assert state.revision() == before


def test_what_the_function_raises_passes_through_and_nothing_is_written(state: State, one: str) -> None:
    before = contents(state.base_dir)
    error = ZeroDivisionError("of my own")

    def function(record: gitstate.LoopState) -> None:
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        state.modify_loop(one, function)
    assert caught.value is error
    assert contents(state.base_dir) == before
    assert state.lease_info() is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (["status"], gitstate.InvalidRecordError),
        (5, gitstate.InvalidRecordError),
        ({"status": "success"}, InvalidInputError),
        ({"x": float("nan")}, gitstate.InvalidRecordError),
        ({"x": {1}}, gitstate.InvalidRecordError),
    ],
)
def test_a_bad_answer_is_refused_and_the_lease_given_back(
    state: State, one: str, answer: Any, kind: type[Exception]
) -> None:
    before = state.revision()
    with pytest.raises(kind):
        state.modify_loop(one, lambda record: answer)
    assert (state.revision(), state.lease_info()) == (before, None)


def test_the_function_may_read(state: State, one: str) -> None:
    state.modify_loop(
        one, lambda record: {"seen": state.get_loop(one)["status"], "loops": len(state.list_active_loops())}
    )
    found: dict[str, Any] = dict(state.get_loop(one))
    assert (found["seen"], found["loops"]) == ("running", 1)
