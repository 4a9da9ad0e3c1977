"""The directory on another machine: copied, or cloned and completed. What is not known there is not guessed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import assert_sound, git
from listings import listing

import gitstate
from gitstate import RefusedError, StateRepository, UnsafeRepositoryError
from gitstate.operation import Operation, to_message

pytestmark = pytest.mark.usefixtures("quick_disk")

DEAD = 2**31 - 1


@pytest.fixture
def state(project: Path) -> Iterator[StateRepository]:
    """Two running loops (one driven by this process, one by a dead one), a paused and an archived one."""
    with StateRepository(project, actor="user:alice", clock=FakeClock()) as repository:
        repository.create_loop("Mine", "it is done", loop_id="mine", pid="self")
        repository.create_loop("Dead", "it is done", loop_id="dead", pid=DEAD)
        repository.create_loop("Idle", "it is done", loop_id="idle", pid=None)
        repository.create_loop("Old", "it is done", loop_id="old", pid=None)
        repository.archive_loop("old", status="completed")
        repository.checkpoint("mine", "start")
        (repository.loops_dir / "mine" / "outputs" / "001-stdout.log").write_text("secret")
        yield repository


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, this is another machine."""

    def move() -> None:
        monkeypatch.setattr(gitstate.process, "hostname", lambda: "laptop")
        monkeypatch.setattr(gitstate.process, "boot_id", lambda: "another-boot")

    return move


def copied(state: StateRepository, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(state.project_root), str(to)], check=True)
    return to


def cloned(state: StateRepository, to: Path) -> Path:
    base = to / ".aiwg" / "ralph-external"
    base.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", str(state.base_dir), str(base)], check=True)
    return to


def open_at(project: Path) -> StateRepository:
    return StateRepository(project, actor="user:bob", clock=FakeClock())


HERE = os.uname().nodename


# --- cp -a -----------------------------------------------------------------------------------------------------------


def test_in_a_copy_on_another_machine_recorded_processes_are_foreign_not_crashed(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    project = copied(state, tmp_path / "copy")
    elsewhere()
    with open_at(project) as copy:
        assert {i: copy.liveness(i).verdict for i in ("mine", "dead", "idle")} == {
            "mine": "foreign",
            "dead": "foreign",
            "idle": "none",
        }
        assert copy.liveness("dead").reason == f"process {DEAD} belongs to the host {HERE}"
        assert copy.detect_crashed_loops() == []
        assert copy.reap_crashed_loops() == []
        assert not copy.is_loop_alive("mine")


def test_a_copy_is_read_without_writing_and_warning(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    project = copied(state, tmp_path / "copy")
    elsewhere()
    before = listing(project)
    with open_at(project) as copy, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(copy.status().loops) == 3
        assert copy.get_loop("old")["status"] == "completed"
        assert len(list(copy.log())) == len(list(state.log()))
        assert [finding for finding in copy.check() if finding.severity != "note"] == []
    assert listing(project) == before


def test_a_copy_goes_on_at_once(state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    project = copied(state, tmp_path / "copy")
    generation = next(state.log()).generation or 0
    elsewhere()
    with open_at(project) as copy:
        copy.update_loop("idle", {"status": "waiting"})
        newest = next(copy.log())
        assert (newest.host, newest.actor, newest.generation) == ("laptop", "user:bob", generation + 1)
        assert (copy.loops_dir / "mine" / "outputs" / "001-stdout.log").read_text() == "secret"
    assert git(project / ".aiwg" / "ralph-external", "status", "--porcelain").stdout == ""
    assert_sound(project)


def test_a_lease_record_that_was_copied_along_does_not_hold_up_the_copy_for_ever(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    with state.transaction():
        project = copied(state, tmp_path / "copy")
    assert (project / ".aiwg" / "ralph-external" / "registry.json.lock").exists()
    elsewhere()
    with open_at(project) as copy:  # its fake clock passes the lease's length while it waits
        copy.update_loop("idle", {"status": "waiting"})
    assert_sound(project)


def test_a_foreign_loop_is_resumed_only_by_force(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    project = copied(state, tmp_path / "copy")
    elsewhere()
    with open_at(project) as copy:
        with pytest.raises(RefusedError, match=f"mine was last driven elsewhere: .* host {HERE}") as caught:
            copy.resume_loop("mine")
        assert caught.value.hint == "gitstate resume mine --force, once that process is known to be gone"
        found = copy.resume_loop("mine", force=True)
        assert (found["currentPid"], found["gitstate"]["process"]["host"]) == (os.getpid(), "laptop")
        assert copy.liveness("mine").verdict == "alive"
    assert_sound(project)


def test_a_loop_is_taken_over_by_another_process_of_the_very_same_pid(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitstate.process, "boot_id", lambda: "another-boot")  # as after a restart, or in a container
    assert state.liveness("mine").verdict == "dead"
    state.resume_loop("mine")
    assert state.liveness("mine").verdict == "alive"
    newest = next(state.log())
    assert newest.summary == f"resume mine: by another process {os.getpid()} than before"
    state.resume_loop("mine")
    assert next(state.log()).revision == newest.revision


def test_reap_takes_foreign_loops_for_crashed_only_when_it_is_told_to(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    project = copied(state, tmp_path / "copy")
    elsewhere()
    with open_at(project) as copy:
        assert [change.loop_id for change in copy.reap_crashed_loops(foreign=True)] == ["mine", "dead"]
        assert {entry["loop_id"]: entry["status"] for entry in copy.list_active_loops()} == {
            "mine": "crashed",
            "dead": "crashed",
            "idle": "running",
        }
    assert_sound(project)


def test_a_foreign_loop_can_be_archived_and_rolled_back(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    state.update_loop("mine", {"note": "x"})
    project = copied(state, tmp_path / "copy")
    elsewhere()
    with open_at(project) as copy:
        copy.rollback("mine", steps=1)
        assert copy.get_loop("mine")["status"] == "paused"
        copy.archive_loop("mine")
    assert_sound(project)


def test_on_the_same_machine_after_a_restart_recorded_processes_are_dead(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitstate.process, "boot_id", lambda: "another-boot")
    assert state.liveness("mine").verdict == "dead"
    assert state.liveness("mine").reason == f"process {os.getpid()} ended when {HERE} restarted"
    assert [entry["loop_id"] for entry in state.detect_crashed_loops()] == ["mine", "dead"]


def test_a_pid_that_the_original_recorded_is_this_host_s_wherever_that_is(
    unpack: Callable[[str], Path], elsewhere: Callable[[], None]
) -> None:
    project = unpack("one-loop")
    elsewhere()
    with open_at(project) as copy:
        assert [entry["pid"] for entry in copy.detect_crashed_loops()] == [3999997]


# --- git clone -------------------------------------------------------------------------------------------------------


def test_a_clone_can_be_read_and_nothing_is_written(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    project = cloned(state, tmp_path / "clone")
    elsewhere()
    before = listing(project)
    with open_at(project) as clone, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clone.get_loop("mine") == state.get_loop("mine")
        assert clone.get_loop("old") == state.get_loop("old")
        assert clone.load_registry() == state.load_registry()
        assert clone.revision() == state.revision()
        assert [change.revision for change in clone.log()] == [change.revision for change in state.log()]
        assert [loop.tag for loop in clone.list_archived_loops()] == ["archive/old"]
        assert clone.get_loop("mine", at="checkpoint/mine/start")["status"] == "running"
        assert len(clone.status().loops) == 3
        assert [finding.code for finding in clone.check()] == ["clone"]
        assert clone.liveness("mine").verdict == "foreign"
    assert listing(project) == before


def mutations(state: StateRepository) -> Iterator[Callable[[], object]]:
    yield lambda: state.create_loop("New", "it is done")
    yield lambda: state.update_loop("idle", {"status": "paused"})
    yield lambda: state.record_iteration("idle", {})
    yield lambda: state.update_loop_pid("idle", "self")
    yield lambda: state.resume_loop("idle")
    yield lambda: state.archive_loop("idle")
    yield lambda: state.restore_loop("old")
    yield lambda: state.checkpoint("idle", "x")
    yield lambda: state.rollback("idle", steps=1)
    yield lambda: state.undo("idle")
    yield lambda: state.set_max_concurrent_loops(9)
    yield lambda: state.transaction().__enter__()


def test_every_mutation_of_a_clone_is_refused_with_the_command_that_completes_it(
    state: StateRepository, tmp_path: Path
) -> None:
    project = cloned(state, tmp_path / "clone")
    before = listing(project)
    with open_at(project) as clone:
        for mutate in mutations(clone):
            with pytest.raises(RefusedError, match="the state directory is a clone") as caught:
                mutate()
            assert caught.value.hint == "gitstate init"
    assert listing(project) == before


def test_init_completes_a_clone_without_a_commit(state: StateRepository, tmp_path: Path) -> None:
    project = cloned(state, tmp_path / "clone")
    with open_at(project) as clone:
        assert clone.init() is None
        assert clone.revision() == state.revision()
        base = clone.base_dir
    assert git(base, "config", "gitstate.format").stdout == "1\n"
    assert git(base, "config", "remote.origin.url").stdout.strip() == str(state.base_dir)
    assert (base / ".git" / "info" / "exclude").read_bytes() == (state.base_dir / ".git/info/exclude").read_bytes()
    assert sorted(path.name for path in (base / "loops" / "mine").iterdir()) == [
        "analysis",
        "checkpoints",
        "iterations",
        "outputs",
        "prompts",
        "session-state.json",
    ]
    assert (base / "shared").is_dir()
    assert git(base, "status", "--porcelain", "-uall").stdout == ""
    assert_sound(project)


def test_after_init_a_clone_goes_on_from_the_generation_in_history(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    generation = next(state.log()).generation or 0
    assert generation >= 6
    project = cloned(state, tmp_path / "clone")
    elsewhere()
    with open_at(project) as clone:
        clone.init()
        clone.update_loop("idle", {"status": "waiting"})
        newest = next(clone.log())
        assert (newest.generation or 0) > generation
        assert newest.parent == state.revision()
    assert_sound(project)


def test_in_a_completed_clone_loops_are_foreign_not_crashed(
    state: StateRepository, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    project = cloned(state, tmp_path / "clone")
    elsewhere()
    with open_at(project) as clone:
        clone.init()
        assert clone.liveness("mine").verdict == "foreign"
        assert clone.detect_crashed_loops() == []
        assert clone.restore_loop("old")["status"] == "paused"
        clone.archive_loop("old")
        assert clone.list_archived_loops()[0].tag == "archive/old.2"
    assert_sound(project)


def test_init_of_a_clone_adopts_what_was_edited_in_it_before(state: StateRepository, tmp_path: Path) -> None:
    project = cloned(state, tmp_path / "clone")
    with open_at(project) as clone:
        path = clone.loops_dir / "idle" / "session-state.json"
        record = json.loads(path.read_bytes())
        path.write_text(json.dumps({**record, "objective": "Else"}))
        assert clone.get_loop("idle")["objective"] == "Else"
        clone.init()
        assert next(clone.log()).operation == "adopt"
        assert clone.get_loop("idle")["objective"] == "Else"
    assert_sound(project)


def test_a_clone_with_a_repository_around_it_shows_nothing_there(state: StateRepository, tmp_path: Path) -> None:
    project = cloned(state, tmp_path / "clone")
    git(project, "init", "-q")
    with open_at(project) as clone:
        clone.init()
    assert git(project, "status", "--porcelain", "-uall").stdout == ""
    assert_sound(project)


def test_init_takes_no_repository_for_a_clone_whose_history_gitstate_did_not_begin(tmp_path: Path) -> None:
    base = tmp_path / "project" / ".aiwg" / "ralph-external"
    base.mkdir(parents=True)
    git(base, "init", "-q", "-b", "main")
    (base / "registry.json").write_text('{"active_loops": []}')
    git(base, "add", ".")
    git(base, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "mine")
    before = listing(base)
    with open_at(tmp_path / "project") as clone:
        for question in (clone.init, clone.load_registry, clone.check, lambda: list(clone.log())):
            with pytest.raises(UnsafeRepositoryError, match="no commit of gitstate's") as caught:
                question()
            assert caught.value.hint is not None
        operation = Operation("update", "update x: y", ("x",)).by(
            generation=1, actor="user:a", host="h", pid=1, reason=None
        )
        forged = to_message(operation)
        git(base, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "--allow-empty", "-m", forged)
        before = listing(base)
        with pytest.raises(UnsafeRepositoryError, match="does not begin with"):
            clone.init()
    assert listing(base) == before


def test_init_takes_no_clone_whose_history_is_not_all_there(state: StateRepository, tmp_path: Path) -> None:
    base = tmp_path / "clone" / ".aiwg" / "ralph-external"
    base.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--depth=2", f"file://{state.base_dir}", str(base)], check=True)
    with open_at(tmp_path / "clone") as clone, pytest.raises(UnsafeRepositoryError, match="shallow"):
        clone.init()


def test_init_takes_no_clone_that_borrows_its_objects(state: StateRepository, tmp_path: Path) -> None:
    base = tmp_path / "clone" / ".aiwg" / "ralph-external"
    base.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--shared", str(state.base_dir), str(base)], check=True)
    with open_at(tmp_path / "clone") as clone, pytest.raises(UnsafeRepositoryError, match="alternates"):
        clone.init()


def test_a_clone_of_a_bare_backup_is_as_good(state: StateRepository, tmp_path: Path) -> None:
    backup = tmp_path / "backup.git"
    git(tmp_path, "clone", "-q", "--bare", str(state.base_dir), str(backup))
    base = tmp_path / "clone" / ".aiwg" / "ralph-external"
    base.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", str(backup), str(base)], check=True)
    shutil.rmtree(state.base_dir)
    with open_at(tmp_path / "clone") as clone:
        clone.init()
        assert clone.update_loop("idle", {"status": "waiting"})["status"] == "waiting"
    assert_sound(tmp_path / "clone")


def test_a_bundle_of_it_is_enough_to_go_on(state: StateRepository, tmp_path: Path) -> None:
    git(state.base_dir, "bundle", "create", "-q", str(tmp_path / "state.bundle"), "--all")
    base = tmp_path / "clone" / ".aiwg" / "ralph-external"
    base.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "state.bundle"), str(base)], check=True)
    with open_at(tmp_path / "clone") as clone:
        clone.init()
        clone.archive_loop("idle")
    assert_sound(tmp_path / "clone")
