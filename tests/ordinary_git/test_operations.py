"""After every kind of operation git finds all in order, and its subject tells what happened."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from beginnings import DEAD, begin, subject, transaction
from conftest import git

import gitstate
from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
Unpack = Callable[[str], Path]


def adopt(state: State) -> None:
    path = state.loops_dir / "one" / "session-state.json"
    path.write_bytes(path.read_bytes().replace(b"Fix all failing tests", b"Fix most failing tests"))
    state.init()


def repair(state: State) -> None:
    (state.loops_dir / "one" / "session-state.json").write_bytes(b'{"status": "run')
    with pytest.warns(gitstate.DamageWarning):
        state.init()


def reap_and_archive(state: State) -> None:
    state.reap_crashed_loops(archive=True)


def undo_of_an_archive(state: State) -> None:
    state.archive_loop("one")
    state.undo("one")


# What is done after ``begin``, and the subject it leaves; <rev> is a shortened commit id.
OPERATIONS: dict[str, tuple[Callable[[State], object], str]] = {
    "create": (
        lambda s: s.create_loop("Tidy up", "it is tidy", loop_id="three", pid=None),
        "create three: Tidy up",
    ),
    "update": (
        lambda s: s.update_loop("one", {"status": "paused", "currentIteration": 4}),
        "update one: status running → paused, iteration 1 → 4",
    ),
    "modify": (
        lambda s: s.modify_loop("one", lambda found: {"note": len(found["iterations"])}),
        "update one: note none → 1",
    ),
    "iterate": (
        lambda s: s.record_iteration("one", {"status": "passed", "progress": "5/24 tests pass"}),
        "iterate one: iteration 2 of 10, passed, 5/24 tests pass",
    ),
    "amend": (
        lambda s: s.amend_iteration("one", 1, {"learnings": []}),
        "amend one: iteration 1, learnings",
    ),
    "pid": (lambda s: s.update_loop_pid("two", DEAD), f"pid two: none → {DEAD}"),
    "resume": (lambda s: s.resume_loop("two", pid=DEAD), f"resume two: pid none → {DEAD}"),
    "entry": (
        lambda s: s.update_entry("one", owner="agent:reviewer", tags=["x"]),
        "update one: owner user:alice → agent:reviewer, tags",
    ),
    "limit": (lambda s: s.set_max_concurrent_loops(7), "update registry.json: max_concurrent_loops 4 → 7"),
    "archive": (
        lambda s: s.archive_loop("one", status="completed"),
        "archive one: completed after 1 of 10 iterations",
    ),
    "restore": (
        lambda s: (s.archive_loop("one"), s.restore_loop("one")),
        "restore one: status running → paused",
    ),
    "checkpoint": (lambda s: s.checkpoint("one", "before"), "checkpoint one: before, iteration 1"),
    "reap": (
        lambda s: s.reap_crashed_loops(),
        f"reap one: status running → crashed, process {DEAD} does not exist",
    ),
    "reap --archive": (reap_and_archive, "archive one: crashed after 1 of 10 iterations"),
    "rollback": (
        lambda s: (s.update_loop("two", {"currentIteration": 7}), s.rollback("two", steps=1)),
        "rollback two to <rev>: status running → paused, iteration 7 → 0",
    ),
    "rollback_registry": (
        lambda s: (s.set_max_concurrent_loops(9), s.rollback_registry(steps=1)),
        "rollback registry.json to <rev>",
    ),
    "rollback_all": (
        lambda s: (s.update_loop("two", {"currentIteration": 7}), s.rollback_all(to="HEAD~1")),
        "rollback all to HEAD~1 (<rev>): 2 loops",
    ),
    "undo": (
        lambda s: (s.update_loop("two", {"currentIteration": 7}), s.undo("two")),
        "undo two: <rev>, update: iteration 0 → 7",
    ),
    "undo of an archive": (undo_of_an_archive, "undo one: <rev>, archive: running after 1 of 10 iterations"),
    "transaction": (transaction, "transaction: nightly clean-up"),
    "adopt": (adopt, "adopt loops/one/session-state.json: edited outside gitstate"),
    "repair": (repair, "repair loops/one/session-state.json: truncated, restored from <rev>"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_after_every_operation_git_status_is_empty_and_fsck_is_clean(state: State, name: str) -> None:
    begin(state)
    OPERATIONS[name][0](state)
    assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
    assert git(state.base_dir, "diff", "HEAD").stdout == ""
    found = git(state.base_dir, "fsck", "--strict", "--full", "--no-dangling")
    assert (found.stdout, found.stderr) == ("", "")


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_subject_tells_what_happened(state: State, name: str) -> None:
    begin(state)
    do, wanted = OPERATIONS[name]
    do(state)
    assert re.sub(r"\b[0-9a-f]{7}\b", "<rev>", subject(state)) == wanted


def test_git_status_is_empty_after_init(state: State) -> None:
    state.init()
    assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
    assert subject(state) == "init: a new state directory"


def test_git_status_is_empty_after_migration(unpack: Unpack) -> None:
    with gitstate.open(unpack("legacy-single-loop")) as state:
        loop_id = state.migrate_legacy_state()
        assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
        assert subject(state) == f"migrate {loop_id}: Port the CLI to commander"


def test_git_status_need_not_read_a_file_again_after_an_operation(state: State) -> None:
    begin(state)
    assert git(state.base_dir, "diff-files").stdout == ""  # by the index alone, which is not refreshed here


def test_what_lies_about_beside_the_versioned_files_is_not_shown(state: State) -> None:
    begin(state)
    (state.loops_dir / "one" / "outputs" / "001-stdout.log").write_text("secret")
    (state.loops_dir / "one" / "notes.md").write_text("mine")
    (state.shared_dir / "x").write_text("x")
    (state.base_dir / "launcher-registry.json").write_text("{}")
    state.update_loop("one", {"status": "paused"})
    assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
    assert "secret" not in git(state.base_dir, "log", "-p", "--all").stdout
