"""The lease: whose record counts and for how long, whatever stands in the lock file and whatever clocks say.

All waiting happens on an injected clock, so what is asserted is what was waited for. What becomes of a holder that was
overtaken is in ``test_fencing.py``; many writers at once are in ``test_contention.py``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from listings import contents
from processes import dead_pid

from gitstate import LeaseLostError, LeaseTimeoutError, RefusedError, StateRepository, StorageError, process
from gitstate.durable import Directory
from gitstate.guard import Guard
from gitstate.layout import ASIDE, GENERATION, GIT_ASIDE, GUARD, QUARANTINE
from gitstate.lease import Lease

pytestmark = pytest.mark.usefixtures("quick_disk")

LOOP = "the-loop"
AT_ONCE = 0.1  # seconds on the injected clock: a few looks
LEASE = 30.0
STALL = 60  # seconds of real time after which something hangs


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


@pytest.fixture
def clock() -> Script:
    return Script()


@pytest.fixture
def state(project: Path, clock: Script) -> StateRepository:
    repository = StateRepository(project, actor="user:alice", clock=clock, lease_seconds=LEASE, lock_timeout=1000)
    repository.create_loop("Be contended for", "never", loop_id=LOOP, max_iterations=10**6, pid=None)
    clock.began = clock.uptime
    return repository


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this host, alive until the test ends."""
    with subprocess.Popen(["sleep", "1000"]) as asleep:
        yield asleep
        asleep.kill()


def another(state: StateRepository, clock: FakeClock, **options: Any) -> StateRepository:
    """A second repository on the same directory, as another thread or process would have it."""
    return StateRepository(state.project_root, **{"actor": "user:bob", "clock": clock, "lock_timeout": 5.0, **options})


def elsewhere(function: Callable[[], Any]) -> Any:
    """What *function* returns, or raises, in a thread of its own."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(STALL)
    assert not thread.is_alive(), "it hangs"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def record_of(pid: int, clock: FakeClock, **changes: object) -> dict[str, object]:
    """The record of a gitstate of this host and boot, just acquired."""
    now = int(clock.now().timestamp() * 1000)
    return {
        "pid": pid,
        "loopId": "update-the-loop",
        "timestamp": now,
        "leaseExpiry": now + 30_000,
        "fencingToken": 7,
        **process.identity(pid),
        "monotonicExpiry": clock.monotonic() + LEASE,
        "nonce": "0123456789abcdef0123456789abcdef",
        **changes,
    }


def originals(pid: int, clock: FakeClock, **changes: object) -> dict[str, object]:
    """The record of an original, just acquired."""
    now = int(clock.now().timestamp() * 1000)
    return {
        "pid": pid,
        "loopId": "create-loop",
        "timestamp": now,
        "leaseExpiry": now + 30_000,
        "fencingToken": now,
        **changes,
    }


def claim(state: StateRepository, record: object) -> None:
    state.lock_path.write_text(json.dumps(record, indent=2))


def waited(state: StateRepository, clock: Script) -> float:
    """How long the next mutation waits for the lease."""
    began = clock.uptime
    state.update_loop(LOOP, {"note": str(clock.uptime)})
    return clock.uptime - began


def iteration(state: StateRepository) -> int:
    return state.get_loop(LOOP)["currentIteration"]


def count_up(state: StateRepository) -> None:
    state.modify_loop(LOOP, lambda found: {"currentIteration": found["currentIteration"] + 1})


# --- the record ------------------------------------------------------------------------------------------------------


def test_the_record_has_the_originals_keys_and_types_and_can_be_read_by_anyone(state: StateRepository) -> None:
    with state.transaction():
        record = json.loads(state.lock_path.read_bytes())
        assert {key: type(record[key]) for key in ("pid", "loopId", "timestamp", "leaseExpiry", "fencingToken")} == {
            "pid": int,
            "loopId": str,
            "timestamp": int,
            "leaseExpiry": int,
            "fencingToken": int,
        }
        assert record["pid"] == os.getpid()
        assert record["leaseExpiry"] - record["timestamp"] == LEASE * 1000
        assert state.lock_path.stat().st_mode & 0o777 == 0o644
    assert not state.lock_path.exists()


def test_the_record_appears_whole(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever bytes are written during an acquisition, nobody can see an unfinished record."""
    write, seen = os.write, []

    def watched(descriptor: int, data: bytes) -> int:
        done = write(descriptor, data)
        seen.append(state.lock_path.read_bytes() if state.lock_path.exists() else None)
        return done

    monkeypatch.setattr(os, "write", watched)
    count_up(state)
    assert len(seen) > 3
    assert all(raw is None or json.loads(raw)["pid"] == os.getpid() for raw in seen)


def test_generations_grow_by_one_and_are_those_of_the_commits(state: StateRepository) -> None:
    for _ in range(3):
        count_up(state)
    newest = [change.generation for change in state.log(limit=4)]
    assert newest[0] is not None
    assert newest == [newest[0], newest[0] - 1, newest[0] - 2, newest[0] - 3]


@pytest.mark.parametrize("mark", [b"", b"\0" * 8, b"-5\n", b"many\n", b"9" * 60, b"9" * 200])
def test_a_damaged_generation_mark_is_made_good_from_history(state: StateRepository, mark: bytes) -> None:
    before = next(state.log()).generation
    (state.base_dir / GENERATION).write_bytes(mark)
    count_up(state)
    assert next(state.log()).generation == (before or 0) + 1


def test_a_lease_that_never_committed_uses_up_its_generation(state: StateRepository) -> None:
    before = next(state.log()).generation or 0
    with pytest.raises(ZeroDivisionError):
        state.modify_loop(LOOP, lambda found: {"currentIteration": 1 // 0})
    count_up(state)
    assert next(state.log()).generation == before + 2


# --- judging the holder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", [record_of, originals])
def test_a_dead_holder_is_taken_over_at_once(
    state: StateRepository, clock: Script, whose: Callable[..., dict[str, object]]
) -> None:
    claim(state, whose(dead_pid(), clock))
    assert waited(state, clock) < AT_ONCE


def test_a_zombie_is_dead(state: StateRepository, clock: Script) -> None:
    with subprocess.Popen(["sleep", "1000"]) as zombie:
        record = record_of(zombie.pid, clock)
        zombie.kill()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        claim(state, record)
        assert waited(state, clock) < AT_ONCE


@pytest.mark.parametrize(
    "change",
    [{"startTime": 12345}, {"bootId": "6f1d7a2e-0000-4000-8000-000000000000"}],
    ids=["a recycled pid", "another boot"],
)
def test_a_pid_that_means_another_process_by_now_is_dead(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], change: Mapping[str, object]
) -> None:
    claim(state, record_of(neighbour.pid, clock, **change))
    assert waited(state, clock) < AT_ONCE


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**40])
def test_a_number_that_is_no_pid_is_a_dead_holder(state: StateRepository, clock: Script, pid: int) -> None:
    claim(state, originals(pid, clock))
    assert waited(state, clock) < AT_ONCE


@pytest.mark.parametrize("pid", ["1", True, None, 1.5, [1], {}])
def test_what_is_not_even_a_number_makes_the_record_unreadable(
    state: StateRepository, clock: Script, pid: object
) -> None:
    claim(state, {**originals(1, clock), "pid": pid})
    assert 2.0 <= waited(state, clock) < 2.0 + AT_ONCE


def test_a_live_holder_is_waited_for_until_its_lease_ends(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_stopped_holder_is_alive(state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]) -> None:
    neighbour.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, neighbour.pid, os.WSTOPPED)
    claim(state, record_of(neighbour.pid, clock))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_holder_that_may_not_be_signalled_is_alive(
    state: StateRepository,
    clock: Script,
    neighbour: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """``EPERM`` says that there is a process; the original takes it for the opposite."""
    record = record_of(neighbour.pid, clock)

    def refused(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    claim(state, record)
    with monkeypatch.context() as patch:
        patch.setattr(process, "_PROC", tmp_path)  # as where there is no /proc, or it hides other users' processes
        patch.setattr(os, "kill", refused)
        assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


@pytest.mark.parametrize(
    ("key", "value"),
    [*(("startTime", value) for value in ("x" * 40, [], 1.5, None)), *(("bootId", value) for value in ([], 1.5, None))],
)
def test_an_identity_that_makes_no_sense_proves_nothing(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], key: str, value: object
) -> None:
    claim(state, record_of(neighbour.pid, clock, **{key: value}))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


@pytest.mark.parametrize("pid", [1, 2**31 - 1], ids=["a pid that lives here", "a pid that does not"])
def test_nothing_is_known_of_a_process_of_another_host(state: StateRepository, clock: Script, pid: int) -> None:
    claim(state, record_of(pid, clock, host="elsewhere", bootId="not-this-one"))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_nothing_is_known_of_a_process_of_another_pid_namespace(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(2**31 - 1, clock, pidNamespace=1))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_record_without_host_is_this_hosts(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, originals(neighbour.pid, clock))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE
    claim(state, originals(2**31 - 1, clock))
    assert waited(state, clock) < AT_ONCE


# --- judging the lease -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-365, 365])
def test_within_a_boot_only_the_monotonic_clock_counts(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], days: int
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    clock.set(clock.now() + timedelta(days=days))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_record_of_an_unknown_clock_ends_when_the_wall_clock_passes_it(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, originals(neighbour.pid, clock))
    clock.advance(seconds=20)
    assert 10 <= waited(state, clock) < 10 + AT_ONCE


def test_a_record_of_an_unknown_clock_ends_when_it_stood_unchanged_for_its_own_length(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    now = int(clock.now().timestamp() * 1000) + 365 * 86_400_000
    claim(state, originals(neighbour.pid, clock, timestamp=now, leaseExpiry=now + 12_000))
    assert 12 <= waited(state, clock) < 12 + 2 * AT_ONCE


def test_no_record_is_watched_for_more_than_a_minute(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    now = int(clock.now().timestamp() * 1000)
    claim(state, originals(neighbour.pid, clock, leaseExpiry=now + 365 * 86_400_000))
    assert 60 <= waited(state, clock) < 60 + AT_ONCE


@pytest.mark.parametrize("expiry", [None, "soon", True, [], -1e300])
def test_a_record_that_does_not_say_when_it_ends_has_the_originals_length(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], expiry: object
) -> None:
    """``-1e300`` has passed by any clock; the others would keep the original out for ever."""
    claim(state, originals(neighbour.pid, clock, leaseExpiry=expiry))
    expected = 0.0 if expiry == -1e300 else LEASE
    assert expected <= waited(state, clock) < expected + AT_ONCE


@pytest.mark.parametrize("expiry", [1e300, 1e18])
def test_a_monotonic_expiry_further_ahead_than_the_lease_is_long_is_of_another_clock(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], expiry: float
) -> None:
    claim(state, record_of(neighbour.pid, clock, monotonicExpiry=expiry))
    assert LEASE <= waited(state, clock) < LEASE + AT_ONCE


def test_a_record_that_is_renewed_is_not_standing_unchanged(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    def renewed() -> None:
        now = int(clock.now().timestamp() * 1000) + 365 * 86_400_000
        claim(state, record_of(1, clock, host="elsewhere", timestamp=now, leaseExpiry=now + 30_000))

    renewed()
    for seconds in (20, 40, 60):
        clock.at(seconds, renewed)
    assert 60 + LEASE <= waited(state, clock) < 60 + LEASE + AT_ONCE


def test_a_lease_of_a_minute_is_respected_for_a_minute(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    now = int(clock.now().timestamp() * 1000)
    long = record_of(neighbour.pid, clock, leaseExpiry=now + 300_000, monotonicExpiry=clock.monotonic() + 300)
    claim(state, long)
    assert 300 <= waited(state, clock) < 300 + AT_ONCE


# --- the lock file can be anything -----------------------------------------------------------------------------------


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


def outside(path: Path) -> Path:
    """A file outside the state directory."""
    return path.parent.parent.parent.parent / "victim.json"


def planted(path: Path) -> None:
    outside(path).write_text('{"pid": 1}')
    path.symlink_to(outside(path))


ANYTHING: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(b'{\n  "pid": 12'),
    "NULs": lambda path: path.write_bytes(bytes(300)),
    "null": lambda path: path.write_bytes(b"null"),
    "a list": lambda path: path.write_bytes(b"[]"),
    "a text": lambda path: path.write_bytes(b'"pid"'),
    "an object without pid": lambda path: path.write_bytes(b"{}"),
    "not UTF-8": lambda path: path.write_bytes(b'{"pid": 1, "loopId": "\xff"}'),
    "nested very deep": lambda path: path.write_bytes(b"[" * 60_000),
    "100 MB": sparse,
    "a directory": lambda path: path.mkdir(),
    "a directory with files in it": lambda path: (path / "a").mkdir(parents=True) or (path / "a/b").write_text("data"),
    "a FIFO": os.mkfifo,
    "a symlink": planted,
    "a dangling symlink": lambda path: path.symlink_to("nowhere"),
    "a symlink to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", ANYTHING)
def test_whatever_is_no_record_is_stale_after_standing_for_two_seconds(
    state: StateRepository, clock: Script, kind: str
) -> None:
    ANYTHING[kind](state.lock_path)
    before = contents(state.project_root.parent, without=("ralph-external",))
    assert 2.0 <= waited(state, clock) < 2.0 + AT_ONCE
    assert contents(state.project_root.parent, without=("ralph-external",)) == before
    assert not os.path.lexists(state.lock_path)


@pytest.mark.parametrize(
    "kind", [kind for kind in ANYTHING if "directory" in kind or "symlink" in kind or "FIFO" in kind]
)
def test_what_is_not_even_a_file_is_kept_in_quarantine(state: StateRepository, clock: Script, kind: str) -> None:
    ANYTHING[kind](state.lock_path)
    mode = state.lock_path.lstat().st_mode
    waited(state, clock)
    kept = list((state.base_dir / QUARANTINE).iterdir())
    assert [path.lstat().st_mode for path in kept] == [mode]


@pytest.mark.parametrize("kind", ANYTHING)
def test_whatever_is_no_record_can_be_shown_and_broken(state: StateRepository, clock: Script, kind: str) -> None:
    ANYTHING[kind](state.lock_path)
    shown = state.lease_info()
    assert shown is not None
    assert (shown.pid, shown.alive, shown.reason) == (None, None, "the record cannot be read")
    assert state.break_lease() == shown
    assert state.lease_info() is None
    assert clock.elapsed < AT_ONCE


def test_a_record_that_cannot_be_opened_is_like_one_that_cannot_be_read(tmp_path: Path) -> None:
    """As an ordinary user: for root nothing is unreadable."""

    def wait() -> float:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        clock = Script()
        state = StateRepository(where, clock=clock)
        state.create_loop("Be contended for", "never", loop_id=LOOP, pid=None)
        state.lock_path.write_text("{}")
        state.lock_path.chmod(0)
        return waited(state, clock)

    with tempfile.TemporaryDirectory(dir=None if os.geteuid() == 0 else tmp_path) as where:
        os.chmod(where, 0o777)
        assert 2.0 <= in_child(wait) < 2.0 + AT_ONCE


def test_a_record_that_is_being_written_is_not_broken(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """The original creates its lock empty and fills it afterwards."""
    state.lock_path.write_bytes(b"")
    clock.at(1.9, lambda: claim(state, originals(neighbour.pid, clock)))
    assert 1.9 + LEASE <= waited(state, clock) < 1.9 + LEASE + AT_ONCE


def test_a_wait_before_an_unreadable_record_ends_in_time(state: StateRepository, clock: Script) -> None:
    state.lock_path.write_bytes(b"")
    with pytest.raises(LeaseTimeoutError, match=r"within 1.5 s: somebody has it since .*; the record cannot be read"):
        another(state, clock, lock_timeout=1.5).update_loop(LOOP, {"note": "late"})
    assert 1.5 <= clock.elapsed < 1.5 + AT_ONCE


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.5, 5, 29])
def test_a_wait_in_vain_ends_in_time(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], timeout: float
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    with pytest.raises(LeaseTimeoutError) as caught:
        another(state, clock, lock_timeout=timeout).update_loop(LOOP, {"note": "late"})
    assert timeout <= clock.elapsed < timeout + AT_ONCE
    assert caught.value.waited == timeout


def test_a_timeout_of_nothing_gets_a_free_lease(state: StateRepository, clock: Script) -> None:
    another(state, clock, lock_timeout=0).update_loop(LOOP, {"note": "at once"})
    assert clock.elapsed == 0


def test_a_timeout_of_nothing_takes_over_from_the_dead(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(dead_pid(), clock))
    another(state, clock, lock_timeout=0).update_loop(LOOP, {"note": "at once"})
    assert clock.elapsed == 0


def test_a_holder_that_is_tried_once_still_gives_its_lease_back_when_the_guard_is_taken_for_a_moment(
    state: StateRepository, clock: Script
) -> None:
    """Or everybody else would wait for the lease to expire."""
    hasty = another(state, clock, lock_timeout=0)
    guard = Guard(Directory(state.base_dir, ASIDE), GUARD, clock)
    inside = guard.hold(0)

    def taken(found: object) -> None:
        inside.__enter__()
        clock.at(clock.elapsed + 0.5, lambda: inside.__exit__(None, None, None))

    hasty.modify_loop(LOOP, taken)
    assert state.lease_info() is None


def test_a_free_lease_is_taken_past_a_queue_whose_head_is_stopped(state: StateRepository, clock: Script) -> None:
    """Whoever stands at the door may have been stopped there: with Control-Z, say."""
    with Guard(Directory(state.base_dir, ASIDE), ".git/gitstate/turn", clock).hold(0):
        assert waited(state, clock) < 2 * AT_ONCE


def test_the_dead_are_replaced_past_a_queue_whose_head_cannot_judge_them(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(dead_pid(), clock))
    with Guard(Directory(state.base_dir, ASIDE), ".git/gitstate/turn", clock).hold(0):
        assert waited(state, clock) < 2 * AT_ONCE


def test_a_lease_that_its_own_process_could_not_give_back_does_not_lock_it_out(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """A release that cannot get the guard leaves the record to expire; to this process it is stale at once."""
    guard = Guard(Directory(state.base_dir, ASIDE), GUARD, clock)
    inside = guard.hold(0)
    impatient = another(state, clock, lock_timeout=2)
    impatient.modify_loop(LOOP, lambda found: inside.__enter__())
    left = json.loads(state.lock_path.read_bytes())
    inside.__exit__(None, None, None)
    assert left["pid"] == os.getpid()
    began = clock.uptime
    count_up(state)
    assert clock.uptime - began < AT_ONCE


def test_no_thread_takes_the_lease_of_another_for_one_that_was_abandoned(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record can be seen a moment before the call that wrote it returns."""
    keeper = state._writer.keeper
    link, judged = keeper.directory.link, []

    def watched(name: str, target: str) -> bool:
        done = link(name, target)
        if target != "registry.json.lock":
            return done
        claimed = keeper._find()
        assert claimed is not None
        judged.append(elsewhere(lambda: keeper._is_stale(claimed)))
        return done

    monkeypatch.setattr(keeper.directory, "link", watched)
    count_up(state)
    assert judged == [False]


# --- who goes next ---------------------------------------------------------------------------------------------------


def in_a_queue(state: StateRepository, clock: Script) -> float:
    """The seconds that a mutation waits while another stands at the door."""
    with Guard(Directory(state.base_dir, ASIDE), ".git/gitstate/turn", clock).hold(0):
        began = clock.uptime
        count_up(state)
        return clock.uptime - began


def test_whoever_has_just_given_the_lease_back_may_take_it_again_past_the_queue(
    state: StateRepository, clock: Script
) -> None:
    clock.advance(seconds=1)
    count_up(state)
    assert in_a_queue(state, clock) == 0
    clock.advance(seconds=0.0005)
    assert in_a_queue(state, clock) == 0


def test_whoever_has_had_it_for_long_enough_queues_like_anybody(state: StateRepository, clock: Script) -> None:
    clock.advance(seconds=1)
    count_up(state)
    waits = []
    for _ in range(30):
        clock.advance(seconds=0.0009)
        waits.append(in_a_queue(state, clock))
        if waits[-1]:
            break
    assert len(waits) == 23  # 22 times 0.9 ms are less than 20 ms


def test_whoever_gave_it_back_a_while_ago_queues_like_anybody(state: StateRepository, clock: Script) -> None:
    clock.advance(seconds=1)
    count_up(state)
    clock.advance(seconds=0.002)
    assert in_a_queue(state, clock) > 0


@pytest.fixture
def take(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, float], None]:
    """Takes the lease, at looks at which it is held (``h``) or free (``f``), and uses all of them."""

    def taking(script: str, timeout: float) -> None:
        keeper = state._writer.keeper
        claim(state, record_of(neighbour.pid, clock))
        held = keeper._find()
        state.lock_path.unlink()
        clock.advance(seconds=1)
        looks = iter([held if look == "h" else None for look in script])
        monkeypatch.setattr(keeper, "_look", lambda: next(looks))
        lease = keeper.acquire("update", timeout, first=lambda lease: None)
        assert list(looks) == []
        state._writer._release(lease)

    return taking


def test_from_somebody_the_lease_is_taken_when_it_was_free_at_two_looks(take: Callable[[str, float], None]) -> None:
    take("hfhff", 5)


def test_at_the_end_of_its_time_a_waiter_takes_what_is_free_at_one_look(take: Callable[[str, float], None]) -> None:
    take("hf", 1e-9)


def test_where_nobody_was_it_is_taken_at_the_first_look(take: Callable[[str, float], None]) -> None:
    take("f", 0)


# --- the sign --------------------------------------------------------------------------------------------------------


def aside(state: StateRepository) -> list[str]:
    return os.listdir(state.base_dir / ASIDE)


def test_a_holder_has_his_sign_beside_the_record_until_he_is_done(state: StateRepository) -> None:
    with state.transaction():
        (sign,) = aside(state)
        assert os.path.samefile(state.base_dir / ASIDE / sign, state.lock_path)
    assert aside(state) == []


def test_what_could_not_be_removed_has_a_writer_sweep_who_found_all_well_before(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another(state, clock)
    count_up(other)
    count_up(state)
    discard = Directory.discard

    def failing(self: Directory, name: str) -> bool:
        if name.endswith((".idx", ".pack")):
            raise StorageError(f"{name}: input/output error")
        return discard(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "discard", failing)
        count_up(state)
    assert len(state._revisions.recent.of_epoch()) == 2
    assert len(aside(state)) == 1
    count_up(other)
    assert len(state._revisions.recent.of_epoch()) == 1
    count_up(state)
    assert aside(state) == []


def test_what_an_earlier_run_with_the_same_pid_left_is_removed(state: StateRepository, clock: Script) -> None:
    """In a container every run of an agent may have it."""
    left = state.base_dir / ASIDE / f"{os.getpid()}-0123456789ab1"
    left.write_text("left")
    count_up(state)
    assert not left.exists()


def test_what_a_holder_left_whose_lease_was_broken_is_removed_by_a_writer_who_found_all_well_before(
    state: StateRepository, clock: Script
) -> None:
    count_up(state)
    lock = state.base_dir / ".git/packed-refs.lock"

    def killed() -> None:
        other = another(state, clock)
        other._writer.keeper.acquire("gc", 0, first=lambda lease: None)
        lock.write_text("gitstate\n")  # while tags are packed

    elsewhere(killed)
    state.break_lease(force=True)
    count_up(state)
    assert not lock.exists()


def test_a_sweep_that_failed_is_made_good_by_a_writer_who_found_all_well_before(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another(state, clock)
    count_up(other)
    count_up(state)
    (state.base_dir / ASIDE / f"{dead_pid()}-0123456789ab1").write_text("its sign")
    shell = state.base_dir / f"{GIT_ASIDE}{dead_pid()}-0-01234567"
    shell.mkdir()
    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(Directory, "remove_tree", fails_to_remove)
        count_up(state)
    count_up(other)
    assert not shell.exists()
    assert aside(state) == []


def fails_to_remove(self: Directory, name: str) -> None:
    raise StorageError(f"{name}: input/output error")


# --- releasing, renewing, taking over --------------------------------------------------------------------------------


def in_a_transaction(state: StateRepository, slowly: Callable[[], object], note: str) -> None:
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": note})
        slowly()


def in_modify_loop(state: StateRepository, slowly: Callable[[], object], note: str) -> None:
    state.modify_loop(LOOP, lambda found: {"note": note, "done": slowly() is not None})


@pytest.mark.parametrize("way", [in_a_transaction, in_modify_loop])
def test_an_expired_holder_that_nobody_overtook_publishes(
    state: StateRepository, clock: Script, way: Callable[..., None]
) -> None:
    way(state, lambda: clock.advance(hours=8), "slow")
    assert state.get_loop(LOOP)["note"] == "slow"
    assert state.lease_info() is None


@pytest.mark.parametrize("way", [in_a_transaction, in_modify_loop])
def test_an_expired_holder_that_was_overtaken_publishes_nothing_and_can_start_again(
    state: StateRepository, clock: Script, way: Callable[..., None]
) -> None:
    def slowly() -> None:
        clock.advance(seconds=LEASE + 1)
        elsewhere(lambda: count_up(another(state, clock)))

    with pytest.raises(LeaseLostError, match=r"the lease of generation \d+ was lost to another writer, gone since"):
        way(state, slowly, "slow")
    assert ("note" in state.get_loop(LOOP), iteration(state)) == (False, 1)
    way(state, lambda: None, "again")
    assert (state.get_loop(LOOP)["note"], iteration(state)) == ("again", 1)
    assert state.lease_info() is None


def test_an_expired_holder_renews_its_lease_before_it_publishes(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs, seen = state._writer.revisions.refs, []
    advance = refs.advance
    monkeypatch.setattr(
        refs, "advance", lambda old, new, durable: seen.append(state.lease_info()) or advance(old, new, durable=durable)
    )
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "slow"})
        held = state.lease_info()
        clock.advance(hours=8)
    assert held is not None
    assert [(info.generation, info.expired) for info in seen] == [(held.generation, False)]


def test_a_holder_that_was_overtaken_can_start_again(state: StateRepository, clock: Script) -> None:
    def slow(found: Any) -> dict[str, object]:
        if found["currentIteration"] == 0:
            clock.advance(seconds=LEASE + 1)
            elsewhere(lambda: count_up(another(state, clock)))
        return {"currentIteration": found["currentIteration"] + 1}

    with pytest.raises(LeaseLostError):
        state.modify_loop(LOOP, slow)
    state.modify_loop(LOOP, slow)
    assert iteration(state) == 2


def test_an_overtaken_holder_does_not_remove_its_successors_record(state: StateRepository, clock: Script) -> None:
    """Not even where pid and purpose are the same, which is all that the original compares."""
    keeper, nothing = state._writer.keeper, lambda lease: None
    first = keeper.acquire("update-the-loop", 0, first=nothing)
    clock.advance(seconds=LEASE + 1)
    second = keeper.acquire("update-the-loop", 0, first=nothing)
    record = state.lock_path.read_bytes()
    with keeper.guard.hold(0):
        keeper.release(first)
        assert state.lock_path.read_bytes() == record
        with pytest.raises(LeaseLostError):
            keeper.prove(first)
        keeper.prove(second)
        keeper.release(second)
    assert not state.lock_path.exists()


def test_a_record_that_changed_since_it_was_judged_is_put_back(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """The original knows no guard: its own record may come between the look and the hand that reaches for it."""
    keeper = state._writer.keeper
    claim(state, record_of(dead_pid(), clock))
    judged = keeper._find()
    fresh = json.dumps(originals(neighbour.pid, clock)).encode()
    state.lock_path.write_bytes(fresh)
    with keeper.guard.hold(0):
        assert judged is not None
        assert not keeper._set_aside(judged)
    assert state.lock_path.read_bytes() == fresh
    state.lock_path.unlink()


def test_a_failure_right_after_taking_the_lease_gives_it_back(
    state: StateRepository, clock: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(lease: Lease) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        state._writer.keeper.acquire("update", 0, first=interrupted)
    assert state.lease_info() is None


# --- breaking --------------------------------------------------------------------------------------------------------


def test_breaking_is_refused_while_the_holder_lives(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    with pytest.raises(RefusedError, match=f"held by a live process: process {neighbour.pid} runs") as caught:
        state.break_lease()
    assert caught.value.hint == "wait, or gitstate lock break --force --yes"
    assert state.lock_path.exists()
    state.break_lease(force=True)
    assert not state.lock_path.exists()


def test_a_stale_lease_may_be_broken_without_force(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    for record in (
        record_of(dead_pid(), clock),
        record_of(neighbour.pid, clock, monotonicExpiry=clock.monotonic() - 1),
    ):
        claim(state, record)
        assert state.break_lease().pid == record["pid"]
        assert not state.lock_path.exists()


def test_breaking_nothing_is_refused(state: StateRepository) -> None:
    with pytest.raises(RefusedError, match="nobody holds the lease"):
        state.break_lease()


def test_a_holder_whose_lease_was_broken_cannot_publish(state: StateRepository, clock: Script) -> None:
    with pytest.raises(LeaseLostError), state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "never"})
        broken = elsewhere(lambda: another(state, clock).break_lease(force=True))
    assert broken.pid == os.getpid()
    assert "note" not in state.get_loop(LOOP)


def test_breaking_what_has_no_history_yet_leaves_everything_as_it_is(project: Path, clock: Script) -> None:
    base = project / ".aiwg" / "ralph-external"
    base.mkdir(parents=True)
    (base / "registry.json.lock").write_text(json.dumps(originals(dead_pid(), clock)))
    before = contents(project, without=())
    with pytest.raises(RefusedError) as caught:
        StateRepository(project, clock=clock).break_lease(force=True)
    assert caught.value.hint == "gitstate init"
    assert (contents(project, without=()), os.listdir(base)) == (before, ["registry.json.lock"])


# --- clocks lie ------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
JUMPS = {
    "+31 s": MOMENT + timedelta(seconds=31),
    "-31 s": MOMENT - timedelta(seconds=31),
    "+1 h": MOMENT + timedelta(hours=1),
    "-1 h": MOMENT - timedelta(hours=1),
    "+1 year": MOMENT + timedelta(days=365),
    "-1 year": MOMENT - timedelta(days=365),
    "1970": datetime(1970, 1, 1, tzinfo=UTC),
    "2038": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
}


def committed(state: StateRepository) -> list[int]:
    """Committer times, oldest first."""
    return [int(line) for line in git(state.base_dir, "log", "--reverse", "--format=%ct").stdout.split()]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wall_clock_that_jumps_in_the_middle_of_a_hold_lets_nobody_else_in(
    state: StateRepository, clock: Script, jump: str
) -> None:
    """Not for those whose clock jumped too, nor for those whose clock is right."""
    right = Script()
    right.uptime = clock.uptime
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "mine"})
        clock.set(JUMPS[jump])
        for other in (clock, right):
            with pytest.raises(LeaseTimeoutError):
                elsewhere(lambda other=other: count_up(another(state, other)))
    assert (state.get_loop(LOOP)["note"], iteration(state)) == ("mine", 0)


def test_a_length_that_is_no_whole_number_of_milliseconds_is_no_sign_of_another_clock(
    state: StateRepository, clock: Script
) -> None:
    with another(state, clock, lease_seconds=20.0005).transaction():
        clock.set(JUMPS["+1 h"])
        with pytest.raises(LeaseTimeoutError):
            elsewhere(lambda: count_up(another(state, clock)))


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wall_clock_that_jumps_lets_generations_grow_and_committer_times_not_fall(
    state: StateRepository, clock: Script, jump: str
) -> None:
    for moment in (MOMENT, JUMPS[jump], MOMENT, JUMPS[jump]):
        clock.set(moment)
        count_up(state)
    times = committed(state)
    generations = [change.generation or 0 for change in state.log()][::-1]
    assert times == sorted(times)
    assert generations == sorted(set(generations))
    assert [change.time for change in state.log(limit=2)] == [JUMPS[jump], MOMENT]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wait_ends_when_the_lease_is_given_back_whatever_the_wall_clock_does(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], jump: str
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    clock.at(2, lambda: clock.set(JUMPS[jump]))
    clock.at(5, state.lock_path.unlink)
    assert 5 <= waited(state, clock) < 5 + AT_ONCE


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("whose", [record_of, originals])
def test_a_wait_ends_in_time_whatever_the_wall_clock_does(
    state: StateRepository,
    clock: Script,
    neighbour: subprocess.Popen[bytes],
    jump: str,
    whose: Callable[..., dict[str, object]],
) -> None:
    """At the end of the lease; that of the original, which counts by the wall clock alone, may end before, not after."""
    claim(state, whose(neighbour.pid, clock))
    clock.at(2, lambda: clock.set(JUMPS[jump]))
    earliest = LEASE if whose is record_of or JUMPS[jump] < MOMENT else 2
    assert earliest <= waited(state, clock) < LEASE + AT_ONCE


@pytest.mark.parametrize("jump", JUMPS)
def test_a_wait_in_vain_ends_in_time_whatever_the_wall_clock_does(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes], jump: str
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    clock.at(2, lambda: clock.set(JUMPS[jump]))
    with pytest.raises(LeaseTimeoutError):
        another(state, clock, lock_timeout=5).update_loop(LOOP, {"note": "late"})
    assert 5 <= clock.elapsed < 5 + AT_ONCE


# --- long holds, nesting, threads, fork ------------------------------------------------------------------------------


def nested_ways(state: StateRepository, tmp_path: Path) -> dict[str, StateRepository]:
    link = tmp_path / "link"
    link.symlink_to(state.project_root)
    again = StateRepository(state.project_root, clock=state._writer.clock)
    return {"itself": state, "another object": again, "a symlink": StateRepository(link, clock=state._writer.clock)}


@pytest.mark.parametrize("through", ["itself", "another object", "a symlink"])
def test_a_mutation_inside_modify_loop_is_refused_at_once(
    state: StateRepository, clock: Script, tmp_path: Path, through: str
) -> None:
    inner = nested_ways(state, tmp_path)[through]

    def nested(found: object) -> dict[str, object]:
        with pytest.raises(RefusedError, match="in the middle of a mutation of the same state directory"):
            inner.update_loop(LOOP, {"note": "inner"})
        return {"note": "outer"}

    assert state.modify_loop(LOOP, nested)["note"] == "outer"
    assert clock.elapsed < AT_ONCE


def test_a_mutation_of_the_same_thread_inside_its_open_transaction_is_refused_at_once(
    state: StateRepository, clock: Script
) -> None:
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "outer"})
        with pytest.raises(RefusedError, match="in the middle of a mutation"):
            state.update_loop(LOOP, {"note": "inner"})
        with pytest.raises(RefusedError, match="in the middle of a mutation"), state.transaction():
            pass
    assert state.get_loop(LOOP)["note"] == "outer"
    assert clock.elapsed < AT_ONCE


def test_a_mutation_of_another_state_directory_inside_is_nobodys_business(
    state: StateRepository, tmp_path: Path, clock: Script
) -> None:
    other = StateRepository(tmp_path, clock=clock)
    state.modify_loop(LOOP, lambda found: other.init() and None)
    assert other.revision() is not None


def test_another_thread_waits_like_another_process(state: StateRepository, clock: Script) -> None:
    with state.transaction() as tx:
        tx.update_loop(LOOP, {"note": "first"})
        with pytest.raises(LeaseTimeoutError):
            elsewhere(lambda: count_up(another(state, clock, lock_timeout=3)))
    assert 3 <= clock.elapsed < 3 + AT_ONCE
    elsewhere(lambda: count_up(state))
    assert (state.get_loop(LOOP)["note"], iteration(state)) == ("first", 1)


def test_an_open_transaction_refuses_another_thread_at_once(state: StateRepository, clock: Script) -> None:
    with state.transaction() as tx:
        with pytest.raises(RefusedError, match="belongs to another thread"):
            elsewhere(lambda: tx.update_loop(LOOP, {"note": "theirs"}))
        tx.update_loop(LOOP, {"note": "mine"})
    assert state.get_loop(LOOP)["note"] == "mine"
    assert clock.elapsed < AT_ONCE


def in_child(function: Callable[[], object]) -> Any:
    """What *function* returned in a forked child, as JSON; or the name of the error it raised."""
    mine, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: object = "nothing"
        try:
            answer = function()
        except BaseException as error:
            answer = type(error).__name__
        finally:
            os.write(out, json.dumps(answer).encode())
            os._exit(0)
    os.close(out)
    with open(mine, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return answer


def test_a_child_forked_in_the_middle_cannot_publish_and_releases_nothing(state: StateRepository) -> None:
    tx = state.transaction()
    inside = tx.__enter__()
    inside.update_loop(LOOP, {"note": "the parent's"})
    record = state.lock_path.read_bytes()

    assert in_child(lambda: tx.__exit__(None, None, None)) == "LeaseLostError"
    assert state.lock_path.read_bytes() == record
    tx.__exit__(None, None, None)
    assert state.get_loop(LOOP)["note"] == "the parent's"


def test_a_child_forked_in_the_middle_that_fails_releases_nothing(state: StateRepository) -> None:
    def failing() -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            tx.__exit__(type(error), error, error.__traceback__)

    tx = state.transaction()
    tx.__enter__()
    record = state.lock_path.read_bytes()
    in_child(failing)
    assert state.lock_path.read_bytes() == record
    tx.__exit__(None, None, None)


def test_a_child_forked_in_the_middle_cannot_go_on_with_the_transaction(state: StateRepository) -> None:
    with state.transaction() as tx:
        assert in_child(lambda: tx.update_loop(LOOP, {"note": "the child's"})) == "RefusedError"


def test_a_child_forked_in_the_middle_waits_like_any_other_process(state: StateRepository, clock: Script) -> None:
    def late() -> object:
        try:
            another(state, clock, lock_timeout=3).update_loop(LOOP, {"note": "the child's"})
        except LeaseTimeoutError as error:
            return [error.holder.pid, clock.elapsed]  # type: ignore[attr-defined]
        return None

    with state.transaction():
        pid, seconds = in_child(late)
    assert pid == os.getpid()
    assert 3 <= seconds < 3 + AT_ONCE


def test_a_child_forked_before_works_on_its_own(state: StateRepository) -> None:
    count_up(state)
    assert in_child(lambda: count_up(state)) is None
    count_up(state)
    assert iteration(state) == 3


def test_a_child_forked_while_another_thread_is_inside_the_guard_does_not_keep_it(state: StateRepository) -> None:
    """A copy of the descriptor would keep the guard locked beyond the death of its holder."""
    guard = Guard(Directory(state.base_dir, ASIDE), GUARD)
    parted, out = os.pipe()
    may_end, end = os.pipe()
    with guard.hold(0):
        holder = os.fork()  # stands for the parent: it takes the guard, forks and is killed
        if holder == 0:
            os._exit(_fork_inside(guard, out, may_end))
    os.close(out)
    os.close(may_end)
    assert os.read(parted, 1) == b"!"
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert guard.is_free()
    os.close(end)
    assert os.read(parted, 1) == b""  # the grandchild lived until now, and has ended


def _fork_inside(guard: Guard, out: int, may_end: int) -> int:
    with guard.hold(STALL):
        if os.fork() == 0:
            for descriptor in range(3, 256):
                if descriptor in (out, may_end):
                    continue
                if os.path.exists(f"/proc/self/fd/{descriptor}") and "pipe" in os.readlink(
                    f"/proc/self/fd/{descriptor}"
                ):
                    os.close(descriptor)
            os.write(out, b"!")
            os.read(may_end, 1)
            return 0
        signal.pause()
    return 0


# --- what is said at three in the morning ----------------------------------------------------------------------------


def fails(state: StateRepository, clock: FakeClock, timeout: float = 35.0) -> LeaseTimeoutError:
    with pytest.raises(LeaseTimeoutError) as caught:
        another(state, clock, lock_timeout=timeout).update_loop(LOOP, {"note": "late"})
    return caught.value


def test_a_wait_in_vain_says_who_has_the_lease_since_when_and_what_to_do(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    claim(state, record_of(neighbour.pid, clock))
    error = fails(state, clock, 12)
    assert str(error) == (
        "the lease was not to be had within 12 s: update-the-loop has it since 2026-06-15 12:00:00 UTC (12 s ago); "
        f"process {neighbour.pid} runs"
    )
    assert error.hint == (
        "repeat the command: the lease ends at 2026-06-15 12:00:30 UTC and is then taken over; "
        f"if process {neighbour.pid} hangs, end it: its lease goes with it"
    )
    assert error.exit_code == 4
    assert error.holder.pid == neighbour.pid  # type: ignore[attr-defined]


def test_a_wait_in_vain_for_a_stopped_process_says_how_to_wake_it(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    neighbour.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, neighbour.pid, os.WSTOPPED)
    claim(state, record_of(neighbour.pid, clock))
    error = fails(state, clock, 12)
    assert str(error).endswith(f"; process {neighbour.pid} exists, but is stopped")
    assert error.hint == (
        f"kill -CONT {neighbour.pid} lets it finish; or wait: the lease ends at 2026-06-15 12:00:30 UTC "
        "and is then taken over"
    )


def test_a_wait_in_vain_for_another_host_says_where_to_look(state: StateRepository, clock: Script) -> None:
    claim(state, record_of(4242, clock, host="devbox", bootId="another"))
    error = fails(state, clock, 12)
    assert str(error).endswith("; process 4242 belongs to the host devbox")
    assert error.hint == "look at process 4242 on devbox; if it is gone: gitstate lock break --yes"


def test_a_wait_in_vain_for_what_cannot_be_read_says_how_to_be_rid_of_it(state: StateRepository, clock: Script) -> None:
    state.lock_path.write_bytes(b"")
    assert fails(state, clock, 1).hint == "gitstate lock break --yes"


def test_a_wait_in_vain_in_a_crowd_says_so(
    state: StateRepository, clock: Script, neighbour: subprocess.Popen[bytes]
) -> None:
    """Every look finds another holder, the last one nobody: as it happens when many come and go."""
    keeper = state._writer.keeper
    assert "others took it in turn" in str(keeper._timed_out(5))


def test_a_wait_in_vain_for_the_guard_says_who_is_inside_and_for_how_long(
    state: StateRepository, clock: Script
) -> None:
    with Guard(Directory(state.base_dir, ASIDE), GUARD, clock).hold(0):
        error = fails(state, clock, 12)
    assert str(error) == (f"the guard was not to be had within 12 s: process {os.getpid()} runs, and it is inside")
    assert error.hint == f"end process {os.getpid()}: nothing that was acknowledged is lost"
    assert 12 <= clock.elapsed < 12 + AT_ONCE


@pytest.fixture
def inside(state: StateRepository) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has locked the guard and not signed it: a stranger, or one that was stopped right after."""
    path = state.base_dir / GUARD
    with subprocess.Popen(
        ["flock", str(path), "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert int(path.read_bytes()) == os.getpid()  # as the last one left it
        yield process
        process.send_signal(signal.SIGCONT)
        process.communicate(b"\n")


def test_a_wait_in_vain_for_a_guard_that_is_not_signed_yet_names_who_is_inside_and_not_who_was(
    state: StateRepository, clock: Script, inside: subprocess.Popen[bytes]
) -> None:
    """Or an innocent process would be ended."""
    error = fails(state, clock, 1)
    assert str(error).endswith(f"process {inside.pid} runs, and it is inside")
    assert error.hint == f"end process {inside.pid}: nothing that was acknowledged is lost"
    inside.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, inside.pid, os.WSTOPPED)
    error = fails(state, clock, 1)
    assert str(error).endswith(f"process {inside.pid} exists, but is stopped, and it is inside")
    assert error.hint == (
        f"kill -CONT {inside.pid} lets it finish; kill -9 {inside.pid} ends it, and nothing acknowledged is lost"
    )


def test_a_wait_in_vain_for_a_guard_that_nobody_is_known_to_hold_says_how_to_find_out(
    state: StateRepository, clock: Script, inside: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "lock_holder", lambda device, inode: None)  # as where the system does not tell
    (state.base_dir / GUARD).write_bytes(b"")
    error = fails(state, clock, 1)
    assert "a program that is not gitstate is inside" in str(error)
    assert error.hint == f"fuser -v {state.base_dir / GUARD}"
