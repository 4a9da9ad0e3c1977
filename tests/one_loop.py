"""One loop from outside: its entry, what stands in history, and what is done to it behind gitstate's back."""

from __future__ import annotations

import json
from typing import Any

from gitstate import StateRepository

State = StateRepository


def commits(state: State) -> int:
    return len(list(state.log()))


def entry(state: State, loop_id: str) -> dict[str, Any]:
    (found,) = [entry for entry in state.list_active_loops() if entry["loop_id"] == loop_id]
    return dict(found)


def edit(state: State, loop_id: str, **changes: object) -> None:
    """Change a session state behind gitstate's back."""
    path = state.get_loop_dir(loop_id) / "session-state.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}, indent=2))


def elsewhere(state: State, loop_id: str) -> None:
    """Make a loop one that another host drives."""
    stamp = state.update_loop_pid(loop_id, "self")["gitstate"]
    edit(state, loop_id, gitstate={**stamp, "process": {**stamp["process"], "host": "elsewhere"}})
