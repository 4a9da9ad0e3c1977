"""The whole of it against a plain model: random operations, edits, damage and crashes, and after each all must agree.

The model is a dict. Where a process is killed in the middle of an operation the operation happened or it did not, and
the model goes with what history says; everything else is to be as the model has it, and ``check`` has nothing to add.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import assert_sound
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from steps import Steps

import gitstate.medium
from gitstate import StateRepository

Model = dict[str, Any]
NOTES = some.text(max_size=8) | some.integers(-9, 9) | some.none()
STATUSES = some.sampled_from(["running", "paused", "waiting", "completed", "failed"])
KEYS = some.sampled_from(["note", "other"])


class Machine(RuleBasedStateMachine):
    """One project; ``loops`` and the rest are what it ought to hold."""

    crashes = 0

    def __init__(self) -> None:
        super().__init__()
        self.project = Path(tempfile.mkdtemp(prefix="gitstate-machine-"))
        self.clock = FakeClock()
        self.loops: Model = {}
        self.limit, self.completed, self.aborted, self.made = 100, 0, 0, 0
        self.checkpoints: set[tuple[str, str]] = set()

    @initialize()
    def begin(self) -> None:
        self.open()
        self.state.init(max_concurrent_loops=100)

    def open(self) -> None:
        self.state = StateRepository(self.project, actor="user:alice", clock=self.clock)

    def teardown(self) -> None:
        self.state.close()
        assert_sound(self.project)
        shutil.rmtree(self.project)

    def pick(self, number: int, place: str = "loops") -> str:
        names = [name for name, loop in self.loops.items() if loop["place"] == place]
        return names[number % len(names)]

    def some_in(self, place: str) -> bool:
        return any(loop["place"] == place for loop in self.loops.values())

    # --- the operations, each on the model and on the state ---

    def did_create(self, name: str) -> None:
        self.loops[name] = {"place": "loops", "status": "running", "fields": {}, "iterations": [], "past": []}

    def remember(self, name: str) -> None:
        loop = self.loops[name]
        loop["past"].append(copy.deepcopy((loop["status"], loop["fields"], loop["iterations"])))

    @rule()
    def create(self) -> None:
        self.made += 1
        name = f"loop-{self.made}"
        self.state.create_loop("reach the end", "npm test", loop_id=name, pid=None)
        self.did_create(name)

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9), key=KEYS, value=NOTES)
    def update(self, which: int, key: str, value: object) -> None:
        name = self.pick(which)
        loop = self.loops[name]
        if loop["fields"].get(key, ...) != value or isinstance(loop["fields"].get(key), bool):
            self.remember(name)
        self.state.update_loop(name, {key: value})
        loop["fields"][key] = value

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9), status=STATUSES)
    def set_status(self, which: int, status: str) -> None:
        name = self.pick(which)
        if self.loops[name]["status"] != status:
            self.remember(name)
        self.state.update_loop(name, {"status": status})
        self.loops[name]["status"] = status

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9), progress=some.text(max_size=5))
    def iterate(self, which: int, progress: str) -> None:
        name = self.pick(which)
        self.remember(name)
        self.state.record_iteration(name, {"progress": progress})
        self.loops[name]["iterations"].append(progress)

    @precondition(lambda self: any(loop["past"] and loop["place"] == "loops" for loop in self.loops.values()))
    @rule(which=some.integers(0, 9))
    def undo(self, which: int) -> None:
        names = [name for name, loop in self.loops.items() if loop["past"] and loop["place"] == "loops"]
        name = names[which % len(names)]
        loop = self.loops[name]
        self.state.undo(name)
        before = (loop["status"], loop["fields"], loop["iterations"])
        loop["status"], loop["fields"], loop["iterations"] = loop["past"].pop()
        loop["past"] = [copy.deepcopy(before)]  # undoing it again is the redo

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9))
    def archive(self, which: int) -> None:
        name = self.pick(which)
        self.state.archive_loop(name)
        loop = self.loops[name]
        loop["place"], loop["past"] = "archive", []
        if loop["status"] == "completed":
            self.completed += 1
        else:
            self.aborted += 1

    @precondition(lambda self: self.some_in("archive"))
    @rule(which=some.integers(0, 9))
    def restore(self, which: int) -> None:
        self.restored(self.pick(which, "archive"))

    def restored(self, name: str) -> None:
        loop = self.loops[name]
        self.state.restore_loop(name)
        if loop["status"] == "completed":
            self.completed -= 1
        else:
            self.aborted -= 1
        loop["place"], loop["status"], loop["past"] = "loops", "paused", []

    @rule()
    def prune(self) -> None:
        pruned = {change.loop_id for change in self.state.prune_archives(older_than=timedelta(0))}
        assert pruned == {name for name, loop in self.loops.items() if loop["place"] == "archive"}
        for name in pruned:
            self.loops[str(name)]["place"] = "pruned"

    @precondition(lambda self: self.some_in("pruned"))
    @rule(which=some.integers(0, 9))
    def restore_pruned(self, which: int) -> None:
        name = self.pick(which, "pruned")
        self.loops[name]["place"] = "archive"
        self.restored(name)

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9))
    def checkpoint(self, which: int) -> None:
        name, point = self.pick(which), f"point-{len(self.checkpoints)}"
        self.state.checkpoint(name, point)
        self.loops[name]["past"] = []
        self.checkpoints.add((name, point))

    @rule(limit=some.integers(50, 200))
    def set_limit(self, limit: int) -> None:
        self.state.set_max_concurrent_loops(limit)
        self.limit = limit

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9), value=NOTES)
    def a_transaction(self, which: int, value: object) -> None:
        self.made += 1
        name, new = self.pick(which), f"loop-{self.made}"
        with self.state.transaction() as tx:
            tx.update_loop(name, {"note": value})
            tx.create_loop("reach the end", "npm test", loop_id=new, pid=None)
        self.loops[name]["fields"]["note"] = value
        self.loops[name]["past"] = []
        self.did_create(new)

    # --- what others do ---

    @precondition(lambda self: self.some_in("loops"))
    @rule(which=some.integers(0, 9), value=some.text(max_size=8))
    def edit_outside(self, which: int, value: str) -> None:
        name = self.pick(which)
        path = self.state.loops_dir / name / "session-state.json"
        if not path.exists():
            return
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "other": value}))
        self.loops[name]["fields"]["other"] = value
        self.loops[name]["past"] = []

    @rule(which=some.integers(0, 9), way=some.sampled_from(["delete", "truncate", "garble"]))
    def damage(self, which: int, way: str) -> None:
        self.state.init()  # what was edited is adopted: what is not in history yet, no history can give back
        files = [self.state.registry_path, *sorted(self.state.loops_dir.glob("*/session-state.json"))]
        path = files[which % len(files)]
        if way == "delete":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:20] if way == "truncate" else b"\xff" * 50)
        assert [finding.code for finding in self.state.check() if finding.severity != "note"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.agree()
            self.state.init()

    @rule()
    def come_anew(self) -> None:
        self.state.close()
        self.open()

    @rule(hours=some.integers(0, 48))
    def time_passes(self, hours: int) -> None:
        self.clock.advance(hours=hours, seconds=1)

    @precondition(lambda self: self.some_in("loops"))
    @rule(
        which=some.integers(0, 9),
        step=some.integers(1, 60),
        what=some.sampled_from(["update", "create", "archive", "prune"]),
    )
    def crash(self, which: int, step: int, what: str) -> None:
        """Another process is killed in the middle of an operation; ours goes on without help."""
        name = self.pick(which)
        self.made += 1
        new, head = f"loop-{self.made}", self.settled()
        pid = os.fork()
        if pid == 0:
            try:
                warnings.simplefilter("ignore")
                Steps().send(signal.SIGKILL, step)
                self.begin_elsewhere(what, name, new)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        Machine.crashes += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.state.init()
        if self.state.revision() == head:
            return
        loop = self.loops[name]
        if what == "update":
            loop["fields"]["note"], loop["past"] = f"crashed {self.made}", []
        elif what == "create":
            self.did_create(new)
        elif what == "prune":  # of several, each for itself
            left = {archived.loop_id for archived in self.state.list_archived_loops()}
            for name, loop in self.loops.items():
                if loop["place"] == "archive" and name not in left:
                    loop["place"] = "pruned"
        else:
            loop["place"], loop["past"] = "archive", []
            self.completed += loop["status"] == "completed"
            self.aborted += loop["status"] != "completed"

    def begin_elsewhere(self, what: str, name: str, new: str) -> None:
        with StateRepository(self.project, actor="user:bob", clock=self.clock) as theirs:
            if what == "update":
                theirs.update_loop(name, {"note": f"crashed {self.made}"})
            elif what == "create":
                theirs.create_loop("reach the end", "npm test", loop_id=new, pid=None)
            elif what == "prune":
                theirs.prune_archives(older_than=timedelta(0))
            else:
                theirs.archive_loop(name)

    def settled(self) -> str | None:
        self.state.init()
        return self.state.revision()

    # --- what must hold ---

    @invariant()
    def agree(self) -> None:
        registry = self.state.load_registry()
        active = {name for name, loop in self.loops.items() if loop["place"] == "loops"}
        assert {entry["loop_id"] for entry in registry["active_loops"]} == active
        assert (registry["total_active"], registry["max_concurrent_loops"]) == (len(active), self.limit)
        assert (registry["total_completed"], registry["total_aborted"]) == (self.completed, self.aborted)
        archived = {loop.loop_id for loop in self.state.list_archived_loops()}
        assert archived == {name for name, loop in self.loops.items() if loop["place"] == "archive"}
        assert {(point.loop_id, point.name) for point in self.state.list_checkpoints()} == self.checkpoints
        for entry in registry["active_loops"]:
            assert entry["status"] == self.loops[entry["loop_id"]]["status"]
            assert entry["iteration"] == len(self.loops[entry["loop_id"]]["iterations"])
        for name, loop in self.loops.items():
            found: Any = self.state.get_loop(name)
            assert found["status"] == loop["status"]
            assert {key: found[key] for key in ("note", "other") if key in found} == loop["fields"]
            assert [item["progress"] for item in found["iterations"]] == loop["iterations"]

    @invariant()
    def check(self) -> None:
        assert [finding for finding in self.state.check() if finding.severity != "note"] == []


def test_whatever_happens_it_is_as_a_plain_model_has_it(
    full: bool, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr(gitstate.medium, "fsync", lambda descriptor: None)
    Machine.crashes = 0
    run_state_machine_as_test(
        Machine,
        settings=settings(
            derandomize=not full, max_examples=200 if full else 10, stateful_step_count=50 if full else 15, deadline=None,
            database=None, suppress_health_check=list(HealthCheck), print_blob=True,
        ),
    )  # fmt: skip
    record_property("figures", f"machine: {200 if full else 10} histories, {Machine.crashes} crashes, 0 wrong")
