"""A claim: what stands in ``registry.json.lock``, and whether it still keeps others out.

The record is the original's, key for key; what gitstate adds lets a claim be
judged without trusting a wall clock or a bare pid. Anything may stand there,
so nothing is taken for more than it is.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from typing import NamedTuple, cast

from gitstate import process
from gitstate.durable import Directory
from gitstate.encoding import Record, decode
from gitstate.errors import InvalidRecordError
from gitstate.medium import NotAFileError, UnreadableError
from gitstate.records import ProcessRecord
from gitstate.results import LeaseInfo, Liveness

LIMIT = 16 * 1024  # bytes that are read; a record has a few hundred
UNREADABLE_AFTER = 2.0  # seconds that something unreadable must stand unchanged before it is taken for stale
USUAL_LENGTH = 30.0  # seconds; the original's lease, for a record that does not say how long its own is
LONGEST_WATCH = 60.0  # seconds that a record of an unknown clock is watched at most
_ROUNDING = 0.01  # seconds: a record has its length in whole milliseconds, and its end as a rounded sum


class Claim(NamedTuple):
    """The lease record as it was found.

    ``raw`` is ``None`` for what is not a file that can be read; ``mark`` (inode, size, time of change in nanoseconds)
    tells such things apart. ``since`` is when it was first seen to stand like that, in seconds of the monotonic clock.
    """

    raw: bytes | None
    mark: tuple[int, int, int]
    is_file: bool
    record: Record | None
    since: float

    def is_same(self, other: Claim) -> bool:
        """Whether both are one and the same record; a nonce, or the moment in milliseconds, is part of its bytes."""
        return (self.raw, self.mark) == (other.raw, other.mark)

    @property
    def pid(self) -> object:
        """The process that it names."""
        return None if self.record is None else self.record.get("pid")

    # --- judging ---

    def is_stale(self, monotonic: float, now: datetime) -> bool:
        """Whether the record may be taken away: its holder is provably dead, or it expired, or it stayed unreadable."""
        if self.record is None:
            return monotonic - self.since >= UNREADABLE_AFTER
        return self.holder().verdict == "dead" or self.is_expired(monotonic, now)

    def holder(self) -> Liveness:
        """Whether the process that the record names lives. A record without ``host`` is this host's."""
        record = self.record or {}
        known = isinstance(record.get("host"), str)
        return process.liveness(record.get("pid"), cast("ProcessRecord", record) if known else None)

    def is_expired(self, monotonic: float, now: datetime) -> bool:
        """By the monotonic clock where the record was made in this boot; otherwise by the wall clock, or by standing
        unchanged for its own length, so that no wrong clock keeps others out for ever.
        """
        record = self.record or {}
        ends, began = _number(record.get("leaseExpiry")), _number(record.get("timestamp"))
        length = USUAL_LENGTH if ends is None or began is None or ends <= began else (ends - began) / 1000
        ends_here = _number(record.get("monotonicExpiry"))
        if ends_here is not None and record.get("bootId") is not None and record["bootId"] == process.boot_id():
            left = ends_here - monotonic
            if left <= length + _ROUNDING:  # what lies further ahead was measured by another clock than ours
                return left < 0
        if ends is not None and now.timestamp() * 1000 > ends:
            return True
        return monotonic - self.since >= min(length, LONGEST_WATCH)

    # --- telling ---

    def info(self, monotonic: float, now: datetime) -> LeaseInfo:
        """What the record says, and what is true of its process here and now."""
        if self.record is None:
            since = _moment(self.mark[2] / 1e6)
            return LeaseInfo(None, None, None, None, "the record cannot be read", since, None, False, None)
        record, seen = self.record, self.holder()
        pid, host, purpose, generation = (record.get(key) for key in ("pid", "host", "loopId", "fencingToken"))
        return LeaseInfo(
            holder=purpose if isinstance(purpose, str) else None,
            pid=pid if isinstance(pid, int) else None,
            host=host if isinstance(host, str) else None,
            alive={"alive": True, "dead": False}.get(seen.verdict),
            reason=seen.reason,
            since=_moment(record.get("timestamp")),
            expires=_moment(record.get("leaseExpiry")),
            expired=self.is_expired(monotonic, now),
            generation=generation if isinstance(generation, int) and "nonce" in record else None,
        )


def mark_in(found: os.stat_result) -> tuple[int, int, int]:
    """What tells a record's file from another: links come to it and go, so the time of its status does not count."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def find_claim(directory: Directory, name: str, moment: float, known: Claim | None = None) -> Claim | None:
    """What stands at *name*, seen at *moment* of the monotonic clock; ``None`` when nothing does.

    If it is still the one that is *known*, then that is the answer, with its ``since``.
    """
    raw: bytes | None = None
    try:
        seen = directory.look(name, LIMIT)
        if seen is None:
            return None
        raw, found = seen
    except (NotAFileError, UnreadableError):  # who goes next is all that it decides, and nobody is to wait for ever
        status = directory.status(name)
        if status is None:
            return None
        found = status
    mark = mark_in(found)
    if known is not None and (raw, mark) == (known.raw, known.mark):
        return known
    return Claim(raw, mark, stat.S_ISREG(found.st_mode), _readable(raw), moment)


# --- what is said to whoever waited in vain ---


def story_of(info: LeaseInfo, now: datetime) -> str:
    """Who has the lease, since when, and what becomes of that process."""
    since = ""
    if info.since is not None:
        age = int((now - info.since).total_seconds())
        since = f" since {_written(info.since)}" + (f" ({_span(age)} ago)" if age >= 0 else "")
    return f"{info.holder or 'somebody'} has it{since}; {info.reason}"


def way_out_of(info: LeaseInfo) -> str:
    """What can be done about it."""
    ends = "" if info.expires is None else f": the lease ends at {_written(info.expires)} and is then taken over"
    if info.alive and process.is_stopped(info.pid):
        return f"kill -CONT {info.pid} lets it finish; or wait{ends}"
    if info.alive:
        return f"repeat the command{ends}; if process {info.pid} hangs, end it: its lease goes with it"
    if info.pid is None:
        return "gitstate lock break --yes"
    return f"look at process {info.pid} on {info.host}; if it is gone: gitstate lock break --yes"


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: int) -> str:
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _readable(raw: bytes | None) -> Record | None:
    try:
        value = None if raw is None else decode(raw)
    except InvalidRecordError:
        return None
    pid = value.get("pid") if isinstance(value, dict) else None
    return value if isinstance(value, dict) and isinstance(pid, int) and not isinstance(pid, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _moment(milliseconds: object) -> datetime | None:
    number = _number(milliseconds)
    try:
        return None if number is None else datetime.fromtimestamp(number / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
