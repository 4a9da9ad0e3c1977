"""A valid edit, made from the head: it is adopted, byte for byte."""

from __future__ import annotations

import json

import pytest
from conftest import git
from edits import ADOPT_ONE, ADOPT_REGISTRY, edit, in_head, path_of, reconcile
from original import Original

import gitstate
from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


@pytest.mark.parametrize("staged", [False, True])
def test_a_hand_edit_of_a_session_state_is_adopted_byte_for_byte(state: State, staged: bool) -> None:
    written = edit(path_of(state), lambda found: found.update(objective="Bye"), encode=lambda r: json.dumps(r).encode())
    if staged:
        git(state.base_dir, "add", "loops/one/session-state.json")
    assert reconcile(state) == ADOPT_ONE
    assert path_of(state).read_bytes() == written == in_head(state, "loops/one/session-state.json")
    assert state.get_loop("one")["objective"] == "Bye"


@pytest.mark.parametrize("staged", [False, True])
def test_a_hand_edit_of_the_registry_is_adopted_byte_for_byte(state: State, staged: bool) -> None:
    written = edit(state.registry_path, lambda found: found.update(max_concurrent_loops=9))
    if staged:
        git(state.base_dir, "add", "registry.json")
    assert reconcile(state) == ADOPT_REGISTRY
    assert state.registry_path.read_bytes() == written == in_head(state, "registry.json")


def test_an_edit_that_was_only_staged_and_then_taken_back_is_no_edit(state: State) -> None:
    before = path_of(state).read_bytes()
    edit(path_of(state), lambda found: found.update(objective="Bye"))
    git(state.base_dir, "add", "loops/one/session-state.json")
    path_of(state).write_bytes(before)
    revision = state.revision()
    state.repair()
    assert state.revision() == revision
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_an_adoption_names_the_loop_and_can_be_undone(state: State) -> None:
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    newest = next(state.log(fields=True))
    assert (newest.operation, newest.loop_ids) == ("adopt", ("one",))
    assert [(field.path, field.before, field.after) for field in newest.fields] == [("/note", "first", "by hand")]
    state.undo("one")
    assert state.get_loop("one")["note"] == "first"  # type: ignore[typeddict-item]


def test_an_edit_of_an_archived_loop_is_adopted_too(state: State) -> None:
    edit(state.archive_dir / "old" / "session-state.json", lambda found: found.update(objective="Null"))
    assert reconcile(state) == ["adopt archive/old/session-state.json: edited outside gitstate"]
    assert state.get_loop("old")["objective"] == "Null"


def test_a_corrected_status_of_an_archived_loop_moves_it_from_one_total_to_the_other(state: State) -> None:
    edit(state.archive_dir / "old" / "session-state.json", lambda found: found.update(status="failed"))
    reconcile(state)
    registry = state.load_registry()
    assert (registry["total_completed"], registry["total_aborted"]) == (0, 1)


def test_several_edits_are_one_adoption(state: State) -> None:
    edit(path_of(state, "two"), lambda found: found.update(note="x"))
    edit(path_of(state, "one"), lambda found: found.update(note="y"))
    edit(state.registry_path, lambda found: found.update(max_concurrent_loops=9))
    assert reconcile(state) == [
        "adopt loops/one/session-state.json, loops/two/session-state.json, registry.json: edited outside gitstate"
    ]


def test_unknown_keys_and_values_of_an_edit_survive_every_later_rewrite(state: State) -> None:
    edit(path_of(state), lambda found: found.update(extra={"deep": [1, {"x": None}]}, количество=2.5))
    state.update_loop("one", {"status": "running"})
    state.record_iteration("one", {"number": 1})
    found = json.loads(path_of(state).read_bytes())
    assert (found["extra"], found["количество"]) == ({"deep": [1, {"x": None}]}, 2.5)


def test_a_status_that_gitstate_would_not_write_is_adopted(state: State) -> None:
    edit(path_of(state), lambda found: found.update(status="pondering"))
    assert reconcile(state) == ADOPT_ONE
    with pytest.warns(gitstate.UnknownStatusWarning):
        assert state.get_loop("one")["status"] == "pondering"


def test_the_update_of_the_original_is_adopted_with_the_registry_that_it_wrote(
    state: State, original: Original
) -> None:
    original.update_loop("one", status="running", currentIteration=3)
    assert reconcile(state) == [
        "adopt loops/one/session-state.json, registry.json: edited outside gitstate",
    ]
    assert path_of(state).read_bytes() == in_head(state, "loops/one/session-state.json")
    assert not path_of(state).read_bytes().endswith(b"\n")  # as the original wrote it
    (entry, _) = state.list_active_loops()
    assert (entry["status"], entry["iteration"]) == ("running", 3)
