"""The lease: whose record counts and for how long, whatever stands in the lock file and whatever clocks say.

All waiting happens on an injected clock, so what is asserted is what was waited for. What becomes of a holder that was
overtaken is in ``test_fencing.py``; many writers at once are in ``test_contention.py``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clocks import Script
from holders import LEASE, LOOP

from gitstate import StateRepository


@pytest.fixture
def clock() -> Script:
    return Script()


@pytest.fixture
def state(project: Path, clock: Script) -> StateRepository:
    repository = StateRepository(project, actor="user:alice", clock=clock, lease_seconds=LEASE, lock_timeout=1000)
    repository.create_loop("Be contended for", "never", loop_id=LOOP, max_iterations=10**6, pid=None)
    clock.began = clock.uptime
    return repository


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this host, alive until the test ends."""
    with subprocess.Popen(["sleep", "1000"]) as asleep:
        yield asleep
        asleep.kill()
