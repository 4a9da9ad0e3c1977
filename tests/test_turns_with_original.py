"""Beside the original, turn by turn: its own module under node, unmodified, driven step by step, each moment forced.

All at once, and busy for a while, is in ``test_beside_original.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from beside import LOOP, OTHER, Node, begun, counted, needs_original, node, story, tags
from clocks import FakeClock
from conftest import git

from gitstate import LeaseLostError, LeaseTimeoutError, StateRepository

pytestmark = needs_original


@pytest.fixture
def state(project: Path) -> StateRepository:
    return begun(project)


@pytest.fixture
def original(state: StateRepository) -> Iterator[Node]:
    with node(state.project_root) as process:
        yield process


def later(state: StateRepository, seconds: float = 31) -> StateRepository:
    """The same for somebody whose clock is ahead: to it the original's lease of 30 s has expired."""
    clock = FakeClock(datetime.now(UTC) + timedelta(seconds=seconds))
    return StateRepository(state.project_root, actor="user:bob", clock=clock, lock_timeout=0)


# --- each respects the other's lock ----------------------------------------------------------------------------------


def test_gitstate_keeps_out_while_the_original_holds_its_lock(state: StateRepository, original: Node) -> None:
    original.does("lock", name="create-loop")
    record = state.lock_path.read_bytes()
    with pytest.raises(LeaseTimeoutError, match=f"create-loop has it since .*; process {original.pid} runs") as caught:
        state.update_loop(LOOP, {"note": "early"})
    assert caught.value.holder.pid == original.pid  # type: ignore[attr-defined]
    assert state.lock_path.read_bytes() == record
    original.does("unlock", name="create-loop")
    state.update_loop(LOOP, {"note": "late"})
    assert state.get_loop(LOOP)["note"] == "late"


def test_the_original_keeps_out_while_gitstate_holds_the_lease(state: StateRepository, original: Node) -> None:
    original.does("patience", attempts=2)
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "mine"})
        record = state.lock_path.read_bytes()
        for step in (
            {"step": "create", "loop": "late"},
            {"step": "archive", "loop": LOOP},
            {"step": "pid", "loop": LOOP},
        ):
            assert original.tries(**step)["error"] == "Failed to acquire lock after 2 attempts"
        assert state.lock_path.read_bytes() == record
    assert original.tries("create", loop="late")["waited"] < 30
    assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, OTHER, "late"}


def test_the_original_does_not_release_the_lease_of_gitstate(state: StateRepository, original: Node) -> None:
    """Not even under the name that gitstate's record has: it compares the pid as well."""
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "mine"})
        name = json.loads(state.lock_path.read_bytes())["loopId"]
        original.does("unlock", name=name)
        assert state.lock_path.exists()
    assert state.get_loop(LOOP)["note"] == "mine"


def test_gitstate_takes_over_from_a_killed_original_at_once(state: StateRepository, original: Node) -> None:
    original.does("lock", name="create-loop")
    original.kill()
    state.update_loop(LOOP, {"note": "at once"})
    assert not state.lock_path.exists()


def test_the_original_takes_over_from_a_killed_gitstate_at_once(state: StateRepository, original: Node) -> None:
    killed = "import gitstate, os; tx = gitstate.open('.').transaction(); tx.__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", killed], cwd=state.project_root, check=False)
    assert json.loads(state.lock_path.read_bytes())["fencingToken"] == 4
    original.does("patience", attempts=1)  # one look, and no more
    original.does("create", loop="taken-over")
    assert state.get_loop("taken-over")["status"] == "running"
    state.update_loop("taken-over", {"note": "what the killed one left is removed"})


def test_a_holder_that_the_original_overtook_cannot_publish(state: StateRepository, original: Node) -> None:
    """The original breaks an expired lease by removing the record, knowing nothing of the guard."""
    short = StateRepository(state.project_root, actor="user:slow", lease_seconds=0.001)
    original.does("patience", attempts=1)
    before = state.revision()
    with pytest.raises(LeaseLostError, match="was lost to another writer, gone since"), short.transaction() as tx:
        tx.update_loop(LOOP, {"note": "never"})
        while "error" in original.tries("create", loop="overtaking"):  # the millisecond has not passed yet
            pass
    assert state.revision() == before
    assert "note" not in state.get_loop(LOOP)
    assert state.get_loop("overtaking")["status"] == "running"


# --- its update takes no lock at all ---------------------------------------------------------------------------------


def test_a_stale_update_of_the_original_takes_back_nothing_and_history_shows_both(
    state: StateRepository, original: Node
) -> None:
    original.does("read", loop=LOOP)
    state.update_loop(LOOP, {"currentIteration": 3, "note": "published in between"})
    original.does("write", loop=LOOP, changes={"theirs": "from a stale copy"})
    stale = json.loads((state.get_loop_dir(LOOP) / "session-state.json").read_bytes())
    assert (stale["currentIteration"], "note" in stale) == (0, False)  # as it lies there now, it has undone us

    for _ in ("as reading has it", "as the next mutation has it"):
        found = state.get_loop(LOOP)
        assert (found["currentIteration"], found["note"]) == (3, "published in between")
        assert found["theirs"] == "from a stale copy"  # type: ignore[typeddict-item]
        state.update_loop(OTHER, {"note": "what comes next"})
    assert story(state, LOOP) == ["create", "update", "adopt"]
    published, adopted = [change.fields for change in state.log(LOOP, fields=True, limit=2)][::-1]
    assert {field.path for field in published} >= {"/currentIteration", "/note"}
    assert {field.path for field in adopted} - {"/lastUpdate"} == {"/theirs"}
    text = git(state.base_dir, "log", "-p", "-2", "--format=%s", "HEAD~1", "--", f"loops/{LOOP}").stdout
    assert '+  "note": "published in between"' in text
    assert '+  "theirs": "from a stale copy"' in text


def test_where_both_changed_the_same_key_the_originals_counts_and_the_commit_names_what_it_replaced(
    state: StateRepository, original: Node
) -> None:
    original.does("read", loop=LOOP)
    state.update_loop(LOOP, {"note": "gitstate's", "currentIteration": 5})
    original.does("write", loop=LOOP, changes={"note": "the original's"})
    state.init()
    found = state.get_loop(LOOP)
    assert (found["note"], found["currentIteration"]) == ("the original's", 5)
    assert f"replaced what gitstate had: {LOOP}/note" in git(state.base_dir, "log", "-1", "--format=%b").stdout
    assert '-  "note": "gitstate\'s"' in git(state.base_dir, "show", "HEAD").stdout


def test_a_stale_registry_of_the_original_takes_back_neither_loops_nor_archives_nor_totals(
    state: StateRepository, original: Node
) -> None:
    """Its update of a status writes the whole registry, from a copy that it read without the lock."""
    original.does("registry")
    original.does("read", loop=LOOP)
    state.create_loop("Be made in between", "never", loop_id="in-between", pid=None)
    state.archive_loop(OTHER)
    state.update_entry("in-between", priority="high")
    original.does("write", loop=LOOP, changes={"status": "paused"})
    lying = json.loads(state.registry_path.read_bytes())
    assert [entry["loop_id"] for entry in lying["active_loops"]] == [LOOP, OTHER]

    for _ in ("as reading has it", "as the next mutation has it"):
        entries = {entry["loop_id"]: entry for entry in state.list_active_loops()}
        assert {loop: entry["status"] for loop, entry in entries.items()} == {LOOP: "paused", "in-between": "running"}
        assert entries["in-between"]["priority"] == "high"
        assert [loop.loop_id for loop in state.list_archived_loops()] == [OTHER]
        assert counted(state) == 1
        state.update_loop(LOOP, {"note": "what comes next"})


def test_an_update_of_the_original_that_comes_while_gitstate_writes_stays_and_is_merged_next(
    state: StateRepository, original: Node
) -> None:
    """Between the look at the files and the writing of them: the commit is there, the file is the original's."""

    def meanwhile(found: Any) -> dict[str, object]:
        original.does("update", loop=LOOP, changes={"theirs": "in the middle"})
        return {"currentIteration": found["currentIteration"] + 1}

    assert state.modify_loop(LOOP, meanwhile)["currentIteration"] == 1
    lying = json.loads((state.get_loop_dir(LOOP) / "session-state.json").read_bytes())
    assert (lying["currentIteration"], lying["theirs"]) == (0, "in the middle")
    found = state.get_loop(LOOP)
    assert (found["currentIteration"], found["theirs"]) == (1, "in the middle")  # type: ignore[typeddict-item]
    state.init()
    assert story(state, LOOP) == ["create", "update", "adopt"]


def test_an_update_of_the_original_to_a_loop_that_gitstate_archived_meanwhile_fails_and_harms_nothing(
    state: StateRepository, original: Node
) -> None:
    original.does("read", loop=LOOP)
    state.archive_loop(LOOP)
    assert "ENOENT" in original.tries("write", loop=LOOP, changes={"note": "too late"})["error"]
    assert "note" not in state.get_loop(LOOP)
    assert not (state.loops_dir / LOOP).exists()


# --- what it writes is merged, its archives are recorded -------------------------------------------------------------


def test_what_the_original_made_and_archived_is_recorded_counted_and_tagged(
    state: StateRepository, original: Node
) -> None:
    original.does("create", loop="theirs")
    state.update_loop(LOOP, {"note": "between the two"})
    original.does("archive", loop="theirs")
    original.does("archive", loop=OTHER)
    state.update_loop(LOOP, {"note": "after them"})
    assert story(state)[-4:] == ["adopt", "update", "adopt", "update"]
    body = git(state.base_dir, "log", "-1", "--format=%b", "HEAD~1").stdout
    assert {f"archived outside gitstate: {loop}" for loop in ("theirs", OTHER)} <= set(body.splitlines())
    assert tags(state) == [f"archive/{OTHER}", "archive/theirs"]
    assert {loop.loop_id for loop in state.list_archived_loops()} == {"theirs", OTHER}
    assert counted(state) == 2
    assert original.does("registry")["total_aborted"] == 2


def test_the_original_goes_on_with_what_gitstate_made_archived_and_restored(
    state: StateRepository, original: Node
) -> None:
    original.does("pid", loop=LOOP, pid=original.pid)
    assert state.liveness(LOOP).verdict == "alive"
    state.archive_loop(LOOP, force=True)
    assert original.tries("read", loop=LOOP)["error"] == f"Loop not found: {LOOP}"
    state.restore_loop(LOOP)
    assert original.does("update", loop=LOOP, changes={"note": "back"})["status"] == "paused"
    assert [entry["loop_id"] for entry in original.does("registry")["active_loops"]] == [OTHER, LOOP]
    assert state.get_loop(LOOP)["note"] == "back"


@pytest.mark.parametrize("before", ["loadRegistry", "saveRegistry", "updateLegacySymlink"])
def test_an_original_stopped_in_the_middle_of_archiving_is_overtaken_and_counted_once(
    state: StateRepository, original: Node, before: str
) -> None:
    """It stops past its lease, with the registry of then in its hands, and writes that when it wakes up."""
    original.does("stop", before=before)
    original.begins("archive", loop=OTHER)
    original.await_stop()
    other = later(state)
    other.create_loop("Be made meanwhile", "never", loop_id="meanwhile", pid=None)
    assert tags(state) == [f"archive/{OTHER}"]
    assert counted(state) == 1
    original.wake()
    assert "error" not in original.reports()
    for _ in ("as reading has it", "as the next mutation has it"):
        assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, "meanwhile"}
        assert counted(state) == 1
        state.update_loop(LOOP, {"note": "what comes next"})
    assert tags(state) == [f"archive/{OTHER}"]


@pytest.mark.parametrize("before", ["loadRegistry", "saveRegistry", "updateLegacySymlink"])
def test_an_original_stopped_in_the_middle_of_creating_is_overtaken_and_undoes_nothing(
    state: StateRepository, original: Node, before: str
) -> None:
    original.does("stop", before=before)
    original.begins("create", loop="theirs")
    original.await_stop()
    other = later(state)
    other.create_loop("Be made meanwhile", "never", loop_id="meanwhile", pid=None)
    other.archive_loop(OTHER)
    original.wake()
    assert "error" not in original.reports()
    for _ in ("as reading has it", "as the next mutation has it"):
        assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, "meanwhile", "theirs"}
        assert counted(state) == 1
        state.update_loop(LOOP, {"note": "what comes next"})
    assert state.get_loop("theirs")["objective"] == "Made by the original as theirs"
