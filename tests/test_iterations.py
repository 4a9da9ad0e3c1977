"""Recording iterations and amending them, with what derives from them: learnings, files, the current number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from listings import listing

from gitstate import InvalidInputError, InvalidRecordError, LoopNotFoundError, RefusedError, StateRepository
from gitstate.iterations import section

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture
def state(project: Path) -> Iterator[State]:
    with StateRepository(project, actor="user:alice", clock=FakeClock()) as repository:
        repository.create_loop("Fix", "it is fixed", loop_id="one", pid=None)
        yield repository


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> State:
    """One for all tests of refusals: nothing changes it, which is what they look for."""
    state = StateRepository(tmp_path_factory.mktemp("untouched"), actor="user:alice", clock=FakeClock())
    state.create_loop("Fix", "it is fixed", loop_id="one", pid=None)
    for _ in range(3):
        state.record_iteration("one", {})
    return state


def found(state: State) -> dict[str, Any]:
    return dict(state.get_loop("one"))


def edit(state: State, **changes: object) -> None:
    path = state.get_loop_dir("one") / "session-state.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}, indent=2))


# --- recording -------------------------------------------------------------------------------------------------------


def test_a_record_is_appended_as_it_is(state: State) -> None:
    record = {"number": 1, "status": "failed", "duration": 12.5, "cost": {"usd": 0.2}, "unknown": [None]}
    assert state.record_iteration("one", record)["iterations"] == [record]


def test_a_record_without_a_number_gets_the_next(state: State) -> None:
    for expected in (1, 2):
        assert state.record_iteration("one", {"status": "x"})["iterations"][-1] == {"number": expected, "status": "x"}
    state.record_iteration("one", {"number": 7})
    assert state.record_iteration("one", {})["iterations"][-1]["number"] == 8


def test_the_next_number_follows_the_current_iteration_too(state: State) -> None:
    state.update_loop("one", {"currentIteration": 4})
    assert state.record_iteration("one", {})["iterations"] == [{"number": 5}]


def test_the_current_iteration_never_falls(state: State) -> None:
    state.record_iteration("one", {"number": 5})
    assert found(state)["currentIteration"] == 5
    state.record_iteration("one", {"number": 3})
    assert found(state)["currentIteration"] == 5
    assert [item["number"] for item in found(state)["iterations"]] == [5, 3]


def test_the_registry_follows_the_current_iteration(state: State) -> None:
    state.record_iteration("one", {"number": 5})
    assert state.list_active_loops()[0]["iteration"] == 5


def test_an_iteration_is_one_commit_that_says_which(state: State) -> None:
    state.record_iteration("one", {"number": 3, "status": "failed", "progress": "two tests\nleft"}, reason="because")
    change = state.show("HEAD")
    assert (change.operation, change.reason) == ("iterate", "because")
    assert change.summary == "iterate one: iteration 3 of 10, failed, two tests\\nleft"


def test_the_same_record_again_changes_nothing(state: State) -> None:
    record = {"number": 1, "learnings": ["a"], "filesModified": ["x"], "cost": 1}
    stored = state.record_iteration("one", record)
    before = state.revision()
    assert state.record_iteration("one", {**record, "cost": 1.0}) == stored
    assert state.revision() == before
    assert state.last_change is None


@pytest.mark.parametrize("other", [{"number": 1}, {"number": 1, "cost": 2}, {"number": 1, "cost": 1, "more": None}])
def test_another_record_of_a_recorded_number_is_refused_with_what_to_use(
    state: State, other: dict[str, object]
) -> None:
    state.record_iteration("one", {"number": 1, "cost": 1})
    before = state.revision()
    with pytest.raises(RefusedError, match="iteration 1") as caught:
        state.record_iteration("one", other)
    assert caught.value.hint == "gitstate amend one 1 FILE"
    assert (caught.value.number, state.revision()) == (1, before)


@pytest.mark.parametrize("learnings", ["Mind the gap.", ["Mind the gap."], ["", "Mind the gap.", ""]])
def test_learnings_are_a_text_or_a_list_of_texts(state: State, learnings: object) -> None:
    state.record_iteration("one", {"number": 4, "learnings": learnings})
    assert found(state)["accumulatedLearnings"] == "### Iteration 4\nMind the gap."
    assert found(state)["iterations"][0]["learnings"] == learnings


def test_learnings_are_appended_as_sections_a_blank_line_apart(state: State) -> None:
    state.record_iteration("one", {"learnings": ["First.", "Second."]})
    state.record_iteration("one", {"learnings": []})
    state.record_iteration("one", {"learnings": None})
    state.record_iteration("one", {"learnings": ""})
    state.record_iteration("one", {"learnings": "Fifth,\nin two lines."})
    assert found(state)["accumulatedLearnings"] == (
        "### Iteration 1\nFirst.\nSecond.\n\n### Iteration 5\nFifth,\nin two lines."
    )


def test_learnings_follow_what_somebody_wrote_there(state: State) -> None:
    state.update_loop("one", {"accumulatedLearnings": "By hand."})
    state.record_iteration("one", {"learnings": "New."})
    assert found(state)["accumulatedLearnings"] == "By hand.\n\n### Iteration 1\nNew."


def test_files_are_the_union_in_order_of_first_appearance(state: State) -> None:
    state.record_iteration("one", {"filesModified": ["b", "a", "b"]})
    state.record_iteration("one", {"filesModified": ["c", "a"]})
    state.record_iteration("one", {})
    assert found(state)["filesModified"] == ["b", "a", "c"]


@pytest.mark.parametrize(
    "record",
    [
        {"number": 0},
        {"number": -1},
        {"number": 1.5},
        {"number": "1"},
        {"number": True},
        {"number": None},
        {"number": 2**53},
        {"number": float("nan")},
        {"learnings": 5},
        {"learnings": {"a": "b"}},
        {"learnings": ["a", 5]},
        {"filesModified": "a"},
        {"filesModified": [None]},
        {"cost": float("inf")},
        {"raw": b"bytes"},
        {1: 2},
        [],
        "text",
        None,
    ],
    ids=repr,
)
def test_a_record_that_cannot_be_is_refused_before_anything_is_locked(untouched: State, record: Any) -> None:
    before = listing(untouched.base_dir)
    with pytest.raises(InvalidInputError):
        untouched.record_iteration("one", record)
    assert listing(untouched.base_dir) == before


def test_a_record_keeps_what_it_was_given_though_the_caller_changes_it(state: State) -> None:
    learnings = ["a"]
    record: dict[str, Any] = {"learnings": learnings}
    with state.transaction() as tx:
        tx.record_iteration("one", record)
        learnings.append("b")
        record["late"] = True
    assert found(state)["iterations"] == [{"number": 1, "learnings": ["a"]}]


def test_what_is_no_record_among_the_iterations_is_carried_along(state: State) -> None:
    edit(state, iterations=["by another hand", None, {"n": 1}])
    state.record_iteration("one", {"learnings": "x"})
    state.amend_iteration("one", 1, {"learnings": "y"})
    assert found(state)["iterations"] == ["by another hand", None, {"n": 1}, {"number": 1, "learnings": "y"}]


def test_a_loop_of_the_original_s_without_derived_fields_gets_them(state: State) -> None:
    path = state.get_loop_dir("one") / "session-state.json"
    record = json.loads(path.read_bytes())
    for key in ("iterations", "accumulatedLearnings", "filesModified", "currentIteration"):
        del record[key]
    path.write_text(json.dumps(record))
    state.record_iteration("one", {"learnings": "x", "filesModified": ["f"]})
    after = found(state)
    assert (after["currentIteration"], after["filesModified"]) == (1, ["f"])
    assert after["accumulatedLearnings"] == "### Iteration 1\nx"


def test_an_archived_loop_takes_no_iterations(state: State) -> None:
    state.archive_loop("one")
    with pytest.raises(LoopNotFoundError, match="archived"):
        state.record_iteration("one", {})
    with pytest.raises(LoopNotFoundError, match="archived"):
        state.amend_iteration("one", 1, {})


# --- amending --------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(state: State) -> State:
    state.record_iteration("one", {"learnings": ["One."], "filesModified": ["a", "b"], "status": "failed"})
    state.record_iteration("one", {"learnings": ["Two."], "filesModified": ["b", "c"]})
    state.record_iteration("one", {"learnings": ["Three."], "filesModified": ["d"]})
    return state


def test_amending_replaces_fields_of_one_record(three: State) -> None:
    before = found(three)["iterations"]
    three.amend_iteration("one", 1, {"status": "passed", "note": {"x": 1}})
    after = found(three)["iterations"]
    assert after == [{**before[0], "status": "passed", "note": {"x": 1}}, *before[1:]]


def test_amending_says_what_changed(three: State) -> None:
    three.amend_iteration("one", 1, {"status": "passed"})
    assert three.show("HEAD").summary == "amend one: iteration 1, status failed → passed"


def test_amending_recomputes_the_learnings_where_they_stand(three: State) -> None:
    three.amend_iteration("one", 2, {"learnings": ["Two, better.", "And more."]})
    assert found(three)["accumulatedLearnings"] == (
        "### Iteration 1\nOne.\n\n### Iteration 2\nTwo, better.\nAnd more.\n\n### Iteration 3\nThree."
    )


@pytest.mark.parametrize("nothing", [[], "", None])
def test_amending_can_forget(three: State, nothing: object) -> None:
    three.amend_iteration("one", 2, {"learnings": nothing})
    assert found(three)["accumulatedLearnings"] == "### Iteration 1\nOne.\n\n### Iteration 3\nThree."
    three.amend_iteration("one", 1, {"learnings": []})
    three.amend_iteration("one", 3, {"learnings": []})
    assert found(three)["accumulatedLearnings"] == ""


def test_amending_leaves_alone_what_somebody_wrote_between(three: State) -> None:
    text = found(three)["accumulatedLearnings"].replace("Three.", "Three.\n\nBy hand.") + "\n\nMore by hand."
    three.update_loop("one", {"accumulatedLearnings": text})
    three.amend_iteration("one", 2, {"learnings": []})
    assert found(three)["accumulatedLearnings"] == (
        "### Iteration 1\nOne.\n\n### Iteration 3\nThree.\n\nBy hand.\n\nMore by hand."
    )
    three.amend_iteration("one", 3, {"learnings": ["New."]})
    assert found(three)["accumulatedLearnings"] == (
        "### Iteration 1\nOne.\n\n### Iteration 3\nNew.\n\nBy hand.\n\nMore by hand."
    )


def test_amending_appends_where_the_old_section_is_not_to_be_found(three: State) -> None:
    three.update_loop("one", {"accumulatedLearnings": "Rewritten."})
    three.amend_iteration("one", 2, {"learnings": ["Again."]})
    assert found(three)["accumulatedLearnings"] == "Rewritten.\n\n### Iteration 2\nAgain."


def test_amending_recomputes_the_files(three: State) -> None:
    three.amend_iteration("one", 2, {"filesModified": ["e"]})
    assert found(three)["filesModified"] == ["a", "b", "d", "e"]  # b is still iteration 1's
    three.amend_iteration("one", 1, {"filesModified": []})
    assert found(three)["filesModified"] == ["d", "e"]


def test_amending_keeps_files_that_no_iteration_named(three: State) -> None:
    three.update_loop("one", {"filesModified": ["by hand", "a", "b", "c", "d"]})
    three.amend_iteration("one", 3, {"filesModified": ["f"]})
    assert found(three)["filesModified"] == ["by hand", "a", "b", "c", "f"]


def test_amending_with_what_is_there_changes_nothing(three: State) -> None:
    before = three.revision()
    three.amend_iteration("one", 1, {"status": "failed", "number": 1})
    assert three.revision() == before


def test_amending_keeps_the_number(three: State) -> None:
    with pytest.raises(InvalidInputError, match="keeps its number"):
        three.amend_iteration("one", 1, {"number": 2})


def test_amending_an_iteration_that_is_not_there_says_which_are(three: State) -> None:
    with pytest.raises(InvalidInputError, match=r"no iteration 7 \(the latest recorded: 1, 2, 3\)") as caught:
        three.amend_iteration("one", 7, {})
    assert caught.value.hint == "gitstate cat one"


@pytest.mark.parametrize("number", [0, -1, 1.5, "1", None, True])
def test_amending_wants_a_number_from_1(untouched: State, number: Any) -> None:
    with pytest.raises(InvalidInputError, match="number"):
        untouched.amend_iteration("one", number, {})


@pytest.mark.parametrize("changes", [{"learnings": 5}, {"filesModified": "x"}, [], {"x": float("nan")}])
def test_amending_wants_what_recording_wants(untouched: State, changes: Any) -> None:
    before = untouched.revision()
    with pytest.raises(InvalidRecordError):
        untouched.amend_iteration("one", 1, changes)
    assert untouched.revision() == before


@pytest.mark.parametrize(
    ("learnings", "text"),
    [
        (None, ""),
        ([], ""),
        (["", ""], ""),
        ("one", "### Iteration 4\none"),
        (["one", "two"], "### Iteration 4\none\ntwo"),
        (["two\nlines"], "### Iteration 4\ntwo\nlines"),
    ],
)
def test_a_section_is_a_heading_and_the_lines(learnings: Any, text: str) -> None:
    assert section({"number": 4, "learnings": learnings}) == text
