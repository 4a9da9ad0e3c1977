"""What a name means that somebody types."""

from __future__ import annotations

import pytest
from clocks import FakeClock

import gitstate
from gitstate import LoopNotFoundError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> State:
    """One for all: asking for a name changes nothing."""
    state = StateRepository(tmp_path_factory.mktemp("named"), actor="user:alice", clock=FakeClock())
    for loop_id in ("ralph-fix-tests-a1b2c3d4", "ralph-fix-build-a1ffffff", "cart-refactor"):
        state.create_loop("x", "done", loop_id=loop_id, pid=None)
    return state


@pytest.mark.parametrize(
    ("text", "loop_id"),
    [
        ("ralph-fix-tests-a1b2c3d4", "ralph-fix-tests-a1b2c3d4"),
        ("ralph-fix-t", "ralph-fix-tests-a1b2c3d4"),
        ("fix-b", "ralph-fix-build-a1ffffff"),
        ("a1b2", "ralph-fix-tests-a1b2c3d4"),
        ("a1ffffff", "ralph-fix-build-a1ffffff"),
        ("cart", "cart-refactor"),
    ],
)
def test_a_unique_beginning_of_an_id_or_of_its_parts_means_the_loop(named: State, text: str, loop_id: str) -> None:
    assert named.resolve_loop_id(text) == loop_id


@pytest.mark.parametrize(
    "text", ["fix", "a1b", "car", "tests", "refactor", "refa", "c3d4", "", "..", "a1b2c3d4x", "\0"]
)
def test_what_is_too_short_or_no_beginning_is_not_found(named: State, text: str) -> None:
    with pytest.raises(LoopNotFoundError) as caught:
        named.resolve_loop_id(text)
    assert not isinstance(caught.value, gitstate.AmbiguousLoopError)


def test_what_fits_several_loops_lists_them(named: State) -> None:
    with pytest.raises(gitstate.AmbiguousLoopError) as caught:
        named.resolve_loop_id("ralph")
    assert caught.value.candidates == ("ralph-fix-build-a1ffffff", "ralph-fix-tests-a1b2c3d4")


def test_an_exact_id_is_never_ambiguous(state: State, one: str) -> None:
    state.create_loop("x", "done", loop_id="one-more", pid=None)
    assert state.resolve_loop_id("one") == "one"


def test_archived_loops_are_meant_when_no_active_one_fits(state: State) -> None:
    for loop_id in ("ralph-fix-tests-a1b2c3d4", "ralph-fix-build-a1ffffff"):
        state.create_loop("x", "done", loop_id=loop_id, pid=None)
    state.archive_loop("ralph-fix-tests-a1b2c3d4")
    assert state.resolve_loop_id("ralph-fix") == "ralph-fix-build-a1ffffff"
    assert state.resolve_loop_id("fix-tests") == "ralph-fix-tests-a1b2c3d4"


def test_everything_else_takes_exact_ids(named: State) -> None:
    with pytest.raises(LoopNotFoundError, match="did you mean cart-refactor"):
        named.get_loop("cart-refacto")
