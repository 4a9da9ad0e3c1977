"""What reads make of files that no mutation has looked at yet: the same, and they write nothing."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from edits import edit, path_of, reconcile
from listings import listing
from original import Original

from gitstate import DamageWarning, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


def hand_edit(state: State) -> None:
    edit(path_of(state), lambda found: found.update(status="failed"))


def merged_edit(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))


def registry_edit(state: State) -> None:
    edit(state.registry_path, lambda found: found["active_loops"][0].update(priority="high", status="failed"))


def old_version(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)


def archived_by_the_original(state: State) -> None:
    Original(state.project_root).archive_loop("one")


def made_by_the_original(state: State) -> None:
    Original(state.project_root).create_loop("made-elsewhere")


def ghost(state: State) -> None:
    edit(state.registry_path, lambda found: found["active_loops"].append({"loop_id": "ghost", "status": "running"}))


def invalid(state: State) -> None:
    path_of(state).write_bytes(b"{")


def invalid_registry(state: State) -> None:
    state.registry_path.write_bytes(b"")


def missing(state: State) -> None:
    path_of(state).unlink()


def missing_registry(state: State) -> None:
    state.registry_path.unlink()


def missing_directories(state: State) -> None:
    shutil.rmtree(state.loops_dir)
    shutil.rmtree(state.archive_dir)


def not_a_file(state: State) -> None:
    path_of(state).unlink()
    path_of(state).mkdir()


def edit_beside_damage(state: State) -> None:
    hand_edit(state)
    path_of(state, "two").write_bytes(b"")


def new_loop_beside_damage(state: State) -> None:
    made_by_the_original(state)
    path_of(state, "two").write_bytes(b"")


QUIET = [
    hand_edit,
    merged_edit,
    registry_edit,
    old_version,
    archived_by_the_original,
    made_by_the_original,
    ghost,
]  # fmt: skip
LOUD = {
    invalid: ["loops/one/session-state.json: truncated, served from"],
    invalid_registry: ["registry.json: empty, served from"],
    missing: ["loops/one/session-state.json: missing, served from"],
    missing_registry: ["registry.json: missing, served from"],
    missing_directories: [f"{name}/session-state.json: missing" for name in ("archive/old", "loops/one", "loops/two")],
    not_a_file: ["loops/one/session-state.json: a directory, not a file, served from"],
    edit_beside_damage: ["loops/two/session-state.json: empty, served from"],
    new_loop_beside_damage: ["loops/two/session-state.json: empty, served from"],
}


def everything(state: State) -> dict[str, object]:
    """All that a reader can see, but the times that an adoption would set."""
    registry: Any = state.load_registry()
    loops = sorted({entry["loop_id"] for entry in registry["active_loops"]} | {"one", "two", "old"})
    seen = {loop_id: {**state.get_loop(loop_id), "lastUpdate": None} for loop_id in loops}
    archived = [(loop.loop_id, loop.status, loop.objective) for loop in state.list_archived_loops()]
    places = {loop_id: state.report(loop_id).entry for loop_id in loops}
    return {**seen, "": {**registry, "updated_at": None}, "archived": sorted(archived), "entries": places}


@pytest.mark.parametrize("meddle", [*QUIET, *LOUD], ids=lambda function: function.__name__)
def test_reads_serve_what_the_next_mutation_will_make_of_it(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        read = everything(state)
        state.init()
    assert read == everything(state)


@pytest.mark.parametrize("meddle", [*QUIET, *LOUD], ids=lambda function: function.__name__)
def test_reads_write_nothing(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    before = listing(state.base_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        everything(state)
        state.status()
        state.check()
        state.repair(dry_run=True)
        list(state.log(fields=True))
    assert listing(state.base_dir) == before
    reconcile(state)


@pytest.mark.parametrize("meddle", QUIET, ids=lambda function: function.__name__)
def test_reads_do_not_warn_of_edits_and_old_versions(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(state)
    reconcile(state)


@pytest.mark.parametrize("meddle", LOUD, ids=lambda function: function.__name__)
def test_reads_warn_of_what_is_missing_unreadable_or_invalid(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    with pytest.warns(DamageWarning) as caught:
        state.load_registry()
    words = [str(warning.message) for warning in caught]
    assert len(words) == len(LOUD[meddle])
    assert all(word.startswith(wanted) for word, wanted in zip(words, LOUD[meddle], strict=True)), words
    reconcile(state)
