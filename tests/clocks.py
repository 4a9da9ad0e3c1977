"""Time that tests own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock that stands still until it is told to go on; sleeping moves it, and takes no time.

    ``monotonic`` begins at the machine's own, because lease records of other processes are judged by it.
    """

    def __init__(self, moment: datetime = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)) -> None:
        self.moment = moment
        self.uptime = time.monotonic()

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.uptime

    def sleep(self, seconds: float) -> None:
        self.advance(seconds=seconds)

    def advance(self, **length: float) -> datetime:
        """Let time pass: ``hours=2``, as for a timedelta."""
        step = timedelta(**length)
        self.moment += step
        self.uptime += step.total_seconds()
        return self.moment

    def set(self, moment: datetime) -> None:
        """Step the wall clock, either way; ``monotonic`` does not notice."""
        self.moment = moment


class Script(FakeClock):
    """A clock during whose sleeps things happen, each at its moment: seconds after the script was made."""

    def __init__(self, **facts: datetime) -> None:
        super().__init__(**facts)
        self.began = self.uptime
        self.plan: list[tuple[float, Callable[[], object]]] = []

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        self.plan.append((self.began + seconds, happens))
        self.plan.sort(key=lambda item: item[0])

    def sleep(self, seconds: float) -> None:
        until = self.uptime + seconds
        while self.plan and self.plan[0][0] <= until:
            moment, happens = self.plan.pop(0)
            self.advance(seconds=max(0.0, moment - self.uptime))
            happens()
        self.advance(seconds=max(0.0, until - self.uptime))

    @property
    def elapsed(self) -> float:
        return self.uptime - self.began
