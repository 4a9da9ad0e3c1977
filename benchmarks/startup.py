"""Whole processes: commands against nothing but the imports that they cannot do without.

    python benchmarks/startup.py [--rounds 40] [--loops 4] [--json FILE] [--only list,status]

The sides take turns, the order of each round drawn anew. Ratios are of medians; by processor time they hold on a busy
machine as well. Modules are compiled first, as an installation does.
"""

from __future__ import annotations

import compileall
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from measuring import arguments, bar, print_table, report

import gitstate

IMPORTS: Final = {
    "list": "import click, orjson",
    "status": "import click, orjson, psutil, dulwich.object_store, dulwich.refs",
}
WANTED: Final = {"list": 1.5, "status": 1.3}
Taken = tuple[float, float]  # seconds by the wall, and of the processor


def furnished(project: Path, loops: int) -> None:
    """Loops of some 10 KB each, an archived one, and some history."""
    with warnings.catch_warnings(), gitstate.open(project, actor="agent:bench") as state:
        warnings.simplefilter("ignore")  # there may be more loops than the limit
        for number in range(loops):
            name = f"ralph-fix-module-{number}-{number:08x}"
            state.create_loop(f"Fix module {number}", "all tests pass", loop_id=name, pid=None, force=True)
            for _ in range(5):
                state.record_iteration(name, {"status": "failed", "summary": "what was tried, and why it failed " * 55})
        state.create_loop("Put away", "done", loop_id="put-away", pid=None, force=True)
        state.archive_loop("put-away")


def taken(words: Sequence[str], where: Path) -> Taken:
    """What one run takes from its start to its end; what it prints goes nowhere.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.chdir(where)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.execv(words[0], words)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)}: {status}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def measure(commands: Sequence[str], rounds: int, loops: int) -> dict[str, list[Taken]]:
    """Each command and its imports, in turn, after a warm-up that does not count."""
    compileall.compile_dir(Path(gitstate.__file__).parent, quiet=1)
    python, program = sys.executable, str(Path(sys.executable).with_name("gitstate"))
    sides = {name: [program, name] for name in commands}
    sides |= {f"imports of {name}": [python, "-c", IMPORTS[name]] for name in commands}
    found: dict[str, list[Taken]] = {name: [] for name in sides}
    draw, warm = random.Random(rounds), max(2, rounds // 10)
    with tempfile.TemporaryDirectory(prefix="gitstate-bench-") as project:
        furnished(Path(project), loops)
        for number in range(warm + rounds):
            for name in draw.sample(list(sides), len(sides)):
                once = taken(sides[name], Path(project))
                found[name] += [once] if number >= warm else []
    return found


def figures(found: dict[str, list[Taken]], commands: Sequence[str]) -> dict[str, dict[str, float]]:
    """Medians and p90 in milliseconds, and the ratios of medians of each command to its imports."""
    rows: dict[str, dict[str, float]] = {}
    for name, times in found.items():
        wall, cpu = (sorted(each) for each in zip(*times, strict=True))
        rows[name] = {
            "wall_median_ms": round(statistics.median(wall) * 1e3, 1),
            "wall_p90_ms": round(wall[int(len(wall) * 0.9)] * 1e3, 1),
            "cpu_median_ms": round(statistics.median(cpu) * 1e3, 1),
            "cpu_p90_ms": round(cpu[int(len(cpu) * 0.9)] * 1e3, 1),
        }
    for name in commands:
        base = rows[f"imports of {name}"]
        for clock in ("wall", "cpu"):
            key = f"{clock}_median_ms"
            rows[name][f"{clock}_ratio"] = round(rows[name][key] / base[key], 2)
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--loops", type=int, default=4, help="active loops in the project")
    parser.add_argument("--only", default=",".join(IMPORTS), help="the commands, with commas between")
    asked = parser.parse_args()
    commands = asked.only.split(",")
    rows = figures(measure(commands, asked.rounds, asked.loops), commands)
    headings = {"wall_ratio": "ratio", "cpu_ratio": "by cpu", "wall_median_ms": "median ms", "wall_p90_ms": "p90 ms"}
    print_table(rows, {**headings, "cpu_median_ms": "cpu ms"})
    bars = [
        bar(7, f"gitstate {name} / python -c {IMPORTS[name]!r}", rows[name]["wall_ratio"], WANTED[name])
        for name in commands
    ]
    report("startup", parser, asked, bars, rounds=asked.rounds, loops=asked.loops, sides=rows)


if __name__ == "__main__":
    main()
