"""What somebody puts in the place of a file after gitstate compared it and before gitstate replaces it."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import FakeClock
from original import stringify

from gitstate import DamageWarning, StateRepository, medium
from gitstate.durable import Directory
from gitstate.medium import UnreadableError
from gitstate.projection import Projection

pytestmark = pytest.mark.usefixtures("quick_disk")

Hook = Callable[[], None]
ONE = "loops/one/session-state.json"


@pytest.fixture
def state(project: Path) -> StateRepository:
    state = StateRepository(project, actor="user:alice", clock=FakeClock())
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    return state


def before(monkeypatch: pytest.MonkeyPatch, step: str, path: str, *hooks: Hook) -> None:
    """Have each hook run once, right before a step that puts something at *path*."""
    real, waiting = getattr(Directory, step), list(hooks)

    def stepped(self: Directory, name: str, target: str) -> object:
        if waiting and target == path:
            waiting.pop(0)()
        return real(self, name, target)

    monkeypatch.setattr(Directory, step, stepped)


def replace(path: Path, **changes: object) -> None:
    """As the original does it: read, write a ``.tmp``, rename."""
    prepared = path.with_suffix(".tmp")
    prepared.write_bytes(stringify({**json.loads(path.read_bytes()), **changes}))
    os.replace(prepared, path)


def quarantined(state: StateRepository) -> list[bytes]:
    return [path.read_bytes() for path in (state.base_dir / ".git/gitstate/quarantine").glob("*")]


@pytest.mark.parametrize(
    ("path", "changes"), [(ONE, {"note": "theirs"}), ("registry.json", {"max_concurrent_loops": 9})]
)
def test_a_file_that_is_replaced_after_it_was_compared_is_merged(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch, path: str, changes: dict[str, object]
) -> None:
    before(monkeypatch, "exchange", path, lambda: replace(state.base_dir / path, **changes))
    state.update_loop("one", {"status": "paused"})
    state.init()
    found = json.loads((state.base_dir / path).read_bytes())
    assert {key: found[key] for key in changes} == changes
    assert state.get_loop("one")["status"] == "paused"
    assert [change.operation for change in state.log(limit=2)] == ["adopt", "update"]


def test_of_two_that_come_while_the_first_is_put_back_the_second_stays_and_the_first_is_kept(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, first = state.base_dir / ONE, []

    def come() -> None:
        replace(path, note="first")
        first.append(path.read_bytes())

    before(monkeypatch, "exchange", ONE, come, lambda: replace(path, other="second"))
    with pytest.warns(DamageWarning, match="replaced twice meanwhile: one is kept in .git/gitstate/quarantine/"):
        state.update_loop("one", {"status": "paused"})
    state.init()
    loop = state.get_loop("one")
    assert (loop["status"], loop["other"], "note" in loop) == ("paused", "second", False)
    assert quarantined(state) == first


def test_what_cannot_be_looked_at_once_more_goes_back_as_well(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Projection.found

    def refuse_once(self: Projection, path: str) -> object:
        monkeypatch.setattr(Projection, "found", found)
        raise UnreadableError(f"{path}: too many open files", path=path, errno=errno.EMFILE)

    def come() -> None:
        replace(state.base_dir / ONE, note="theirs")
        monkeypatch.setattr(Projection, "found", refuse_once)

    before(monkeypatch, "exchange", ONE, come)
    with pytest.warns(DamageWarning, match="its files are not all written"):
        state.update_loop("one", {"status": "paused"})
    state.init()
    assert (state.get_loop("one")["status"], state.get_loop("one")["note"]) == ("paused", "theirs")


@pytest.mark.parametrize("reason", ["the system has no exchange", "this Python was built without ctypes"])
def test_where_files_cannot_be_exchanged_they_are_renamed(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if "Python" in reason:
        medium._renameat2.cache_clear()
        monkeypatch.setitem(sys.modules, "ctypes", None)
    else:
        monkeypatch.setattr(medium, "_renameat2", lambda: None)
    try:
        before(monkeypatch, "exchange", ONE, lambda: replace(state.base_dir / ONE, note="theirs"))
        state.update_loop("one", {"status": "paused"})
        state.update_loop("one", {"status": "running"})
    finally:
        monkeypatch.undo()
        medium._renameat2.cache_clear()
    assert (state.get_loop("one")["status"], state.get_loop("one")["note"]) == ("running", "theirs")


def test_a_file_that_appears_where_there_was_none_is_not_overwritten(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = state.base_dir / "loops/two/session-state.json"

    def come() -> None:
        path.write_bytes(
            stringify({**json.loads((state.base_dir / ONE).read_bytes()), "loopId": "two", "note": "theirs"})
        )

    before(monkeypatch, "link", "loops/two/session-state.json", come)
    state.create_loop("Two", "it is done", loop_id="two", pid=None)
    state.init()
    assert state.get_loop("two")["note"] == "theirs"
    assert [change.operation for change in state.log(limit=2)] == ["adopt", "create"]
