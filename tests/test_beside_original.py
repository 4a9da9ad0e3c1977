"""Beside the original, all at once: two processes of it and two of gitstate, busy on one directory for a while.

Eight seconds, thirty with ``--full``. Its own module, under node, comes from the environment variable
``GITSTATE_ORIGINAL``. Moments that are forced are in ``test_turns_with_original.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from beside import LOOP, OTHER, begun, counted, needs_original, node, story, tags

from gitstate import StateRepository

pytestmark = needs_original

STALL = 300  # seconds after which something hangs


@pytest.fixture
def state(project: Path) -> StateRepository:
    return begun(project)


class Reader:
    """Reads every file again and again while others write, as bytes, and through gitstate."""

    def __init__(self, state: StateRepository) -> None:
        self.state = state
        self.looks, self.glimpses = 0, 0
        self.problems: list[str] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(STALL)

    def _read(self) -> None:
        while not self._done.is_set():
            try:
                for path in [self.state.registry_path, *self.state.base_dir.glob("*/*/session-state.json")]:
                    self._look(path)
                assert {LOOP, OTHER} <= {entry["loop_id"] for entry in self.state.list_active_loops()}
                for loop in (LOOP, OTHER):
                    assert self.state.get_loop(loop)["loopId"] == loop
            except BaseException as error:
                self.problems.append(f"{type(error).__name__}: {error}")

    def _look(self, path: Path) -> None:
        self.looks += 1
        if _is_readable(path):
            return
        # The one file that does not appear whole is the session state of a loop that the original is making.
        time.sleep(0.05)
        if _is_readable(path) and "ralph-original-" in str(path):
            self.glimpses += 1
        else:
            self.problems.append(f"{path} cannot be read")


def _is_readable(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:  # moved to the archive meanwhile
        return path.name != "registry.json"
    except ValueError:
        return False


def busy(
    state: StateRepository, seconds: float, *modes: tuple[str, ...], commands: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What originals, one in each of *modes*, and two gitstates report of every call, all let loose at one moment."""
    program = Path(__file__).with_name("supervisor.py")
    plan = {"project": str(state.project_root), "seconds": seconds, "shared": [LOOP, OTHER], "commands": commands}
    reports: dict[int, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        theirs = [stack.enter_context(node(state.project_root, *mode)).process for mode in modes]
        ours = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, program, json.dumps({**plan, "seed": seed})],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for seed in (1, 2)
        ]
        readers = [
            threading.Thread(target=lambda one=process: reports.update({one.pid: [*map(json.loads, one.stdout)]}))
            for process in (*theirs, *ours)
        ]
        for process in (*theirs, *ours):
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"ready": True}
        for process, reader in zip((*theirs, *ours), readers, strict=True):
            assert process.stdin is not None
            reader.start()
            process.stdin.write("\n")
            process.stdin.flush()
        for process, reader in zip((*theirs, *ours), readers, strict=True):
            reader.join(seconds + STALL)
            assert process.wait(STALL) == 0
    both = [list(chain.from_iterable(reports[process.pid] for process in side)) for side in (theirs, ours)]
    return both[0], both[1]


@pytest.mark.filterwarnings("ignore::gitstate.DamageWarning")  # on a slow machine a glimpse may last
@pytest.mark.parametrize("commands", [False, True], ids=["the library", "the command line as well"])
def test_busy_beside_the_original_nothing_is_lost_torn_or_left_unrecorded(
    state: StateRepository, full: bool, commands: bool, record_property: Callable[[str, object], None]
) -> None:
    if commands and not full:
        pytest.skip("the long form has the command line as well: a process for every fifth call")
    with Reader(StateRepository(state.project_root)) as reader:
        seconds = 30 if full else 8
        # Each has a shared loop of its own: on one loop two of them tear its file between themselves, by one .tmp.
        modes = [("mix", str(seconds), str(number), loop) for number, loop in enumerate((LOOP, OTHER), 1)]
        theirs, ours = busy(state, seconds, *modes, commands=commands)
    state.init()  # whatever the original wrote last
    assert (reader.problems, reader.looks > 100) == ([], True)

    _nobody_was_let_in_beside_another(theirs + ours, strictly=not commands)
    lost = [call for call in ours if call["error"] is not None]
    # A command has ended when the original looks whether its process lives: then it removes what the next one has put there.
    assert lost == [] or (
        commands and all("LeaseLostError" in call["error"] or "exit 5" in call["error"] for call in lost)
    )
    assert [call for call in theirs if "error" in call] == []
    _history_has_ours(state, [call for call in ours if call["error"] is None])
    _what_they_wrote_is_there(state, theirs)
    _archives_are_recorded(state, theirs + ours)
    record_property("figures", _figures(reader, theirs, ours, story(state)))


@pytest.mark.filterwarnings("ignore::gitstate.DamageWarning")
def test_two_originals_that_tear_a_file_between_themselves_cost_gitstate_nothing(
    state: StateRepository, full: bool, record_property: Callable[[str, object], None]
) -> None:
    """They write through one ``.tmp``, so that half of one lies under the other; the registry as well."""
    seconds = 15 if full else 4
    theirs, ours = busy(state, seconds, *[("careless", str(seconds), LOOP, OTHER)] * 2)
    state.init()
    assert [call for call in ours if call["error"] is not None] == []
    _history_has_ours(state, ours)
    torn = sum("Failed to load" in call.get("error", "") for call in theirs)
    record_property(
        "figures",
        f"careless originals: {len(theirs)} updates, {torn} of them found a torn file; gitstate {len(ours)} calls, 0 lost, "
        f"{story(state).count('repair')} repairs, {story(state).count('adopt')} adoptions",
    )


def _nobody_was_let_in_beside_another(calls: list[dict[str, Any]], *, strictly: bool) -> None:
    held = sorted(call["held"] for call in calls if call.get("held") and call["held"][1] is not None)
    assert len(held) > 20
    if strictly:
        assert [(one, other) for one, other in pairwise(held) if other[0] < one[1]] == []


def _history_has_ours(state: StateRepository, acknowledged: list[dict[str, Any]]) -> None:
    """Each of ours exactly once, in an order that can have been, and none undone by what the original carried along."""
    reasons = [change.reason for change in state.log() if change.reason is not None][::-1]
    calls = {call["value"]: call for call in acknowledged}
    assert sorted(reasons) == sorted(calls)
    latest = 0.0
    for call in (calls[reason] for reason in reasons):
        assert call["returned"] >= latest, f"{call} stands too late"
        latest = max(latest, call["called"])
    for loop in {call["loop"] for call in acknowledged}:
        updates = [call for call in acknowledged if (call["loop"], call["do"]) == (loop, "update") and call["held"]]
        assert state.get_loop(loop)["currentIteration"] == len(updates)
    generations = [change.generation or 0 for change in state.log()][::-1]
    assert generations == sorted(generations)


def _what_they_wrote_is_there(state: StateRepository, theirs: list[dict[str, Any]]) -> None:
    """All that each original ever added to a loop, in its order."""
    written: dict[tuple[str, str], list[str]] = {}
    for call in theirs:
        if call["do"] == "update":
            written.setdefault((call["loop"], call["key"]), []).append(call["value"])
    assert {key: state.get_loop(key[0]).get(key[1]) for key in written} == written
    assert any(loop in (LOOP, OTHER) for loop, _ in written)


def _archives_are_recorded(state: StateRepository, calls: list[dict[str, Any]]) -> None:
    made = {call["loop"] for call in calls if call["do"] == "create" and not call.get("error")}
    archived = {call["loop"] for call in calls if call["do"] == "archive" and not call.get("error")}
    assert {entry["loop_id"] for entry in state.list_active_loops()} == (made - archived) | {LOOP, OTHER}
    assert {loop.loop_id for loop in state.list_archived_loops()} == archived
    assert set(tags(state)) == {f"archive/{loop}" for loop in archived}
    assert counted(state) == len(archived)
    assert state.load_registry()["total_completed"] == sum("original" not in loop for loop in archived)
    told = {loop for change in state.log() if change.operation in ("adopt", "archive") for loop in change.loop_ids}
    assert archived <= told


def _figures(reader: Reader, theirs: list[dict[str, Any]], ours: list[dict[str, Any]], kinds: list[str]) -> str:
    def counts(calls: list[dict[str, Any]]) -> str:
        return ", ".join(
            f"{sum(call['do'] == what for call in calls)} {what}s" for what in ("update", "create", "archive")
        )

    return (
        f"beside the original: it {counts(theirs)}; gitstate {counts(ours)}, {kinds.count('adopt')} adoptions; "
        f"{reader.looks} looks at files, {len(reader.problems)} unreadable, {reader.glimpses} not written yet; "
        f"longest wait of the original {max(call['waited'] for call in theirs):.1f} s"
    )
