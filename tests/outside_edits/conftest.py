"""What others write into the state directory: adopted, rolled forward, repaired or left alone, by one rule.

Every test that says what reconciling makes of a file has the next mutation do
it; what a read makes of the same files before that is said in ``test_reads.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clocks import FakeClock
from original import Original
from templates import copy, template

from gitstate import StateRepository

State = StateRepository


def build(state: State, clock: FakeClock) -> None:
    """Two active loops and an archived one, each with some history."""
    state.create_loop("Zero", "it is done", loop_id="old", pid=None)
    state.archive_loop("old", status="completed")
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    state.create_loop("Two", "it is done", loop_id="two", pid=None)
    state.update_loop("one", {"status": "paused", "note": "first"})


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template") / "project", build)


@pytest.fixture
def copied(built: Path, project: Path) -> tuple[State, FakeClock]:
    return copy(built, project)


@pytest.fixture
def clock(copied: tuple[State, FakeClock]) -> FakeClock:
    return copied[1]


@pytest.fixture
def state(copied: tuple[State, FakeClock]) -> Iterator[State]:
    with copied[0] as repository:
        yield repository


@pytest.fixture
def original(state: State) -> Original:
    return Original(state.project_root)
