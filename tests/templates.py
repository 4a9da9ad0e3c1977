"""State directories that are built once and copied for each test, since building one takes longer than most tests."""

from __future__ import annotations

import shutil
import subprocess
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


def loosen(base: Path) -> None:
    """Give every object a file of its own, and nobody another copy."""
    (base / ".git/gitstate/journal").unlink(missing_ok=True)
    packs = base / ".git/objects/pack"
    for pack in packs.glob("*.pack"):
        raw = pack.read_bytes()
        for file in packs.glob(f"{pack.stem}.*"):
            file.chmod(0o600)
            file.unlink()
        subprocess.run(["git", "unpack-objects", "-q"], cwd=base, input=raw, check=True)
