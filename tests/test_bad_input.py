"""What cannot be is refused: with the right error, exit code and hint, and with nothing changed on disk.

All tests of a kind share one state directory, which is just what must not matter.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import assert_sound
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listings import contents, listing

import gitstate
from gitstate import (
    InvalidInputError,
    InvalidLoopIdError,
    InvalidRecordError,
    LoopNotFoundError,
    StateRepository,
)
from gitstate.fields import same

State = StateRepository
Call = Callable[[State], object]

NAN, INFINITY, HUGE = float("nan"), float("inf"), 10**5000


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    root = tmp_path_factory.mktemp("project")
    with StateRepository(root, actor="user:alice", clock=FakeClock()) as repository:
        repository.create_loop("First", "done", loop_id="one", pid=None)
        repository.create_loop("Second", "done", loop_id="ralph-fix-tests-a1b2c3d4", pid=None)
        repository.create_loop("Third", "done", loop_id="old", pid=None)
        repository.record_iteration("one", {"number": 1})
        repository.archive_loop("old")
        yield repository
    assert_sound(root)


def refused(state: State, call: Call, kind: type[gitstate.GitStateError]) -> Any:
    """The error that *call* raises, once nothing at all was touched."""
    before = listing(state.project_root)
    with pytest.raises(kind) as caught:
        call(state)
    assert listing(state.project_root) == before
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 400
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def kept(state: State) -> dict[str, bytes]:
    """Everything on disk but the count of leases and what is locked."""
    found = contents(state.project_root, without=())
    return {name: raw for name, raw in found.items() if "/.git/gitstate/" not in name}


# --- ids -------------------------------------------------------------------------------------------------------------


TAKING_AN_ID: dict[str, Callable[[State, Any], object]] = {
    "get_loop": lambda state, i: state.get_loop(i),
    "update_loop": lambda state, i: state.update_loop(i, {"note": 1}),
    "modify_loop": lambda state, i: state.modify_loop(i, lambda record: {"note": 1}),
    "record_iteration": lambda state, i: state.record_iteration(i, {}),
    "amend_iteration": lambda state, i: state.amend_iteration(i, 1, {"note": 1}),
    "update_loop_pid": lambda state, i: state.update_loop_pid(i, None),
    "resume_loop": lambda state, i: state.resume_loop(i),
    "update_entry": lambda state, i: state.update_entry(i, owner="x"),
    "archive_loop": lambda state, i: state.archive_loop(i),
    "restore_loop": lambda state, i: state.restore_loop(i),
    "checkpoint": lambda state, i: state.checkpoint(i, "name"),
    "list_checkpoints": lambda state, i: state.list_checkpoints(i),
    "is_loop_alive": lambda state, i: state.is_loop_alive(i),
    "liveness": lambda state, i: state.liveness(i),
    "report": lambda state, i: state.report(i),
    "revision": lambda state, i: state.revision(i),
    "log": lambda state, i: state.log(i),
    "diff": lambda state, i: state.diff("HEAD~1", loop_id=i),
    "rollback": lambda state, i: state.rollback(i, steps=1),
    "rollback, dry": lambda state, i: state.rollback(i, steps=1, dry_run=True),
    "undo": lambda state, i: state.undo(i),
    "undo, dry": lambda state, i: state.undo(i, dry_run=True),
}
TAKING_ANY_ID: dict[str, Callable[[State, Any], object]] = {
    "get_loop_dir": lambda state, i: state.get_loop_dir(i),
    "get_iteration_dir": lambda state, i: state.get_iteration_dir(i, 1),
    "get_prompt_path": lambda state, i: state.get_prompt_path(i, 1),
    "get_output_paths": lambda state, i: state.get_output_paths(i, 1),
}
NO_IDS: list[Any] = [
    "", ".", "..", "../one", "one/..", "a/b", "/etc/passwd", "one/session-state.json", "a\0b", "one\n", "\none", " one", "x" * 201,
    "-rf", "--force", ".git", "x.lock", "a..b", "@", "@{1}", "a~1", "a:b", "a*", "\ud800", 5, 1.5, b"one", ["one"], HUGE,
]  # fmt: skip
STRANGE_IDS = ["ONE", "One", "x" * 200, "a_b", "é", "con", "a.b"]  # a loop of another's could be called that


@pytest.mark.parametrize("method", TAKING_AN_ID | TAKING_ANY_ID)
def test_what_can_be_no_id_is_refused_everywhere(state: State, method: str) -> None:
    call = (TAKING_AN_ID | TAKING_ANY_ID)[method]
    before = listing(state.project_root)
    for loop_id in NO_IDS:
        with pytest.raises(InvalidLoopIdError) as caught:
            call(state, loop_id)
        error = caught.value
        assert (error.exit_code, error.code, error.hint) == (2, "invalid_loop_id", "gitstate list")
        assert error.loop_id is loop_id
    assert listing(state.project_root) == before


@pytest.mark.parametrize(
    "loop_id",
    [*NO_IDS, *STRANGE_IDS[:2], *STRANGE_IDS[3:5], "x" * 101, "a-"],
    ids=lambda i: ascii(i)[:16] if i != HUGE else "huge",
)
def test_no_loop_can_be_created_with_such_an_id(state: State, loop_id: Any) -> None:
    error = refused(state, lambda s: s.create_loop("Fix", "done", loop_id=loop_id), InvalidLoopIdError)
    assert (error.exit_code, error.hint) == (2, "gitstate list")


@pytest.mark.parametrize("method", TAKING_AN_ID)
def test_an_unknown_loop_is_not_found_and_what_was_meant_is_asked(state: State, method: str) -> None:
    before = kept(state)
    for loop_id, close in (
        ("onee", ("one",)),
        ("ralph-fix-test-a1b2c3d4", ("ralph-fix-tests-a1b2c3d4",)),
        ("zzzz", ()),
    ):
        with pytest.raises(LoopNotFoundError) as caught:
            TAKING_AN_ID[method](state, loop_id)
        error = caught.value
        assert (error.exit_code, error.code, error.hint) == (3, "loop_not_found", "gitstate list")
        assert (error.loop_id, error.close) == (loop_id, close)
        assert str(error) == f"no loop {loop_id!r}" + (f"; did you mean {close[0]}?" if close else "")
    assert kept(state) == before
    assert state.lease_info() is None


@pytest.mark.parametrize("loop_id", STRANGE_IDS)
def test_a_strange_id_is_not_found_rather_than_invalid(state: State, loop_id: str) -> None:
    for call in TAKING_AN_ID.values():
        with pytest.raises(LoopNotFoundError):
            call(state, loop_id)


ON_ACTIVE_LOOPS = ["update_loop", "modify_loop", "record_iteration", "amend_iteration", "update_loop_pid", "resume_loop",
                   "update_entry", "archive_loop", "checkpoint", "rollback", "rollback, dry"]  # fmt: skip


@pytest.mark.parametrize("method", ON_ACTIVE_LOOPS)
def test_an_archived_loop_is_to_be_restored_first(state: State, method: str) -> None:
    before = kept(state)
    with pytest.raises(LoopNotFoundError, match="old is archived, not active") as caught:
        TAKING_AN_ID[method](state, "old")
    assert (caught.value.exit_code, caught.value.hint) == (3, "gitstate restore old")
    assert kept(state) == before


def test_a_name_that_is_no_text_is_no_name(state: State) -> None:
    for name in (None, 5, b"one", ["one"]):
        refused(state, lambda s, name=name: s.resolve_loop_id(name), InvalidLoopIdError)  # type: ignore[misc]


def test_a_name_that_would_lead_out_of_the_directory_is_not_found_before_adoption_either(tmp_path: Path) -> None:
    base = tmp_path / ".aiwg" / "ralph-external"
    (base / "loops").mkdir(parents=True)
    (base / "session-state.json").write_text('{"status": "running", "loopId": "legacy"}')
    state = gitstate.open(tmp_path)
    for name in ("..", "../..", ".", "", "loops/.."):
        with pytest.raises(LoopNotFoundError):
            state.resolve_loop_id(name)


# --- values ----------------------------------------------------------------------------------------------------------


def create(**options: Any) -> Call:
    return lambda state: state.create_loop(**{"objective": "Fix", "completion_criteria": "done", **options})


def update(**changes: Any) -> Call:
    return lambda state: state.update_loop("one", changes)


NO_COUNTS: list[Any] = [0, -1, 1.5, "3", True, NAN, INFINITY, -INFINITY, 2**53, HUGE, -HUGE, [], b"3"]
NO_AMOUNTS: list[Any] = [0, -1, -0.0, "2", True, NAN, INFINITY, HUGE, 10**400, 2**53, [], None]
NO_TEXTS: list[Any] = ["", "  \n", 5, None, b"text", ["text"], HUGE]
NO_LINES: list[Any] = ["", " ", "a\nb", "a\rb", "a\0b", "a\x85b", "a\u2028b", "a\tb", 5, b"a", HUGE]
NO_PIDS: list[Any] = [0, -1, 2**31, 1.5, "12", "SELF", "", True, NAN, HUGE, []]

BOUNDS: dict[str, tuple[str, Callable[[Any], Call], list[Any]]] = {
    # name of the case: what the message names, the call with a value, the values
    "objective": ("objective", lambda v: create(objective=v), NO_TEXTS),
    "completion_criteria": ("completion_criteria", lambda v: create(completion_criteria=v), NO_TEXTS),
    "max_iterations": ("max_iterations", lambda v: create(max_iterations=v), [*NO_COUNTS, None]),
    "model": ("model", lambda v: create(model=v), NO_TEXTS),
    "budget": ("budget_per_iteration", lambda v: create(budget_per_iteration=v), NO_AMOUNTS),
    "timeout": ("timeout_minutes", lambda v: create(timeout_minutes=v), NO_AMOUNTS),
    "working_dir": ("working_dir", lambda v: create(working_dir=v), ["", 5, b"/x", []]),
    "owner": ("owner", lambda v: create(owner=v), NO_LINES),
    "priority": ("priority", lambda v: create(priority=v), ["", "urgent", "High", None, 5]),
    "tags": ("tag", lambda v: create(tags=v), ["abc", 5, None, [5], [""], ["a\nb"], [None], b"ab"]),
    "pid": ("pid", lambda v: create(pid=v), NO_PIDS),
    "new pid": ("pid", lambda v: lambda state: state.update_loop_pid("one", v), NO_PIDS),
    "resume pid": ("pid", lambda v: lambda state: state.resume_loop("one", pid=v), NO_PIDS),
    "resume max": ("max_iterations", lambda v: lambda state: state.resume_loop("one", max_iterations=v), NO_COUNTS),
    "limit": ("max_concurrent_loops", lambda v: lambda state: state.set_max_concurrent_loops(v), [*NO_COUNTS, None]),
    "init limit": ("max_concurrent_loops", lambda v: lambda state: state.init(max_concurrent_loops=v), NO_COUNTS),
    "entry owner": ("owner", lambda v: lambda state: state.update_entry("one", owner=v), NO_LINES),
    "entry priority": ("priority", lambda v: lambda state: state.update_entry("one", priority=v), ["", "urgent", 5]),
    "entry tags": ("tag", lambda v: lambda state: state.update_entry("one", tags=v), ["abc", 5, [5], ["a\nb"]]),
    "archive status": ("status", lambda v: lambda state: state.archive_loop("one", status=v), ["", "success", "COMPLETED", 5]),
    "checkpoint": ("checkpoint", lambda v: lambda state: state.checkpoint("one", v), ["", "a b", "a/b", ".lock", "a\n", None, HUGE]),
    "amended number": ("number", lambda v: lambda state: state.amend_iteration("one", v, {}), [*NO_COUNTS, None]),
    "recorded number": ("number", lambda v: lambda state: state.record_iteration("one", {"number": v}), [0, -1, 1.5, "3", True]),
    "remove": ("remove", lambda v: lambda state: state.update_loop("one", {}, remove=v), ["abc", 5, [5], [None], None]),
    "reason": ("reason", lambda v: lambda state: state.update_loop("one", {"x": 1}, reason=v), [5, b"x", [], HUGE]),
    "path": ("n", lambda v: lambda state: state.get_prompt_path("one", v), [-1, 1.5, "3", True, NAN, HUGE, None]),
    "log limit": ("limit", lambda v: lambda state: state.log(limit=v), [-1, 1.5, "3", True, NAN, HUGE]),
    "moment": ("revision", lambda v: lambda state: state.get_loop("one", at=v), [5, b"HEAD", [], HUGE]),
    "steps": ("steps", lambda v: lambda state: state.rollback("one", steps=v, dry_run=True), [0, -1, 1.5, "3", True]),
}  # fmt: skip
BOUND_CASES = [
    pytest.param(name, value, id=f"{name}-{'huge' if type(value) is int and abs(value) > 2**64 else ascii(value)[:12]}")
    for name, (_, _, values) in BOUNDS.items()
    for value in values
]


@pytest.mark.parametrize(("name", "value"), BOUND_CASES)
def test_what_is_out_of_bounds_is_refused_before_anything_is_locked(state: State, name: str, value: Any) -> None:
    word, call, _ = BOUNDS[name]
    error = refused(state, call(value), InvalidInputError)
    assert (error.exit_code, error.code) == (2, "invalid_input")
    assert word in str(error)


NO_JSON: list[Any] = [
    NAN,
    INFINITY,
    2**53,
    -HUGE,
    {1},
    b"bytes",
    object(),
    {1: 2},
    1j,
    range(3),
    [NAN],
    {"a": [{"b": {2}}]},
]


@pytest.mark.parametrize(
    "call",
    [
        lambda value: lambda state: state.update_loop("one", {"x": value}),
        lambda value: lambda state: state.record_iteration("one", {"x": value}),
        lambda value: lambda state: state.amend_iteration("one", 1, {"x": value}),
        lambda value: create(mcp_config={"x": value}),
        lambda value: create(gitea_integration={"x": value}),
    ],
    ids=["update", "iterate", "amend", "mcp_config", "gitea_integration"],
)
@pytest.mark.parametrize("value", NO_JSON, ids=range(len(NO_JSON)))
def test_what_json_cannot_hold_is_refused_with_its_place(state: State, call: Callable[[Any], Call], value: Any) -> None:
    error = refused(state, call(value), InvalidRecordError)
    assert (error.exit_code, error.code) == (2, "invalid_record")
    assert error.path.startswith("/x")


@pytest.mark.parametrize(
    "call",
    [
        lambda value: lambda state: state.update_loop("one", value),
        lambda value: lambda state: state.record_iteration("one", value),
        lambda value: lambda state: state.amend_iteration("one", 1, value),
        lambda value: create(mcp_config=value),
        lambda value: create(gitea_integration=value),
    ],
    ids=["update", "iterate", "amend", "mcp_config", "gitea_integration"],
)
@pytest.mark.parametrize("value", [[], "text", 5, True, [("status", "paused")], {"a"}, b"{}", HUGE], ids=range(8))
def test_json_that_is_not_an_object_is_refused(state: State, call: Callable[[Any], Call], value: Any) -> None:
    error = refused(state, call(value), InvalidRecordError)
    assert "an object is wanted" in str(error)


CHANGES: list[tuple[dict[str, Any], str]] = [
    *[({"status": value}, "status") for value in ("", "success", "Paused", None, 5, [])],
    *[({"maxIterations": value}, "maxIterations") for value in (0, -1, 1.5, "3", None, True)],
    *[({"currentIteration": value}, "currentIteration") for value in (-1, 1.5, "3", None, True)],
    *[({"currentPid": value}, "pid") for value in (0, -1, 2**31, "12", 1.5, True)],
    *[({"objective": value}, "objective") for value in ("", "  ", None, 5)],
    *[({"completionCriteria": value}, "completionCriteria") for value in (None, 5, [])],
    *[({"sessionId": value}, "sessionId") for value in (None, 5)],
    *[({"accumulatedLearnings": value}, "accumulatedLearnings") for value in (None, 5, ["x"])],
    *[({"filesModified": value}, "filesModified") for value in (None, "x", [5])],
    *[({"iterations": value}, "iterations") for value in (None, {}, "x", [5], [None])],
    *[({"config": value}, "config") for value in (None, [], "x")],
    *[({"config": {"budgetPerIteration": value}}, "config.budgetPerIteration") for value in (0, -1, "2", None, True)],
    *[({"config": {"timeoutMinutes": value}}, "config.timeoutMinutes") for value in (0, -1, "2", None)],
    *[({key: "other"}, key) for key in ("loopId", "version", "startTime", "gitstate")],
]  # fmt: skip


@pytest.mark.parametrize(("changes", "word"), CHANGES, ids=lambda value: ascii(value)[:40])
def test_a_session_state_keeps_its_bounds_through_every_change(
    state: State, changes: dict[str, Any], word: str
) -> None:
    before = kept(state)
    for call in (
        lambda: state.update_loop("one", changes),
        lambda: state.modify_loop("one", lambda record: changes),
    ):
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.exit_code == 2
        assert word in str(caught.value)
    assert kept(state) == before
    assert state.lease_info() is None


@pytest.mark.parametrize(
    "key", ["status", "objective", "iterations", "currentIteration", "currentPid", "loopId", "gitstate"]
)
def test_what_a_session_state_needs_cannot_be_removed(state: State, key: str) -> None:
    before = kept(state)
    with pytest.raises(InvalidInputError, match=f"{key} cannot be removed"):
        state.update_loop("one", {}, remove=[key])
    assert kept(state) == before


def test_zero_is_never_replaced_by_a_default(state: State) -> None:
    for options in (
        {"max_iterations": 0},
        {"budget_per_iteration": 0},
        {"timeout_minutes": 0},
        {"model": ""},
        {"owner": ""},
    ):
        refused(state, create(**options), InvalidInputError)


# --- opening ---------------------------------------------------------------------------------------------------------


OPENING: list[dict[str, Any]] = [
    *[{"lock_timeout": value} for value in (-1, -0.001, NAN, INFINITY, "1", None, True, HUGE)],
    *[{"lease_seconds": value} for value in (0, -1, NAN, INFINITY, "1", None, True)],
    *[{"actor": value} for value in ("", " ", "a\nb", "a\0b", "a <a@b>", "x" * 201, 5, b"alice")],
    *[{"project_root": value} for value in (5, None, b"/tmp", "a\0b", "/tmp/\ud800", ["/tmp"])],
]


@pytest.mark.parametrize("options", OPENING, ids=range(len(OPENING)))
def test_opening_with_what_cannot_be_is_refused(project: Path, options: dict[str, Any]) -> None:
    (word,) = options
    with pytest.raises(InvalidInputError, match=word) as caught:
        gitstate.open(**{"project_root": project, **options})
    assert caught.value.exit_code == 2
    assert list(project.iterdir()) == []


def test_a_project_that_is_not_there_reads_as_empty_and_cannot_be_written(tmp_path: Path) -> None:
    state = gitstate.open(tmp_path / "nowhere")
    assert state.list_active_loops() == []
    with pytest.raises(gitstate.StorageError, match="no such file or directory") as caught:
        state.create_loop("Fix", "done")
    assert (caught.value.exit_code, caught.value.errno) == (9, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_is_a_file_reads_as_empty_and_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    state = gitstate.open(tmp_path / "file")
    assert state.list_active_loops() == []
    with pytest.raises(gitstate.StorageError, match="not a directory"):
        state.create_loop("Fix", "done")


# --- anything --------------------------------------------------------------------------------------------------------


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


def joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.fixture
def scratch(project: Path, quick_disk: None) -> Iterator[State]:
    with StateRepository(project, actor="user:alice", clock=FakeClock()) as repository:
        repository.create_loop("First", "done", loop_id="one", pid=None)
        yield repository


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(st.characters()).map(joined), value=anything)
def test_any_value_is_either_kept_whole_or_refused(scratch: State, key: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            scratch.update_loop("one", {key: value})
        except InvalidInputError:
            return
        found: dict[str, Any] = dict(scratch.get_loop("one"))
    assert same(found[key], value) or any(half in repr(value) for half in ("\\ud8", "\\ud9", "\\uda", "\\udb"))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loop_id=anything, value=anything)
def test_no_other_error_reaches_a_caller_whatever_is_given(state: State, loop_id: Any, value: Any) -> None:
    for call in (
        lambda: state.get_loop(loop_id),
        lambda: state.get_loop("one", at=value),
        lambda: state.resolve_loop_id(value),
        lambda: state.show(value),
        lambda: state.checkpoint("nobody", value),
        lambda: state.record_iteration("nobody", value),
        lambda: state.update_loop(loop_id, value, remove=value),
    ):
        with contextlib.suppress(gitstate.GitStateError):
            call()
