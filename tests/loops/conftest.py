"""Creating, reading, changing, resuming and reaping loops: section 1 of the interface, sentence by sentence."""

from __future__ import annotations

import pytest
from clocks import FakeClock

from gitstate import StateRepository

State = StateRepository


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def one(state: State) -> str:
    state.create_loop("Fix all failing tests", "npm test passes", loop_id="one", pid=None)
    return "one"
