"""A crew of forked processes that share out many small cases: what one of them dies of is the verdict on its case."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HANGS = 120.0  # seconds for one case; whatever takes longer is ended
_SAID_EVERY = 30.0  # seconds

Work = Callable[[int], "str | None"]


@dataclass
class _Hand:
    """One process: the case that it is at, and since when."""

    pid: int
    orders: int
    answers: int
    number: int = -1
    since: float = field(default_factory=time.monotonic)


def share_out(
    work: Work, count: int, *, processes: int | None = None, name: str = ""
) -> Iterator[tuple[int, str | None]]:
    """What *work* says of each of the cases 0 … *count* - 1, in the order in which they end; progress goes to stderr."""
    hands = processes or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting, done, wrong = iter(range(count)), 0, 0
    began = said = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(min(hands, count)):
            _set_to_work(_hired(work, selector), waiting, selector)
        while selector.get_map():
            for number, verdict in _heard(selector, work, waiting):
                done += 1
                if verdict is not None:
                    wrong += 1
                    _say(f"{name}: {verdict[:1000]}")
                yield number, verdict
            if time.monotonic() - said > _SAID_EVERY:
                said = time.monotonic()
                rate = done / (said - began)
                left = (count - done) / rate / 60 if rate else float("inf")
                _say(f"{name}: {done} of {count}, {wrong} wrong, {rate:.1f} a second, {left:.0f} min to go")


def _heard(selector: selectors.BaseSelector, work: Work, waiting: Iterator[int]) -> Iterator[tuple[int, str | None]]:
    for key, _ in selector.select(timeout=1.0):
        hand: _Hand = key.data
        answer = os.read(hand.answers, 1 << 20)
        if answer:
            while not answer.endswith(b"\n"):
                answer += os.read(hand.answers, 1 << 20) or b"\n"
            yield hand.number, json.loads(answer)
            _set_to_work(hand, waiting, selector)
        else:
            yield hand.number, f"the process died: {_dismissed(hand, selector)}"
            _set_to_work(_hired(work, selector), waiting, selector)
    for key in list(selector.get_map().values()):
        if time.monotonic() - key.data.since > HANGS:
            os.kill(key.data.pid, signal.SIGKILL)  # heard of in the next round


def _hired(work: Work, selector: selectors.BaseSelector) -> _Hand:
    (orders, order), (answer, answers) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for key in selector.get_map().values():  # or the others would not notice when they are dismissed
            os.close(key.data.orders)
            os.close(key.data.answers)
        os.close(order)
        os.close(answer)
        _labour(work, orders, answers)
    os.close(orders)
    os.close(answers)
    hand = _Hand(pid, order, answer)
    selector.register(answer, selectors.EVENT_READ, hand)
    return hand


def _labour(work: Work, orders: int, answers: int) -> None:
    try:
        while order := os.read(orders, 8):
            try:
                verdict = work(int.from_bytes(order, "big"))
            except BaseException:
                verdict = traceback.format_exc()
            os.write(answers, json.dumps(verdict).encode() + b"\n")
    finally:
        os._exit(0)


def _set_to_work(hand: _Hand, waiting: Iterator[int], selector: selectors.BaseSelector) -> None:
    number = next(waiting, None)
    if number is None:
        _dismissed(hand, selector)
        return
    hand.number, hand.since = number, time.monotonic()
    os.write(hand.orders, number.to_bytes(8, "big"))


def _dismissed(hand: _Hand, selector: selectors.BaseSelector) -> str:
    selector.unregister(hand.answers)
    os.close(hand.orders)
    os.close(hand.answers)
    _, status = os.waitpid(hand.pid, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
