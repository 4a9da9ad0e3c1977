"""Every path and ref name, relative to the state directory."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

STATE_DIRECTORY = (".aiwg", "ralph-external")

REGISTRY = "registry.json"
LEASE_RECORD = "registry.json.lock"
STATE_FILE = "session-state.json"
LEGACY = "session-state.json"
KEPT_LEGACY = "legacy-session-state.json"  # in the directory of a migrated loop: what it was migrated from
LOOPS = "loops"
ARCHIVE = "archive"
SHARED = "shared"
ARTIFACTS = ("iterations", "prompts", "outputs", "analysis", "checkpoints")
DIRECTORIES = (LOOPS, ARCHIVE, SHARED)

GIT = ".git"
GIT_ASIDE = ".git.new-"  # the private directory in which a repository is built; gone once renamed
PRIVATE = ".git/gitstate"
GUARD = ".git/gitstate/guard"
TURN = ".git/gitstate/turn"
GENERATION = ".git/gitstate/generation"
QUARANTINE = ".git/gitstate/quarantine"
ASIDE = ".git/gitstate/aside"
NOTE = ".git/gitstate/projected"
PRUNING = ".git/gitstate/pruning"
CHANGES = ".git/gitstate/changes"
HINTS = ".git/gitstate/hints"
JOURNAL = ".git/gitstate/journal"
SPARES = ".git/gitstate/spare"
JOINING = ".git/gitstate/joining"
JOINING_GUARD = ".git/gitstate/joining/guard"

BRANCH = "refs/heads/main"
ARCHIVE_TAGS = "refs/tags/archive/"
CHECKPOINT_TAGS = "refs/tags/checkpoint/"

EXCLUDE = "".join(
    f"{line}\n"
    for line in (
        "# Written by gitstate: only what it versions is shown to git.",
        "*",
        "!/registry.json",
        "!/loops/",
        "!/loops/*/",
        "!/loops/*/session-state.json",
        "!/archive/",
        "!/archive/*/",
        "!/archive/*/session-state.json",
    )
)


class Place(NamedTuple):
    """Where a session state lies: ``area`` is ``loops`` or ``archive``."""

    area: str
    loop_id: str

    @property
    def directory(self) -> str:
        return f"{self.area}/{self.loop_id}"

    @property
    def path(self) -> str:
        return f"{self.area}/{self.loop_id}/{STATE_FILE}"

    @property
    def other(self) -> Place:
        """Where the same loop lies when it is not here."""
        return Place(ARCHIVE if self.area == LOOPS else LOOPS, self.loop_id)


def state_path(loop_id: str) -> str:
    """The session state of an active loop."""
    return f"{LOOPS}/{loop_id}/{STATE_FILE}"


def archived_path(loop_id: str) -> str:
    """The session state of an archived loop."""
    return f"{ARCHIVE}/{loop_id}/{STATE_FILE}"


@lru_cache(maxsize=1024)
def place_of(path: str) -> Place | None:
    """The loop that a versioned path belongs to; ``None`` for the registry and for whatever is not versioned."""
    parts = path.split("/")
    if len(parts) == 3 and parts[0] in (LOOPS, ARCHIVE) and parts[2] == STATE_FILE:
        return Place(parts[0], parts[1])
    return None


def archive_tag(loop_id: str, nth: int) -> str:
    """The ref of the *nth* archiving of a loop, counted from 1."""
    return f"{ARCHIVE_TAGS}{loop_id}" + (f".{nth}" if nth > 1 else "")


def checkpoint_tag(loop_id: str, name: str) -> str:
    """The ref of a checkpoint."""
    return f"{CHECKPOINT_TAGS}{loop_id}/{name}"
