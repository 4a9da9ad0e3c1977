"""What tests of ordinary git begin with: two loops, or a repository of the user's; and what git shows of them."""

from __future__ import annotations

from pathlib import Path

from conftest import git

from gitstate import StateRepository

State = StateRepository

DEAD = 2**31 - 1  # above any pid_max


def begin(state: State) -> None:
    """Two loops with a few iterations; ``one`` was driven by a process that is gone."""
    state.create_loop("Fix all failing tests", "npm test passes", loop_id="one", pid=DEAD, max_iterations=10)
    state.record_iteration("one", {"number": 1, "status": "failed", "learnings": ["mock the clock"]})
    state.create_loop("Write the docs", "docs/ builds", loop_id="two", pid=None)


def subject(state: State, revision: str = "HEAD") -> str:
    return git(state.base_dir, "log", "-1", "--format=%s", revision).stdout.rstrip("\n")


def transaction(state: State) -> None:
    with state.transaction("nightly clean-up") as tx:
        tx.update_loop("one", {"status": "paused"})
        tx.archive_loop("two")


def a_repository(top: Path) -> Path:
    """A repository of the user's, with one commit."""
    top.mkdir(parents=True, exist_ok=True)
    git(top, "init", "-q", "-b", "trunk")
    (top / "main.py").write_text("print()\n")
    git(top, "add", ".")
    git(top, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "first")
    return top


def shown(top: Path) -> str:
    return git(top, "status", "--porcelain", "--untracked-files=all").stdout
