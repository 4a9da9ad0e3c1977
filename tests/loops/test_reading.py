"""Reading loops: as they are, as they were, and from all sides."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from clocks import FakeClock
from one_loop import edit, entry
from original import Original

import gitstate
from gitstate import LoopNotFoundError, StateRepository, UnknownStatusWarning

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


# --- reading ---------------------------------------------------------------------------------------------------------


def test_records_are_fresh_copies(state: State, one: str) -> None:
    first: dict[str, Any] = dict(state.get_loop(one))
    first["config"]["model"] = "changed"
    first["iterations"].append({})
    state.load_registry()["active_loops"].clear()
    state.list_active_loops()[0]["tags"].append("changed")
    state.update_entry(one, priority="high")["tags"].append("changed")
    assert state.get_loop(one)["config"]["model"] == "opus"
    assert state.get_loop(one)["iterations"] == []
    assert entry(state, one)["tags"] == []


def test_what_a_mutation_returns_is_what_is_stored(state: State, one: str) -> None:
    assert state.update_loop(one, {"note": "x"}) == state.get_loop(one)
    assert state.update_entry(one, owner="x") == entry(state, one)
    assert state.set_max_concurrent_loops(9) == state.load_registry()
    assert state.record_iteration(one, {}) == state.get_loop(one)


def test_an_archived_loop_is_still_readable(state: State, one: str) -> None:
    before = state.get_loop(one)
    state.archive_loop(one)
    assert state.get_loop(one) == before
    assert state.report(one).entry is None


def test_a_loop_is_read_as_it_was_at_a_revision_or_a_moment(state: State, one: str, clock: FakeClock) -> None:
    moment = clock.now()
    revision = state.revision() or ""
    clock.advance(hours=1)
    state.update_loop(one, {"status": "paused"})
    assert state.get_loop(one)["status"] == "paused"
    assert state.get_loop(one, at=revision)["status"] == "running"
    assert state.get_loop(one, at="HEAD~1")["status"] == "running"
    assert state.get_loop(one, at=moment)["status"] == "running"
    assert state.get_loop(one, at=clock.now() - timedelta(seconds=1))["status"] == "running"
    assert state.get_loop(one, at=clock.now())["status"] == "paused"
    assert state.load_registry(at=moment)["active_loops"][0]["status"] == "running"


def test_a_loop_that_was_not_there_then_is_not_found_then(state: State, one: str) -> None:
    with pytest.raises(LoopNotFoundError):
        state.get_loop(one, at="HEAD~1")


def test_an_archived_loop_is_read_as_it_was_while_active(state: State, one: str) -> None:
    state.update_loop(one, {"status": "completed"})
    state.archive_loop(one)
    assert state.get_loop(one, at="HEAD~2")["status"] == "running"


def test_what_was_read_before_somebody_wrote_can_be_read_to_the_end(state: State, one: str) -> None:
    """A view taken before a file was replaced is answered from history: never torn, never with a strange error."""
    view = state._view()
    state.update_loop(one, {"note": "meanwhile"})
    assert "note" not in view.find(one)[1]


def test_an_unknown_status_is_read_with_a_warning_that_points_here(state: State, one: str) -> None:
    edit(state, one, status="success")
    with pytest.warns(UnknownStatusWarning, match="one has the status 'success'") as caught:
        assert state.get_loop(one)["status"] == "success"
    assert [warning.filename for warning in caught] == [__file__]


def test_an_unknown_status_is_carried_along_by_a_change_of_another_field(state: State, one: str) -> None:
    edit(state, one, status="success")
    assert state.update_loop(one, {"note": 1})["status"] == "success"


def test_damage_is_seen_through_with_a_warning_even_beside_an_edit(state: State, one: str) -> None:
    state.create_loop("another", "done", loop_id="two", pid=None)
    edit(state, one, note="by hand")
    path = state.get_loop_dir("two") / "session-state.json"
    raw = path.read_bytes()
    path.write_bytes(b"")
    with pytest.warns(gitstate.DamageWarning, match="two/session-state.json: empty, served from") as caught:
        assert state.get_loop("two") == json.loads(raw)
    assert [warning.filename for warning in caught] == [__file__]
    assert {finding.code for finding in state.check()} == {"file_damaged", "outside_edit"}
    path.write_bytes(raw)


def test_records_read_at_one_revision_are_consistent(state: State, one: str) -> None:
    for number in range(1, 4):
        state.update_loop(one, {"currentIteration": number})
    for change in state.log(one):
        assert change.revision is not None
        at = change.revision
        assert (
            state.load_registry(at=at)["active_loops"][0]["iteration"] == state.get_loop(one, at=at)["currentIteration"]
        )


# --- looking around --------------------------------------------------------------------------------------------------


def test_the_overview_tells_of_loops_slots_and_the_archive(state: State, one: str) -> None:
    state.create_loop("another", "done", loop_id="two")
    state.archive_loop("two", status="completed")
    overview = state.status()
    assert [report.state["loopId"] for report in overview.loops] == [one]
    assert (overview.slots_used, overview.slots_max, overview.archived) == (1, 4, 1)
    assert (overview.findings, overview.lease) == ([], None)
    assert overview.size_bytes > 1000


def test_a_report_shows_a_loop_from_all_sides(state: State, one: str) -> None:
    state.update_loop(one, {"note": 1})
    report = state.report(one)
    assert report.entry == entry(state, one)
    assert report.state == state.get_loop(one)
    assert report.liveness.verdict == "none"
    assert report.last_change is not None
    assert report.last_change.revision == state.revision(one)


def test_the_newest_revision_of_a_loop_is_the_newest_that_touched_it(state: State, one: str) -> None:
    mine = state.revision()
    state.create_loop("another", "done", loop_id="two", pid=None)
    assert state.revision(one) == mine
    assert state.revision("two") == state.revision() != mine


def test_the_original_reads_what_gitstate_wrote_and_gitstate_what_it_writes(state: State, one: str) -> None:
    original = Original(state.project_root)
    original.update_loop(one, status="paused", currentIteration=3)
    assert state.get_loop(one)["currentIteration"] == 3
    assert state.update_loop(one, {"note": 1})["currentIteration"] == 3
    assert entry(state, one)["iteration"] == 3
