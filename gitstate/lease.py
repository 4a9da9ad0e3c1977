"""The lease: the right to mutate, published in ``registry.json.lock``, which expires.

The record keeps gitstate and the original out of each other's way; taking
over and releasing happen under the guard. The lease decides who goes next;
what is true is decided at the commit point. Why that is safe, step by step:
``docs/explanation/leases-and-fencing.md``.
"""

from __future__ import annotations

import math
import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from gitstate import process
from gitstate.claim import LIMIT, Claim, find_claim, mark_in, story_of, way_out_of
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.encoding import SAFE_INTEGER, Record, encode
from gitstate.errors import LeaseLostError, LeaseTimeoutError, RefusedError, StorageError
from gitstate.guard import Guard
from gitstate.layout import GENERATION, LEASE_RECORD, PRIVATE, QUARANTINE
from gitstate.medium import NotAFileError
from gitstate.records import ProcessRecord
from gitstate.results import LeaseInfo
from gitstate.spares import recycle, take

_POLL = (
    0.0005,
    0.02,
)  # seconds between two looks at the record: a twentieth of what was waited at the door, within these
_QUEUE = (0.006, 0.024)  # seconds between two looks at the queue: fewest and most
_BREATH = 0.0002  # seconds for which a lease must be free before it is taken from whoever had it last
_JUDGING = 0.01  # seconds between two judgements of whoever holds the lease
_AT_ONCE = 0.001  # seconds within which whoever has given the lease back may take it again past the queue
_STREAK = 0.02  # seconds for which he may go on like that
_NEGLECT = 0.02  # seconds after which a free lease that nobody took is taken past the queue

_HELD: set[str] = set()  # the nonces of the leases that this process holds


@dataclass
class Lease:
    """A lease that was acquired. It belongs to one process and thread; ``monotonic_expiry`` in seconds of the clock.

    ``since`` is when it began by the clock of the file system, in nanoseconds: what was changed before has another time.
    ``noted`` is what its holder knows of the files; ``claim`` is the record as it was last found to be this lease's.
    ``sign`` is the record's other name, in the aside directory: it stays until its holder has cleared up.
    """

    generation: int
    nonce: str
    process: ProcessRecord
    monotonic_expiry: float
    purpose: str
    since: int = 0
    noted: object = None
    claim: Claim | None = None
    sign: str | None = None

    @property
    def pid(self) -> int:
        return self.process["pid"]


@dataclass
class LeaseKeeper:
    """Acquires, proves, renews and releases the lease of one state directory."""

    directory: Directory
    guard: Guard
    turn: Guard
    clock: Clock
    seconds: float
    newest_generation: Callable[[], int]
    meanwhile: Callable[[], None]
    _seen: Claim | None = field(default=None, init=False)
    # When the lease was last taken in turn, and last given back, in seconds of the clock. What a process has at hand, down
    # to the caches of its processor, it has for its next mutation as well: a few in a row cost little more than one.
    _came: float = field(default=-math.inf, init=False)
    _given_back: float = field(default=-math.inf, init=False)

    # --- acquiring ---

    def acquire(self, purpose: str, timeout: float, *, first: Callable[[Lease], None]) -> Lease:
        """The lease, as soon as it is free or provably abandoned; *timeout* in seconds, 0 tries once.

        *first* is called with it, under the guard in which it was taken.

        Raises:
            LeaseTimeoutError: somebody else held it all the time, or the guard was not to be had.
        """
        began = self.clock.monotonic()
        if began - self._given_back < _AT_ONCE and began - self._came < _STREAK and self._look() is None:
            lease = self._taken(purpose, None, timeout, first)
            if lease is not None:
                return lease
        with ExitStack() as stack:
            # One waiter stands at the door, the others queue behind it, so that whoever had the lease for a while cannot
            # walk in again before them. The queue is a courtesy: nothing is lost where somebody gets past it.
            with suppress(LeaseTimeoutError):
                stack.enter_context(self.turn.hold(timeout, pauses=self._queueing()))
            at_the_door = self.clock.monotonic()
            claim: Claim | None = None
            judged = -math.inf
            while True:
                now, before = self.clock.monotonic(), claim
                claim, is_free = self._look(), False
                if claim is None:
                    # At two looks, or at the last one: else whoever had it may be about to go on.
                    is_free = before is None or now >= began + timeout
                elif now - judged >= _JUDGING:  # whether he lives takes longer to find out than whether he is there
                    is_free, judged = self._is_stale(claim), now
                if is_free:
                    lease = self._taken(purpose, claim, began + timeout - now, first, waited=now - began)
                    if lease is not None:
                        self._came = now
                        return lease
                if self.clock.monotonic() >= began + timeout:
                    raise self._timed_out(timeout)
                if claim is not None and (before is None or claim.pid != before.pid):
                    self.meanwhile()  # whoever is next reads what others published while yet another holds the lease
                pause = _BREATH if claim is None else min(max((now - at_the_door) / 20, _POLL[0]), _POLL[1])
                self.clock.sleep(pause * random.uniform(0.5, 1.5))

    def _queueing(self) -> Iterator[float]:
        """The pauses of a waiter in the queue. The longer it has waited the oftener it looks, so that the eldest goes next.

        They end when the lease was there for the taking at two looks in a row: then whoever stands at the door is
        stopped, or judges the record by less than this process knows.
        """
        began = looked = self.clock.monotonic()
        was_free = False
        while True:
            now = self.clock.monotonic()
            yield max(_QUEUE[0], _QUEUE[1] / (1 + 10 * (now - began)))
            if now - looked >= _NEGLECT:
                looked, claim, before = now, self._look(), was_free
                was_free = claim is None or self._is_stale(claim)
                if before and was_free:
                    return

    def _taken(
        self, purpose: str, judged: Claim | None, timeout: float, first: Callable[[Lease], None], *, waited: float = 0.0
    ) -> Lease | None:
        with self.guard.hold(max(0.0, timeout), waited=waited):
            lease = self._take(purpose, judged)
            if lease is None:
                return None
            try:
                first(lease)
            except BaseException:
                self.release(lease)
                self.take_sign_away(lease)
                raise
            return lease

    def _take(self, purpose: str, judged: Claim | None) -> Lease | None:
        """Put our record in place of nothing, or of the one that was judged. Under the guard."""
        if judged is not None and not self._set_aside(judged):
            return None
        generation = 1 + max(self.newest_generation(), self._mark())
        self.directory.jot(GENERATION, f"{generation}\n".encode())
        lease = Lease(generation, secrets.token_hex(16), process.own_identity(), 0.0, purpose)
        if not self._publish(lease):
            return None
        lease.since = 0 if lease.claim is None else lease.claim.mark[2]
        return lease

    def _publish(self, lease: Lease) -> bool:
        lease.monotonic_expiry = self.clock.monotonic() + self.seconds
        # Known as held before it can be seen, or another thread would take it for one that this process abandoned.
        _HELD.add(lease.nonce)
        published, lease.claim = False, None
        self.take_sign_away(lease)
        try:
            record = self._record(lease)
            raw = encode(record)
            lease.sign = take(self.directory, "lease", raw, mode=0o644)
            found = self.directory.status(lease.sign)
            if found is not None:
                lease.claim = Claim(raw, mark_in(found), True, record, self.clock.monotonic())
            published = self.directory.link(lease.sign, LEASE_RECORD)
        finally:
            if not published:
                self.abandon(lease)
                self.take_sign_away(lease)
        return published

    def _record(self, lease: Lease) -> Record:
        now = int(self.clock.now().timestamp() * 1000)
        record: Record = {
            "pid": lease.pid,
            "loopId": lease.purpose,
            "timestamp": now,
            "leaseExpiry": now + int(self.seconds * 1000),
            "fencingToken": lease.generation,
            "host": lease.process["host"],
            "bootId": lease.process["bootId"],
            "startTime": lease.process["startTime"],
            "monotonicExpiry": lease.monotonic_expiry,
            "nonce": lease.nonce,
        }
        if "pidNamespace" in lease.process:
            record["pidNamespace"] = lease.process["pidNamespace"]
        return record

    def _mark(self) -> int:
        try:
            mark = int(self.directory.read(GENERATION, 64) or b"0")
        except (NotAFileError, ValueError):
            return 0
        return mark if 0 <= mark < SAFE_INTEGER else 0

    # --- the sign ---

    def is_alone(self, lease: Lease) -> bool:
        """Whether nothing but its sign lies in the aside directory: nobody was killed in the middle of anything."""
        return lease.sign is not None and self.directory.names(self.directory.aside) == [lease.sign.rpartition("/")[2]]

    def take_sign_away(self, lease: Lease, *, guarded: bool = False) -> None:
        """The holder is done, and leaves nothing behind; *guarded*, under the guard, its file is kept to be written over."""
        if lease.sign is not None and lease.pid == os.getpid():
            if guarded:
                recycle(self.directory, lease.sign, "lease")
            else:
                self.directory.drop(lease.sign)
            lease.sign = None

    # --- looking ---

    def _find(self, known: Claim | None = None) -> Claim | None:
        return find_claim(self.directory, LEASE_RECORD, self.clock.monotonic(), known)

    def _look(self) -> Claim | None:
        """The record as it stands; since when it stands unchanged is remembered from look to look."""
        self._seen = claim = find_claim(self.directory, LEASE_RECORD, self.clock.monotonic(), self._seen)
        return claim

    def _is_stale(self, claim: Claim) -> bool:
        return claim.is_stale(self.clock.monotonic(), self.clock.now()) or self._is_abandoned(claim)

    @staticmethod
    def _is_abandoned(claim: Claim) -> bool:
        """Whether this very process wrote the record and holds it no more: it could not get the guard to release it."""
        record = claim.record or {}
        if record.get("pid") != os.getpid() or "nonce" not in record or record["nonce"] in _HELD:
            return False
        me = process.own_identity()
        return (record.get("bootId"), record.get("startTime")) == (me["bootId"], me["startTime"])

    def _set_aside(self, judged: Claim) -> bool:
        """Take the record away if it is still the one that was judged; whether its place is free. Under the guard.

        The original does not know the guard, so what was moved is looked at again, and put back if it is another.
        """
        aside = self.directory.new_name()
        try:
            self.directory.move(LEASE_RECORD, aside)
        except StorageError:
            if self.directory.status(LEASE_RECORD) is None:
                return True
            if self.directory.is_directory(self.directory.aside):
                raise
            self.directory.make(self.directory.aside)
            self.directory.move(LEASE_RECORD, aside)
        moved = find_claim(self.directory, aside, self.clock.monotonic(), judged)
        if moved is not None and not moved.is_file:  # whichever it was, nobody's lease, and maybe somebody's data
            self.directory.make(QUARANTINE)
            self.directory.move(aside, f"{QUARANTINE}/{LEASE_RECORD}-{secrets.token_hex(4)}")
            return True
        is_judged = moved is None or moved.is_same(judged)
        if not is_judged:
            self.directory.link(aside, LEASE_RECORD)
        self.directory.discard(aside)
        return is_judged

    # --- holding ---

    def is_mine(self, lease: Lease) -> bool:
        """Whether the record is still this lease's, by nonce, pid and start time, and this process is its holder."""
        return self._mine(lease) is not None

    def _mine(self, lease: Lease) -> Claim | None:
        if lease.pid != os.getpid():
            return None
        if self._stands(lease.claim):
            return lease.claim
        claim = self._find(lease.claim)
        if claim is None or claim is lease.claim:
            return claim
        if claim.raw is None:
            with suppress(NotAFileError):
                self.directory.look(LEASE_RECORD, LIMIT)  # what the disk cannot read now is not another's yet
        record = claim.record or {}
        found = (record.get("nonce"), record.get("pid"), record.get("startTime"))
        lease.claim = claim if found == (lease.nonce, lease.pid, lease.process["startTime"]) else None
        return lease.claim

    def _stands(self, claim: Claim | None) -> bool:
        """Whether the record is the very file of a claim of ours, which its sign keeps from being another one by now."""
        if claim is None:
            return False
        found = self.directory.status(LEASE_RECORD)
        return found is not None and mark_in(found) == claim.mark

    def prove(self, lease: Lease) -> None:
        """Make sure that the lease is still ours, renewed if it expired unclaimed. Under the guard, before publishing.

        Raises:
            LeaseLostError: it went to somebody else.
        """
        claim = self._mine(lease)
        if claim is None:
            raise self.lost(lease)
        # Expired records may be removed by anyone; ours is exchanged the way a takeover would do it.
        expired = self.clock.monotonic() > lease.monotonic_expiry
        if expired and not (self._set_aside(claim) and self._publish(lease)):
            raise self.lost(lease)

    def lost(self, lease: Lease) -> LeaseLostError:
        """The error that says who has the lease now."""
        info = self.info()
        who = "another writer, gone since" if info is None else f"{info.holder or 'somebody'} (pid {info.pid})"
        return LeaseLostError(
            f"the lease of generation {lease.generation} was lost to {who}; nothing was published",
            hint="repeat the command: it starts from the present state",
            generation=lease.generation,
            holder=info,
        )

    def holds(self, lease: Lease) -> bool:
        """Whether this process neither released nor abandoned the lease; others may have taken it over all the same."""
        return lease.nonce in _HELD

    def abandon(self, lease: Lease) -> None:
        """Let the record expire; this process itself takes it for stale from now on."""
        _HELD.discard(lease.nonce)

    def release(self, lease: Lease, *, proved: bool = False) -> None:
        """Give the lease back if it is still ours. Under the guard, *proved* in the same hold of it or not."""
        self.abandon(lease)
        claim = (lease.claim if proved else None) or self._mine(lease)
        if self._stands(claim) and self.clock.monotonic() < lease.monotonic_expiry:
            self.directory.discard(LEASE_RECORD)  # one that has not expired is nobody else's to replace
        elif claim is not None:  # whatever stands there is looked at once more when it was moved
            self._set_aside(claim)
        self._given_back = self.clock.monotonic()

    # --- asking ---

    def info(self) -> LeaseInfo | None:
        """Who holds the lease; ``None`` when nobody does."""
        claim = self._find()
        return None if claim is None else claim.info(self.clock.monotonic(), self.clock.now())

    def break_lease(self, *, force: bool, timeout: float) -> LeaseInfo:
        """Remove the record, whoever holds it; what it said.

        Raises:
            RefusedError: nobody holds the lease, or, without *force*, its holder lives and it has not expired.
        """
        if self._find() is None:
            raise _free()
        if not self.directory.is_directory(PRIVATE):
            raise RefusedError(
                "there is no history here yet; the first mutation waits for the lease, or takes it over from the dead",
                hint="gitstate init",
            )
        with self.guard.hold(timeout):
            claim, info = self._find(), self.info()
            if claim is None or info is None:
                raise _free()
            if info.alive and not info.expired and not force:
                wake = f"kill -CONT {info.pid} lets it finish" if process.is_stopped(info.pid) else "wait"
                raise RefusedError(
                    f"the lease is held by a live process: {info.reason}",
                    hint=f"{wake}, or gitstate lock break --force --yes",
                    holder=info,
                )
            if not self._set_aside(claim):
                raise RefusedError("the lease changed hands meanwhile; nothing was broken", hint="gitstate lock show")
            return info  # the sign stays: whoever mutates next looks for what a killed holder left

    def _timed_out(self, timeout: float) -> LeaseTimeoutError:
        info = self.info()
        words, hint = ("others took it in turn", "repeat the command, or raise --lock-timeout")
        if info is not None:
            words, hint = story_of(info, self.clock.now()), way_out_of(info)
        return LeaseTimeoutError(
            f"the lease was not to be had within {timeout:g} s: {words}", hint=hint, holder=info, waited=timeout
        )


def _free() -> RefusedError:
    return RefusedError("nobody holds the lease: there is nothing to break", hint="repeat the command that had to wait")
