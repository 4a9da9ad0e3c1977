"""gitstate keeps what agent loops have done, learned and decided as commits that survive crashes and competing writers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gitstate.errors import (
        AmbiguousLoopError,
        CorruptStateError,
        DamageWarning,
        GitStateError,
        GitStateWarning,
        InvalidInputError,
        InvalidLoopIdError,
        InvalidRecordError,
        LeaseLostError,
        LeaseTimeoutError,
        LoopExistsError,
        LoopLimitError,
        LoopLimitWarning,
        LoopNotFoundError,
        RefusedError,
        RevisionNotFoundError,
        StaleRevisionError,
        StorageError,
        UnknownStatusWarning,
        UnsafeRepositoryError,
    )
    from gitstate.ids import generate_loop_id
    from gitstate.loops import calculate_communication_paths
    from gitstate.open_transaction import Transaction
    from gitstate.records import LoopState, Registry, RegistryEntry
    from gitstate.reports import ArchivedLoop, Checkpoint, GarbageReport, OutputPaths
    from gitstate.repository import StateRepository, open
    from gitstate.results import Change, FieldChange, Finding, LeaseInfo, Liveness, LoopReport, Overview

__version__ = "0.1.0"

__all__ = [
    "AmbiguousLoopError",
    "ArchivedLoop",
    "Change",
    "Checkpoint",
    "CorruptStateError",
    "DamageWarning",
    "FieldChange",
    "Finding",
    "GarbageReport",
    "GitStateError",
    "GitStateWarning",
    "InvalidInputError",
    "InvalidLoopIdError",
    "InvalidRecordError",
    "LeaseInfo",
    "LeaseLostError",
    "LeaseTimeoutError",
    "Liveness",
    "LoopExistsError",
    "LoopLimitError",
    "LoopLimitWarning",
    "LoopNotFoundError",
    "LoopReport",
    "LoopState",
    "OutputPaths",
    "Overview",
    "RefusedError",
    "Registry",
    "RegistryEntry",
    "RevisionNotFoundError",
    "StaleRevisionError",
    "StateRepository",
    "StorageError",
    "Transaction",
    "UnknownStatusWarning",
    "UnsafeRepositoryError",
    "calculate_communication_paths",
    "generate_loop_id",
    "open",
]

# Where the public names are at home. Nobody waits for what is not asked for: the command line starts for one command.
_HOMES = {
    "errors": (
        "AmbiguousLoopError",
        "CorruptStateError",
        "DamageWarning",
        "GitStateError",
        "GitStateWarning",
        "InvalidInputError",
        "InvalidLoopIdError",
        "InvalidRecordError",
        "LeaseLostError",
        "LeaseTimeoutError",
        "LoopExistsError",
        "LoopLimitError",
        "LoopLimitWarning",
        "LoopNotFoundError",
        "RefusedError",
        "RevisionNotFoundError",
        "StaleRevisionError",
        "StorageError",
        "UnknownStatusWarning",
        "UnsafeRepositoryError",
    ),
    "ids": ("generate_loop_id",),
    "loops": ("calculate_communication_paths",),
    "open_transaction": ("Transaction",),
    "records": ("LoopState", "Registry", "RegistryEntry"),
    "repository": ("StateRepository", "open"),
    "reports": ("ArchivedLoop", "Checkpoint", "GarbageReport", "OutputPaths"),
    "results": ("Change", "FieldChange", "Finding", "LeaseInfo", "Liveness", "LoopReport", "Overview"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
