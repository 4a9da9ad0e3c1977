"""The older single-loop manager's state becomes one loop among several: once, whole, and wherever it is interrupted."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import assert_sound, git
from listings import contents, listing

from gitstate import CorruptStateError, StateRepository, medium
from gitstate.durable import Directory

Unpack = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("quick_disk")

LEGACY_ID = "767e8f05-7e91-4c54-aa67-1df165d487de"
KEPT = "legacy-session-state.json"


@pytest.fixture
def project(unpack: Unpack) -> Path:
    return unpack("legacy-single-loop")


@pytest.fixture
def state(project: Path) -> Iterator[StateRepository]:
    with open_at(project) as repository:
        yield repository


def open_at(project: Path) -> StateRepository:
    return StateRepository(project, actor="user:alice", clock=FakeClock())


def migrated(state: StateRepository) -> str:
    loop_id = state.migrate_legacy_state()
    assert loop_id is not None
    return loop_id


def test_the_legacy_state_becomes_one_loop(state: StateRepository) -> None:
    legacy = json.loads((state.base_dir / "session-state.json").read_bytes())
    loop_id = migrated(state)
    assert loop_id.startswith("ralph-port-the-cli-to-commander-")
    found = dict(state.get_loop(loop_id))
    assert found.pop("loopId") == loop_id
    assert found.pop("legacyLoopId") == LEGACY_ID == legacy.pop("loopId")
    assert found.pop("gitstate") == {"revision": 1}
    del found["lastUpdate"], legacy["lastUpdate"]
    assert found == legacy


def test_its_entry_says_what_the_state_says_and_is_tagged_migrated(state: StateRepository) -> None:
    loop_id = migrated(state)
    (entry,) = state.list_active_loops()
    assert entry == {
        "loop_id": loop_id,
        "task_summary": "Port the CLI to commander",
        "status": "paused",
        "started_at": "2026-11-22T09:14:10.326Z",
        "owner": "user:alice",
        "pid": None,
        "iteration": 2,
        "max_iterations": 10,
        "completion_criteria": "npm test passes",
        "priority": "medium",
        "tags": ["migrated"],
    }


def test_its_four_subdirectories_move_along_with_every_byte(state: StateRepository) -> None:
    before = contents(state.base_dir)
    loop_id = migrated(state)
    after = contents(state.base_dir / "loops" / loop_id)
    for name in ("iterations", "prompts", "outputs", "analysis"):
        assert not (state.base_dir / name).exists()
        assert (state.base_dir / "loops" / loop_id / name).is_dir()
    artifacts = {path: raw for path, raw in before.items() if "/" in path}
    assert len(artifacts) == 8
    assert {path: raw for path, raw in after.items() if "/" in path} == artifacts


def test_the_file_itself_is_kept_in_the_loop_s_directory_as_it_was(state: StateRepository) -> None:
    before = (state.base_dir / "session-state.json").read_bytes()
    loop_id = migrated(state)
    assert (state.base_dir / "loops" / loop_id / KEPT).read_bytes() == before
    assert os.readlink(state.base_dir / "session-state.json") == f"loops/{loop_id}/session-state.json"


def test_its_backup_stays_where_it_is(state: StateRepository) -> None:
    before = (state.base_dir / "session-state.json.bak").read_bytes()
    migrated(state)
    assert (state.base_dir / "session-state.json.bak").read_bytes() == before


def test_it_is_one_commit_of_the_kind_migrate(state: StateRepository) -> None:
    loop_id = migrated(state)
    newest = next(state.log())
    assert (newest.operation, newest.loop_ids) == ("migrate", (loop_id,))
    assert newest.summary == f"migrate {loop_id}: Port the CLI to commander"
    assert git(state.base_dir, "status", "--porcelain", "-uall").stdout == ""


def test_a_further_call_does_nothing(state: StateRepository) -> None:
    migrated(state)
    before = listing(state.base_dir)
    assert state.migrate_legacy_state() is None
    assert listing(state.base_dir) == before


def test_a_further_call_finishes_what_a_killed_one_left(state: StateRepository) -> None:
    migrated(state)
    (state.base_dir / ".git/index").unlink()  # it is written after the legacy file was moved, and before the note
    (state.base_dir / ".git/gitstate/projected").unlink()
    left = state.base_dir / ".git/gitstate/aside/4194303-0123456789ab"
    left.write_bytes(b"half of some")
    assert state.migrate_legacy_state() is None
    assert not left.exists()
    assert state.check(full=True) == []


def test_without_a_legacy_state_there_is_nothing_to_migrate(tmp_path: Path) -> None:
    with open_at(tmp_path) as state:
        assert state.migrate_legacy_state() is None
        assert not state.base_dir.exists()


def test_the_original_s_symlink_is_not_taken_for_a_legacy_state(unpack: Unpack) -> None:
    with open_at(unpack("one-loop")) as state:
        assert state.migrate_legacy_state() is None
        assert len(state.list_active_loops()) == 1


def test_an_archived_migrated_loop_is_not_migrated_again(state: StateRepository) -> None:
    loop_id = migrated(state)
    kept = (state.loops_dir / loop_id / KEPT).read_bytes()
    state.archive_loop(loop_id)
    (state.base_dir / "session-state.json").write_bytes(kept)
    assert state.migrate_legacy_state() == loop_id
    assert state.list_active_loops() == []


def test_what_the_older_manager_writes_after_the_migration_is_not_lost(state: StateRepository) -> None:
    legacy = state.base_dir / "session-state.json"
    first = legacy.read_bytes()
    loop_id = migrated(state)
    later = first.replace(b'"currentIteration": 2', b'"currentIteration": 3')
    legacy.unlink()
    legacy.write_bytes(later)
    state.update_loop(loop_id, {"status": "waiting"})
    found = list(contents(state.base_dir).values())
    assert first in found
    assert later in found


def test_a_legacy_state_that_cannot_be_read_is_named_and_left_as_it_is(state: StateRepository) -> None:
    path = state.base_dir / "session-state.json"
    path.write_bytes(path.read_bytes()[:500])
    before = listing(state.base_dir)
    with pytest.raises(CorruptStateError, match=r"^session-state.json: truncated$") as caught:
        state.migrate_legacy_state()
    assert "session-state.json.bak" in (caught.value.hint or "")
    assert listing(state.base_dir) == before


def test_without_a_status_it_is_running_as_the_original_has_it(state: StateRepository) -> None:
    path = state.base_dir / "session-state.json"
    legacy = json.loads(path.read_bytes())
    del legacy["status"], legacy["objective"]
    path.write_text(json.dumps(legacy))
    loop_id = migrated(state)
    assert loop_id.startswith("ralph-migrated-loop-")
    assert state.get_loop(loop_id)["status"] == "running"
    assert state.list_active_loops()[0]["task_summary"] == "Migrated loop"


# --- interrupted at every operation ----------------------------------------------------------------------------------

# What changes something on disk, called once for each change; the other methods are made of these.
CHANGES = ("make", "prepare", "link", "move", "symlink", "discard", "remove_empty", "sync", "sync_file", "append")


def killed_at(project: Path, nth: int) -> bool:
    """Migrate in a child process that is gone before its *nth* change of the file system; whether it was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a test runner's threads do not matter to this child
        child = os.fork()
    if child == 0:
        try:
            done = 0

            def counting(method: Callable[..., object]) -> Callable[..., object]:
                def counted(*arguments: object, **options: object) -> object:
                    nonlocal done
                    done += 1
                    if done == nth:
                        os._exit(9)
                    return method(*arguments, **options)

                return counted

            for name in CHANGES:
                setattr(Directory, name, counting(getattr(Directory, name)))
            open_at(project).migrate_legacy_state()
        except BaseException:
            os._exit(70)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), "the child failed by itself"
    return code == 9


def test_killed_at_any_operation_and_run_again_it_ends_with_one_loop_and_nothing_lost(
    unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        medium, "fsync", lambda descriptor: None
    )  # a kill is no power cut, and this saves most of the time
    points = 0
    while True:
        place = tmp_path / str(points)
        place.mkdir()
        project = unpack("legacy-single-loop").rename(place / "project")
        base = project / ".aiwg" / "ralph-external"
        before = contents(base)
        killed = killed_at(project, points + 1)
        with open_at(project) as state:
            again = state.migrate_legacy_state()
            (loop_id,) = [entry["loop_id"] for entry in state.list_active_loops()]
            assert again in (loop_id, None), points
            assert state.migrate_legacy_state() is None, points
            assert state.get_loop(loop_id)["legacyLoopId"] == LEGACY_ID
            state.init()  # whatever was left undone after the commit point is made good by the next mutation
            assert [change.operation for change in state.log()] == ["migrate", "init"], points
        after = contents(base / "loops" / loop_id)
        for path, raw in before.items():
            if path == "session-state.json":
                assert after[KEPT] == raw, points
            elif "/" in path:
                assert after[path] == raw, points
            else:
                assert contents(base)[path] == raw, points
        assert sorted(os.listdir(base)) == sorted(
            [".git", "archive", "loops", "registry.json", "session-state.json", "session-state.json.bak", "shared"]
        ), points
        with open_at(project) as state:
            assert [finding for finding in state.check() if finding.severity != "note"] == [], points
        if points % 10 == 0 or not killed:  # git itself is asked now and then: it takes longer than all the rest
            assert git(base, "status", "--porcelain", "-uall").stdout == "", points
            assert_sound(project)
        if not killed:
            break
        points += 1
    assert points > 50
