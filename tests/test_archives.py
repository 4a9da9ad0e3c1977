"""Archiving, restoring, checkpoints and their tags, and the counters that follow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from original import Original
from processes import live_process

from gitstate import (
    InvalidInputError,
    LoopExistsError,
    LoopLimitError,
    LoopLimitWarning,
    LoopNotFoundError,
    RefusedError,
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
        repository.create_loop(
            "Fix all failing tests",
            "npm test passes",
            loop_id="one",
            pid=None,
            owner="team:docs",
            priority="high",
            tags=["x", "y"],
        )
        yield repository


def tags(state: State) -> list[str]:
    return git(state.base_dir, "tag", "--list").stdout.split()


def target(state: State, tag: str) -> str:
    return git(state.base_dir, "rev-parse", f"refs/tags/{tag}^{{commit}}").stdout.strip()


def totals(state: State) -> tuple[int, int, int]:
    registry = state.load_registry()
    return registry["total_active"], registry["total_completed"], registry["total_aborted"]


# --- archiving -------------------------------------------------------------------------------------------------------


def test_archiving_moves_the_loop_in_one_commit(state: State) -> None:
    before = state.revision()
    (state.get_loop_dir("one") / "outputs" / "001-stdout.log").write_text("kept")
    change = state.archive_loop("one", reason="done with it")
    assert (change.operation, change.loop_id, change.parent, change.reason) == (
        "archive",
        "one",
        before,
        "done with it",
    )
    assert change.revision == state.revision()
    assert not (state.loops_dir / "one").exists()
    assert (state.archive_dir / "one" / "outputs" / "001-stdout.log").read_text() == "kept"
    assert git(state.base_dir, "ls-files").stdout.split() == ["archive/one/session-state.json", "registry.json"]


def test_archiving_says_how_far_it_came(state: State) -> None:
    state.update_loop("one", {"status": "completed", "currentIteration": 4})
    assert state.archive_loop("one").summary == "archive one: completed after 4 of 10 iterations"


def test_archiving_takes_the_entry_out_of_the_registry(state: State) -> None:
    state.archive_loop("one")
    assert state.list_active_loops() == []
    assert totals(state)[0] == 0


@pytest.mark.parametrize(
    "status",
    [
        "running",
        "paused",
        "waiting",
        "completing",
        "completed",
        "failed",
        "aborted",
        "limit_reached",
        "interrupted",
        "crashed",
    ],
)
def test_completed_and_completing_count_as_completed_and_all_others_as_aborted(state: State, status: str) -> None:
    state.update_loop("one", {"status": status})
    state.archive_loop("one")
    assert totals(state) == ((0, 1, 0) if status in ("completed", "completing") else (0, 0, 1))
    assert state.get_loop("one")["status"] == status


def test_archiving_can_give_a_status(state: State) -> None:
    change = state.archive_loop("one", status="completed")
    assert state.get_loop("one")["status"] == "completed"
    assert totals(state) == (0, 1, 0)
    assert ("one", "/status", "running", "completed") in [
        (field.loop_id, field.path, field.before, field.after) for field in change.fields
    ]


def test_archiving_without_a_status_leaves_the_session_state_as_it_is_to_the_byte(state: State) -> None:
    raw = (state.loops_dir / "one" / "session-state.json").read_bytes()
    state.archive_loop("one")
    assert (state.archive_dir / "one" / "session-state.json").read_bytes() == raw


def test_an_archived_loop_has_an_annotated_tag_on_the_commit_that_archived_it(state: State) -> None:
    change = state.archive_loop("one")
    assert tags(state) == ["archive/one"]
    assert target(state, "archive/one") == change.revision
    raw = git(state.base_dir, "cat-file", "tag", "archive/one").stdout
    assert raw.startswith(f"object {change.revision}\ntype commit\ntag archive/one\ntagger alice <alice@")
    assert raw.endswith(f"\n\n{change.summary}\n")


def test_the_nth_archiving_of_a_restored_loop_is_tagged_n(state: State) -> None:
    revisions = []
    for _ in range(3):
        revisions.append(state.archive_loop("one").revision)
        state.restore_loop("one")
    names = ["archive/one", "archive/one.2", "archive/one.3"]
    assert tags(state) == names
    assert [target(state, name) for name in names] == revisions


def test_the_newest_of_eleven_archivings_is_the_eleventh(state: State) -> None:
    for _ in range(10):
        state.archive_loop("one")
        state.restore_loop("one")
    state.archive_loop("one", status="completed")
    (loop,) = state.list_archived_loops()
    assert (loop.tag, loop.status) == ("archive/one.11", "completed")


def test_a_loop_whose_name_begins_like_another_s_has_tags_of_its_own(state: State) -> None:
    state.create_loop("x", "done", loop_id="one-more", pid=None)
    state.archive_loop("one-more")
    state.archive_loop("one")
    assert tags(state) == ["archive/one", "archive/one-more"]


@pytest.mark.parametrize("force", [False, True])
def test_archiving_is_refused_while_another_live_process_drives_it(state: State, force: bool) -> None:
    with live_process() as pid:
        state.update_loop_pid("one", pid)
        if force:
            state.archive_loop("one", force=True)
            return
        before = state.revision()
        with pytest.raises(RefusedError, match=f"process {pid}") as caught:
            state.archive_loop("one")
        assert (caught.value.pid, caught.value.loop_id, state.revision()) == (pid, "one", before)
        assert "--force" in (caught.value.hint or "")
    state.archive_loop("one")


@pytest.mark.parametrize("who", ["self", "parent", "init"])
def test_the_caller_and_its_ancestors_do_not_count(state: State, who: str) -> None:
    state.update_loop_pid("one", {"self": os.getpid(), "parent": os.getppid(), "init": 1}[who])
    state.archive_loop("one")


def test_what_lies_in_the_archive_already_is_never_overwritten(state: State) -> None:
    target = state.archive_dir / "one" / "outputs"
    target.mkdir(parents=True)
    (target / "001-stdout.log").write_text("there before")
    ours = state.get_loop_dir("one") / "outputs"
    (ours / "001-stdout.log").write_text("ours")
    (ours / "002-stdout.log").write_text("ours, too")
    state.archive_loop("one")
    assert (target / "001-stdout.log").read_text() == "there before"
    assert (target / "002-stdout.log").read_text() == "ours, too"
    assert (ours / "001-stdout.log").read_text() == "ours"


@pytest.mark.parametrize("status", ["success", "", "COMPLETED", 5])
def test_a_status_that_is_none_of_ours_is_refused(state: State, status: Any) -> None:
    before = state.revision()
    with pytest.raises(InvalidInputError, match="status"):
        state.archive_loop("one", status=status)
    assert state.revision() == before


def test_an_archived_loop_cannot_be_archived_again(state: State) -> None:
    state.archive_loop("one")
    with pytest.raises(LoopNotFoundError, match="archived, not active"):
        state.archive_loop("one")


# --- the list --------------------------------------------------------------------------------------------------------


def test_archived_loops_are_listed_newest_first(state: State, clock: FakeClock) -> None:
    for loop_id in ("b", "c", "a"):
        state.create_loop("x", "done", loop_id=loop_id, pid=None)
    for loop_id in ("c", "a", "b", "one"):
        state.archive_loop(loop_id)  # all in the same second
    clock.advance(hours=1)
    state.restore_loop("a")
    state.archive_loop("a")
    assert [loop.loop_id for loop in state.list_archived_loops()] == ["a", "one", "b", "c"]


def test_an_archived_loop_is_listed_with_what_is_worth_knowing(state: State, clock: FakeClock) -> None:
    began = state.get_loop("one")["startTime"]
    state.update_loop("one", {"currentIteration": 4})
    (state.get_loop_dir("one") / "outputs" / "001-stdout.log").write_bytes(b"x" * 5000)
    moment = clock.advance(days=1)
    state.archive_loop("one", status="completed")
    (loop,) = state.list_archived_loops()
    size = (state.archive_dir / "one" / "session-state.json").stat().st_size
    assert loop.to_dict() == {
        "loop_id": "one",
        "status": "completed",
        "objective": "Fix all failing tests",
        "iteration": 4,
        "max_iterations": 10,
        "started_at": began,
        "archived_at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "tag": "archive/one",
        "bytes": 5000 + size,
    }


# --- restoring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed", "running"])
def test_restoring_is_the_inverse_but_for_the_status_and_the_pid(state: State, status: str) -> None:
    state.update_loop("one", {"status": status, "note": 1})
    before: dict[str, Any] = dict(state.get_loop("one"))
    entry: dict[str, Any] = dict(state.list_active_loops()[0])
    (state.get_loop_dir("one") / "outputs" / "001-stdout.log").write_text("kept")
    state.archive_loop("one")
    after = state.restore_loop("one")
    assert {**after, "gitstate": 0, "lastUpdate": 0} == {**before, "status": "paused", "gitstate": 0, "lastUpdate": 0}
    assert state.list_active_loops() == [{**entry, "status": "paused"}]
    assert totals(state) == (1, 0, 0)
    assert (state.get_loop_dir("one") / "outputs" / "001-stdout.log").read_text() == "kept"
    assert not (state.archive_dir / "one").exists()


def test_restoring_brings_the_entry_back_as_the_archiving_removed_it(state: State) -> None:
    state.archive_loop("one")
    state.restore_loop("one")
    state.update_entry("one", owner="somebody", tags=["z"], priority="low")
    state.archive_loop("one")
    state.create_loop("x", "done", loop_id="two", pid=None)
    state.restore_loop("one")
    entry = state.list_active_loops()[1]
    assert (entry["loop_id"], entry["owner"], entry["tags"], entry["priority"]) == ("one", "somebody", ["z"], "low")


def test_restoring_leaves_nobody_driving_the_loop(state: State) -> None:
    state.update_loop_pid("one", "self")
    state.archive_loop("one")
    assert state.restore_loop("one")["currentPid"] is None
    assert state.liveness("one").verdict == "none"


def test_restoring_counts_the_status_that_was_counted(state: State) -> None:
    state.create_loop("x", "done", loop_id="two", pid=None)
    state.archive_loop("one", status="completed")
    state.archive_loop("two", status="failed")
    assert totals(state) == (0, 1, 1)
    state.restore_loop("two")
    assert totals(state) == (1, 1, 0)
    state.restore_loop("one")
    assert totals(state) == (2, 0, 0)


def test_the_tag_stays_when_the_loop_comes_back(state: State) -> None:
    state.archive_loop("one")
    state.restore_loop("one")
    assert tags(state) == ["archive/one"]
    assert state.get_loop("one", at="archive/one")["status"] == "running"


def test_restoring_what_is_active_is_refused(state: State) -> None:
    with pytest.raises(LoopExistsError, match="active, not archived") as caught:
        state.restore_loop("one")
    assert caught.value.place == "active"


def test_restoring_wants_a_free_slot(state: State) -> None:
    state.archive_loop("one")
    state.set_max_concurrent_loops(1)
    state.create_loop("x", "done", loop_id="two", pid=None)
    before = state.revision()
    with pytest.raises(LoopLimitError, match=r"1 loops already active \(max: 1\)"):
        state.restore_loop("one")
    assert state.revision() == before
    with pytest.warns(LoopLimitWarning) as caught:
        state.restore_loop("one", force=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert totals(state)[0] == 2


def test_a_loop_that_was_taken_out_of_the_tree_comes_back_from_its_tag(state: State) -> None:
    state.update_loop("one", {"note": 1})
    state.archive_loop("one", status="completed")
    (state.archive_dir / "one" / "session-state.json").unlink()
    git(state.base_dir, "rm", "-q", "-r", "archive/one")
    git(state.base_dir, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "prune by hand")
    found: dict[str, Any] = dict(state.get_loop("one"))
    assert (found["note"], found["status"]) == (1, "completed")
    assert totals(state) == (0, 1, 0)
    restored: dict[str, Any] = dict(state.restore_loop("one"))
    assert (restored["note"], restored["status"]) == (1, "paused")
    assert state.list_active_loops()[0]["tags"] == ["x", "y"]
    assert totals(state) == (1, 0, 0)


def test_what_the_original_archived_is_counted_tagged_and_restored(state: State) -> None:
    state.update_loop("one", {"status": "completed"})
    Original(state.project_root).archive_loop("one")
    (loop,) = state.list_archived_loops()
    assert (loop.loop_id, loop.status) == ("one", "completed")
    state.init()
    assert tags(state) == ["archive/one"]
    assert totals(state) == (0, 1, 0)
    state.restore_loop("one")
    assert (state.list_active_loops()[0]["owner"], totals(state)) == ("team:docs", (1, 0, 0))


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_commit_of_its_own_with_an_annotated_tag(state: State) -> None:
    before = state.revision()
    change = state.checkpoint("one", "before-refactoring", reason="just in case")
    assert (change.operation, change.loop_id, change.parent, change.fields) == ("checkpoint", "one", before, ())
    assert change.summary == "checkpoint one: before-refactoring, iteration 0"
    assert tags(state) == ["checkpoint/one/before-refactoring"]
    assert target(state, "checkpoint/one/before-refactoring") == change.revision
    assert git(state.base_dir, "cat-file", "-t", "checkpoint/one/before-refactoring").stdout == "tag\n"


def test_a_checkpoint_serves_as_a_revision(state: State) -> None:
    state.checkpoint("one", "start")
    state.update_loop("one", {"status": "paused"})
    assert state.get_loop("one", at="checkpoint/one/start")["status"] == "running"
    state.rollback("one", to="checkpoint/one/start")
    assert [field.path for field in state.diff("checkpoint/one/start", loop_id="one")] == ["/status"]


def test_checkpoints_are_listed_newest_first_of_one_loop_or_of_all(state: State, clock: FakeClock) -> None:
    state.create_loop("x", "done", loop_id="two", pid=None)
    made = [
        state.checkpoint(*names, reason="why") for names in (("one", "b"), ("two", "x"), ("one", "c"), ("one", "a"))
    ]
    clock.advance(hours=1)
    made.append(state.checkpoint("two", "b"))
    found = state.list_checkpoints()
    assert [(item.loop_id, item.name) for item in found] == [
        ("two", "b"),
        ("one", "a"),
        ("one", "c"),
        ("two", "x"),
        ("one", "b"),
    ]
    assert [item.revision for item in found] == [change.revision for change in reversed(made)]
    assert [item.name for item in state.list_checkpoints("one")] == ["a", "c", "b"]
    assert (found[0].tag, found[0].time, found[0].actor, found[1].reason) == (
        "checkpoint/two/b", clock.now(), "user:alice", "why",
    )  # fmt: skip


def test_the_name_of_a_checkpoint_is_given_once(state: State) -> None:
    state.checkpoint("one", "start")
    before = state.revision()
    with pytest.raises(RefusedError, match="a tag never moves") as caught:
        state.checkpoint("one", "start")
    assert (caught.value.name, caught.value.hint) == ("start", "gitstate checkpoints one")
    assert state.revision() == before


def test_two_loops_may_have_checkpoints_of_one_name(state: State) -> None:
    state.create_loop("x", "done", loop_id="one-two", pid=None)
    state.checkpoint("one", "start")
    state.checkpoint("one-two", "start")
    assert [item.name for item in state.list_checkpoints("one")] == ["start"]


@pytest.mark.parametrize("name", ["a", "v1.2", "before_it", "2026-06-15", "A-b.C_d", "x" * 100])
def test_the_name_of_a_checkpoint_can_end_a_ref(state: State, name: str) -> None:
    state.checkpoint("one", name)
    assert target(state, f"checkpoint/one/{name}") == state.revision()


def test_an_archived_loop_keeps_its_checkpoints_and_takes_no_more(state: State) -> None:
    state.checkpoint("one", "start")
    state.archive_loop("one")
    assert [item.name for item in state.list_checkpoints("one")] == ["start"]
    with pytest.raises(LoopNotFoundError):
        state.checkpoint("one", "late")


# --- the symlink for old readers -------------------------------------------------------------------------------------


def test_the_legacy_symlink_points_to_the_only_active_loop(state: State) -> None:
    link = state.base_dir / "session-state.json"
    assert json.loads(link.read_bytes())["loopId"] == "one"
    state.create_loop("x", "done", loop_id="two", pid=None)
    assert not link.is_symlink()
    state.archive_loop("one")
    assert os.readlink(link) == "loops/two/session-state.json"
    state.archive_loop("two")
    assert not link.is_symlink()
