"""Every command is one library call; what it answers with --json is that call's result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from gitstate import StateRepository
from gitstate.cli import root

Json = Callable[..., dict[str, object]]

COMMAND_LINE = ("--completion", "npm test")


@pytest.fixture
def run(project: Path) -> Json:
    """Runs a command with --json in the project, and wants it to succeed."""

    def go(*words: str, stdin: str | None = None, code: int = 0) -> dict[str, object]:
        result = CliRunner().invoke(root, ["-C", str(project), "--json", *words], input=stdin)
        document: dict[str, object] = json.loads(result.stdout)
        assert result.exit_code == code, document
        return document

    return go


@pytest.fixture
def loop(state: StateRepository) -> str:
    """An active loop that nobody drives."""
    state.create_loop("fix the tests", "npm test", loop_id="fix-tests", pid=None)
    return "fix-tests"


def data(document: dict[str, object]) -> object:
    return document["data"]


def operation(document: dict[str, object]) -> object:
    change = document["change"]
    return change["operation"] if isinstance(change, dict) else change


def test_init_answers_with_its_change_and_then_with_none(run: Json) -> None:
    first = run("init")
    assert operation(first) == "init"
    assert data(first) == first["change"]
    assert (data(run("init")), run("init")["change"]) == (None, None)


def test_init_sets_the_limit(run: Json, state: StateRepository) -> None:
    run("init", "--max-loops", "7")
    assert state.load_registry()["max_concurrent_loops"] == 7


def test_create_answers_with_the_session_state(run: Json, state: StateRepository) -> None:
    document = run("create", "fix the tests", *COMMAND_LINE)
    (entry,) = state.list_active_loops()
    assert data(document) == state.get_loop(entry["loop_id"])
    assert operation(document) == "create"


def test_create_hands_every_option_on(run: Json, state: StateRepository, tmp_path: Path) -> None:
    servers = tmp_path / "mcp.json"
    servers.write_text('{"servers": {"x": 1}}')
    run(
        "create", "fix the tests", *COMMAND_LINE, "--loop-id", "mine", "--max-iterations", "7", "--model", "sonnet",
        "--budget", "1.5", "--iteration-timeout", "30", "--mcp-config", str(servers), "--working-dir", "/srv",
        "--owner", "team", "--priority", "high", "--tag", "a", "--tag", "b", "--pid", str(os.getpid()),
    )  # fmt: skip
    made = state.get_loop("mine")
    assert (made["maxIterations"], made["currentPid"], made["completionCriteria"]) == (7, os.getpid(), "npm test")
    assert made["config"] == {
        "model": "sonnet",
        "budgetPerIteration": 1.5,
        "timeoutMinutes": 30,
        "mcpConfig": {"servers": {"x": 1}},
        "workingDir": "/srv",
    }
    (entry,) = state.list_active_loops()
    assert (entry["owner"], entry["priority"], entry["tags"]) == ("team", "high", ["a", "b"])


def test_a_loop_created_from_the_command_line_has_no_pid_unless_one_is_given(run: Json, state: StateRepository) -> None:
    run("create", "x", *COMMAND_LINE, "--loop-id", "mine")
    assert state.get_loop("mine")["currentPid"] is None


def test_create_goes_over_the_limit_with_force_and_a_warning(run: Json, state: StateRepository) -> None:
    state.init(max_concurrent_loops=1)
    run("create", "one", *COMMAND_LINE)
    assert run("create", "two", *COMMAND_LINE, code=7)["error"]
    warnings = run("create", "two", *COMMAND_LINE, "--force")["warnings"]
    assert isinstance(warnings, list)
    assert [item["code"] for item in warnings] == ["loop_limit"]


def test_list_answers_with_the_entries(run: Json, loop: str, state: StateRepository) -> None:
    assert data(run("list")) == state.list_active_loops()
    assert "change" not in run("list")


def test_list_archived_answers_with_the_archived_loops(run: Json, loop: str, state: StateRepository) -> None:
    state.archive_loop(loop)
    assert data(run("list", "--archived")) == [item.to_dict() for item in state.list_archived_loops()]


def test_status_answers_with_the_overview(run: Json, loop: str) -> None:
    found = data(run("status"))
    assert isinstance(found, dict)
    assert {"loops", "slots_used", "slots_max", "archived", "findings", "lease", "size_bytes"} <= found.keys()
    assert [item["state"]["loopId"] for item in found["loops"]] == [loop]


def test_status_of_a_loop_answers_with_its_report(run: Json, loop: str, state: StateRepository) -> None:
    found = data(run("status", loop))
    assert found == state.report(loop).to_dict()


def test_cat_answers_with_the_session_state_now_or_then(run: Json, loop: str, state: StateRepository) -> None:
    before = state.get_loop(loop)
    state.update_loop(loop, {"status": "paused"})
    assert data(run("cat", loop)) == state.get_loop(loop)
    assert data(run("cat", loop, "--at", "HEAD~1")) == before


def test_update_sets_and_unsets_fields_and_entry_in_one_commit(run: Json, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"note": "old"})
    before = len(list(state.log()))
    document = run(
        "update", loop, "--set", "status=paused", "--set", "config.model=sonnet", "--set-string", "label=3",
        "--unset", "note", "--owner", "team", "--priority", "low", "--tag", "x",
    )  # fmt: skip
    assert len(list(state.log())) == before + 1
    after = state.get_loop(loop)
    assert data(document) == after
    assert (after["status"], after["config"]["model"], after["config"]["timeoutMinutes"]) == ("paused", "sonnet", 60)
    assert (dict(after)["label"], "note" in after) == ("3", False)
    (entry,) = state.list_active_loops()
    assert (entry["owner"], entry["priority"], entry["tags"]) == ("team", "low", ["x"])


@pytest.mark.parametrize("words", [("--set", "status=paused"), ("--set", "config.model=x"), ("--owner", "team")])
def test_update_of_one_kind_is_recorded_as_an_update(run: Json, loop: str, words: tuple[str, ...]) -> None:
    assert operation(run("update", loop, *words)) == "update"


def test_update_from_takes_a_whole_session_state_back(run: Json, loop: str, state: StateRepository) -> None:
    record = {**state.get_loop(loop), "note": "тест"}
    run("update", loop, "--from", "-", stdin=json.dumps(record))
    assert dict(state.get_loop(loop))["note"] == "тест"


def test_update_that_changes_nothing_makes_no_commit(run: Json, loop: str) -> None:
    assert run("update", loop, "--set", "status=running")["change"] is None


def test_update_if_revision_refuses_when_the_loop_changed(run: Json, loop: str, state: StateRepository) -> None:
    seen = state.revision(loop) or ""
    run("update", loop, "--set", "note=1", "--if-revision", seen)
    error = run("update", loop, "--owner", "team", "--if-revision", seen, code=5)["error"]
    assert isinstance(error, dict)
    assert error["code"] == "stale_revision"


def test_update_clears_the_tags_with_an_empty_one(run: Json, loop: str, state: StateRepository) -> None:
    run("update", loop, "--tag", "x")
    run("update", loop, "--tag", "")
    assert state.list_active_loops()[0]["tags"] == []


def test_iterate_records_an_iteration_from_a_file(run: Json, loop: str, state: StateRepository, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text('{"summary": "one"}')
    document = run("iterate", loop, str(file))
    assert operation(document) == "iterate"
    assert data(document) == state.get_loop(loop)
    assert state.get_loop(loop)["iterations"] == [{"number": 1, "summary": "one"}]


def test_amend_replaces_fields_of_an_iteration(run: Json, loop: str, state: StateRepository) -> None:
    state.record_iteration(loop, {"summary": "one", "learnings": "a"})
    document = run("amend", loop, "1", "-", stdin='{"learnings": []}')
    assert operation(document) == "amend"
    assert state.get_loop(loop)["accumulatedLearnings"] == ""


def test_pid_records_a_process_and_none(run: Json, loop: str, state: StateRepository) -> None:
    run("pid", loop, str(os.getpid()))
    assert state.get_loop(loop)["currentPid"] == os.getpid()
    assert operation(run("pid", loop, "none")) == "pid"
    assert state.get_loop(loop)["currentPid"] is None


def test_pause_and_resume(run: Json, loop: str, state: StateRepository) -> None:
    assert operation(run("pause", loop)) == "update"
    assert state.get_loop(loop)["status"] == "paused"
    document = run("resume", loop, "--pid", str(os.getpid()), "--max-iterations", "20")
    assert operation(document) == "resume"
    after = state.get_loop(loop)
    assert (after["status"], after["currentPid"], after["maxIterations"]) == ("running", os.getpid(), 20)
    assert data(document) == after


def test_resume_without_a_pid_leaves_the_loop_without_one(run: Json, loop: str, state: StateRepository) -> None:
    run("resume", loop)
    assert state.get_loop(loop)["currentPid"] is None


def test_archive_and_restore_answer_with_change_and_state(run: Json, loop: str, state: StateRepository) -> None:
    archived = run("archive", loop, "--status", "completed")
    assert data(archived) == archived["change"]
    assert state.list_archived_loops()[0].status == "completed"
    restored = run("restore", loop)
    assert operation(restored) == "restore"
    assert data(restored) == state.get_loop(loop)


def test_checkpoint_answers_with_its_change_and_is_listed(run: Json, loop: str, state: StateRepository) -> None:
    document = run("checkpoint", loop, "before")
    assert data(document) == document["change"]
    assert operation(document) == "checkpoint"
    assert data(run("checkpoints")) == [item.to_dict() for item in state.list_checkpoints()]
    assert data(run("checkpoints", loop)) == data(run("checkpoints"))


def test_reap_answers_with_its_changes(run: Json, loop: str, state: StateRepository) -> None:
    assert data(run("reap")) == []
    state.update_loop_pid(loop, 2**31 - 1)
    document = run("reap", "--archive")
    found = data(document)
    assert isinstance(found, list)
    assert [item["operation"] for item in found] == ["reap", "archive"]
    assert document["change"] == found[-1]


def test_migrate_answers_with_the_id_or_null(run: Json, unpack: Callable[[str], Path]) -> None:
    assert data(run("migrate")) is None
    legacy = unpack("legacy-single-loop")
    result = CliRunner().invoke(root, ["-C", str(legacy), "--json", "migrate"])
    document = json.loads(result.stdout)
    assert document["change"]["loop_ids"] == [document["data"]]


def test_limit_answers_with_the_number(run: Json, state: StateRepository) -> None:
    assert (data(run("limit")), run("limit")["change"]) == (4, None)
    assert data(run("limit", "6")) == 6
    assert state.load_registry()["max_concurrent_loops"] == 6


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ((), "loops/fix-tests"),
        (("--iteration", "3"), "iterations/003"),
        (("--prompt", "3"), "prompts/003-prompt.md"),
        (("--stdout", "3"), "outputs/003-stdout.log"),
        (("--stderr", "3"), "outputs/003-stderr.log"),
    ],
)
def test_path_answers_with_a_path(run: Json, loop: str, words: tuple[str, ...], end: str) -> None:
    assert str(data(run("path", loop, *words))).endswith(end)


def test_log_answers_with_changes_newest_first(run: Json, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"status": "paused"})
    found = data(run("log"))
    assert isinstance(found, list)
    assert [item["operation"] for item in found] == ["update", "create", "init"]
    assert all(item["fields"] == [] for item in found)
    assert data(run("log", loop, "-n", "1")) == found[:1]
    assert data(run("log", "--since", "2000-01-01", "--until", "yesterday")) == []


def test_log_shows_the_fields_when_asked(run: Json, loop: str) -> None:
    found = data(run("log", loop, "-p"))
    assert isinstance(found, list)
    assert found[0]["fields"]


def test_show_answers_with_a_change_and_its_fields(run: Json, loop: str, state: StateRepository) -> None:
    assert data(run("show")) == state.show("HEAD").to_dict()
    assert data(run("show", "HEAD~1")) == state.show("HEAD~1").to_dict()


def test_diff_answers_with_field_changes(run: Json, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"status": "paused"})
    assert data(run("diff", "HEAD~1")) == [item.to_dict() for item in state.diff("HEAD~1")]
    assert data(run("diff", "HEAD~1", "HEAD", "--loop", loop)) == [
        item.to_dict() for item in state.diff("HEAD~1", loop_id=loop)
    ]


def test_diff_exits_with_1_only_when_asked(run: Json, loop: str) -> None:
    run("diff", "HEAD~1")
    run("diff", "HEAD~1", "--exit-code", code=1)
    run("diff", "HEAD", "--exit-code")


def test_rollback_puts_fields_back(run: Json, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"note": 1})
    document = run("rollback", loop, "--steps", "1", "--yes")
    assert operation(document) == "rollback"
    assert data(document) == document["change"]
    assert "note" not in state.get_loop(loop)


def test_rollback_puts_back_what_only_the_registry_knows(run: Json, loop: str, state: StateRepository) -> None:
    state.set_max_concurrent_loops(9)
    run("rollback", "--registry", "--to", "HEAD~1", "--yes")
    assert state.load_registry()["max_concurrent_loops"] == 4


def test_rollback_puts_everything_back(run: Json, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"note": 1})
    state.set_max_concurrent_loops(9)
    run("rollback", "--all", "--to", "HEAD~2", "--yes")
    assert "note" not in state.get_loop(loop)
    assert state.load_registry()["max_concurrent_loops"] == 4


def test_rollback_to_where_things_are_is_no_change_and_no_question(run: Json, loop: str) -> None:
    run("pause", loop)
    assert run("rollback", loop, "--to", "HEAD")["change"] is None


def test_undo_inverts_the_newest_change_or_the_one_given(run: Json, loop: str, state: StateRepository) -> None:
    state.update_loop(loop, {"note": 1})
    older = state.revision(loop) or ""
    state.update_loop(loop, {"other": 2})
    document = run("undo", loop)
    assert operation(document) == "undo"
    assert data(document) == document["change"]
    assert "other" not in state.get_loop(loop)
    run("undo", loop, "--change", older)
    assert "note" not in state.get_loop(loop)


def test_check_answers_with_findings_and_1_when_one_is_bad(run: Json, loop: str, state: StateRepository) -> None:
    assert data(run("check")) == []
    (state.loops_dir / loop / "session-state.json").write_text("{")
    found = data(run("check", code=1))
    assert found == [item.to_dict() for item in state.check()]
    repaired = data(run("repair"))
    assert isinstance(repaired, list)
    assert [item["action"] is not None for item in repaired] == [True]
    run("check")


def test_lock_show_answers_with_the_lease_or_null(run: Json, state: StateRepository) -> None:
    assert data(run("lock", "show")) is None
    with state.transaction():
        found = data(run("lock", "show"))
    assert isinstance(found, dict)
    assert found["pid"] == os.getpid()


def test_lock_break_removes_a_lease_that_its_holder_left(run: Json, loop: str, state: StateRepository) -> None:
    state.lock_path.write_text(
        '{"pid": 2147483647, "loopId": "x", "timestamp": 1, "leaseExpiry": 1, "fencingToken": 1}'
    )
    document = run("lock", "break", "--yes")
    assert isinstance(data(document), dict)
    assert document["change"] is None
    assert not state.lock_path.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("archive", "fix-tests"),
        ("restore", "put-away"),
        ("reap",),
        ("migrate",),
        ("rollback", "fix-tests", "--steps", "1"),
        ("undo", "fix-tests"),
        ("prune", "--older-than", "0d"),
        ("repair",),
        ("gc",),
    ],
)
def test_a_dry_run_shows_the_plan_and_writes_nothing(
    run: Json, loop: str, state: StateRepository, words: tuple[str, ...]
) -> None:
    state.create_loop("other", "true", loop_id="put-away", pid=None)
    state.archive_loop("put-away")
    state.update_loop(loop, {"note": 1})
    state.update_loop_pid(loop, 2**31 - 1)
    before = (state.revision(), state.get_loop(loop), state.load_registry())
    with state.transaction():  # the lease is held all the time: a plan needs none
        document = run(*words, "--dry-run", "--lock-timeout", "0")
    assert (state.revision(), state.get_loop(loop), state.load_registry()) == before
    change = document["change"]
    if words[0] in ("archive", "restore", "reap", "rollback", "undo", "prune"):
        assert isinstance(change, dict)
        assert change["revision"] is None
        assert change["operation"] == words[0]
        assert change["fields"]
    if words[0] in ("archive", "rollback", "undo"):
        assert data(document) == change


def test_prune_answers_with_changes_that_name_bytes(run: Json, loop: str, state: StateRepository) -> None:
    (state.get_loop_dir(loop) / "outputs" / "001-stdout.log").write_text("x" * 5000)
    assert data(run("prune", "--older-than", "0d")) == []  # nothing to ask about
    state.archive_loop(loop)
    assert data(run("prune", "--older-than", "90d", "--yes")) == []
    (freed,) = cast("list[dict[str, object]]", data(run("prune", "--older-than", "0d", "--artifacts-only", "--yes")))
    assert (freed["loop_ids"], freed["revision"], freed["bytes"]) == ([loop], None, 5000)
    assert state.list_archived_loops()
    document = run("prune", "--older-than", "0d", "--yes")
    assert data(document) == [document["change"]]
    assert operation(document) == "prune"
    assert state.list_archived_loops() == []
    assert cast("dict[str, object]", data(run("cat", loop[:4])))["loopId"] == loop
    run("restore", loop)


def test_prune_wants_an_age(run: Json) -> None:
    run("prune", "--yes", code=2)
    run("prune", "--older-than", "soon", "--yes", code=2)


def test_a_reason_and_an_actor_are_kept_with_the_change(run: Json, loop: str, state: StateRepository) -> None:
    run("-m", "because", "pause", loop, "--actor", "agent:reviewer")
    change = state.show("HEAD")
    assert (change.reason, change.actor) == ("because", "agent:reviewer")
