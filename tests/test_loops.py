"""Creating, reading, changing, resuming and reaping loops: section 1 of the interface, sentence by sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from listings import contents, listing
from original import Original
from processes import dead_pid, live_process

import gitstate
from gitstate import (
    InvalidInputError,
    LoopExistsError,
    LoopLimitError,
    LoopLimitWarning,
    LoopNotFoundError,
    RefusedError,
    StaleRevisionError,
    StateRepository,
    UnknownStatusWarning,
    mutations,
    process,
    records,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def one(state: State) -> str:
    state.create_loop("Fix all failing tests", "npm test passes", loop_id="one", pid=None)
    return "one"


def commits(state: State) -> int:
    return len(list(state.log()))


def entry(state: State, loop_id: str) -> dict[str, Any]:
    (found,) = [entry for entry in state.list_active_loops() if entry["loop_id"] == loop_id]
    return dict(found)


def edit(state: State, loop_id: str, **changes: object) -> None:
    """Change a session state behind gitstate's back."""
    path = state.get_loop_dir(loop_id) / "session-state.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}, indent=2))


# --- opening ---------------------------------------------------------------------------------------------------------


def test_opening_writes_nothing(project: Path) -> None:
    before = listing(project)
    with gitstate.open(project) as state:
        state.load_registry()
        state.list_archived_loops()
        state.status()
        assert state.lease_info() is None
        assert list(state.log()) == []
        assert state.revision() is None
    assert listing(project) == before


def test_the_actor_is_the_login_name_of_the_uid_unless_given(project: Path) -> None:
    assert gitstate.open(project).actor == f"user:{process.login_name()}"
    assert gitstate.open(project, actor="agent:reviewer").actor == "agent:reviewer"


def test_the_environment_is_not_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "GITSTATE_ACTOR", "GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "RALPH_LOOP_ID"):
        monkeypatch.setenv(name, "mallory")
    with gitstate.open(project) as state:
        state.create_loop("Fix", "it is fixed", loop_id="one")
        assert "mallory" not in git(state.base_dir, "cat-file", "-p", state.revision() or "").stdout


def test_nothing_is_printed(state: State, one: str, capfd: pytest.CaptureFixture[str]) -> None:
    state.update_loop(one, {"x": 1})
    state.archive_loop(one)
    assert capfd.readouterr() == ("", "")


def test_closing_is_optional_and_idempotent(state: State, one: str) -> None:
    state.close()
    state.close()
    assert state.get_loop(one)["loopId"] == one


def test_all_paths_are_absolute(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    state = gitstate.open(project.name)
    base = project / ".aiwg" / "ralph-external"
    assert state.project_root == project
    assert [state.base_dir, state.loops_dir, state.archive_dir, state.shared_dir, state.registry_path, state.lock_path] == [
        base, base / "loops", base / "archive", base / "shared", base / "registry.json", base / "registry.json.lock",
    ]  # fmt: skip


def test_paths_of_a_loop_are_the_original_s(state: State, one: str) -> None:
    directory = state.base_dir / "loops" / "one"
    assert state.get_loop_dir(one) == directory
    assert state.get_iteration_dir(one, 7) == directory / "iterations" / "007"
    assert state.get_prompt_path(one, 12) == directory / "prompts" / "012-prompt.md"
    outputs = state.get_output_paths(one, 1234)
    assert (outputs.stdout, outputs.stderr) == (
        directory / "outputs" / "1234-stdout.log",
        directory / "outputs" / "1234-stderr.log",
    )


def test_the_paths_of_an_archived_loop_lie_in_the_archive(state: State, one: str) -> None:
    state.archive_loop(one)
    assert state.get_loop_dir(one) == state.archive_dir / "one"
    assert state.get_prompt_path(one, 1).parent == state.archive_dir / "one" / "prompts"


@pytest.mark.parametrize(("n", "paths"), [(0, 0), (1, 0), (2, 1), (4, 6), (5, 10), (100, 4950)])
def test_n_loops_have_n_times_n_minus_1_halves_paths_between_them(n: int, paths: int) -> None:
    assert gitstate.calculate_communication_paths(n) == paths


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_makes_the_first_commit_and_a_second_one_nothing(state: State) -> None:
    change = state.init()
    assert change is not None
    assert (change.operation, change.revision, change.parent, change.generation) == ("init", state.revision(), None, 1)
    before = contents(state.base_dir, without=())
    assert state.init() is None
    assert {name for name, raw in contents(state.base_dir, without=()).items() if before.get(name) != raw} <= {
        ".git/gitstate/generation",
        ".git/gitstate/projected",  # all files were looked at
    }


def test_init_can_set_the_limit(state: State) -> None:
    change = state.init(max_concurrent_loops=7)
    assert change is not None
    assert state.load_registry()["max_concurrent_loops"] == 7


def test_the_first_mutation_begins_history_by_itself(state: State, one: str) -> None:
    assert [change.operation for change in state.log()] == ["create", "init"]


# --- creating --------------------------------------------------------------------------------------------------------


def test_a_new_loop_s_state_has_the_original_s_keys_in_its_order(state: State) -> None:
    made = state.create_loop("Fix all failing tests", "npm test passes", loop_id="one")
    assert list(made) == [
        "version", "loopId", "objective", "completionCriteria", "status", "maxIterations", "currentIteration",
        "startTime", "lastUpdate", "sessionId", "currentPid", "iterations", "accumulatedLearnings", "filesModified",
        "giteaIntegration", "config", "gitstate",
    ]  # fmt: skip


def test_a_new_loop_has_the_original_s_defaults(state: State, project: Path) -> None:
    made: dict[str, Any] = dict(state.create_loop("Fix all failing tests", "npm test passes", loop_id="one"))
    session, stamp = made.pop("sessionId"), made.pop("gitstate")
    assert made == {
        "version": "1.0.0",
        "loopId": "one",
        "objective": "Fix all failing tests",
        "completionCriteria": "npm test passes",
        "status": "running",
        "maxIterations": 10,
        "currentIteration": 0,
        "startTime": "2026-06-15T12:00:00.000Z",
        "lastUpdate": "2026-06-15T12:00:00.000Z",
        "currentPid": os.getpid(),
        "iterations": [],
        "accumulatedLearnings": "",
        "filesModified": [],
        "giteaIntegration": None,
        "config": {
            "model": "opus",
            "budgetPerIteration": 2,
            "timeoutMinutes": 60,
            "mcpConfig": None,
            "workingDir": str(project),
        },
    }
    assert len(session) == 36
    assert stamp == {"revision": 1, "process": process.identity(os.getpid())}


def test_a_new_loop_s_entry_is_the_original_s(state: State) -> None:
    state.create_loop("Fix all failing tests", "npm test passes", loop_id="one")
    assert list(entry(state, "one").items()) == [
        ("loop_id", "one"),
        ("task_summary", "Fix all failing tests"),
        ("status", "running"),
        ("started_at", "2026-06-15T12:00:00.000Z"),
        ("owner", "user:alice"),
        ("pid", os.getpid()),
        ("iteration", 0),
        ("max_iterations", 10),
        ("completion_criteria", "npm test passes"),
        ("priority", "medium"),
        ("tags", []),
    ]


def test_a_new_loop_takes_every_option(state: State) -> None:
    made = state.create_loop(
        "Fix", "it is fixed", loop_id="one", max_iterations=3, model="sonnet", budget_per_iteration=0.5,
        timeout_minutes=1.5, mcp_config={"servers": {"a": 1}}, working_dir=Path("/elsewhere"),
        gitea_integration={"issue": 7}, owner="team:docs", priority="critical", tags=("a", "b"), pid=None,
    )  # fmt: skip
    assert made["config"] == {
        "model": "sonnet",
        "budgetPerIteration": 0.5,
        "timeoutMinutes": 1.5,
        "mcpConfig": {"servers": {"a": 1}},
        "workingDir": "/elsewhere",
    }
    assert (made["maxIterations"], made["giteaIntegration"], made["currentPid"]) == (3, {"issue": 7}, None)
    found = entry(state, "one")
    assert (found["owner"], found["priority"], found["tags"], found["pid"], found["max_iterations"]) == (
        "team:docs", "critical", ["a", "b"], None, 3,
    )  # fmt: skip


def test_a_new_loop_gets_its_directories(state: State, one: str) -> None:
    assert sorted(path.name for path in state.get_loop_dir(one).iterdir()) == [
        "analysis", "checkpoints", "iterations", "outputs", "prompts", "session-state.json",
    ]  # fmt: skip


def test_a_summary_is_the_beginning_of_the_objective(state: State) -> None:
    objective = "x" * 199 + "😀" + "y" * 50
    state.create_loop(objective, "done", loop_id="one")
    assert entry(state, "one")["task_summary"] == objective[:200]
    assert state.get_loop("one")["objective"] == objective


def test_an_id_is_drawn_from_the_objective(state: State) -> None:
    made = state.create_loop("Fix the Build!", "done")
    assert made["loopId"].startswith("ralph-fix-the-build-")
    assert state.last_change is not None
    assert state.last_change.loop_id == made["loopId"]


def test_what_changed_is_told_when_nothing_is_left_to_read_it_from(state: State) -> None:
    state.create_loop("Fix the tests", "done", loop_id="one")
    state.update_loop("one", {"status": "paused"})
    state.base_dir.rename(state.base_dir.with_name("elsewhere"))
    for cache in (state._revisions.objects._cache, state._revisions.objects._parsed, records._KNOWN):
        cache.clear()
    assert state.last_change is not None
    assert [change.path for change in state.last_change.fields] == ["/status"]
    state.base_dir.with_name("elsewhere").rename(state.base_dir)


def test_an_id_is_drawn_again_when_it_is_taken(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["ralph-x-00000001", "ralph-x-00000001", "ralph-x-00000002", "ralph-x-00000003"])
    monkeypatch.setattr(mutations, "generate_loop_id", lambda objective: next(drawn))
    state.create_loop("x", "done")
    assert state.create_loop("x", "done")["loopId"] == "ralph-x-00000002"
    state.archive_loop("ralph-x-00000002")


@pytest.mark.parametrize("place", ["active", "archived", "tagged"])
def test_an_id_names_one_loop_ever(state: State, one: str, place: str) -> None:
    if place != "active":
        state.checkpoint(one, "first")
        state.archive_loop(one)
    if place == "tagged":  # as after pruning
        (state.archive_dir / one / "session-state.json").unlink()
        git(state.base_dir, "rm", "-q", "-r", "archive/one")
        git(state.base_dir, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "prune by hand")
    before = commits(state)
    with pytest.raises(LoopExistsError) as caught:
        state.create_loop("another", "done", loop_id=one)
    assert (caught.value.place, caught.value.loop_id) == (place, one)
    assert one in (caught.value.hint or "")
    assert commits(state) == before


def test_creating_counts_the_active_loops(state: State, one: str) -> None:
    state.create_loop("another", "done", loop_id="two")
    registry = state.load_registry()
    assert [loop["loop_id"] for loop in registry["active_loops"]] == ["one", "two"]
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (2, 0, 0)


def test_a_new_loop_is_written_as_the_original_would_write_it(state: State, one: str) -> None:
    path = state.get_loop_dir(one) / "session-state.json"
    assert path.read_text() == json.dumps(state.get_loop(one), indent=2) + "\n"
    assert state.registry_path.read_text() == json.dumps(state.load_registry(), indent=2) + "\n"


# --- the limit -------------------------------------------------------------------------------------------------------


def fill(state: State, count: int, pid: int | None = None) -> None:
    for number in range(count):
        state.create_loop(f"loop {number}", "done", loop_id=f"loop-{number}", pid=pid)


def test_the_limit_is_refused_in_the_original_s_words(state: State) -> None:
    fill(state, 4)
    before = state.revision()
    with pytest.raises(LoopLimitError) as caught:
        state.create_loop("one too many", "done")
    assert str(caught.value) == (
        "Cannot create loop: 4 loops already active (max: 4).\n"
        "Adding another would create 10 communication paths (REF-088).\n"
        "Use --force to override or complete/abort an existing loop."
    )
    assert (caught.value.active, caught.value.limit, caught.value.paths) == (4, 4, 10)
    assert state.revision() == before


def test_the_hint_at_the_limit_says_how_many_of_the_loops_are_dead(state: State) -> None:
    state.set_max_concurrent_loops(2)
    state.create_loop("alive", "done", loop_id="alive")
    state.create_loop("dead", "done", loop_id="dead", pid=dead_pid())
    with pytest.raises(LoopLimitError) as caught:
        state.create_loop("one too many", "done")
    assert caught.value.hint == "1 of the 2 active loops are dead: gitstate reap --archive"
    assert caught.value.dead == ("dead",)


def test_the_registry_s_own_limit_counts(state: State) -> None:
    assert state.set_max_concurrent_loops(1)["max_concurrent_loops"] == 1
    fill(state, 1)
    with pytest.raises(LoopLimitError, match=r"1 loops already active \(max: 1\)"):
        state.create_loop("one too many", "done")
    state.set_max_concurrent_loops(2)
    state.create_loop("one more", "done")


def test_force_goes_over_the_limit_with_a_warning_that_points_here(state: State) -> None:
    state.set_max_concurrent_loops(1)
    fill(state, 1)
    with pytest.warns(LoopLimitWarning, match="Adding another would create 1 communication paths") as caught:
        state.create_loop("one too many", "done", loop_id="more", force=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert state.load_registry()["total_active"] == 2


def test_a_warning_that_is_an_error_leaves_nothing_behind(state: State) -> None:
    state.set_max_concurrent_loops(1)
    fill(state, 1)
    before = state.revision()
    with pytest.raises(LoopLimitWarning):  # warnings are errors in these tests
        state.create_loop("one too many", "done", force=True)
    assert state.revision() == before


def test_below_the_limit_force_is_idle(state: State, one: str) -> None:
    assert state.create_loop("another", "done", loop_id="two", force=True)["loopId"] == "two"


def test_setting_the_limit_it_has_changes_nothing(state: State) -> None:
    state.set_max_concurrent_loops(4)
    assert state.last_change is None


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


# --- names -----------------------------------------------------------------------------------------------------------


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


# --- updating --------------------------------------------------------------------------------------------------------


def test_changes_replace_top_level_keys_and_remove_deletes_them(state: State, one: str) -> None:
    state.update_loop(one, {"note": {"a": 1, "b": 2}, "other": 1})
    updated: dict[str, Any] = dict(state.update_loop(one, {"note": {"c": 3}}, remove=["other", "was-never-there"]))
    assert updated["note"] == {"c": 3}
    assert "other" not in updated


def test_an_update_is_one_commit_of_state_and_registry(state: State, one: str, clock: FakeClock) -> None:
    before = commits(state)
    clock.advance(minutes=5)
    updated = state.update_loop(one, {"status": "paused", "currentIteration": 4, "maxIterations": 20})
    assert commits(state) == before + 1
    assert updated["lastUpdate"] == "2026-06-15T12:05:00.000Z"
    found = entry(state, one)
    assert (found["status"], found["iteration"], found["max_iterations"]) == ("paused", 4, 20)
    assert state.load_registry()["updated_at"] == "2026-06-15T12:05:00.000Z"


def test_an_update_that_changes_nothing_is_no_commit_and_returns_what_is_stored(
    state: State, one: str, clock: FakeClock
) -> None:
    stored = state.get_loop(one)
    before = state.revision()
    clock.advance(minutes=5)
    assert state.update_loop(one, {"status": "running", "maxIterations": 10.0, "lastUpdate": "now"}) == stored
    assert state.update_loop(one, {}, remove=["nothing"]) == stored
    assert (state.revision(), state.last_change) == (before, None)


def test_a_whole_record_can_be_passed_back(state: State, one: str) -> None:
    record: dict[str, Any] = dict(state.get_loop(one))
    record["status"] = "paused"
    assert state.update_loop(one, record)["status"] == "paused"


def test_a_whole_record_with_large_numbers_can_be_passed_back(state: State, one: str) -> None:
    large = {"a": 6.974433521061975e16, "b": 2.0**64, "c": 1e300, "d": 2.0**53}
    state.update_loop(one, large)
    record = state.get_loop(one)
    state.update_loop(one, record)
    assert state.last_change is None
    state.update_loop(one, large)
    assert state.last_change is None


@pytest.mark.parametrize("key", ["loopId", "version", "startTime", "gitstate"])
def test_protected_keys_keep_their_values(state: State, one: str, key: str) -> None:
    before = state.revision()
    present: dict[str, Any] = dict(state.get_loop(one))
    state.update_loop(one, {key: present[key]})
    for call in (
        lambda: state.update_loop(one, {key: "other"}),
        lambda: state.update_loop(one, {}, remove=[key]),
        lambda: state.modify_loop(one, lambda _: {key: "other"}),
    ):
        with pytest.raises(InvalidInputError, match=key) as caught:
            call()
        assert caught.value.path == f"/{key}"
    assert state.revision() == before


def test_any_other_key_is_a_key(state: State, one: str) -> None:
    keys = ["__proto__", "constructor", "", "a.b", "a/b", "~", "\0", "é", "x" * 10_000]
    for key in keys:
        updated: dict[str, Any] = dict(state.update_loop(one, {key: {"x": 1}}))
        assert updated[key] == {"x": 1}
    assert not {*keys} & {*state.update_loop(one, {}, remove=keys)}


def test_unknown_keys_survive_every_rewrite(state: State, one: str) -> None:
    edit(state, one, unknown={"a": [1]}, config={"model": "opus", "unknown": True})
    state.update_loop(one, {"status": "paused"})
    state.record_iteration(one, {"number": 1})
    state.archive_loop(one)
    found: dict[str, Any] = dict(state.restore_loop(one))
    assert (found["unknown"], found["config"]) == ({"a": [1]}, {"model": "opus", "unknown": True})


def test_a_key_cannot_be_set_and_removed_at_once(state: State, one: str) -> None:
    with pytest.raises(InvalidInputError, match="both set and removed"):
        state.update_loop(one, {"note": 1}, remove=["note"])


def test_the_stamp_counts_the_writes_of_a_file(state: State, one: str) -> None:
    for number in range(2, 5):
        assert state.update_loop(one, {"note": number})["gitstate"]["revision"] == number


# --- if_revision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["update", "iterate"])
def test_if_revision_goes_on_when_this_loop_is_as_it_was(state: State, one: str, method: str) -> None:
    revision = state.revision()
    state.create_loop("another", "done", loop_id="two", pid=None)
    state.update_loop("two", {"note": 1})
    if method == "update":
        state.update_loop(one, {"note": 1}, if_revision=revision)
    else:
        state.record_iteration(one, {}, if_revision=revision)
    assert state.last_change is not None


@pytest.mark.parametrize(
    "between",
    [
        lambda state: state.update_loop("one", {"note": 0}),
        lambda state: state.update_entry("one", owner="somebody"),
        lambda state: state.update_loop_pid("one", 12345),
    ],
    ids=["state", "entry", "pid"],
)
def test_if_revision_refuses_when_state_or_entry_changed(
    state: State, one: str, between: Callable[[State], object]
) -> None:
    revision = state.revision()
    between(state)
    after = state.revision()
    for call in (
        lambda: state.update_loop(one, {"note": 1}, if_revision=revision),
        lambda: state.record_iteration(one, {}, if_revision=revision),
    ):
        with pytest.raises(StaleRevisionError) as caught:
            call()
        assert (caught.value.expected, caught.value.actual, caught.value.loop_id) == (revision, after, one)
        assert "gitstate diff" in (caught.value.hint or "")
    assert state.revision() == after


def test_if_revision_takes_any_revision(state: State, one: str, clock: FakeClock) -> None:
    moment = clock.now()
    state.checkpoint(one, "start")
    clock.advance(hours=1)
    for revision in ((state.revision() or "")[:7], "HEAD", "HEAD~1", "main", "checkpoint/one/start", moment):
        assert state.update_loop(one, {}, if_revision=revision) == state.get_loop(one)
    state.update_loop(one, {"note": 0}, if_revision=moment)
    with pytest.raises(StaleRevisionError):
        state.update_loop(one, {"note": 1}, if_revision="HEAD~1")
    with pytest.raises(gitstate.RevisionNotFoundError):
        state.update_loop(one, {"note": 1}, if_revision="nowhere")


def test_if_revision_from_before_the_loop_is_stale(state: State, one: str) -> None:
    with pytest.raises(StaleRevisionError):
        state.update_loop(one, {"note": 1}, if_revision="HEAD~1")


# --- modifying -------------------------------------------------------------------------------------------------------


def test_modifying_reads_decides_and_writes_in_one_step(state: State, one: str) -> None:
    seen: list[object] = []

    def function(record: gitstate.LoopState) -> dict[str, object]:
        seen.append(record["maxIterations"])
        return {"maxIterations": record["maxIterations"] + 1}

    assert state.modify_loop(one, function)["maxIterations"] == 11
    assert seen == [10]


def test_modifying_gets_a_copy(state: State, one: str) -> None:
    def function(record: gitstate.LoopState) -> None:
        record["status"] = "failed"
        record["config"]["model"] = "none"

    assert state.modify_loop(one, function)["status"] == "running"
    assert state.last_change is None


def test_modifying_may_return_the_whole_copy(state: State, one: str) -> None:
    def function(record: gitstate.LoopState) -> gitstate.LoopState:
        record["status"] = "paused"
        return record

    assert state.modify_loop(one, function)["status"] == "paused"


def test_modifying_with_none_changes_nothing(state: State, one: str) -> None:
    before = state.revision()
    assert state.modify_loop(one, lambda record: None) == state.get_loop(one)
    assert state.revision() == before


def test_what_the_function_raises_passes_through_and_nothing_is_written(state: State, one: str) -> None:
    before = contents(state.base_dir)
    error = ZeroDivisionError("of my own")

    def function(record: gitstate.LoopState) -> None:
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        state.modify_loop(one, function)
    assert caught.value is error
    assert contents(state.base_dir) == before
    assert state.lease_info() is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (["status"], gitstate.InvalidRecordError),
        (5, gitstate.InvalidRecordError),
        ({"status": "success"}, InvalidInputError),
        ({"x": float("nan")}, gitstate.InvalidRecordError),
        ({"x": {1}}, gitstate.InvalidRecordError),
    ],
)
def test_a_bad_answer_is_refused_and_the_lease_given_back(
    state: State, one: str, answer: Any, kind: type[Exception]
) -> None:
    before = state.revision()
    with pytest.raises(kind):
        state.modify_loop(one, lambda record: answer)
    assert (state.revision(), state.lease_info()) == (before, None)


def test_the_function_may_read(state: State, one: str) -> None:
    state.modify_loop(
        one, lambda record: {"seen": state.get_loop(one)["status"], "loops": len(state.list_active_loops())}
    )
    found: dict[str, Any] = dict(state.get_loop(one))
    assert (found["seen"], found["loops"]) == ("running", 1)


# --- entries ---------------------------------------------------------------------------------------------------------


def test_an_entry_takes_owner_priority_and_tags(state: State, one: str) -> None:
    found = state.update_entry(one, owner="team:docs", priority="high", tags=["a", "b"])
    assert (found["owner"], found["priority"], found["tags"]) == ("team:docs", "high", ["a", "b"])
    assert state.last_change is not None
    assert {change.path for change in state.last_change.fields} == {
        "/active_loops/one/owner", "/active_loops/one/priority", "/active_loops/one/tags/0", "/active_loops/one/tags/1",
    }  # fmt: skip


def test_an_entry_keeps_what_is_left_out(state: State, one: str) -> None:
    state.update_entry(one, owner="x", tags=["a"])
    state.update_entry(one, priority="low")
    found = entry(state, one)
    assert (found["owner"], found["priority"], found["tags"]) == ("x", "low", ["a"])
    state.update_entry(one, tags=[])
    assert entry(state, one)["tags"] == []


def test_an_entry_that_stays_as_it_is_is_no_commit(state: State, one: str) -> None:
    before = state.revision()
    state.update_entry(one)
    state.update_entry(one, priority="medium", owner="user:alice", tags=())
    assert state.revision() == before


def test_an_entry_s_change_leaves_the_session_state_alone(state: State, one: str) -> None:
    before = state.get_loop(one)
    state.update_entry(one, owner="x")
    assert state.get_loop(one) == before


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


def elsewhere(state: State, loop_id: str) -> None:
    """Make a loop one that another host drives."""
    stamp = state.update_loop_pid(loop_id, "self")["gitstate"]
    edit(state, loop_id, gitstate={**stamp, "process": {**stamp["process"], "host": "elsewhere"}})


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
