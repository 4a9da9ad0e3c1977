"""Many writers at once: every acknowledged operation is in the history exactly once, in an order that can have been.

Processes through the library and the command line, and threads. A few seeds in CI; twenty with ``--full``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from writers import SHARED

from gitstate import StateRepository
from gitstate.store import creation

STALL = 900  # seconds after which something hangs


@dataclass
class Call:
    """What a writer reported of one call; without ``returned`` it was killed in the middle of it."""

    token: str
    what: str
    loop: str
    called: float
    returned: float | None = None
    error: str | None = None

    @property
    def acknowledged(self) -> bool:
        return self.returned is not None and self.error is None


def begun(project: Path) -> StateRepository:
    state = StateRepository(project, actor="user:alice")
    state.create_loop("Be counted up", "never", loop_id=SHARED, max_iterations=10**6, pid=None)
    return state


def run(project: Path, **plan: object) -> dict[str, Call]:
    """Let writers loose; every call, by its token."""
    program = Path(__file__).with_name("writers.py")
    ran = subprocess.run(
        [sys.executable, program, json.dumps({"project": str(project), **plan})],
        capture_output=True,
        text=True,
        timeout=STALL,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    calls: dict[str, Call] = {}
    for facts in map(json.loads, ran.stdout.splitlines()):
        if "what" in facts:
            calls[facts["token"]] = Call(**facts)
        else:
            calls[facts["token"]].returned, calls[facts["token"]].error = facts["returned"], facts["error"]
    return calls


def judge(state: StateRepository, calls: dict[str, Call]) -> None:
    """Hold the history against what was reported."""
    history = [change for change in state.log() if change.reason is not None][::-1]
    tokens = [change.reason or "" for change in history]
    assert len(tokens) == len(set(tokens))
    assert set(tokens) <= set(calls)
    acknowledged = {token for token, call in calls.items() if call.acknowledged}
    failed = {token for token, call in calls.items() if call.error is not None}
    assert acknowledged - set(tokens) == set()
    assert failed & set(tokens) == set()
    _order_can_have_been([calls[token] for token in tokens])
    kinds = {"count": "update", "create": "create", "archive": "archive"}
    assert [change.operation for change in history] == [kinds[calls[token].what] for token in tokens]
    generations = [change.generation or 0 for change in state.log()][::-1]
    assert generations == sorted(generations)
    _loops_are_as_counted(state, [calls[token] for token in tokens])


def _order_can_have_been(order: list[Call]) -> None:
    """No operation stands before another that had returned when it was called."""
    latest = 0.0
    for call in order:
        assert call.returned is None or call.returned >= latest, f"{call} stands too late"
        latest = max(latest, call.called)


def _loops_are_as_counted(state: StateRepository, done: list[Call]) -> None:
    created = {call.loop for call in done if call.what == "create"}
    archived = {call.loop for call in done if call.what == "archive"}
    assert {entry["loop_id"] for entry in state.list_active_loops()} == (created - archived) | {SHARED}
    assert {loop.loop_id for loop in state.list_archived_loops()} == archived
    registry = state.load_registry()
    assert registry["total_completed"] + registry["total_aborted"] == len(archived)


def counted(calls: dict[str, Call]) -> int:
    return sum(call.what == "count" and call.acknowledged for call in calls.values())


SEEDS = [pytest.param(seed, marks=[] if seed == 0 else pytest.mark.full) for seed in range(20)]


@pytest.fixture(autouse=True)
def _full(request: pytest.FixtureRequest, full: bool) -> None:
    if request.node.get_closest_marker("full") and not full:
        pytest.skip("one of the seeds of the full form")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("writers", "few", "many"), [(2, 20, 100), (8, 8, 40), (32, 3, 15)])
def test_of_many_processes_no_acknowledged_operation_is_lost(
    project: Path, full: bool, seed: int, writers: int, few: int, many: int
) -> None:
    state = begun(project)
    calls = run(project, seed=seed, writers=writers, operations=many if full else few)
    judge(state, calls)
    assert state.get_loop(SHARED)["currentIteration"] == counted(calls)
    assert all((call.error is None) == (call.what != "fail") for call in calls.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_command_line_and_the_library_mixed_lose_nothing(project: Path, full: bool, seed: int) -> None:
    state = begun(project)
    calls = run(project, seed=seed, writers=8 if full else 4, operations=8 if full else 4, at_the_command_line=2)
    judge(state, calls)
    commands = [call for call in calls.values() if call.token.startswith(("writer0-", "writer1-"))]
    assert state.get_loop(SHARED)["currentIteration"] == counted(calls) - sum(
        call.what == "count" and call.acknowledged for call in commands
    )
    for name in ("writer0", "writer1"):  # the last value that each wrote stands
        written = [call.token for call in commands if call.token.startswith(f"{name}-") and call.what == "count"]
        assert state.get_loop(SHARED).get(name) == (written[-1] if written else None)


@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_and_killed_in_the_middle_at_random_they_lose_nothing_that_was_acknowledged(
    project: Path, full: bool, seed: int
) -> None:
    state = begun(project)
    calls = run(project, seed=seed, writers=6, operations=20 if full else 6, lease=0.2, mortal=True)
    state.init()  # the next one clears up
    judge(state, calls)
    history = {change.reason for change in state.log()}
    unknown = sum(call.what == "count" and call.returned is None and call.token in history for call in calls.values())
    assert state.get_loop(SHARED)["currentIteration"] == counted(calls) + unknown


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("share", [True, False], ids=["on one repository", "on one each"])
def test_of_thirty_two_threads_no_acknowledged_operation_is_lost(project: Path, full: bool, share: bool) -> None:
    state = begun(project)
    calls: dict[str, Call] = {}
    together = threading.Barrier(32)
    problems: list[BaseException] = []

    def write(number: int) -> None:
        mine = state if share else StateRepository(project, actor=f"agent:{number}")
        together.wait(60)
        try:
            for count in range(16 if full else 3):
                call = Call(f"{number}-{count}", "count", SHARED, time.monotonic())
                found = mine.modify_loop(
                    SHARED, lambda found: {"currentIteration": found["currentIteration"] + 1}, reason=call.token
                )
                call.returned = time.monotonic()
                calls[call.token] = call
                assert mine.last_change is not None
                assert mine.last_change.reason == call.token, "another thread's change"
                assert found["gitstate"]["revision"] == found["currentIteration"] + 1
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STALL)
        assert not thread.is_alive(), "it hangs"
    assert problems == []
    judge(state, calls)
    assert state.get_loop(SHARED)["currentIteration"] == len(calls) == 32 * (16 if full else 3)


def test_a_state_directory_that_another_one_makes_at_the_same_moment_is_as_good(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def second(path: Any, *words: Any, **more: Any) -> None:
        if Path(path).name in (".aiwg", "ralph-external"):
            make(path, *words, **more)
        make(path, *words, **more)

    monkeypatch.setattr(os, "mkdir", second)
    state = StateRepository(project, actor="agent:late")
    state.create_loop("Be there", "never", loop_id="one", pid=None)
    assert [change.operation for change in state.log()] == ["create", "init"]


def test_those_who_begin_a_repository_at_the_same_moment_begin_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has built its own and is about to put it in place."""
    together, put_in_place, mine = threading.Barrier(4), creation._put_in_place, []

    def all_at_once(*words: Any) -> bool:
        together.wait(60)
        mine.append(put_in_place(*words))
        return mine[-1]

    monkeypatch.setattr(creation, "_put_in_place", all_at_once)

    def create(number: int) -> None:
        state = StateRepository(project, actor=f"agent:{number}")
        state.create_loop(f"Be number {number}", "never", loop_id=f"loop-{number}", pid=None)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STALL)
    state = StateRepository(project)
    assert sorted(mine) == [False, False, False, True]
    assert {entry["loop_id"] for entry in state.list_active_loops()} == {f"loop-{number}" for number in range(4)}
    assert [change.operation for change in state.log()] == ["create"] * 4 + ["init"]
