"""Whose process drives a loop: alive or dead, taken over, and reaped."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from one_loop import commits, edit, elsewhere, entry
from processes import dead_pid, live_process

import gitstate
from gitstate import LoopNotFoundError, RefusedError, StateRepository, process

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


# --- processes -------------------------------------------------------------------------------------------------------


def test_self_is_this_process_and_none_is_nobody(state: State, one: str) -> None:
    assert state.update_loop_pid(one, "self")["currentPid"] == os.getpid()
    assert state.liveness(one).verdict == "alive"
    assert state.is_loop_alive(one)
    assert state.update_loop_pid(one, None)["currentPid"] is None
    assert state.liveness(one) == gitstate.Liveness("none", None, "no process is recorded")
    assert not state.is_loop_alive(one)
    assert entry(state, one)["pid"] is None


def test_the_process_s_identity_is_recorded_with_its_pid(state: State, one: str) -> None:
    with live_process() as pid:
        found = state.update_loop_pid(one, pid)
        assert found["gitstate"]["process"] == process.identity(pid)
        assert state.liveness(one).verdict == "alive"
    assert state.liveness(one).verdict == "dead"
    assert "process" not in state.update_loop_pid(one, None)["gitstate"]


def test_a_pid_that_was_used_again_is_dead(state: State, one: str) -> None:
    found = state.update_loop_pid(one, "self")
    stamp = found["gitstate"]
    edit(state, one, gitstate={**stamp, "process": {**stamp["process"], "startTime": 1}})
    assert state.liveness(one).verdict == "dead"
    assert "used again" in state.liveness(one).reason


@pytest.mark.parametrize("method", ["pid", "resume"])
def test_the_next_process_with_the_same_pid_is_recorded(state: State, one: str, method: str) -> None:
    """After a restart of a container the driver of a loop likely has the very pid that it had before."""
    stamp = state.update_loop_pid(one, "self")["gitstate"]
    edit(state, one, gitstate={**stamp, "process": {**stamp["process"], "startTime": 1}})
    assert not state.is_loop_alive(one)
    if method == "pid":
        state.update_loop_pid(one, "self")
    else:
        state.resume_loop(one)
    assert state.is_loop_alive(one)
    assert state.last_change is not None


def test_an_identity_counts_only_while_its_pid_is_the_current_one(state: State, one: str) -> None:
    found = state.update_loop_pid(one, "self")
    stamp = found["gitstate"]
    edit(state, one, gitstate={**stamp, "process": {**stamp["process"], "pid": 1, "host": "elsewhere"}})
    assert state.liveness(one).verdict == "alive"


def test_another_boot_s_process_is_dead(state: State, one: str) -> None:
    stamp = state.update_loop_pid(one, "self")["gitstate"]
    edit(state, one, gitstate={**stamp, "process": {**stamp["process"], "bootId": "another"}})
    assert state.liveness(one).verdict == "dead"


def test_another_host_s_process_is_neither_alive_nor_crashed(state: State, one: str) -> None:
    elsewhere(state, one)
    assert state.liveness(one).verdict == "foreign"
    assert "elsewhere" in state.liveness(one).reason
    assert not state.is_loop_alive(one)
    assert state.detect_crashed_loops() == []
    assert state.reap_crashed_loops() == []


@pytest.mark.parametrize("pid", ["12", 0, -1, 1.5, 2**31, True, "self"])
def test_what_is_no_pid_drives_nothing(pid: object) -> None:
    assert process.liveness(pid, None).verdict == "dead"


def test_liveness_of_an_archived_loop_can_be_asked(state: State, one: str) -> None:
    state.archive_loop(one)
    assert state.liveness(one).verdict == "none"


# --- resuming --------------------------------------------------------------------------------------------------------


def test_resuming_takes_a_loop_over_in_one_commit(state: State, one: str) -> None:
    state.update_loop(one, {"status": "paused"})
    before = commits(state)
    found = state.resume_loop(one)
    assert commits(state) == before + 1
    assert (found["status"], found["currentPid"], found["gitstate"]["process"]) == (
        "running", os.getpid(), process.identity(os.getpid()),
    )  # fmt: skip
    assert entry(state, one)["pid"] == os.getpid()


def test_resuming_changes_nothing_for_the_process_that_drives_it_already(state: State, one: str) -> None:
    state.resume_loop(one)
    before = state.revision()
    state.resume_loop(one)
    state.resume_loop(one, pid=os.getpid())
    assert state.revision() == before


def test_resuming_may_raise_the_number_of_iterations(state: State, one: str) -> None:
    assert state.resume_loop(one, max_iterations=30)["maxIterations"] == 30
    assert state.resume_loop(one, max_iterations=30)["maxIterations"] == 30
    assert state.last_change is None


def test_resuming_for_another_process_or_for_none(state: State, one: str) -> None:
    state.update_loop(one, {"status": "interrupted"})
    assert state.resume_loop(one, pid=None)["currentPid"] is None
    with live_process() as pid:
        assert state.resume_loop(one, pid=pid)["currentPid"] == pid


@pytest.mark.parametrize("force", [False, True])
def test_resuming_is_refused_while_another_live_process_drives_it(state: State, one: str, force: bool) -> None:
    with live_process() as pid:
        state.update_loop_pid(one, pid)
        before = state.revision()
        with pytest.raises(RefusedError, match=str(pid)) as caught:
            state.resume_loop(one, force=force)
        assert (caught.value.pid, state.revision()) == (pid, before)
    assert state.resume_loop(one)["currentPid"] == os.getpid()


def test_resuming_what_another_host_drives_wants_force(state: State, one: str) -> None:
    elsewhere(state, one)
    with pytest.raises(RefusedError, match="elsewhere") as caught:
        state.resume_loop(one)
    assert "--force" in (caught.value.hint or "")
    assert state.resume_loop(one, force=True)["gitstate"]["process"]["host"] == process.hostname()


@pytest.mark.parametrize("status", ["completed", "failed", "aborted", "limit_reached"])
def test_resuming_what_has_ended_wants_force(state: State, one: str, status: str) -> None:
    state.update_loop(one, {"status": status})
    with pytest.raises(RefusedError, match=status):
        state.resume_loop(one)
    assert state.resume_loop(one, force=True)["status"] == "running"


@pytest.mark.parametrize("status", ["running", "paused", "waiting", "completing", "interrupted", "crashed"])
def test_resuming_anything_else_does_not(state: State, one: str, status: str) -> None:
    state.update_loop(one, {"status": status})
    assert state.resume_loop(one)["status"] == "running"


def test_an_archived_loop_is_restored_not_resumed(state: State, one: str) -> None:
    state.archive_loop(one)
    with pytest.raises(LoopNotFoundError) as caught:
        state.resume_loop(one)
    assert caught.value.hint == "gitstate restore one"


# --- crashes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def crashed(state: State, one: str) -> list[str]:
    """Two dead running loops; one that lives and one that is paused lie between."""
    gone = dead_pid()
    state.create_loop("dead", "done", loop_id="dead-1", pid=gone)
    state.create_loop("alive", "done", loop_id="alive")
    state.set_max_concurrent_loops(9)
    state.create_loop("dead", "done", loop_id="dead-2", pid=gone)
    state.create_loop("paused", "done", loop_id="paused", pid=gone)
    state.update_loop("paused", {"status": "paused"})
    return ["dead-1", "dead-2"]


def test_crashed_are_the_running_loops_whose_process_is_gone(state: State, crashed: list[str]) -> None:
    assert [loop["loop_id"] for loop in state.detect_crashed_loops()] == crashed


def test_reaping_gives_each_the_status_crashed_in_a_commit_of_its_own(state: State, crashed: list[str]) -> None:
    before = commits(state)
    changes = state.reap_crashed_loops(reason="nightly")
    assert [(change.operation, change.loop_id, change.reason) for change in changes] == [
        ("reap", "dead-1", "nightly"),
        ("reap", "dead-2", "nightly"),
    ]
    assert commits(state) == before + 2
    assert [state.get_loop(loop_id)["status"] for loop_id in crashed] == ["crashed", "crashed"]
    assert state.reap_crashed_loops() == []


def test_reaping_keeps_the_pid_as_evidence(state: State, crashed: list[str]) -> None:
    pid = state.get_loop("dead-1")["currentPid"]
    state.reap_crashed_loops()
    assert state.get_loop("dead-1")["currentPid"] == pid


def test_reaping_can_archive(state: State, crashed: list[str]) -> None:
    changes = state.reap_crashed_loops(archive=True)
    assert [change.operation for change in changes] == ["reap", "archive", "reap", "archive"]
    assert {loop.loop_id: loop.status for loop in state.list_archived_loops()} == {
        "dead-1": "crashed",
        "dead-2": "crashed",
    }
    assert state.load_registry()["total_aborted"] == 2


def test_reaping_takes_foreign_loops_only_when_asked(state: State, one: str) -> None:
    elsewhere(state, one)
    assert state.reap_crashed_loops() == []
    assert [change.loop_id for change in state.reap_crashed_loops(foreign=True)] == [one]
    assert state.get_loop(one)["status"] == "crashed"


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda state: state.archive_loop("dead-1"),
        lambda state: state.resume_loop("dead-1"),
        lambda state: state.update_loop("dead-1", {"status": "completed"}),
    ],
    ids=["archived", "resumed", "completed"],
)
def test_reaping_judges_again_under_the_lease(
    state: State, crashed: list[str], monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[State], object]
) -> None:
    view = state._view()
    meanwhile(state)
    monkeypatch.setattr(state, "_view", lambda: view)
    assert [change.loop_id for change in state.reap_crashed_loops()] == ["dead-2"]
