"""Ordinary git tells the truth in the state directory, and nothing of the user's git is read, run or disturbed."""

from __future__ import annotations

import pytest
from clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
