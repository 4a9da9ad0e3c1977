"""A day with it: loops started, iterated, lost, taken over, looked back on, corrected, put away and moved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import assert_sound, git

import gitstate
from gitstate import RefusedError, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

YESTERDAY = datetime(2026, 6, 14, 9, 0, tzinfo=UTC)
TODAY = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)

Supervisor = subprocess.Popen[bytes]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(YESTERDAY)


@pytest.fixture
def supervisors() -> Iterator[list[Supervisor]]:
    """Three processes that drive loops."""
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    yield started
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture
def state(project: Path, clock: FakeClock, supervisors: list[Supervisor]) -> Iterator[StateRepository]:
    """Yesterday three loops were started, and worked on in turn."""
    with StateRepository(project, actor="user:alice", clock=clock) as repository:
        for name, supervisor in zip(("auth", "docs", "cart"), supervisors, strict=True):
            repository.create_loop(
                f"The {name}", f"{name} is done", loop_id=name, pid=supervisor.pid, owner=f"agent:{name}"
            )
            clock.advance(minutes=1)
        for number in (1, 2):
            for name in ("auth", "docs", "cart"):
                repository.record_iteration(
                    name,
                    {
                        "number": number,
                        "status": "failed",
                        "learnings": [f"{name} learned {number}"],
                        "filesModified": [f"src/{name}/{number}.ts"],
                    },
                )
                clock.advance(minutes=20)
        clock.set(TODAY)
        yield repository


def dies(supervisor: Supervisor) -> None:
    supervisor.kill()
    supervisor.wait()


def summaries(state: StateRepository, **options: object) -> list[str]:
    return [change.summary for change in state.log(**options)]  # type: ignore[arg-type]


def test_three_loops_run_side_by_side(state: StateRepository, supervisors: list[Supervisor]) -> None:
    overview = state.status()
    assert [(report.state["loopId"], report.liveness.verdict) for report in overview.loops] == [
        ("auth", "alive"),
        ("docs", "alive"),
        ("cart", "alive"),
    ]
    assert (overview.slots_used, overview.slots_max, overview.archived) == (3, 4, 0)
    assert [finding for finding in overview.findings if finding.severity != "note"] == []
    assert overview.lease is None
    (entry, *_) = state.list_active_loops()
    assert (entry["iteration"], entry["owner"], entry["pid"]) == (2, "agent:auth", supervisors[0].pid)


def test_a_supervisor_dies_is_reaped_and_another_takes_its_loop_over(
    state: StateRepository, supervisors: list[Supervisor]
) -> None:
    dies(supervisors[1])
    assert [entry["loop_id"] for entry in state.detect_crashed_loops()] == ["docs"]
    (change,) = state.reap_crashed_loops()
    assert change.summary == f"reap docs: status running → crashed, process {supervisors[1].pid} does not exist"
    assert state.get_loop("docs")["status"] == "crashed"
    found = state.resume_loop("docs")
    assert (found["status"], found["currentPid"]) == ("running", os.getpid())
    assert state.is_loop_alive("docs")
    assert summaries(state, limit=1) == [
        f"resume docs: status crashed → running, pid {supervisors[1].pid} → {os.getpid()}"
    ]


def test_of_two_supervisors_that_try_to_resume_the_same_loop_one_is_refused_by_name(
    state: StateRepository, supervisors: list[Supervisor]
) -> None:
    dies(supervisors[1])
    state.resume_loop("docs", pid=supervisors[0].pid)
    with pytest.raises(RefusedError) as caught:
        state.resume_loop("docs", pid=supervisors[2].pid)
    assert caught.value.message == (
        f"docs is driven by process {supervisors[0].pid}: process {supervisors[0].pid} runs"
    )
    assert caught.value.pid == supervisors[0].pid
    assert str(supervisors[0].pid) in (caught.value.hint or "")
    assert state.get_loop("docs")["currentPid"] == supervisors[0].pid


def test_a_loop_is_aborted(state: StateRepository, supervisors: list[Supervisor]) -> None:
    with pytest.raises(RefusedError, match=f"cart is driven by process {supervisors[2].pid}"):
        state.archive_loop("cart", status="aborted")
    dies(supervisors[2])
    change = state.archive_loop("cart", status="aborted", reason="no budget")
    assert (change.summary, change.reason) == ("archive cart: aborted after 2 of 10 iterations", "no budget")
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_aborted"], registry["total_completed"]) == (2, 1, 0)
    assert (state.archive_dir / "cart" / "session-state.json").is_file()


def test_yesterday_s_history_is_listed(state: StateRepository, clock: FakeClock) -> None:
    state.update_loop("auth", {"status": "paused"})
    midnight = TODAY.replace(hour=0)
    assert summaries(state, since=midnight) == ["update auth: status running → paused"]
    yesterday = list(state.log(since=midnight - timedelta(days=1), until=midnight))
    assert len(yesterday) == 10  # init, three loops, six iterations
    assert len(list(state.log("docs", since=midnight - timedelta(days=1)))) == 3
    assert list(state.log(until=YESTERDAY - timedelta(days=1))) == []


def test_the_difference_since_yesterday_is_told_field_by_field(state: StateRepository) -> None:
    state.update_loop("auth", {"status": "paused", "note": "waiting for review"})
    found = state.diff(YESTERDAY + timedelta(hours=12), loop_id="auth")
    assert [(field.path, field.kind, field.before, field.after) for field in found] == [
        ("/status", "changed", "running", "paused"),
        ("/lastUpdate", "changed", "2026-06-14T10:03:00.000Z", "2026-06-15T09:00:00.000Z"),
        ("/note", "added", None, "waiting for review"),
    ]
    assert state.diff(YESTERDAY + timedelta(hours=12), loop_id="docs") == []


def test_a_loop_is_read_as_it_was_two_hours_ago(state: StateRepository, clock: FakeClock) -> None:
    state.record_iteration("auth", {"number": 3})
    clock.advance(hours=1)
    state.record_iteration("auth", {"number": 4})
    clock.advance(hours=1, minutes=30)
    state.record_iteration("auth", {"number": 5})
    assert state.get_loop("auth", at=clock.now() - timedelta(hours=2))["currentIteration"] == 3
    assert state.get_loop("auth", at=clock.now() - timedelta(hours=1))["currentIteration"] == 4
    assert state.get_loop("auth")["currentIteration"] == 5


def test_a_bad_learning_is_amended_away(state: StateRepository) -> None:
    found = state.amend_iteration("auth", 1, {"learnings": []}, reason="it was wrong")
    assert found["accumulatedLearnings"] == "### Iteration 2\nauth learned 2"
    assert [item["number"] for item in found["iterations"]] == [1, 2]
    assert "auth learned 1" in state.get_loop("auth", at="HEAD~1")["accumulatedLearnings"]


def test_a_wrong_update_is_undone_while_the_other_loops_went_on(
    state: StateRepository, supervisors: list[Supervisor]
) -> None:
    dies(supervisors[0])
    wrong = next(state.log(limit=1)) if state.update_loop("auth", {"maxIterations": 1, "objective": "Oops"}) else None
    assert wrong is not None
    state.record_iteration("docs", {"number": 3})
    state.record_iteration("auth", {"number": 3})
    state.record_iteration("cart", {"number": 3})
    state.undo("auth", revision=wrong.revision)
    found = state.get_loop("auth")
    assert (found["objective"], found["maxIterations"], found["currentIteration"]) == ("The auth", 10, 3)
    assert [state.get_loop(name)["currentIteration"] for name in ("docs", "cart")] == [3, 3]


def test_a_rollback_is_previewed_done_and_undone(state: StateRepository, supervisors: list[Supervisor]) -> None:
    dies(supervisors[0])
    before, revision = state.get_loop("auth"), state.revision()
    plan = state.rollback("auth", steps=1, dry_run=True)
    assert plan.revision is None
    assert (state.revision(), state.get_loop("auth")) == (revision, before)
    done = state.rollback("auth", steps=1)
    fields = {field.path: field.after for field in done.fields if field.loop_id == "auth"}
    planned = {field.path: field.after for field in plan.fields if field.loop_id == "auth"}
    assert {path: after for path, after in fields.items() if path != "/lastUpdate"} == {
        path: after for path, after in planned.items() if path != "/lastUpdate"
    }
    found = state.get_loop("auth")
    assert (found["currentIteration"], found["status"]) == (1, "paused")
    assert found["filesModified"] == ["src/auth/1.ts"]
    state.undo("auth")
    again = state.get_loop("auth")
    assert {**again, "lastUpdate": 0, "gitstate": 0} == {**before, "lastUpdate": 0, "gitstate": 0}


def test_a_day_s_work_is_carried_to_another_machine(
    state: StateRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    shutil.copytree(state.project_root, tmp_path / "copy", symlinks=True)
    (tmp_path / "clone" / ".aiwg").mkdir(parents=True)
    git(tmp_path, "clone", "-q", str(state.base_dir), str(tmp_path / "clone" / ".aiwg" / "ralph-external"))
    monkeypatch.setattr(gitstate.process, "hostname", lambda: "laptop")
    for name in ("copy", "clone"):
        with StateRepository(tmp_path / name, actor="user:bob", clock=clock) as there:
            there.init()
            assert {report.liveness.verdict for report in there.status().loops} == {"foreign"}
            assert there.detect_crashed_loops() == []
            there.resume_loop("auth", force=True)
            assert there.liveness("auth").verdict == "alive"
            assert [change.revision for change in there.log()][1:] == [change.revision for change in state.log()]
        assert_sound(tmp_path / name)


# --- from a shell ----------------------------------------------------------------------------------------------------

SCRIPT = """
set -eu
id=$(gitstate create -q "Fix all failing tests" --completion "npm test passes" --pid $$)
printf '{"number": 1, "status": "failed", "learnings": ["mock the clock"]}' | gitstate iterate "$id" -
gitstate update "$id" --set maxIterations=12
gitstate status "$id" >status.txt
gitstate log "$id" >log.txt
gitstate cat "$id" --json >cat.json
echo "$id"
"""


@pytest.fixture
def shell(project: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which ``gitstate`` is this package's command line."""
    command = tmp_path / "bin" / "gitstate"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gitstate "$@"\n')
    command.chmod(0o755)
    package = str(Path(gitstate.__file__).parents[1])
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": package}


def test_a_loop_is_started_and_iterated_from_a_shell_script(project: Path, shell: dict[str, str]) -> None:
    done = subprocess.run(["sh", "-c", SCRIPT], cwd=project, env=shell, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    loop_id = done.stdout.splitlines()[-1]
    with gitstate.open(project) as state:
        found = state.get_loop(loop_id)
        assert (found["currentIteration"], found["maxIterations"]) == (1, 12)
        assert isinstance(found["currentPid"], int)
        assert state.liveness(loop_id).verdict == "dead"  # the script has ended
        assert [change.operation for change in state.log(loop_id)] == ["update", "iterate", "create"]
        assert json.loads((project / "cat.json").read_text())["data"] == found
    assert loop_id in (project / "status.txt").read_text()
    assert loop_id in (project / "log.txt").read_text()


def test_the_loop_of_a_running_script_is_alive(project: Path, shell: dict[str, str]) -> None:
    script = 'id=$(gitstate create -q "Fix" --completion "ok" --pid $$); gitstate status "$id" --json'
    done = subprocess.run(["sh", "-c", script + "; true"], cwd=project, env=shell, capture_output=True, text=True)
    report = json.loads(done.stdout)["data"]
    assert report["liveness"]["verdict"] == "alive"
    assert report["liveness"]["pid"] == report["state"]["currentPid"]
