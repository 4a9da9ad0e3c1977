"""Reads in a process that is up, against reading and parsing the same file with orjson.

    python benchmarks/reading.py [--rounds 2000] [--size 10000] [--loops 4] [--json FILE]

``open`` in the name of a side: the state directory is opened anew each time. ``first``: nothing is known of it yet, as
in a process that has just begun. ``after a mutation``: 0.1 s after one. The sides take turns; ratios are of medians.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson
from measuring import arguments, bar, print_table, report, scratch

import gitstate
from gitstate import sight

Sides = dict[str, Callable[[], object]]
WANTED: Final = 3.0


def loop_of(number: int) -> str:
    return f"ralph-fix-module-{number}-{number:08x}"


def furnished(project: Path, loops: int, size: int) -> gitstate.StateRepository:
    """Active loops with session states of about *size* bytes."""
    state = gitstate.open(project, actor="agent:bench")
    state.init(max_concurrent_loops=loops)
    for number in range(loops):
        state.create_loop(f"Fix module {number}", "all tests pass", loop_id=loop_of(number), pid=None)
        for _ in range(max(1, size // 2000)):
            state.record_iteration(loop_of(number), {"status": "failed", "summary": "what was tried, and failed " * 68})
    return state


def parsed(path: Path) -> object:
    """The file read and parsed, and nothing else."""
    with open(path, "rb") as file:
        return orjson.loads(file.read())


def sides_of(state: gitstate.StateRepository, project: Path) -> dict[str, Sides]:
    """What is compared, in two groups: the first side of each is what the others are measured against."""
    name, file = loop_of(0), state.loops_dir / loop_of(0) / "session-state.json"

    def first() -> gitstate.StateRepository:
        sight._KNOWN.clear()
        return gitstate.open(project, actor="agent:bench")

    return {
        "session state": {
            "orjson": lambda: parsed(file),
            "get_loop": lambda: state.get_loop(name),
            "open, get_loop": lambda: gitstate.open(project, actor="agent:bench").get_loop(name),
            "first, get_loop": lambda: first().get_loop(name),
        },
        "registry": {
            "orjson": lambda: parsed(state.registry_path),
            "list_active_loops": state.list_active_loops,
            "open, list_active_loops": lambda: gitstate.open(project, actor="agent:bench").list_active_loops(),
            "first, list_active_loops": lambda: first().list_active_loops(),
        },
    }


def measure(sides: Sides, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call of each side, after a warm-up that does not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    draw, warm = random.Random(rounds), max(10, rounds // 10)
    for number in range(warm + rounds):
        for name in draw.sample(list(sides), len(sides)):
            began = time.perf_counter()
            sides[name]()
            took = time.perf_counter() - began
            found[name] += [took] if number >= warm else []
    return found


def figures(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians and p90 in microseconds, and the ratio of medians to reading and parsing."""
    base = statistics.median(found["orjson"])
    return {
        name: {
            "ratio": round(statistics.median(times) / base, 2),
            "median_us": round(statistics.median(times) * 1e6, 1),
            "p90_us": round(sorted(times)[int(len(times) * 0.9)] * 1e6, 1),
        }
        for name, times in found.items()
    }


def main() -> None:
    """Measure, and print a table."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--size", type=int, default=10_000, help="bytes of a session state, about")
    parser.add_argument("--loops", type=int, default=4, help="active loops")
    asked = parser.parse_args()
    with scratch(asked.directory) as directory:
        state = furnished(directory, asked.loops, asked.size)
        rows: dict[str, dict[str, float]] = {}
        for when in ("after a mutation", "later"):
            state.update_loop(loop_of(0), {"note": when})
            time.sleep(0.1 if when == "after a mutation" else 2.5)
            for group, sides in sides_of(state, directory).items():
                found = figures(measure(sides, asked.rounds))
                rows |= {f"{name}: {group}, {when}": row for name, row in found.items()}
        sizes = {
            "session_state": (state.loops_dir / loop_of(0) / "session-state.json").stat().st_size,
            "registry": state.registry_path.stat().st_size,
        }
    print_table(rows, {"ratio": "ratio", "median_us": "median us", "p90_us": "p90 us"})
    bars = [
        bar(5, f"{name} / reading and parsing with orjson", row["ratio"], WANTED)
        for name, row in rows.items()
        if name.startswith(("get_loop:", "list_active_loops:"))
    ]
    report("reading", parser, asked, bars, rounds=asked.rounds, loops=asked.loops, bytes=sizes, sides=rows)


if __name__ == "__main__":
    main()
