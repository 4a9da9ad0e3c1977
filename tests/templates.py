"""State directories that are built once and copied for each test, since building one takes longer than most tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from clocks import FakeClock

from gitstate import StateRepository

Build = Callable[[StateRepository, FakeClock], object]


def template(project: Path, build: Build) -> Path:
    """*project*, with what *build* does by the name of alice."""
    project.mkdir()
    clock = FakeClock()
    with StateRepository(project, actor="user:alice", clock=clock) as state:
        build(state, clock)
    return project


def copy(of: Path, to: Path) -> tuple[StateRepository, FakeClock]:
    """A copy to work on, an hour later."""
    shutil.copytree(of, to, symlinks=True, dirs_exist_ok=True)
    clock = FakeClock()
    clock.advance(hours=1)
    return StateRepository(to, actor="user:alice", clock=clock), clock
