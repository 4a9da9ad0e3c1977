"""What is adopted, and what replaces it, outlives a power cut."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from edits import ADOPT_ONE, edit, path_of, reconcile

import gitstate
from gitstate import StateRepository, durable, medium

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.fixture
def hardened(state: State, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What was made durable from here on: the branch at that moment, and the bytes."""
    noted: list[tuple[str, bytes]] = []

    def note(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raw = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            noted.append(((state.base_dir / ".git/refs/heads/main").read_text().strip(), raw))

    monkeypatch.setattr(medium, "fsync", note)
    return noted


def test_an_edit_is_durable_before_it_is_adopted(state: State, hardened: list[tuple[str, bytes]]) -> None:
    before = state.revision()
    written = edit(path_of(state), lambda found: found.update(note="by hand"))
    assert reconcile(state) == ADOPT_ONE
    assert (before, written) in hardened


def test_what_is_adopted_when_a_repository_is_made_is_durable_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = project / ".aiwg/ralph-external"
    base.mkdir(parents=True)
    (base / "registry.json").write_bytes(b'{"active_loops": []}')
    hardened: list[tuple[str, bool]] = []

    def note(descriptor: int) -> None:
        hardened.append((os.readlink(f"/proc/self/fd/{descriptor}"), (base / ".git").exists()))

    monkeypatch.setattr(medium, "fsync", note)
    gitstate.open(project).init()
    assert (str(base / "registry.json"), False) in hardened


def test_what_replaces_anything_but_the_head_s_version_is_durable(
    state: State, hardened: list[tuple[str, bytes]]
) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    assert path_of(state).read_bytes() in [raw for _, raw in hardened]


def test_what_replaces_the_head_s_version_waits_for_no_medium(state: State, hardened: list[tuple[str, bytes]]) -> None:
    state.update_loop("one", {"currentIteration": 5})
    assert path_of(state).read_bytes() not in [raw for _, raw in hardened]


def test_an_edit_that_is_moved_away_before_it_is_durable_is_adopted_all_the_same(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(path_of(state), lambda found: found.update(note="by hand"))

    sync = durable.Directory.sync_file

    def moved_away(directory: durable.Directory, name: str) -> None:
        if name == "loops/one/session-state.json":
            path_of(state).unlink()
        sync(directory, name)

    monkeypatch.setattr(durable.Directory, "sync_file", moved_away)
    assert reconcile(state) == ADOPT_ONE
    assert state.get_loop("one")["note"] == "by hand"  # type: ignore[typeddict-item]
