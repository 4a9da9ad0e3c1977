"""Where the time of one update_loop goes, part by part, and how much of each part is waiting for the disk.

    python benchmarks/breakdown.py [--rounds 300] [--size 10000 1000000] [--json FILE] [--directory DIR]

The functions of PARTS are wrapped from outside. The time of each goes to the part that was entered last, so that the
parts add up to the whole; fsync and fdatasync are counted apart. Every second mutation runs unwrapped, which shows what
the wrapping costs. Shares are means over the middle half of the mutations by their total time.
"""

from __future__ import annotations

import functools
import importlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import arguments, print_table, report, scratch, spread
from mutation import LOOP, begun

import gitstate

# Each part, and the functions whose own time it is. What no function of these is busy with is `the rest`.
PARTS: dict[str, list[str]] = {
    "lease": [
        "gitstate.lease:LeaseKeeper.acquire",
        "gitstate.lease:LeaseKeeper.prove",
        "gitstate.lease:LeaseKeeper.release",
        "gitstate.guard:Guard.hold",
    ],
    "reconcile": ["gitstate.transaction:Writer.prepare", "gitstate.reconciling:Reconciling.reconciled"],
    "apply": ["gitstate.transaction:settle", "gitstate.transaction:Writer.run(apply)"],
    "encode": ["gitstate.snapshot:Snapshot.contents"],
    "objects": [
        "gitstate.store.revisions:Revisions.build",
        "gitstate.store.recent:Recent.prepare",
    ],
    "branch": ["gitstate.store.refs:Refs.advance"],
    "journal": ["gitstate.store.recent:Recent.publish"],
    "reflog, changes": ["gitstate.store.refs:Refs.note_move", "gitstate.store.revisions:Revisions.note"],
    "projection": ["gitstate.publishing:Publishing.project"],
    "index": ["gitstate.noting:Noting._with_index", "gitstate.noting:Noting._with_another_index"],
    "answer": ["gitstate.snapshot:Snapshot.fresh", "gitstate.mutations:copied"],
}
REST = "the rest"
SYNCS = ("fsync", "fdatasync")


class Cost:
    """By part: seconds, those of them in syncs, and how many syncs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.waiting: dict[str, float] = defaultdict(float)
        self.syncs: dict[str, int] = defaultdict(int)

    def whole(self) -> float:
        return sum(self.seconds.values())


class Meter:
    """Times of nested parts; each moment belongs to the innermost one."""

    def __init__(self) -> None:
        self.is_on = False
        self.cost = Cost()
        self._open = [REST]
        self._since = 0.0

    def measure(self, call: Callable[[], object]) -> Cost:
        """What *call* costs."""
        self.cost, self.is_on, self._since = Cost(), True, time.perf_counter()
        try:
            call()
        finally:
            self._switch()
            self.is_on = False
        return self.cost

    def _switch(self) -> None:
        now = time.perf_counter()
        self.cost.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def inside(self, part: str) -> Iterator[None]:
        if not self.is_on:
            yield
            return
        self._switch()
        self._open.append(part)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def sync(self, real: Callable[[int], None], descriptor: int) -> None:
        began = time.perf_counter()
        try:
            real(descriptor)
        finally:
            if self.is_on:
                self.cost.waiting[self._open[-1]] += time.perf_counter() - began
                self.cost.syncs[self._open[-1]] += 1


# --- wrapping --------------------------------------------------------------------------------------------------------


def wrap_all(meter: Meter, parts: dict[str, list[str]]) -> list[str]:
    """Wrap what there is of *parts*; the names that there are not. A part of which nothing is there is an error."""
    missing = []
    for part, names in parts.items():
        unknown = [name for name in names if not _wrap(meter, part, name)]
        if len(unknown) == len(names):
            raise SystemExit(f"breakdown.py: nothing of the part {part!r} is there any more: {', '.join(names)}")
        missing += unknown
    for name in SYNCS:
        if hasattr(os, name):
            setattr(os, name, functools.partial(meter.sync, getattr(os, name)))
    return missing


def _wrap(meter: Meter, part: str, name: str) -> bool:
    """Wrap ``module:Class.function``; with ``(argument)`` what is given to it under that name."""
    module, _, path = name.partition(":")
    path, _, argument = path.partition("(")
    *above, last = path.split(".")
    try:
        owner = functools.reduce(getattr, above, importlib.import_module(module))
        function = getattr(owner, last)
    except (ImportError, AttributeError):
        return False
    wrapped = _measured(meter, part, function) if not argument else _with_measured(meter, part, function)
    setattr(owner, last, wrapped)
    return True


def _measured(meter: Meter, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*words: Any, **options: Any) -> Any:
        with meter.inside(part):
            found = function(*words, **options)
        is_manager = hasattr(found, "__enter__") and hasattr(found, "__exit__")
        return _Held(meter, part, found) if is_manager else found

    return call


def _with_measured(meter: Meter, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """*function*, which is given another one third, after itself and a word."""

    @functools.wraps(function)
    def call(self: object, purpose: str, given: Callable[..., Any], *words: Any, **options: Any) -> Any:
        return function(self, purpose, _measured(meter, part, given), *words, **options)

    return call


class _Held:
    """A context manager of which entering and leaving belong to a part, and not what happens within."""

    def __init__(self, meter: Meter, part: str, real: Any) -> None:
        self._meter, self._part, self._real = meter, part, real

    def __enter__(self) -> Any:
        with self._meter.inside(self._part):
            return self._real.__enter__()

    def __exit__(self, *words: object) -> Any:
        with self._meter.inside(self._part):
            return self._real.__exit__(*words)


# --- a run -----------------------------------------------------------------------------------------------------------


def measure(meter: Meter, rounds: int, size: int, directory: Path | None) -> dict[str, Any]:
    """What each part costs in a mutation, in the middle half of *rounds*."""
    costs: list[Cost] = []
    unwrapped: list[float] = []
    warm = max(8, rounds // 10)
    with scratch(directory) as root:
        state = begun(root, size)
        for number in range(warm + rounds):
            cost = meter.measure(lambda number=number: _update(state, 2 * number))  # type: ignore[misc]
            began = time.perf_counter()
            _update(state, 2 * number + 1)
            if number >= warm:
                unwrapped.append(time.perf_counter() - began)
                costs.append(cost)
    costs.sort(key=Cost.whole)
    middle = costs[len(costs) // 4 : len(costs) * 3 // 4 + 1]
    parts = {name: _mean(middle, name) for name in [*PARTS, REST]}
    whole = sum(part["ms"] for part in parts.values())
    for part in parts.values():
        part["share"] = round(part["ms"] / whole, 3)
    return {
        "rounds": rounds,
        "wrapped": spread([cost.whole() for cost in costs]),
        "unwrapped": spread(unwrapped),
        "parts": parts,
        "whole_ms": round(whole, 3),
        "syncs": round(sum(part["syncs"] for part in parts.values()), 2),
        "waiting_ms": round(sum(part["waiting_ms"] for part in parts.values()), 3),
    }


def _update(state: gitstate.StateRepository, number: int) -> None:
    state.update_loop(LOOP, {"currentIteration": 2 + number, "note": f"number {number}"})


def _mean(costs: list[Cost], name: str) -> dict[str, float]:
    return {
        "ms": round(statistics.fmean(each.seconds[name] for each in costs) * 1e3, 4),
        "waiting_ms": round(statistics.fmean(each.waiting[name] for each in costs) * 1e3, 4),
        "syncs": round(statistics.fmean(each.syncs[name] for each in costs), 2),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="of a big state a fifth")
    parser.add_argument("--size", type=int, nargs="+", default=[10_000, 1_000_000], help="bytes of the session state")
    asked = parser.parse_args()
    meter = Meter()
    missing = wrap_all(meter, PARTS)
    sizes = {}
    for size in asked.size:
        rounds = asked.rounds if size < 200_000 else max(4, asked.rounds // 5)
        found = sizes[str(size)] = measure(meter, rounds, size, asked.directory)
        print(f"\na state of {size:,} bytes: {found['whole_ms']:.2f} ms, {found['waiting_ms']:.2f} of it in")
        print(
            f"{found['syncs']:.0f} syncs; wrapping takes {found['wrapped']['median_ms'] / found['unwrapped']['median_ms']:.2f}×"
        )
        print_table(found["parts"], {"share": "share", "ms": "ms", "waiting_ms": "waiting ms", "syncs": "syncs"})
    if missing:
        print(f"\nnot there, so not measured: {', '.join(missing)}")
    report("breakdown", parser, asked, [], sizes=sizes, missing=missing)


if __name__ == "__main__":
    main()
