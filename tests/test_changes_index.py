"""The index of changes: whatever is in it, or is not, answers are those of the commits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import gitstate
from gitstate import StateRepository
from gitstate.durable import Directory
from gitstate.layout import ASIDE
from gitstate.store.changes import ending_of


def told(root: Path) -> list[object]:
    state = gitstate.open(root)
    moments = [change.time for change in state.log()]
    return [
        *([change.revision for change in state.log(loop)] for loop in ("one", "two")),
        *(state.revision(loop) for loop in ("one", "two")),
        *(state.show(moment).revision for moment in moments),
        state.show("HEAD~3").revision,
        state.rollback("one", steps=2, dry_run=True).to_dict()["summary"],
    ]


@pytest.fixture
def index(state: StateRepository) -> Path:
    for loop in ("one", "two"):
        state.create_loop("Fix the tests", "all tests pass", loop_id=loop, pid=None)
    for number in range(3):
        state.update_loop("one", {"note": number})
    state.update_loop("two", {"note": 1})
    return state.base_dir / ".git/gitstate/changes"


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "behind": lambda raw: raw[:-33],
    "cut": lambda raw: raw[:-7],
    "a bit": lambda raw: raw[:50] + bytes([raw[50] ^ 1]) + raw[51:],
    "NULs": lambda raw: raw[:-33] + bytes(33),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_index_changes_no_answer(state: StateRepository, index: Path, harm: str) -> None:
    expected = told(state.project_root)
    index.write_bytes(HARMS[harm](index.read_bytes()))
    assert told(state.project_root) == expected
    state.update_loop("two", {"note": harm})
    with_it = told(state.project_root)
    index.unlink()
    assert told(state.project_root) == with_it


def test_commits_that_are_not_noted_yet_are_found_all_the_same(state: StateRepository, index: Path) -> None:
    seen = set()
    for number in range(9):
        state.update_loop("two" if number % 2 else "one", {"note": f"number {number}"})
        ending = ending_of(Directory(state.base_dir, ASIDE))
        assert ending is not None
        seen.add([change.revision for change in state.log()].index(ending.revision))
        with_it = told(state.project_root)
        raw = index.read_bytes()
        index.unlink()
        assert told(state.project_root) == with_it
        index.write_bytes(raw)
    assert seen == set(range(8)), "eight are noted together"
