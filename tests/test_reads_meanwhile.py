"""Looking while others are in the middle of writing: what is only a glimpse of it is not called damage."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import git
from original import Original

from gitstate import StateRepository
from gitstate.projection import Projection
from gitstate.store.refs import Refs

STALL = 60


class Pausing(FakeClock):
    """A clock during whose sleeps the others get on."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.happens = happens

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.happens()


def loops_seen(project: Path, happens: Callable[[], None]) -> set[str]:
    """The active loops as somebody reads them who warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = StateRepository(project, clock=Pausing(happens))
        return {entry["loop_id"] for entry in reader.list_active_loops()}


@pytest.fixture
def halfway(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A loop is made: committed, and not yet written out. What comes back lets its writer finish."""
    state.init()
    apply, committed, go_on = Projection.apply, threading.Event(), threading.Event()

    def slowly(*words: object) -> object:
        committed.set()
        go_on.wait(STALL)
        return apply(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(Projection, "apply", slowly)
    writer = threading.Thread(
        target=state.create_loop, args=("Be seen", "never"), kwargs={"loop_id": "one", "pid": None}
    )
    writer.start()
    assert committed.wait(STALL)

    def finish() -> None:
        go_on.set()
        writer.join(STALL)

    return finish


def test_a_loop_that_is_committed_and_not_yet_written_out_is_not_called_missing(
    state: StateRepository, halfway: Callable[[], None]
) -> None:
    assert loops_seen(state.project_root, halfway) == {"one"}


def test_a_loop_that_is_committed_and_not_yet_written_out_is_no_finding_of_check(
    state: StateRepository, halfway: Callable[[], None]
) -> None:
    found = StateRepository(state.project_root, clock=Pausing(halfway)).check(full=True)
    assert [finding for finding in found if finding.severity != "note"] == []


def test_a_session_state_that_the_original_is_writing_is_not_called_empty(state: StateRepository) -> None:
    """The one file of it that does not appear whole."""
    state.init()
    original = Original(state.project_root)
    original.create_loop("one")
    path = original.state_path("one")
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert loops_seen(state.project_root, lambda: path.write_bytes(whole) and None) == {"one"}


@pytest.mark.parametrize("where", ["packed", "last_in_reflog"], ids=["before the packed refs", "before the reflog"])
def test_a_branch_that_leaves_the_packed_refs_while_it_is_looked_for_is_not_called_missing(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """After ``git gc`` it has no file of its own, until somebody commits."""
    state.create_loop("Be seen", "never", loop_id="one", pid=None)
    git(state.base_dir, "pack-refs", "--all")
    look = getattr(Refs, where)

    def meanwhile(refs: Refs) -> object:
        monkeypatch.undo()
        StateRepository(state.project_root).update_loop("one", {"note": "meanwhile"})
        return look(refs)

    monkeypatch.setattr(Refs, where, meanwhile)
    assert state._revisions.head() == state.revision()


def test_a_branch_that_moves_while_it_is_checked_is_not_called_behind(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.create_loop("Be seen", "never", loop_id="one", pid=None)
    look = Refs.last_in_reflog

    def meanwhile(refs: Refs) -> object:
        monkeypatch.undo()
        StateRepository(state.project_root).update_loop("one", {"note": "meanwhile"})
        return look(refs)

    monkeypatch.setattr(Refs, "last_in_reflog", meanwhile)
    assert [finding for finding in state.check() if finding.severity != "note"] == []
    assert state.get_loop("one")["note"] == "meanwhile"
