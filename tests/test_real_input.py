"""State directories as the original managers left them: read as they are, adopted as they are, then brought in line."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import git
from listings import contents, listing

from gitstate import StateRepository

Unpack = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("quick_disk")

FIX = "ralph-fix-all-failing-tests-in-the-a-d9fa28c7"
TYPESCRIPT = "ralph-typescript-src-legacy-cd28352e"
CART = "cart-refactor"
DOCS = "ralph-write-docs-e2b7e609"
COVERAGE = "ralph-raise-coverage-to-80-e2d007cf"
CYRILLIC = "Миграция на TypeScript: переписать src/legacy"
STATES = [f"archive/{DOCS}", *(f"loops/{loop_id}" for loop_id in sorted((CART, FIX, TYPESCRIPT)))]
VERSIONED = [*(f"{directory}/session-state.json" for directory in STATES), "registry.json"]


def open_at(project: Path) -> StateRepository:
    return StateRepository(project, actor="user:alice", clock=FakeClock())


@pytest.fixture
def several(unpack: Unpack) -> Iterator[StateRepository]:
    with open_at(unpack("several-loops")) as state:
        yield state


@pytest.fixture
def single(unpack: Unpack) -> Iterator[StateRepository]:
    with open_at(unpack("one-loop")) as state:
        yield state


def bytes_of(state: StateRepository, revision: str, path: str) -> bytes:
    return git(state.base_dir, "show", f"{revision}:{path}").stdout.encode()


def read(path: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads(path.read_bytes())
    return record


# --- before adoption -------------------------------------------------------------------------------------------------


def everything_that_can_be_read(state: StateRepository) -> Iterator[object]:
    yield state.load_registry()
    yield state.list_active_loops()
    yield state.list_archived_loops()
    yield state.list_checkpoints()
    yield state.detect_crashed_loops()
    yield state.status()
    yield list(state.log())
    yield state.check(), state.check(full=True)
    yield state.repair(dry_run=True)
    yield state.revision(), state.lease_info()
    for loop_id in (*(entry["loop_id"] for entry in state.list_active_loops()), DOCS):
        if (state.base_dir / "archive" / loop_id).is_dir() or (state.base_dir / "loops" / loop_id).is_dir():
            yield state.get_loop(loop_id), state.report(loop_id), state.liveness(loop_id)
            yield state.is_loop_alive(loop_id), state.revision(loop_id), list(state.log(loop_id))
            yield state.get_loop_dir(loop_id), state.get_prompt_path(loop_id, 1), state.resolve_loop_id(loop_id)


@pytest.mark.parametrize("name", ["several-loops", "one-loop", "legacy-single-loop"])
def test_everything_can_be_read_before_adoption_and_nothing_is_written(unpack: Unpack, name: str) -> None:
    project = unpack(name)
    before = listing(project)
    with open_at(project) as state:
        assert list(everything_that_can_be_read(state))
    assert listing(project) == before


def test_before_adoption_the_files_are_served_as_they_are(several: StateRepository) -> None:
    assert several.load_registry() == read(several.registry_path)
    for loop_id in (FIX, TYPESCRIPT, CART):
        assert several.get_loop(loop_id) == read(several.loops_dir / loop_id / "session-state.json")
    assert several.get_loop(DOCS) == read(several.archive_dir / DOCS / "session-state.json")


def test_before_adoption_there_is_no_history(several: StateRepository) -> None:
    assert several.revision() is None
    assert list(several.log()) == []
    assert [finding.code for finding in several.check()] == ["not_adopted"]


# --- adoption --------------------------------------------------------------------------------------------------------


def test_the_first_commit_holds_every_file_byte_for_byte(several: StateRepository) -> None:
    before = contents(several.base_dir)
    several.init()
    first = git(several.base_dir, "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    assert git(several.base_dir, "ls-tree", "-r", "--name-only", first).stdout.split() == VERSIONED
    for path in VERSIONED:
        assert bytes_of(several, first, path) == before[path]


def test_the_first_mutation_adopts_as_init_does(several: StateRepository) -> None:
    before = contents(several.base_dir)
    several.update_loop(TYPESCRIPT, {"status": "waiting"})
    operations = [change.operation for change in several.log()]
    assert operations == ["update", "repair", "init"]
    first = list(several.log())[-1].revision
    assert first is not None
    assert {path: bytes_of(several, first, path) for path in VERSIONED} == {path: before[path] for path in VERSIONED}


def test_the_stale_iterations_are_brought_in_line_in_a_repair_of_their_own(several: StateRepository) -> None:
    assert {entry["loop_id"]: entry["iteration"] for entry in several.list_active_loops()} == {
        FIX: 0,
        TYPESCRIPT: 0,
        CART: 0,
    }
    several.init()
    repair, init = several.log(fields=True)
    assert (init.operation, repair.operation) == ("init", "repair")
    assert git(several.base_dir, "diff", "--name-only", "HEAD~1").stdout == "registry.json\n"
    assert repair.summary == "repair registry.json: brought in line with the session states"
    body = git(several.base_dir, "log", "-1", "--format=%b").stdout
    assert f"{FIX} iteration 0 → 7" in body
    assert f"{TYPESCRIPT} iteration 0 → 2" in body
    assert f"{CART} iteration 0 → 1" in body
    assert [entry["iteration"] for entry in several.list_active_loops()] == [7, 2, 1]


def test_bringing_in_line_changes_nothing_but_the_iterations_and_the_date(several: StateRepository) -> None:
    before = several.load_registry()
    several.init()
    after = several.load_registry()
    assert after.pop("gitstate") == {"revision": 1}  # type: ignore[misc]
    for registry in (before, after):
        registry.pop("updated_at")  # type: ignore[misc]
        for entry in registry["active_loops"]:
            entry.pop("iteration")  # type: ignore[misc]
    assert after == before


def test_adoption_leaves_the_session_states_as_they_are_on_disk(several: StateRepository) -> None:
    paths = [several.base_dir / path for path in VERSIONED[:-1]]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in paths}
    several.init()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in paths} == before


def test_what_is_not_versioned_is_left_alone_through_adoption_and_after(several: StateRepository) -> None:
    others = {
        path: seen
        for path, seen in listing(several.base_dir).items()
        if path.endswith((".log", ".md", "launcher-registry.json"))
    }
    assert len(others) > 20
    several.init()
    several.update_loop(FIX, {"status": "paused"})
    several.create_loop("Another one", "it is there", pid=None)
    assert {path: seen for path, seen in listing(several.base_dir).items() if path in others} == others


def test_the_launcher_s_registry_is_neither_versioned_nor_shown(several: StateRepository) -> None:
    several.init()
    assert "launcher-registry.json" not in git(several.base_dir, "ls-files").stdout
    assert git(several.base_dir, "status", "--porcelain", "-uall").stdout == ""
    assert git(several.base_dir, "log", "--oneline", "--", "launcher-registry.json").stdout == ""


def test_existing_modes_stay_as_they_are(several: StateRepository) -> None:
    before = {path: path.stat().st_mode for path in sorted(several.base_dir.rglob("*"))}
    several.init()
    several.update_loop(FIX, {"status": "paused"})
    assert {path: path.stat().st_mode for path in before} == before
    assert stat.S_IMODE((several.base_dir / ".git").stat().st_mode) == 0o700


@pytest.mark.parametrize("adopted", [False, True])
def test_both_dead_running_loops_are_reported_crashed(several: StateRepository, adopted: bool) -> None:
    if adopted:
        several.init()
    assert [entry["loop_id"] for entry in several.detect_crashed_loops()] == [FIX, CART]
    assert several.liveness(FIX).verdict == "dead"
    assert several.liveness(TYPESCRIPT).verdict == "none"


def test_reap_gives_both_dead_loops_the_status_crashed(several: StateRepository) -> None:
    assert [change.loop_id for change in several.reap_crashed_loops()] == [FIX, CART]
    assert [entry["status"] for entry in several.list_active_loops()] == ["crashed", "paused", "crashed"]
    assert several.detect_crashed_loops() == []


@pytest.mark.parametrize("adopted", [False, True])
def test_the_cyrillic_objective_is_intact_in_the_library(several: StateRepository, adopted: bool) -> None:
    if adopted:
        several.init()
    assert several.get_loop(TYPESCRIPT)["objective"] == CYRILLIC
    assert several.list_active_loops()[1]["task_summary"] == CYRILLIC
    report = next(report for report in several.status().loops if report.state["loopId"] == TYPESCRIPT)
    assert report.state["objective"] == CYRILLIC


def test_the_cyrillic_objective_is_intact_in_files_that_gitstate_wrote(several: StateRepository) -> None:
    several.update_loop(TYPESCRIPT, {"status": "waiting"})
    for path in (several.registry_path, several.loops_dir / TYPESCRIPT / "session-state.json"):
        assert CYRILLIC.encode() in path.read_bytes()


def test_a_cyrillic_objective_is_intact_in_git_log(several: StateRepository) -> None:
    several.create_loop(CYRILLIC, "npx tsc --noEmit exits 0", loop_id="ts-again", pid=None)
    assert git(several.base_dir, "log", "-1", "--format=%s").stdout == f"create ts-again: {CYRILLIC}\n"
    assert f'+  "objective": "{CYRILLIC}",' in git(several.base_dir, "show", "HEAD").stdout
    assert next(several.log(limit=1)).summary.endswith(CYRILLIC)


def test_the_original_s_archived_loop_is_listed_readable_and_tagged(several: StateRepository) -> None:
    several.init()
    (loop,) = several.list_archived_loops()
    assert (loop.loop_id, loop.status, loop.iteration, loop.max_iterations) == (DOCS, "completed", 3, 10)
    assert loop.tag == f"archive/{DOCS}"
    assert several.get_loop(DOCS)["objective"] == "Write docs"
    assert git(several.base_dir, "cat-file", "-t", f"archive/{DOCS}").stdout == "tag\n"
    shown = git(several.base_dir, "show", f"archive/{DOCS}:archive/{DOCS}/session-state.json").stdout
    assert json.loads(shown) == several.get_loop(DOCS)


def test_the_original_s_totals_are_taken_over(several: StateRepository) -> None:
    several.init()
    registry = several.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (3, 1, 0)


def test_the_original_s_archived_loop_can_be_restored(several: StateRepository) -> None:
    assert several.restore_loop(DOCS)["status"] == "paused"
    assert several.load_registry()["total_completed"] == 0
    assert (several.loops_dir / DOCS / "outputs" / "001-stdout.log").stat().st_size == 240


def test_init_a_second_time_changes_nothing(several: StateRepository) -> None:
    assert several.init() is not None
    revision = several.revision()
    assert several.init() is None
    assert several.revision() == revision


# --- the legacy symlink ----------------------------------------------------------------------------------------------


def legacy(state: StateRepository) -> str | None:
    path = state.base_dir / "session-state.json"
    return os.readlink(path) if path.is_symlink() else None


def test_the_symlink_stays_while_one_loop_is_active(single: StateRepository) -> None:
    single.update_loop(COVERAGE, {"status": "paused"})
    assert legacy(single) == f"loops/{COVERAGE}/session-state.json"
    assert read(single.base_dir / "session-state.json")["status"] == "paused"


def test_the_symlink_goes_when_a_second_loop_is_created_and_comes_back_to_the_one_that_is_left(
    single: StateRepository,
) -> None:
    single.create_loop("Another one", "it is there", loop_id="another", pid=None)
    assert legacy(single) is None
    single.archive_loop(COVERAGE, status="aborted")
    assert legacy(single) == "loops/another/session-state.json"
    assert read(single.base_dir / "session-state.json")["loopId"] == "another"


def test_the_symlink_goes_with_the_last_loop(single: StateRepository) -> None:
    single.archive_loop(COVERAGE)
    assert not (single.base_dir / "session-state.json").is_symlink()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_dangling_symlink_is_put_right(single: StateRepository, count: int) -> None:
    single.init()
    link = single.base_dir / "session-state.json"
    link.unlink()
    link.symlink_to("loops/gone/session-state.json")
    if count == 0:
        single.archive_loop(COVERAGE)
    elif count == 1:
        single.update_loop(COVERAGE, {"status": "paused"})
    else:
        single.create_loop("Another one", "it is there", pid=None)
    assert legacy(single) == (f"loops/{COVERAGE}/session-state.json" if count == 1 else None)
    assert link.is_symlink() == (count == 1)


def test_the_symlink_is_never_versioned_or_shown(single: StateRepository) -> None:
    single.init()
    assert git(single.base_dir, "ls-files").stdout.split() == [f"loops/{COVERAGE}/session-state.json", "registry.json"]
    assert git(single.base_dir, "status", "--porcelain", "-uall").stdout == ""


# --- the older single-loop manager's file ----------------------------------------------------------------------------


def test_the_legacy_file_is_never_touched_by_anything_but_migration(unpack: Unpack) -> None:
    project = unpack("legacy-single-loop")
    with open_at(project) as state:
        kept = {path: seen for path, seen in listing(state.base_dir).items() if os.path.isfile(path)}
        state.init()
        state.create_loop("One", "it is there", loop_id="one", pid=None)
        state.archive_loop("one")
        state.create_loop("Two", "it is there", loop_id="two", pid=None)
        state.rollback("two", to="HEAD")
        state.repair()
        after = listing(state.base_dir)
        assert {path: after.get(path) for path in kept} == kept
        assert git(state.base_dir, "ls-files").stdout.split() == [
            "archive/one/session-state.json",
            "loops/two/session-state.json",
            "registry.json",
        ]
