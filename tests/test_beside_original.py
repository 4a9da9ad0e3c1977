"""Beside the original: its own module under node, unmodified, and gitstate on one directory.

First moment by moment, each forced, with the original driven step by step; then all at once, busy for a while (eight
seconds, thirty with ``--full``). The module comes from the environment variable ``GITSTATE_ORIGINAL``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from beside import Node, needs_original, node
from clocks import FakeClock
from conftest import git

from gitstate import LeaseLostError, LeaseTimeoutError, StateRepository

pytestmark = needs_original

LOOP, OTHER = "ralph-shared-0", "ralph-shared-1"
STALL = 300  # seconds after which something hangs


@pytest.fixture
def state(project: Path) -> StateRepository:
    """Two loops that gitstate made; whoever opened them gives up at once where the lease is held."""
    repository = StateRepository(project, actor="user:alice", lock_timeout=0)
    for loop in (LOOP, OTHER):
        repository.create_loop("Be worked on from two sides", "never", loop_id=loop, pid=None, max_iterations=10**6)
    return repository


@pytest.fixture
def original(state: StateRepository) -> Iterator[Node]:
    with node(state.project_root) as process:
        yield process


def later(state: StateRepository, seconds: float = 31) -> StateRepository:
    """The same for somebody whose clock is ahead: to it the original's lease of 30 s has expired."""
    clock = FakeClock(datetime.now(UTC) + timedelta(seconds=seconds))
    return StateRepository(state.project_root, actor="user:bob", clock=clock, lock_timeout=0)


def story(state: StateRepository, loop: str | None = None) -> list[str]:
    """The kinds of what was done, oldest first."""
    return [change.operation for change in state.log(loop)][::-1]


def counted(state: StateRepository) -> int:
    registry = state.load_registry()
    return registry["total_completed"] + registry["total_aborted"]


def tags(state: StateRepository) -> list[str]:
    return git(state.base_dir, "tag", "--list").stdout.split()


# --- each respects the other's lock ----------------------------------------------------------------------------------


def test_gitstate_keeps_out_while_the_original_holds_its_lock(state: StateRepository, original: Node) -> None:
    original.does("lock", name="create-loop")
    record = state.lock_path.read_bytes()
    with pytest.raises(LeaseTimeoutError, match=f"create-loop has it since .*; process {original.pid} runs") as caught:
        state.update_loop(LOOP, {"note": "early"})
    assert caught.value.holder.pid == original.pid  # type: ignore[attr-defined]
    assert state.lock_path.read_bytes() == record
    original.does("unlock", name="create-loop")
    state.update_loop(LOOP, {"note": "late"})
    assert state.get_loop(LOOP)["note"] == "late"


def test_the_original_keeps_out_while_gitstate_holds_the_lease(state: StateRepository, original: Node) -> None:
    original.does("patience", attempts=2)
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "mine"})
        record = state.lock_path.read_bytes()
        for step in (
            {"step": "create", "loop": "late"},
            {"step": "archive", "loop": LOOP},
            {"step": "pid", "loop": LOOP},
        ):
            assert original.tries(**step)["error"] == "Failed to acquire lock after 2 attempts"
        assert state.lock_path.read_bytes() == record
    assert original.tries("create", loop="late")["waited"] < 30
    assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, OTHER, "late"}


def test_the_original_does_not_release_the_lease_of_gitstate(state: StateRepository, original: Node) -> None:
    """Not even under the name that gitstate's record has: it compares the pid as well."""
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "mine"})
        name = json.loads(state.lock_path.read_bytes())["loopId"]
        original.does("unlock", name=name)
        assert state.lock_path.exists()
    assert state.get_loop(LOOP)["note"] == "mine"


def test_gitstate_takes_over_from_a_killed_original_at_once(state: StateRepository, original: Node) -> None:
    original.does("lock", name="create-loop")
    original.kill()
    state.update_loop(LOOP, {"note": "at once"})
    assert not state.lock_path.exists()


def test_the_original_takes_over_from_a_killed_gitstate_at_once(state: StateRepository, original: Node) -> None:
    killed = "import gitstate, os; tx = gitstate.open('.').transaction(); tx.__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", killed], cwd=state.project_root, check=False)
    assert json.loads(state.lock_path.read_bytes())["fencingToken"] == 4
    original.does("patience", attempts=1)  # one look, and no more
    original.does("create", loop="taken-over")
    assert state.get_loop("taken-over")["status"] == "running"


def test_a_holder_that_the_original_overtook_cannot_publish(state: StateRepository, original: Node) -> None:
    """The original breaks an expired lease by removing the record, knowing nothing of the guard."""
    short = StateRepository(state.project_root, actor="user:slow", lease_seconds=0.001)
    original.does("patience", attempts=1)
    before = state.revision()
    with pytest.raises(LeaseLostError, match="was lost to another writer, gone since"), short.transaction() as tx:
        tx.update_loop(LOOP, {"note": "never"})
        while "error" in original.tries("create", loop="overtaking"):  # the millisecond has not passed yet
            pass
    assert state.revision() == before
    assert "note" not in state.get_loop(LOOP)
    assert state.get_loop("overtaking")["status"] == "running"


# --- its update takes no lock at all ---------------------------------------------------------------------------------


def test_a_stale_update_of_the_original_takes_back_nothing_and_history_shows_both(
    state: StateRepository, original: Node
) -> None:
    original.does("read", loop=LOOP)
    state.update_loop(LOOP, {"currentIteration": 3, "note": "published in between"})
    original.does("write", loop=LOOP, changes={"theirs": "from a stale copy"})
    stale = json.loads((state.get_loop_dir(LOOP) / "session-state.json").read_bytes())
    assert (stale["currentIteration"], "note" in stale) == (0, False)  # as it lies there now, it has undone us

    for _ in ("as reading has it", "as the next mutation has it"):
        found = state.get_loop(LOOP)
        assert (found["currentIteration"], found["note"]) == (3, "published in between")
        assert found["theirs"] == "from a stale copy"  # type: ignore[typeddict-item]
        state.update_loop(OTHER, {"note": "what comes next"})
    assert story(state, LOOP) == ["create", "update", "adopt"]
    published, adopted = [change.fields for change in state.log(LOOP, fields=True, limit=2)][::-1]
    assert {field.path for field in published} >= {"/currentIteration", "/note"}
    assert {field.path for field in adopted} - {"/lastUpdate"} == {"/theirs"}
    text = git(state.base_dir, "log", "-p", "-2", "--format=%s", "HEAD~1", "--", f"loops/{LOOP}").stdout
    assert '+  "note": "published in between"' in text
    assert '+  "theirs": "from a stale copy"' in text


def test_where_both_changed_the_same_key_the_originals_counts_and_the_commit_names_what_it_replaced(
    state: StateRepository, original: Node
) -> None:
    original.does("read", loop=LOOP)
    state.update_loop(LOOP, {"note": "gitstate's", "currentIteration": 5})
    original.does("write", loop=LOOP, changes={"note": "the original's"})
    state.init()
    found = state.get_loop(LOOP)
    assert (found["note"], found["currentIteration"]) == ("the original's", 5)
    assert f"replaced what gitstate had: {LOOP}/note" in git(state.base_dir, "log", "-1", "--format=%b").stdout
    assert '-  "note": "gitstate\'s"' in git(state.base_dir, "show", "HEAD").stdout


def test_a_stale_registry_of_the_original_takes_back_neither_loops_nor_archives_nor_totals(
    state: StateRepository, original: Node
) -> None:
    """Its update of a status writes the whole registry, from a copy that it read without the lock."""
    original.does("registry")
    original.does("read", loop=LOOP)
    state.create_loop("Be made in between", "never", loop_id="in-between", pid=None)
    state.archive_loop(OTHER)
    state.update_entry("in-between", priority="high")
    original.does("write", loop=LOOP, changes={"status": "paused"})
    lying = json.loads(state.registry_path.read_bytes())
    assert [entry["loop_id"] for entry in lying["active_loops"]] == [LOOP, OTHER]

    for _ in ("as reading has it", "as the next mutation has it"):
        entries = {entry["loop_id"]: entry for entry in state.list_active_loops()}
        assert {loop: entry["status"] for loop, entry in entries.items()} == {LOOP: "paused", "in-between": "running"}
        assert entries["in-between"]["priority"] == "high"
        assert [loop.loop_id for loop in state.list_archived_loops()] == [OTHER]
        assert counted(state) == 1
        state.update_loop(LOOP, {"note": "what comes next"})


def test_an_update_of_the_original_that_comes_while_gitstate_writes_stays_and_is_merged_next(
    state: StateRepository, original: Node
) -> None:
    """Between the look at the files and the writing of them: the commit is there, the file is the original's."""

    def meanwhile(found: Any) -> dict[str, object]:
        original.does("update", loop=LOOP, changes={"theirs": "in the middle"})
        return {"currentIteration": found["currentIteration"] + 1}

    assert state.modify_loop(LOOP, meanwhile)["currentIteration"] == 1
    lying = json.loads((state.get_loop_dir(LOOP) / "session-state.json").read_bytes())
    assert (lying["currentIteration"], lying["theirs"]) == (0, "in the middle")
    found = state.get_loop(LOOP)
    assert (found["currentIteration"], found["theirs"]) == (1, "in the middle")  # type: ignore[typeddict-item]
    state.init()
    assert story(state, LOOP) == ["create", "update", "adopt"]


def test_an_update_of_the_original_to_a_loop_that_gitstate_archived_meanwhile_fails_and_harms_nothing(
    state: StateRepository, original: Node
) -> None:
    original.does("read", loop=LOOP)
    state.archive_loop(LOOP)
    assert "ENOENT" in original.tries("write", loop=LOOP, changes={"note": "too late"})["error"]
    assert "note" not in state.get_loop(LOOP)
    assert not (state.loops_dir / LOOP).exists()


# --- what it writes is merged, its archives are recorded -------------------------------------------------------------


def test_what_the_original_made_and_archived_is_recorded_counted_and_tagged(
    state: StateRepository, original: Node
) -> None:
    original.does("create", loop="theirs")
    state.update_loop(LOOP, {"note": "between the two"})
    original.does("archive", loop="theirs")
    original.does("archive", loop=OTHER)
    state.update_loop(LOOP, {"note": "after them"})
    assert story(state)[-4:] == ["adopt", "update", "adopt", "update"]
    body = git(state.base_dir, "log", "-1", "--format=%b", "HEAD~1").stdout
    assert {f"archived outside gitstate: {loop}" for loop in ("theirs", OTHER)} <= set(body.splitlines())
    assert tags(state) == [f"archive/{OTHER}", "archive/theirs"]
    assert {loop.loop_id for loop in state.list_archived_loops()} == {"theirs", OTHER}
    assert counted(state) == 2
    assert original.does("registry")["total_aborted"] == 2


def test_the_original_goes_on_with_what_gitstate_made_archived_and_restored(
    state: StateRepository, original: Node
) -> None:
    original.does("pid", loop=LOOP, pid=original.pid)
    assert state.liveness(LOOP).verdict == "alive"
    state.archive_loop(LOOP, force=True)
    assert original.tries("read", loop=LOOP)["error"] == f"Loop not found: {LOOP}"
    state.restore_loop(LOOP)
    assert original.does("update", loop=LOOP, changes={"note": "back"})["status"] == "paused"
    assert [entry["loop_id"] for entry in original.does("registry")["active_loops"]] == [OTHER, LOOP]
    assert state.get_loop(LOOP)["note"] == "back"


@pytest.mark.parametrize("before", ["loadRegistry", "saveRegistry", "updateLegacySymlink"])
def test_an_original_stopped_in_the_middle_of_archiving_is_overtaken_and_counted_once(
    state: StateRepository, original: Node, before: str
) -> None:
    """It stops past its lease, with the registry of then in its hands, and writes that when it wakes up."""
    original.does("stop", before=before)
    original.begins("archive", loop=OTHER)
    original.await_stop()
    other = later(state)
    other.create_loop("Be made meanwhile", "never", loop_id="meanwhile", pid=None)
    assert tags(state) == [f"archive/{OTHER}"]
    assert counted(state) == 1
    original.wake()
    assert "error" not in original.reports()
    for _ in ("as reading has it", "as the next mutation has it"):
        assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, "meanwhile"}
        assert counted(state) == 1
        state.update_loop(LOOP, {"note": "what comes next"})
    assert tags(state) == [f"archive/{OTHER}"]


@pytest.mark.parametrize("before", ["loadRegistry", "saveRegistry", "updateLegacySymlink"])
def test_an_original_stopped_in_the_middle_of_creating_is_overtaken_and_undoes_nothing(
    state: StateRepository, original: Node, before: str
) -> None:
    original.does("stop", before=before)
    original.begins("create", loop="theirs")
    original.await_stop()
    other = later(state)
    other.create_loop("Be made meanwhile", "never", loop_id="meanwhile", pid=None)
    other.archive_loop(OTHER)
    original.wake()
    assert "error" not in original.reports()
    for _ in ("as reading has it", "as the next mutation has it"):
        assert {entry["loop_id"] for entry in state.list_active_loops()} == {LOOP, "meanwhile", "theirs"}
        assert counted(state) == 1
        state.update_loop(LOOP, {"note": "what comes next"})
    assert state.get_loop("theirs")["objective"] == "Made by the original as theirs"


# --- all at once -----------------------------------------------------------------------------------------------------


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
    state: StateRepository, seconds: float, *, commands: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What two originals and two gitstates report of every call, all let loose at the same moment.

    Each original has a shared loop of its own: two of them on one loop tear it between themselves, by one ``.tmp``.
    """
    program = Path(__file__).with_name("supervisor.py")
    with ExitStack() as stack:
        theirs = [
            stack.enter_context(node(state.project_root, "mix", str(seconds), str(number), loop)).process
            for number, loop in enumerate((LOOP, OTHER), 1)
        ]
        plan = {"project": str(state.project_root), "seconds": seconds, "shared": [LOOP, OTHER], "commands": commands}
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
        reports: dict[int, list[dict[str, Any]]] = {}
        readers = [
            threading.Thread(target=lambda one=process: reports.update({one.pid: [*map(json.loads, one.stdout)]}))
            for process in (*theirs, *ours)
        ]
        for process in (*theirs, *ours):
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"ready": True}
        for reader in readers:
            reader.start()
        for process in (*theirs, *ours):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for reader in readers:
            reader.join(seconds + STALL)
        for process in (*theirs, *ours):
            assert process.wait(STALL) == 0
    both = [list(chain.from_iterable(reports[process.pid] for process in side)) for side in (theirs, ours)]
    return both[0], both[1]


@pytest.mark.filterwarnings("ignore::gitstate.DamageWarning")  # on a slow machine a glimpse may last
@pytest.mark.parametrize("commands", [False, True], ids=["the library", "the command line as well"])
def test_busy_beside_the_original_nothing_is_lost_torn_or_left_unrecorded(
    state: StateRepository, full: bool, commands: bool, record_property: pytest.RecordProperty
) -> None:
    if commands and not full:
        pytest.skip("the long form has the command line as well: a process for every fifth call")
    with Reader(StateRepository(state.project_root)) as reader:
        theirs, ours = busy(state, 30 if full else 8, commands=commands)
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
