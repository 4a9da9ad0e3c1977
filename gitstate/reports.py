"""What few commands answer with, made for those alone: lists of what is kept, paths, a collection of garbage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gitstate.results import _Answer


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ArchivedLoop(_Answer):
    """A loop that was archived. ``bytes`` counts what lies in its directory, ``tag`` is without ``refs/tags/``."""

    loop_id: str
    status: str
    objective: str
    iteration: int
    max_iterations: int
    started_at: str | None
    archived_at: datetime | None
    tag: str | None
    bytes: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Checkpoint(_Answer):
    """A named moment of a loop. ``tag`` is without ``refs/tags/`` and serves as a revision everywhere."""

    loop_id: str
    name: str
    tag: str
    revision: str
    time: datetime
    actor: str
    reason: str | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OutputPaths(_Answer):
    """Where an iteration's output goes."""

    stdout: Path
    stderr: Path


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GarbageReport(_Answer):
    """What a collection of garbage came to: the bytes and packs of ``.git`` before and after, and its objects.

    Of a dry run, ``bytes_after`` is an estimate.
    """

    bytes_before: int
    bytes_after: int
    objects: int
    packs_before: int
    packs_after: int
    seconds: float
