"""Holders of the lease: records of all kinds, callers in another thread or process, and how long one waits for them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

from clocks import FakeClock, Script

from gitstate import StateRepository, process

LOOP = "the-loop"
AT_ONCE = 0.1  # seconds on the injected clock: a few looks
LEASE = 30.0
STALL = 60  # seconds of real time after which something hangs


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
