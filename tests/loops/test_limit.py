"""How many loops may be active at once."""

from __future__ import annotations

import pytest
from processes import dead_pid

from gitstate import LoopLimitError, LoopLimitWarning, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def fill(state: State, count: int, pid: int | None = None) -> None:
    for number in range(count):
        state.create_loop(f"loop {number}", "done", loop_id=f"loop-{number}", pid=pid)


def test_the_limit_is_refused_in_the_original_s_words(state: State) -> None:
    fill(state, 4)
    before = state.revision()
    with pytest.raises(LoopLimitError) as caught:
        state.create_loop("one too many", "done")
    assert str(caught.value) == (
        "Cannot create loop: 4 loops already active (max: 4).\n"
        "Adding another would create 10 communication paths (REF-088).\n"
        "Use --force to override or complete/abort an existing loop."
    )
    assert (caught.value.active, caught.value.limit, caught.value.paths) == (4, 4, 10)
    assert state.revision() == before


def test_the_hint_at_the_limit_says_how_many_of_the_loops_are_dead(state: State) -> None:
    state.set_max_concurrent_loops(2)
    state.create_loop("alive", "done", loop_id="alive")
    state.create_loop("dead", "done", loop_id="dead", pid=dead_pid())
    with pytest.raises(LoopLimitError) as caught:
        state.create_loop("one too many", "done")
    assert caught.value.hint == "1 of the 2 active loops are dead: gitstate reap --archive"
    assert caught.value.dead == ("dead",)


def test_the_registry_s_own_limit_counts(state: State) -> None:
    assert state.set_max_concurrent_loops(1)["max_concurrent_loops"] == 1
    fill(state, 1)
    with pytest.raises(LoopLimitError, match=r"1 loops already active \(max: 1\)"):
        state.create_loop("one too many", "done")
    state.set_max_concurrent_loops(2)
    state.create_loop("one more", "done")


def test_force_goes_over_the_limit_with_a_warning_that_points_here(state: State) -> None:
    state.set_max_concurrent_loops(1)
    fill(state, 1)
    with pytest.warns(LoopLimitWarning, match="Adding another would create 1 communication paths") as caught:
        state.create_loop("one too many", "done", loop_id="more", force=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert state.load_registry()["total_active"] == 2


def test_a_warning_that_is_an_error_leaves_nothing_behind(state: State) -> None:
    state.set_max_concurrent_loops(1)
    fill(state, 1)
    before = state.revision()
    with pytest.raises(LoopLimitWarning):  # warnings are errors in these tests
        state.create_loop("one too many", "done", force=True)
    assert state.revision() == before


def test_below_the_limit_force_is_idle(state: State, one: str) -> None:
    assert state.create_loop("another", "done", loop_id="two", force=True)["loopId"] == "two"


def test_setting_the_limit_it_has_changes_nothing(state: State) -> None:
    state.set_max_concurrent_loops(4)
    assert state.last_change is None
