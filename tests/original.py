"""The original's way of writing, for tests: the same files in the same order, as its JavaScript has it.

No lock is taken, no fsync is made, and the registry's ``iteration`` is never
updated: so it is there, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def stringify(value: object) -> bytes:
    """``JSON.stringify(value, null, 2)``: no newline at the end."""
    return json.dumps(value, ensure_ascii=False, indent=2).encode()


class Original:
    """The original's state manager of one project."""

    def __init__(self, project: Path, *, now: str = "2026-06-15T13:00:00.000Z") -> None:
        self.base = project / ".aiwg" / "ralph-external"
        self.now = now

    # --- what it does ---

    def create_loop(self, loop_id: str, objective: str = "Made by the original", **options: Any) -> dict[str, Any]:
        for name in ("iterations", "prompts", "outputs", "analysis", "checkpoints"):
            (self.base / "loops" / loop_id / name).mkdir(parents=True)
        state = {
            "version": "1.0.0",
            "loopId": loop_id,
            "objective": objective,
            "completionCriteria": "npm test passes",
            "status": "running",
            "maxIterations": 10,
            "currentIteration": 0,
            "startTime": self.now,
            "lastUpdate": self.now,
            "sessionId": "5f0c6d1e-7c1a-4f5e-9c0d-0000000000ff",
            "currentPid": os.getpid(),
            "iterations": [],
            "accumulatedLearnings": "",
            "filesModified": [],
            "giteaIntegration": None,
            "config": {"model": "opus", "budgetPerIteration": 2, "timeoutMinutes": 60, "mcpConfig": None},
        }
        self.state_path(loop_id).write_bytes(stringify(state))
        entry = {
            "loop_id": loop_id,
            "task_summary": objective[:200],
            "status": "running",
            "started_at": self.now,
            "owner": "user:dana",
            "pid": os.getpid(),
            "iteration": 0,
            "max_iterations": 10,
            "completion_criteria": "npm test passes",
            "priority": "medium",
            "tags": [],
            **options,
        }
        self.edit_registry(lambda registry: registry["active_loops"].append(entry))
        return state

    def update_loop(self, loop_id: str, **changes: object) -> dict[str, Any]:
        state = {**self.read(self.state_path(loop_id)), **changes, "lastUpdate": self.now}
        self.replace(self.state_path(loop_id), state)
        if "status" in changes:
            self.edit_registry(lambda registry: self._entry(registry, loop_id).update(status=changes["status"]))
        return state

    def archive_loop(self, loop_id: str) -> None:
        (self.base / "loops" / loop_id).rename(self.base / "archive" / loop_id)

        def drop(registry: dict[str, Any]) -> None:
            entry = self._entry(registry, loop_id)
            registry["active_loops"].remove(entry)
            key = "total_completed" if entry["status"] in ("completed", "completing") else "total_aborted"
            registry[key] += 1

        self.edit_registry(drop)

    # --- how it does it ---

    def edit_registry(self, function: Callable[[dict[str, Any]], object]) -> None:
        path = self.base / "registry.json"
        registry = self.read(path)
        function(registry)
        registry["updated_at"] = self.now
        registry["total_active"] = len(registry["active_loops"])
        self.replace(path, registry)

    def state_path(self, loop_id: str) -> Path:
        return self.base / "loops" / loop_id / "session-state.json"

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(path.read_bytes())
        return record

    @staticmethod
    def replace(path: Path, record: object) -> None:
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(stringify(record))
        temporary.rename(path)

    @staticmethod
    def _entry(registry: dict[str, Any], loop_id: str) -> dict[str, Any]:
        found: dict[str, Any] = next(entry for entry in registry["active_loops"] if entry["loop_id"] == loop_id)
        return found
