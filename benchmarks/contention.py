"""Many busy writers on one state directory: how long each waits for the lease, and what they do together.

    python benchmarks/contention.py [--writers 8] [--operations 50] [--rounds 3] [--json FILE]

One writer alone and all of them are measured in turn, in the same run, each
round in a fresh project. The *wait* is from the call until the lease is held;
a call is one ``modify_loop`` that counts up. With ``GITSTATE_ORIGINAL`` set to
the original's module, as many processes of it make as many locked updates
(``updateLoopPid``) under node.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gitstate
from gitstate.lease import LeaseKeeper

DRIVER = Path(__file__).parent.parent / "tests" / "original_driver.mjs"
LOOP = "ralph-contended"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--operations", type=int, default=50, help="of each writer; one alone makes as many as all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--directory", type=Path, help="where to work; a temporary directory of the system's without it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    original = os.environ.get("GITSTATE_ORIGINAL")
    alone, together, theirs = Series(), Series(), Series()
    for _ in range(asked.rounds):
        with project(asked.directory) as root:
            alone.add(run([count_up(root, asked.writers * asked.operations)]))
        with project(asked.directory) as root:
            together.add(run([count_up(root, asked.operations)] * asked.writers))
            counted = gitstate.open(root).get_loop(LOOP)["currentIteration"]
            assert counted == asked.writers * asked.operations, f"{counted} of the acknowledged updates are there"
        if original and shutil.which("node"):
            with project(asked.directory) as root:
                theirs.add(run([node(root, original, asked.operations)] * asked.writers))
    ratios = [many / one for one, many in zip(alone.rates, together.rates, strict=True)]
    result = {
        "writers": asked.writers,
        "operations": asked.operations,
        "alone": alone.figures(),
        "together": together.figures(),
        "ratios": ratios,
        "original": theirs.figures() if theirs.rates else None,
    }
    print(f"{asked.writers} writers, {asked.operations} operations each, {asked.rounds} rounds; waits in seconds")
    print(f"{'':24}{'per second':>12}{'CPU ms each':>12}{'median':>10}{'p90':>10}{'p99':>10}{'max':>10}")
    for name, series in (("gitstate, one writer", alone), ("gitstate, all", together), ("the original, all", theirs)):
        if series.rates:
            print(f"{name:24}{series.row()}")
    print(f"together / alone: {statistics.median(ratios):.2f} (median of {', '.join(f'{r:.2f}' for r in ratios)})")
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


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
        ordered = sorted(self.waits)
        at = {"median": 0.5, "p90": 0.9, "p99": 0.99}
        found = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}
        return {**found, "max": ordered[-1]}

    def figures(self) -> dict[str, object]:
        return {"per_second": self.rates, "cpu_seconds_each": self.cpu, "wait": self.spread()}

    def row(self) -> str:
        rate, cpu, spread = statistics.median(self.rates), statistics.median(self.cpu) * 1000, self.spread()
        return f"{rate:12.1f}{cpu:12.1f}" + "".join(f"{spread[key]:10.3f}" for key in spread)


@contextmanager
def project(above: Path | None) -> Iterator[Path]:
    """A project with one loop to work on."""
    with tempfile.TemporaryDirectory(dir=above) as name:
        with gitstate.open(name) as state:
            state.create_loop("Be counted up", "never", loop_id=LOOP, max_iterations=10**9, pid=None)
        yield Path(name)


# --- writers ---------------------------------------------------------------------------------------------------------

Writer = Callable[
    [int], None
]  # writes one JSON line per operation: when it was called and returned, how long it waited


def count_up(root: Path, operations: int) -> Writer:
    def write(out: int) -> None:
        state = gitstate.open(root)
        for _ in range(operations):
            LeaseKeeper.waited = 0.0  # type: ignore[attr-defined]
            called = time.monotonic()
            state.modify_loop(LOOP, lambda now: {"currentIteration": now["currentIteration"] + 1})
            facts = {"called": called, "returned": time.monotonic(), "waited": LeaseKeeper.waited}  # type: ignore[attr-defined]
            os.write(out, f"{json.dumps(facts)}\n".encode())

    return write


def node(root: Path, original: str, operations: int) -> Writer:
    def write(out: int) -> None:
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
    children: dict[int, int] = {}
    for writer in writers:
        mine, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(start)
            os.read(go, 1)  # ends when the parent closes its end
            status = 1
            try:
                writer(out)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(out)
        children[pid] = mine
    os.close(go)
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


if __name__ == "__main__":
    measure_waits()
    sys.exit(main())
