"""Many busy writers on one state directory: how long each waits for the lease, and what they do together.

    python benchmarks/contention.py [--writers 8] [--operations 50] [--rounds 5] [--json FILE] [--directory DIR]

One writer alone and all of them are measured in turn, in the same run, each round in a fresh project, and each of them
first in every second one. One alone makes as many updates as all together. Every writer is a process that has opened
the project, has made its share of the same number of updates, and stands at a gate when the clock starts. The *wait* is
from the call until the lease is held; a call is one ``modify_loop`` that counts up.

With ``GITSTATE_ORIGINAL`` set to the original's module, as many processes of it make as many locked updates
(``updateLoopPid``) under node. They have no gate: those that start first are alone for a moment.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from measuring import arguments, bar, quantile, report, scratch

import gitstate
from gitstate.lease import LeaseKeeper

DRIVER = Path(__file__).parent.parent / "tests" / "original_driver.mjs"
LOOP = "ralph-contended"
SPREAD = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--operations", type=int, default=50, help="of each writer; one alone makes as many as all")
    parser.add_argument("--warm", type=int, default=5, help="updates of each writer that do not count")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    original = os.environ.get("GITSTATE_ORIGINAL")
    alone, together, theirs = Series(), Series(), Series()
    for number in range(asked.rounds):
        for writers, series in sorted([(1, alone), (asked.writers, together)], reverse=bool(number % 2), key=first):
            share = asked.writers // writers
            with project(asked.directory) as root:
                writer = count_up(root, share * asked.operations, share * asked.warm)
                series.add(run([writer] * writers))
                counted = gitstate.open(root).get_loop(LOOP)["currentIteration"]
                wanted = asked.writers * (asked.operations + asked.warm)
                assert counted == wanted, f"{counted} of {wanted} acknowledged updates are there"
        if original and shutil.which("node"):
            with project(asked.directory) as root:
                theirs.add(run([node(root, original, asked.operations)] * asked.writers))
    ratios = [many / one for one, many in zip(alone.rates, together.rates, strict=True)]
    print(
        f"{asked.writers} writers on {os.cpu_count()} cores, {asked.operations} operations each, {asked.rounds} rounds"
    )
    print(f"{'waits in seconds':24}{'per second':>12}{'CPU ms each':>12}" + "".join(f"{name:>10}" for name in SPREAD))
    for name, series in (("gitstate, one writer", alone), ("gitstate, all", together), ("the original, all", theirs)):
        if series.rates:
            print(f"{name:24}{series.row()}")
    print(f"together / alone: {statistics.median(ratios):.2f} (median of {', '.join(f'{r:.2f}' for r in ratios)})")
    spread = {"low": min(ratios), "high": max(ratios)}
    words = f"{asked.writers} writers together / one alone, updates per second"
    bars = [
        bar("many writers", words, statistics.median(ratios), 0.7, least=True, found=spread),
        bar("many writers", f"p99 of the wait of {asked.writers} writers", together.spread()["p99"], 1.0, unit="s"),
    ]
    report(
        "contention",
        parser,
        asked,
        bars,
        writers=asked.writers,
        operations=asked.operations,
        alone=alone.figures(),
        together=together.figures(),
        ratios=ratios,
        original=theirs.figures() if theirs.rates else None,
    )


def first(side: tuple[int, object]) -> int:
    return side[0]


class Run(NamedTuple):
    """One measurement: operations per second, CPU seconds of each, and what every operation waited."""

    rate: float
    cpu: float
    waits: list[float]


class Series:
    """The rounds of one way of working."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self.waits: list[float] = []

    def add(self, run: Run) -> None:
        self.rates.append(run.rate)
        self.cpu.append(run.cpu)
        self.waits += run.waits

    def spread(self) -> dict[str, float]:
        return {name: quantile(self.waits, share) for name, share in SPREAD.items()}

    def figures(self) -> dict[str, object]:
        return {"per_second": self.rates, "cpu_seconds_each": self.cpu, "wait": self.spread()}

    def row(self) -> str:
        rate, cpu, spread = statistics.median(self.rates), statistics.median(self.cpu) * 1000, self.spread()
        return f"{rate:12.1f}{cpu:12.1f}" + "".join(f"{spread[key]:10.3f}" for key in spread)


@contextmanager
def project(above: Path | None) -> Iterator[Path]:
    """A project with one loop to work on."""
    with scratch(above) as root:
        with gitstate.open(root) as state:
            state.create_loop("Be counted up", "never", loop_id=LOOP, max_iterations=10**9, pid=None)
        yield root


# --- writers ---------------------------------------------------------------------------------------------------------

# Given where to write, it makes itself ready, calls what it is given, which returns when all are ready, and then writes
# one JSON line for each operation: when it was called, when it returned, how long it waited.
Writer = Callable[[int, Callable[[], None]], None]


def count_up(root: Path, operations: int, warm: int) -> Writer:
    def write(out: int, at_the_gate: Callable[[], None]) -> None:
        state = gitstate.open(root)
        for number in range(warm + operations):
            if number == warm:
                at_the_gate()
            LeaseKeeper.waited = 0.0  # type: ignore[attr-defined]
            called = time.monotonic()
            state.modify_loop(LOOP, lambda now: {"currentIteration": now["currentIteration"] + 1})
            facts = {"called": called, "returned": time.monotonic(), "waited": LeaseKeeper.waited}  # type: ignore[attr-defined]
            if number >= warm:
                os.write(out, f"{json.dumps(facts)}\n".encode())

    return write


def node(root: Path, original: str, operations: int) -> Writer:
    def write(out: int, at_the_gate: Callable[[], None]) -> None:
        at_the_gate()
        subprocess.run(["node", DRIVER, original, root, "pids", str(operations), LOOP], stdout=out, check=True)

    return write


def measure_waits() -> None:
    """Let the lease keeper note how long each acquisition took."""
    acquire = LeaseKeeper.acquire

    def measured(self: LeaseKeeper, *words: object, **options: object) -> object:
        began = time.monotonic()
        try:
            return acquire(self, *words, **options)  # type: ignore[arg-type]
        finally:
            LeaseKeeper.waited = time.monotonic() - began  # type: ignore[attr-defined]

    LeaseKeeper.acquire = measured  # type: ignore[method-assign, assignment]


def run(writers: list[Writer]) -> Run:
    """Let all writers go at once, each in a process of its own, and wait for the last."""
    go, start = os.pipe()
    ready, arrive = os.pipe()
    children: dict[int, int] = {}
    for writer in writers:
        mine, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            for end in (start, ready, *children.values()):
                os.close(end)

            def at_the_gate() -> None:
                os.write(arrive, b".")
                os.close(arrive)
                os.read(go, 1)  # ends when the parent closes its end

            _exit_with(lambda writer=writer, out=out: writer(out, at_the_gate))  # type: ignore[misc]
        os.close(out)
        children[pid] = mine
    os.close(go)
    os.close(arrive)
    arrived = 0
    while arrived < len(writers) and (some := os.read(ready, len(writers))):
        arrived += len(some)
    os.close(ready)
    os.close(start)
    cpu, lines = 0.0, []
    for pid, out in children.items():
        with open(out, "rb") as pipe:
            lines += [json.loads(text) for text in pipe]
        _, status, used = os.wait4(pid, 0)
        if status:
            sys.exit("a writer failed")
        cpu += used.ru_utime + used.ru_stime
    length = max(each["returned"] for each in lines) - min(each["called"] for each in lines)
    return Run(len(lines) / length, cpu / len(lines), [each["waited"] for each in lines])


def _exit_with(call: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        call()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    measure_waits()
    main()
