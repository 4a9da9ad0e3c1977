"""Several mutations, one commit: all of them or none; and what must not happen inside one."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from listings import contents, listing
from one_loop import commits

import gitstate
from gitstate import (
    InvalidInputError,
    LeaseTimeoutError,
    LoopExistsError,
    LoopLimitError,
    LoopLimitWarning,
    LoopNotFoundError,
    RefusedError,
    StaleRevisionError,
    StateRepository,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(project: Path, clock: FakeClock) -> Iterator[State]:
    with StateRepository(project, actor="user:alice", clock=clock) as repository:
        repository.create_loop("First", "done", loop_id="one", pid=None, tags=["t"], owner="team:docs")
        repository.create_loop("Second", "done", loop_id="two", pid=None)
        yield repository


def note(state: State, loop_id: str = "one") -> object:
    found: dict[str, Any] = dict(state.get_loop(loop_id))
    return found.get("note")


# --- one commit ------------------------------------------------------------------------------------------------------


def test_several_mutations_are_one_commit(state: State) -> None:
    before, head = commits(state), state.revision()
    with state.transaction("nightly clean-up") as tx:
        tx.update_loop("one", {"status": "completed"})
        tx.archive_loop("one")
        tx.update_entry("two", priority="low")
        tx.create_loop("Third", "done", loop_id="three", pid=None)
        tx.set_max_concurrent_loops(7)
        tx.checkpoint("two", "here")
        assert state.revision() == head
    assert commits(state) == before + 1
    change = state.show("HEAD")
    assert tx.change == state.last_change == change
    assert (change.operation, change.summary, change.reason) == (
        "transaction", "transaction: nightly clean-up", "nightly clean-up",
    )  # fmt: skip
    assert change.loop_ids == ("one", "two", "three")
    assert state._revisions.read(change.revision or "").message.split("\n\n")[1].splitlines() == [
        "update one: status running → completed",
        "archive one: completed after 0 of 10 iterations",
        "update two: priority medium → low",
        "create three: Third",
        "update registry.json: max_concurrent_loops 4 → 7",
        "checkpoint two: here, iteration 0",
    ]


def test_everything_that_was_done_is_there_afterwards(state: State) -> None:
    with state.transaction() as tx:
        tx.update_loop("one", {"status": "completed"})
        tx.archive_loop("one")
        tx.create_loop("Third", "done", loop_id="three", pid=None)
        tx.checkpoint("three", "start")
    registry = state.load_registry()
    assert [entry["loop_id"] for entry in registry["active_loops"]] == ["two", "three"]
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (2, 1, 0)
    assert [loop.tag for loop in state.list_archived_loops()] == ["archive/one"]
    assert [checkpoint.tag for checkpoint in state.list_checkpoints()] == ["checkpoint/three/start"]


def test_each_file_is_stamped_once(state: State) -> None:
    before = state.get_loop("one")["gitstate"]["revision"]
    with state.transaction() as tx:
        for number in range(3):
            tx.update_loop("one", {"note": number})
    assert state.get_loop("one")["gitstate"]["revision"] == before + 1


def test_a_single_mutation_is_recorded_as_what_it_is(state: State) -> None:
    with state.transaction("because") as tx:
        tx.update_loop("one", {"note": 1})
    change = state.show("HEAD")
    assert (change.operation, change.summary, change.reason) == ("update", "update one: note none → 1", "because")


@pytest.mark.parametrize(
    "block",
    [
        lambda tx: None,
        lambda tx: tx.update_loop("one", {"status": "running"}),
        lambda tx: tx.get_loop("one"),
        lambda tx: (tx.update_loop("one", {"note": 1}), tx.update_loop("one", {}, remove=["note"])),
        lambda tx: (tx.set_max_concurrent_loops(9), tx.set_max_concurrent_loops(4)),
    ],
    ids=["nothing", "no change", "reads", "there and back", "limit there and back"],
)
def test_a_transaction_that_changes_nothing_is_no_commit(state: State, block: Callable[[Any], object]) -> None:
    head = state.revision()
    with state.transaction() as tx:
        block(tx)
    assert (state.revision(), tx.change, state.last_change) == (head, None, None)


def test_every_mutator_works_inside(state: State) -> None:
    with state.transaction("all") as tx:
        made = tx.create_loop("Third", "done", pid=None)
        tx.update_loop("one", {"status": "waiting"})
        tx.modify_loop("one", lambda record: {"maxIterations": record["maxIterations"] + 1})
        tx.record_iteration("one", {"learnings": "x"})
        tx.amend_iteration("one", 1, {"learnings": "y"})
        tx.update_loop_pid("one", "self")
        tx.resume_loop("one")
        tx.update_entry("one", tags=["z"])
        tx.set_max_concurrent_loops(9)
        change = tx.archive_loop("one", status="failed")
        tx.restore_loop("one")
        tx.checkpoint("one", "here")
        assert tx.reap_crashed_loops() == []
        assert tx.migrate_legacy_state() is None
    assert (change.revision, change.operation) == (None, "archive")
    found: dict[str, Any] = dict(state.get_loop("one"))
    assert (found["status"], found["maxIterations"], found["currentIteration"]) == ("paused", 11, 1)
    assert found["accumulatedLearnings"] == "### Iteration 1\ny"
    assert state.get_loop(made["loopId"])["status"] == "running"
    assert state.load_registry()["total_aborted"] == 0


def test_a_loop_archived_and_restored_inside_keeps_its_entry(state: State) -> None:
    with state.transaction() as tx:
        tx.archive_loop("one")
        tx.restore_loop("one")
    entry = next(entry for entry in state.list_active_loops() if entry["loop_id"] == "one")
    assert (entry["owner"], entry["tags"]) == ("team:docs", ["t"])


def test_what_is_reaped_inside_is_part_of_the_commit(state: State) -> None:
    before = commits(state)
    with state.transaction("reap") as tx:
        tx.update_loop("one", {"currentPid": 2**31 - 1})
        changes = tx.reap_crashed_loops(archive=True)
    assert [change.operation for change in changes] == ["reap", "archive"]
    assert commits(state) == before + 1
    assert state.get_loop("one")["status"] == "crashed"


# --- reads inside ----------------------------------------------------------------------------------------------------


def test_reads_inside_see_what_was_done_so_far(state: State) -> None:
    with state.transaction() as tx:
        tx.update_loop("one", {"status": "paused", "note": 1})
        tx.create_loop("Third", "done", loop_id="three", pid=None)
        tx.archive_loop("two")
        assert (tx.get_loop("one")["status"], tx.get_loop("two")["status"]) == ("paused", "running")
        assert [entry["loop_id"] for entry in tx.list_active_loops()] == ["one", "three"]
        assert (tx.load_registry()["total_active"], tx.load_registry()["total_aborted"]) == (2, 1)
        assert tx.resolve_loop_id("three") == "three"
        assert tx.liveness("one").verdict == "none"
        assert not tx.is_loop_alive("three")
        assert tx.detect_crashed_loops() == []
        assert tx.get_loop("one", at="HEAD")["status"] == "running"


def test_reads_outside_do_not_see_it_before_the_end(state: State) -> None:
    with state.transaction() as tx:
        tx.update_loop("one", {"note": 1})
        tx.create_loop("Third", "done", loop_id="three", pid=None)
        assert note(state) is None
        with gitstate.open(state.project_root) as other:
            assert note(other) is None
            with pytest.raises(LoopNotFoundError):
                other.get_loop("three")
    assert note(state) == 1


def test_records_from_inside_are_fresh_copies(state: State) -> None:
    with state.transaction() as tx:
        updated: dict[str, Any] = dict(tx.update_loop("one", {"note": {"a": 1}}))
        updated["note"]["a"] = 2
        tx.load_registry()["active_loops"].clear()
        tx.set_max_concurrent_loops(6)["active_loops"].clear()
        tx.update_entry("one", tags=["x"])["tags"].append("y")
        assert dict(tx.get_loop("one"))["note"] == {"a": 1}
    assert note(state) == {"a": 1}
    assert [entry["tags"] for entry in state.list_active_loops()] == [["x"], []]


@pytest.mark.parametrize("ask", [lambda state: state.last_change.fields, lambda state: state.show("HEAD").fields])
def test_the_values_of_a_change_are_the_caller_s_own(state: State, ask: Callable[[State], Any]) -> None:
    state.create_loop("Fix the tests", "all pass", loop_id="fix", pid=None)
    state.update_loop("fix", {"notes": {"seen": [1]}})
    (change,) = (found for found in ask(state) if found.path == "/notes")
    change.after["seen"].append(2)
    assert state.get_loop("fix")["notes"] == {"seen": [1]}  # type: ignore[typeddict-item]
    assert state.update_loop("fix", {"status": "paused"})["notes"] == {"seen": [1]}  # type: ignore[typeddict-item]


def test_an_entry_in_a_report_is_the_caller_s_own(state: State) -> None:
    state.create_loop("Fix the tests", "all pass", loop_id="tagged", pid=None, tags=["a"])
    entry = state.report("tagged").entry
    assert entry is not None
    entry["tags"].append("b")
    assert state.list_active_loops()[-1]["tags"] == ["a"]


def test_what_is_refused_outside_is_refused_inside(state: State) -> None:
    revision = state.revision()
    with state.transaction() as tx:
        tx.set_max_concurrent_loops(2)
        tx.update_loop("one", {"note": 1})
        with pytest.raises(LoopLimitError):
            tx.create_loop("Third", "done")
        with pytest.raises(LoopExistsError):
            tx.create_loop("Again", "done", loop_id="one")
        with pytest.raises(StaleRevisionError):
            tx.update_loop("one", {"note": 2}, if_revision=revision)
        with pytest.raises(InvalidInputError):
            tx.update_loop("one", {"status": "success"})
        tx.checkpoint("one", "here")
        with pytest.raises(RefusedError):
            tx.checkpoint("one", "here")
        with pytest.warns(LoopLimitWarning) as caught:
            tx.create_loop("Third", "done", loop_id="three", pid=None, force=True)
        assert [warning.filename for warning in caught] == [__file__]
        tx.archive_loop("two")
        with pytest.raises(LoopNotFoundError):
            tx.update_loop("two", {"note": 1})
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "three"]


def test_an_error_that_the_block_catches_leaves_the_rest_standing(state: State) -> None:
    with state.transaction() as tx:
        tx.update_loop("one", {"note": 1})
        with pytest.raises(LoopNotFoundError):
            tx.update_loop("nobody", {"note": 1})
        tx.update_loop("two", {"note": 2})
    assert (note(state), note(state, "two")) == (1, 2)


# --- all or none -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3), gitstate.RefusedError("mine")])
def test_if_the_block_raises_nothing_happened(state: State, error: BaseException) -> None:
    before, head = contents(state.base_dir), state.revision()

    def block() -> None:
        with state.transaction() as tx:
            tx.update_loop("one", {"note": 1})
            tx.archive_loop("two")
            tx.create_loop("Third", "done", loop_id="three", pid=None)
            raise error

    with pytest.raises(type(error)) as caught:
        block()
    assert caught.value is error
    assert (contents(state.base_dir), state.revision(), state.last_change) == (before, head, None)
    assert state.lease_info() is None
    assert note(state) is None
    state.update_loop("one", {"note": 2})


@pytest.mark.parametrize("how", ["made", "unchanged", "raised"])
def test_a_transaction_is_over_when_its_block_is_left(state: State, how: str) -> None:
    try:
        with state.transaction() as tx:
            if how != "unchanged":
                tx.update_loop("one", {"note": 1})
            if how == "raised":
                raise KeyError
    except KeyError:
        pass
    head = state.revision()
    with pytest.raises(RefusedError, match="the transaction is over"):
        tx.update_loop("one", {"note": 2})
    assert state.revision() == head
    assert note(state) == (1 if how == "made" else None)


@pytest.mark.parametrize("reason", [5, ["why"], b"why"])
def test_a_reason_that_is_no_text_is_refused_before_anything_is_locked(state: State, reason: Any) -> None:
    before = listing(state.base_dir)
    with pytest.raises(InvalidInputError, match="reason"), state.transaction(reason):
        pytest.fail("the block was entered")
    assert listing(state.base_dir) == before


# --- inside another --------------------------------------------------------------------------------------------------


INNER: dict[str, Callable[[State], object]] = {
    "update": lambda state: state.update_loop("one", {"note": 1}),
    "create": lambda state: state.create_loop("Third", "done"),
    "transaction": lambda state: state.transaction().__enter__(),
    "init": lambda state: state.init(),
    "rollback": lambda state: state.rollback("one", to="HEAD"),
    "archive": lambda state: state.archive_loop("one"),
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", ["transaction", "modify"])
def test_a_mutation_inside_a_mutation_of_the_same_thread_is_refused_at_once(
    state: State, clock: FakeClock, inner: str, outer: str
) -> None:
    before, moment = state.revision(), clock.monotonic()

    def attempt(*given: object) -> None:
        with pytest.raises(RefusedError, match="in the middle of a mutation") as caught:
            INNER[inner](state)
        assert caught.value.hint

    if outer == "transaction":
        with state.transaction():
            attempt()
    else:
        state.modify_loop("one", attempt)
    assert clock.monotonic() - moment < 1
    assert (state.revision(), state.lease_info()) == (before, None)


def test_another_object_for_the_same_directory_is_the_same(state: State, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(state.project_root)
    for root in (state.project_root, link, f"{state.project_root}/../{state.project_root.name}"):
        with gitstate.open(root) as other, state.transaction(), pytest.raises(RefusedError, match="in the middle"):
            other.update_loop("one", {"note": 1})


def test_another_directory_may_be_mutated_inside(state: State, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with gitstate.open(elsewhere) as other, state.transaction() as tx:
        tx.update_loop("one", {"note": 1})
        other.create_loop("There", "done", loop_id="there", pid=None)
    assert (note(state), other.get_loop("there")["status"]) == (1, "running")


def test_after_a_refusal_inside_all_goes_on(state: State) -> None:
    with state.transaction() as tx:
        with pytest.raises(RefusedError):
            state.update_loop("one", {"note": 1})
        tx.update_loop("one", {"note": 2})
    assert note(state) == 2
    state.update_loop("one", {"note": 3})


# --- others ----------------------------------------------------------------------------------------------------------


def test_another_thread_waits_like_another_process(project: Path) -> None:
    with gitstate.open(project) as state, ThreadPoolExecutor(1) as pool:
        state.create_loop("First", "done", loop_id="one", pid=None)
        inside = threading.Event()

        def other() -> None:
            inside.wait(10)
            state.update_loop("two", {"note": 2})  # which is not there before the transaction ends

        with state.transaction() as tx:
            waiting = pool.submit(other)
            inside.set()
            tx.create_loop("Second", "done", loop_id="two", pid=None)
            tx.update_loop("one", {"note": 1})
        waiting.result(20)
        assert (note(state), note(state, "two")) == (1, 2)


def test_threads_that_share_a_repository_lose_nothing(project: Path) -> None:
    with gitstate.open(project) as state:
        state.create_loop("First", "done", loop_id="one", pid=None)

        def work(number: int) -> None:
            for _ in range(5):
                state.modify_loop("one", lambda record: {"currentIteration": record["currentIteration"] + 1})
                assert state.get_loop("one")["currentIteration"] > 0

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert state.get_loop("one")["currentIteration"] == 20
        assert commits(state) == 22


def test_the_last_change_is_each_thread_s_own(project: Path) -> None:
    with gitstate.open(project) as state, ThreadPoolExecutor(1) as pool:
        state.create_loop("First", "done", loop_id="one", pid=None)
        assert pool.submit(lambda: state.last_change).result(10) is None


def test_who_does_not_want_to_wait_is_told_who_holds_the_lease(state: State) -> None:
    def impatient() -> None:
        with StateRepository(state.project_root, lock_timeout=0, clock=FakeClock()) as other:
            other.update_loop("two", {"note": 1})

    with state.transaction("long work"), ThreadPoolExecutor(1) as pool:
        with pytest.raises(LeaseTimeoutError) as caught:
            pool.submit(impatient).result(20)
        assert str(os.getpid()) in str(caught.value)
        holder: Any = caught.value.holder
        assert (holder.pid, holder.alive) == (os.getpid(), True)


def forked(function: Callable[[], None]) -> int:
    """Run *function* in a forked child; its exit code, 0 when it returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: a fork of a process with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_after_a_fork_the_child_s_copy_works(project: Path) -> None:
    with gitstate.open(project, lock_timeout=10) as state:
        state.create_loop("First", "done", loop_id="one", pid=None)

        def child() -> None:
            state.update_loop("one", {"note": os.getpid()})

        assert forked(child) == 0
        assert note(state) not in (None, os.getpid())
        state.update_loop("one", {"note": 1})


def test_after_a_fork_inside_a_transaction_the_child_holds_nothing(project: Path) -> None:
    with gitstate.open(project, lock_timeout=0) as state:
        state.create_loop("First", "done", loop_id="one", pid=None)

        with state.transaction() as tx:

            def child() -> None:
                with pytest.raises(RefusedError, match="the process that forked this one"):
                    tx.update_loop("one", {"note": "child"})
                with pytest.raises(LeaseTimeoutError):
                    state.update_loop("one", {"note": "child"})

            tx.update_loop("one", {"note": "parent"})
            assert forked(child) == 0
        assert note(state) == "parent"


# --- a plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_change_and_writes_nothing(state: State) -> None:
    before = listing(state.base_dir)

    def function(tx: Any) -> None:
        tx.update_loop("one", {"status": "completed"})
        tx.archive_loop("one")
        tx.update_loop("two", {"status": "running"})  # changes nothing
        assert tx.list_active_loops()[0]["loop_id"] == "two"

    changes = state.plan(function)
    assert listing(state.base_dir) == before
    assert [(change.operation, change.loop_id, change.revision) for change in changes] == [
        ("update", "one", None), ("archive", "one", None),
    ]  # fmt: skip
    assert [field.path for field in changes[0].fields] == ["/status"]
    assert changes[0].actor == "user:alice"


def test_a_plan_takes_no_lease(state: State) -> None:
    def function(tx: Any) -> None:
        assert state.lease_info() is None
        tx.update_loop("one", {"note": 1})

    assert len(state.plan(function)) == 1


def test_a_plan_of_what_is_refused_is_refused(state: State) -> None:
    with pytest.raises(LoopNotFoundError):
        state.plan(lambda tx: tx.archive_loop("nobody"))


def test_a_plan_can_be_made_before_there_is_any_history(project: Path) -> None:
    state = gitstate.open(project)
    (change,) = state.plan(lambda tx: tx.create_loop("First", "done", loop_id="one", pid=None))
    assert (change.operation, change.parent) == ("create", None)
    assert list(project.iterdir()) == []


def test_after_the_plan_its_transaction_is_over(state: State) -> None:
    kept: list[Any] = []
    state.plan(kept.append)
    with pytest.raises(RefusedError, match="over"):
        kept[0].update_loop("one", {"note": 1})
