"""The registry: how it begins, and what its entries take from the session states."""

from __future__ import annotations

from gitstate.encoding import Record
from gitstate.records import REGISTRY_VERSION

DEFAULT_LIMIT = 4
COUNTED_AS_COMPLETED = ("completed", "completing")


def new_registry() -> Record:
    """The registry as the original begins it."""
    return {
        "version": REGISTRY_VERSION,
        "max_concurrent_loops": DEFAULT_LIMIT,
        "updated_at": "",
        "active_loops": [],
        "total_active": 0,
        "total_completed": 0,
        "total_aborted": 0,
    }


def derived_fields(state: Record) -> Record:
    """What a registry entry takes from the session state; what the state does not say is left out."""
    names = {
        "status": "status",
        "currentPid": "pid",
        "currentIteration": "iteration",
        "maxIterations": "max_iterations",
    }
    return {name: state[key] for key, name in names.items() if key in state}


def entry_of(loop_id: str, state: Record, owner: str) -> Record:
    """The entry of a loop that has none, from its session state alone."""
    objective = state.get("objective")
    return {
        "loop_id": loop_id,
        "task_summary": objective[:200] if isinstance(objective, str) else "",
        "status": state.get("status"),
        "started_at": state.get("startTime", ""),
        "owner": owner,
        "pid": None,
        "iteration": 0,
        "max_iterations": 10,
        "completion_criteria": state.get("completionCriteria", "unknown"),
        "priority": "medium",
        "tags": [],
    }


def limit_of(registry: Record) -> int:
    """How many loops may be active at once: what the registry says, where that makes sense."""
    value = registry.get("max_concurrent_loops")
    return (
        int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 else DEFAULT_LIMIT
    )


def number_in(record: Record, key: str) -> int:
    """The number under *key*; 0 where there is none."""
    value = record.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
