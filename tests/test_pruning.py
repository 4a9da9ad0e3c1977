"""Pruning: bytes named first, then freed; what history holds stays readable and restorable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from listings import listing

from gitstate import (
    DamageWarning,
    InvalidInputError,
    LoopExistsError,
    LoopNotFoundError,
    RefusedError,
    StateRepository,
    StorageError,
)
from gitstate.disposal import Disposal
from gitstate.durable import Directory
from gitstate.lease import LeaseKeeper

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
AT_ONCE = timedelta(0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(project: Path, clock: FakeClock) -> Iterator[State]:
    """Two archived loops with artifacts, ``old`` ten days older than ``new``, and an active one."""
    with StateRepository(project, actor="user:alice", clock=clock) as repository:
        for name in ("old", "new", "active"):
            repository.create_loop("Fix it", "npm test", loop_id=name, pid=None, owner="team:docs", tags=["x"])
            (repository.get_loop_dir(name) / "outputs" / "001-stdout.log").write_text("x" * 5000)
        repository.archive_loop("old", status="completed")
        clock.advance(days=10)
        repository.archive_loop("new", status="aborted")
        clock.advance(days=1)
        yield repository


def size(top: Path) -> int:
    return sum(path.lstat().st_size for path in top.rglob("*") if not path.is_dir())


def totals(state: State) -> tuple[int, int, int]:
    registry = state.load_registry()
    return registry["total_active"], registry["total_completed"], registry["total_aborted"]


def archived(state: State) -> list[str]:
    return [loop.loop_id for loop in state.list_archived_loops()]


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("artifacts_only", [False, True])
def test_a_dry_run_names_the_bytes_and_changes_nothing(state: State, artifacts_only: bool) -> None:
    before = listing(state.project_root)
    plan = state.prune_archives(older_than=AT_ONCE, artifacts_only=artifacts_only, dry_run=True)
    assert listing(state.project_root) == before
    assert [(change.operation, change.loop_id, change.revision) for change in plan] == [
        ("prune", "old", None),
        ("prune", "new", None),
    ]
    whole = size(state.archive_dir / "old")
    assert plan[0].bytes == (5000 if artifacts_only else whole)
    assert ("5.0 kB of artifacts" if artifacts_only else f"{whole / 1000:.1f} kB") in plan[0].summary
    assert "archived 2026-06-15" in plan[0].summary


def test_only_what_was_archived_long_enough_ago_goes(state: State) -> None:
    assert state.prune_archives(older_than=timedelta(days=12)) == []
    assert [change.loop_id for change in state.prune_archives(older_than=timedelta(days=11))] == ["old"]
    assert archived(state) == ["new"]
    assert state.prune_archives(older_than=timedelta.max) == []


@pytest.mark.parametrize("age", [timedelta(seconds=-1), 90, "90d", None])
def test_an_age_is_a_timedelta_from_0(state: State, age: Any) -> None:
    with pytest.raises(InvalidInputError, match="older_than"):
        state.prune_archives(older_than=age)


# --- what goes, and what stays ---------------------------------------------------------------------------------------


def test_a_loop_goes_in_one_commit_with_all_that_lies_there(state: State) -> None:
    before = state.revision()
    whole = size(state.archive_dir / "old")
    old, new = state.prune_archives(older_than=AT_ONCE, reason="the disk is full")
    assert (old.operation, old.loop_ids, old.parent, old.reason) == ("prune", ("old",), before, "the disk is full")
    assert (new.parent, state.revision(), old.bytes) == (old.revision, new.revision, whole)
    assert os.listdir(state.archive_dir) == []
    assert os.listdir(state.base_dir / ".git" / "gitstate" / "aside") == []
    assert not (state.base_dir / ".git" / "gitstate" / "pruning").exists()
    assert state.last_change == new
    assert git(state.base_dir, "status", "--porcelain").stdout == ""
    assert [change.operation for change in state.log("old", limit=2)] == ["prune", "archive"]
    assert state.show("HEAD").fields == new.fields


def test_totals_still_count_it_and_the_list_of_archives_does_not(state: State) -> None:
    assert totals(state) == (1, 1, 1)
    state.prune_archives(older_than=timedelta(days=5))
    assert (totals(state), archived(state), state.status().archived) == ((1, 1, 1), ["new"], 1)
    assert state.check() == []


def test_a_pruned_loop_stays_readable(state: State) -> None:
    before = state.get_loop("old")
    state.prune_archives(older_than=AT_ONCE)
    assert state.get_loop("old") == before
    assert state.get_loop("old", at="archive/old") == before
    assert state.get_loop("old", at="HEAD~2") == before
    assert json.loads(git(state.base_dir, "show", "tags/archive/old:archive/old/session-state.json").stdout) == before
    with state.transaction() as together:
        assert together.get_loop("old") == before


def test_a_loop_that_was_edited_in_the_archive_is_read_as_it_was_last(state: State) -> None:
    path = state.archive_dir / "old" / "session-state.json"
    path.write_text(json.dumps({**state.get_loop("old"), "note": "by hand"}, indent=2))
    state.prune_archives(older_than=AT_ONCE)
    assert dict(state.get_loop("old"))["note"] == "by hand"
    assert dict(state.restore_loop("old"))["note"] == "by hand"


def test_a_pruned_loop_is_found_by_a_beginning_of_its_id(state: State) -> None:
    state.create_loop("x", "y", loop_id="ralph-something-0123abcd", pid=None)
    state.archive_loop("ralph-something-0123abcd")
    state.prune_archives(older_than=AT_ONCE)
    assert state.resolve_loop_id("some") == state.resolve_loop_id("0123") == "ralph-something-0123abcd"
    assert state.resolve_loop_id("old") == "old"
    with pytest.raises(LoopNotFoundError, match="no loop"):
        state.resolve_loop_id("../../old")


def test_a_pruned_loop_is_restored_without_artifacts(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE)
    assert state.restore_loop("old")["status"] == "paused"
    assert sorted(os.listdir(state.loops_dir / "old")) == sorted(
        ["analysis", "checkpoints", "iterations", "outputs", "prompts", "session-state.json"]
    )
    assert os.listdir(state.loops_dir / "old" / "outputs") == []
    entry = next(entry for entry in state.list_active_loops() if entry["loop_id"] == "old")
    assert (entry["owner"], entry["tags"], totals(state)) == ("team:docs", ["x"], (2, 0, 1))


def test_what_is_archived_again_is_pruned_again(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE)
    state.restore_loop("old")
    state.update_loop("old", {"note": 2})
    state.archive_loop("old")
    state.prune_archives(older_than=AT_ONCE)
    assert dict(state.get_loop("old"))["note"] == 2
    assert git(state.base_dir, "tag", "--list", "archive/old*").stdout.split() == ["archive/old", "archive/old.2"]


def test_the_id_of_a_pruned_loop_stays_taken(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE)
    with pytest.raises(LoopExistsError, match="that loop is tagged") as caught:
        state.create_loop("another", "done", loop_id="old")
    assert caught.value.hint == "gitstate restore old"


def test_pruning_cannot_be_undone_and_says_what_to_use(state: State) -> None:
    (change, *_) = state.prune_archives(older_than=AT_ONCE)
    with pytest.raises(RefusedError, match="cannot be undone") as caught:
        state.undo("old")
    assert caught.value.hint == "gitstate restore old"
    state.restore_loop("old")
    with pytest.raises(RefusedError, match="of the kind prune cannot be undone") as caught:
        state.undo("old", revision=change.revision)
    assert caught.value.hint == "gitstate restore old"


def test_what_works_on_a_loop_says_that_it_was_pruned(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE)
    for attempt in (
        lambda: state.rollback("old", steps=1),
        lambda: state.update_loop("old", {"note": 1}),
        lambda: state.archive_loop("old"),
        lambda: state.report("old"),
    ):
        with pytest.raises(LoopNotFoundError, match="old was pruned: only history has it") as caught:
            attempt()
        assert caught.value.hint == "gitstate restore old"


def test_going_back_with_everything_brings_no_pruned_loop_back(state: State) -> None:
    before = state.revision()
    state.prune_archives(older_than=AT_ONCE)
    state.rollback_all(to=before or "")
    assert archived(state) == []


# --- artifacts only --------------------------------------------------------------------------------------------------


def test_artifacts_alone_go_without_a_commit(state: State) -> None:
    before = state.revision()
    changes = state.prune_archives(older_than=AT_ONCE, artifacts_only=True)
    assert [(change.loop_id, change.revision, change.bytes) for change in changes] == [
        ("old", None, 5000),
        ("new", None, 5000),
    ]
    assert (state.revision(), archived(state), state.last_change) == (before, ["new", "old"], None)
    assert os.listdir(state.archive_dir / "old") == ["session-state.json"]
    assert (state.loops_dir / "active" / "outputs" / "001-stdout.log").stat().st_size == 5000
    assert state.prune_archives(older_than=AT_ONCE, artifacts_only=True) == []


def test_a_loop_without_artifacts_comes_back_with_their_directories(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE, artifacts_only=True)
    state.restore_loop("old")
    assert (state.loops_dir / "old" / "outputs").is_dir()


# --- what is deleted, and what is not --------------------------------------------------------------------------------


def test_symlinks_are_removed_and_never_followed(state: State, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    for name in ("old", "new"):
        (state.archive_dir / name / "prompts" / "link").symlink_to(elsewhere)
        (state.archive_dir / name / "link").symlink_to(elsewhere / "kept")
        (state.archive_dir / name / "analysis").rmdir()
        (state.archive_dir / name / "analysis").symlink_to(elsewhere, target_is_directory=True)
    state.prune_archives(older_than=timedelta(days=5))
    state.prune_archives(older_than=AT_ONCE, artifacts_only=True)
    assert (elsewhere / "kept").read_text() == "kept"
    assert os.listdir(state.archive_dir) == ["new"]


def test_no_depth_and_no_mode_of_a_directory_is_in_the_way(state: State) -> None:
    here = os.open(state.archive_dir / "old" / "outputs", os.O_RDONLY)
    for _ in range(2000):  # deeper than any path may be long, and than Python recurses
        os.mkdir("directory", dir_fd=here)
        below = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    closed = state.archive_dir / "new" / "outputs"
    (closed / "module").mkdir()
    (closed / "module" / "file").write_text("read only")
    (closed / "module").chmod(0o500)
    closed.chmod(0o500)
    state.prune_archives(older_than=AT_ONCE)
    assert os.listdir(state.archive_dir) == []
    assert os.listdir(state.base_dir / ".git" / "gitstate" / "aside") == []


def test_what_cannot_be_removed_is_a_warning_and_the_loop_is_pruned(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    discard = Directory.discard

    def refusing(directory: Directory, name: str) -> bool:
        if name.startswith(".git/gitstate/aside/") and "/" in name.removeprefix(".git/gitstate/aside/"):
            raise StorageError(f"{name}: operation not permitted", path=name)
        return discard(directory, name)

    monkeypatch.setattr(Directory, "discard", refusing)
    with pytest.warns(DamageWarning, match="remove it by hand"):
        state.prune_archives(older_than=timedelta(days=5))
    assert archived(state) == ["new"]
    monkeypatch.undo()
    (left,) = os.listdir(state.base_dir / ".git" / "gitstate" / "aside")
    (state.base_dir / ".git" / "gitstate" / "aside" / left).rename(state.base_dir / ".git/gitstate/aside/2147483647-x")
    state.update_loop("active", {"note": 1})  # what a process that is gone left there is swept
    assert os.listdir(state.base_dir / ".git" / "gitstate" / "aside") == []


def test_a_loop_whose_tag_is_missing_is_left_alone(state: State) -> None:
    git(state.base_dir, "tag", "-d", "archive/old")
    with pytest.warns(DamageWarning, match="old has no tag of its archiving"):
        assert [change.loop_id for change in state.prune_archives(older_than=AT_ONCE)] == ["new"]
    assert archived(state) == ["old"]
    state.repair()


def test_a_loop_that_is_restored_meanwhile_is_left_alone(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = LeaseKeeper.acquire

    def late(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(LeaseKeeper, "acquire", acquire)
        other = Thread(target=StateRepository(state.project_root, clock=state._clock).restore_loop, args=["old"])
        other.start()
        other.join()
        return acquire(*given, **more)

    monkeypatch.setattr(LeaseKeeper, "acquire", late)
    assert [change.loop_id for change in state.prune_archives(older_than=AT_ONCE)] == ["new"]
    assert (state.loops_dir / "old" / "outputs" / "001-stdout.log").exists()


def test_an_edit_at_the_last_moment_is_not_lost(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    path = state.archive_dir / "old" / "session-state.json"
    ask = Disposal.ask

    def edited(disposal: Disposal, loop_id: str) -> None:
        ask(disposal, loop_id)
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "note": "late"}))

    monkeypatch.setattr(Disposal, "ask", edited)
    state.prune_archives(older_than=timedelta(days=5))
    monkeypatch.undo()
    state.init()
    assert dict(state.get_loop("old"))["note"] == "late"
    assert archived(state) == ["old", "new"]
    assert (path.parent / "outputs" / "001-stdout.log").exists()
    assert not (state.base_dir / ".git" / "gitstate" / "pruning").exists()


def test_what_was_asked_for_and_never_committed_stays(state: State) -> None:
    state._writer.projection.disposal.ask("old")  # and then the process was killed
    state.update_loop("active", {"note": 1})
    assert (state.archive_dir / "old" / "outputs" / "001-stdout.log").exists()
    assert not (state.base_dir / ".git" / "gitstate" / "pruning").exists()


def test_an_interrupted_pruning_is_finished_by_the_next_mutation(
    state: State, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gitstate.projection.Projection.apply", killed)
    with pytest.raises(KeyboardInterrupt):
        state.prune_archives(older_than=timedelta(days=5))
    monkeypatch.undo()
    assert (state.archive_dir / "old" / "session-state.json").exists()
    again = StateRepository(project, clock=state._clock)
    assert (archived(again), again.get_loop("old")["status"]) == (["new"], "completed")
    before = again.revision()
    again.update_loop("active", {"note": 1})
    assert again.show("HEAD").parent == before
    assert os.listdir(again.archive_dir) == ["new"]


def test_a_pruned_state_that_is_put_back_goes_again_and_what_lies_beside_it_stays(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE)
    (state.archive_dir / "old" / "outputs").mkdir(parents=True)
    (state.archive_dir / "old" / "outputs" / "from-a-backup").write_text("mine")
    git(state.base_dir, "checkout", "-q", "HEAD~1", "--", "archive")
    git(state.base_dir, "checkout", "-q", "HEAD~2", "--", "archive")
    state.update_loop("active", {"note": 1})
    assert archived(state) == []
    assert (state.archive_dir / "old" / "outputs" / "from-a-backup").read_text() == "mine"
    assert not (state.archive_dir / "old" / "session-state.json").exists()
    assert not (state.archive_dir / "new").exists()


def test_damage_where_a_pruned_loop_was_brings_nothing_back(state: State) -> None:
    state.prune_archives(older_than=AT_ONCE)
    (state.archive_dir / "old").mkdir()
    (state.archive_dir / "old" / "session-state.json").write_bytes(b"\0" * 300)
    with pytest.warns(DamageWarning, match="nothing to restore it from"):
        state.update_loop("active", {"note": 1})
    assert archived(state) == []
