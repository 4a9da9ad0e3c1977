"""Time, as the only thing that is injected."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where all time comes from, so that tests can own it."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment of this boot; the same moment for every process of the boot. Never jumps back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let *seconds* of ``monotonic`` pass."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@lru_cache(maxsize=8)  # one moment is written in several places
def isoformat(moment: datetime) -> str:
    """*moment* as JavaScript's ``toISOString`` writes it: UTC, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
