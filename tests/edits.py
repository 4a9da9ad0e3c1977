"""Edits behind gitstate's back, and what the next mutation makes of them."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import git
from original import stringify

from gitstate import DamageWarning, StateRepository

State = StateRepository

ADOPT_ONE = ["adopt loops/one/session-state.json: edited outside gitstate"]
ADOPT_REGISTRY = ["adopt registry.json: edited outside gitstate"]


def path_of(state: State, loop_id: str = "one") -> Path:
    return state.loops_dir / loop_id / "session-state.json"


def edit(
    path: Path, function: Callable[[dict[str, Any]], object], *, encode: Callable[[object], bytes] = stringify
) -> bytes:
    """Edit a record by hand; its new bytes."""
    record = json.loads(path.read_bytes())
    function(record)
    path.write_bytes(encode(record))
    return path.read_bytes()


def reconcile(state: State) -> list[str]:
    """Have the next mutation look at the files; the subjects of the commits that this led to, oldest first."""
    before = state.revision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        state.init()
    assert git(state.base_dir, "status", "--porcelain", "-uall").stdout == ""
    return [change.summary for change in state.log(since=before)][::-1]


def body(state: State) -> list[str]:
    """The body of the newest commit, without its trailers."""
    text = git(state.base_dir, "log", "-1", "--format=%b").stdout
    return [line for line in text.splitlines() if line and not line.startswith("Gitstate-")]


def in_head(state: State, path: str) -> bytes:
    return subprocess_bytes(state.base_dir, "show", f"HEAD:{path}")


def subprocess_bytes(base: Path, *words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=base, check=True, capture_output=True).stdout


def last_of(state: State, loop_id: str) -> str:
    """The shortened id of the newest commit that wrote a session state."""
    return git(state.base_dir, "log", "-1", "--format=%H", "--", f"loops/{loop_id}/session-state.json").stdout[:7]
