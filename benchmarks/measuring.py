"""How the benchmarks measure: sides take turns, medians and p90 are kept, ratios come with their spread."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

Side = Callable[[int], object]
Figures = dict[str, float]

_BLOCKS = 5  # parts of a run of which each gives a ratio of its own: how far they lie apart is the ratio's spread


@contextmanager
def scratch(above: Path | None) -> Iterator[Path]:
    """A directory that is gone afterwards, with the real path of where it is."""
    path = Path(tempfile.mkdtemp(prefix="gitstate-bench-", dir=above)).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def take_turns(
    sides: Mapping[str, Side], rounds: int, *, warm: int, every: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Seconds of each call of each side, after *warm* rounds that do not count.

    The order is drawn anew each round, so that none always follows the same one. *every*: a side that plays only in
    each n-th round.
    """
    names, draw = list(sides), random.Random(rounds)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm + rounds):
        draw.shuffle(names)
        for name in names:
            if number % (every or {}).get(name, 1):
                continue
            began = time.perf_counter()
            sides[name](number)
            took = time.perf_counter() - began
            if number >= warm:
                times[name].append(took)
    return times


class Turns(NamedTuple):
    """Seconds of each side: of the ``first`` calls of its turns, right after other programs, and of those ``after``."""

    first: dict[str, list[float]]
    after: dict[str, list[float]]


def take_long_turns(
    sides: Mapping[str, Side], rounds: int, length: int, *, every: Mapping[str, int] | None = None
) -> Turns:
    """Each side makes *length* calls in a row, at least two, and then the next one does.

    So each is warm when it is measured, and none has another's caches to thank, or to blame. The first call of a turn is
    kept apart, and one round goes before those that count. The order is drawn anew each round; *every* as above.
    """
    names, draw = list(sides), random.Random(rounds)
    found = Turns({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds + 1):
        draw.shuffle(names)
        for name in names:
            if number > 1 and (number - 1) % (every or {}).get(name, 1):
                continue
            for call in range(length):
                began = time.perf_counter()
                sides[name](number * length + call)
                took = time.perf_counter() - began
                if number:
                    (found.after if call else found.first)[name].append(took)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(seconds: Sequence[float]) -> Figures:
    """Median, p90, worst and mean in milliseconds, and of how many."""
    return {
        "median_ms": round(statistics.median(seconds) * 1e3, 4),
        "p90_ms": round(quantile(seconds, 0.9) * 1e3, 4),
        "max_ms": round(max(seconds) * 1e3, 3),
        "mean_ms": round(statistics.fmean(seconds) * 1e3, 4),
        "count": len(seconds),
    }


def ratio(these: Sequence[float], those: Sequence[float]) -> Figures:
    """The ratio of two medians, that of the p90, and the lowest and highest ratio of medians in a fifth of the run."""
    whole = statistics.median(these) / statistics.median(those)
    parts = [
        statistics.median(a) / statistics.median(b)
        for a, b in zip(_blocks(these), _blocks(those), strict=True)
        if a and b
    ]
    return {
        "ratio": round(whole, 3),
        "p90_ratio": round(quantile(these, 0.9) / quantile(those, 0.9), 3),
        "low": round(min(whole, *parts), 3),
        "high": round(max(whole, *parts), 3),
    }


def _blocks(values: Sequence[float]) -> list[Sequence[float]]:
    edges = [len(values) * number // _BLOCKS for number in range(_BLOCKS + 1)]
    return [values[begin:end] for begin, end in itertools.pairwise(edges)]


# --- a bar -----------------------------------------------------------------------------------------------------------


def bar(
    number: int | str,
    what: str,
    value: float,
    limit: float,
    *,
    least: bool = False,
    unit: str = "×",
    found: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One line of what was asked for: the value, what it may be at most (or must be at *least*), and whether it is.

    *number* is that of the bar, or the word for what has none; *found* what :func:`ratio` said, for the spread.
    """
    return {
        "bar": number,
        "what": what,
        "value": value,
        "limit": limit,
        "least": least,
        "unit": unit,
        "holds": value >= limit if least else value <= limit,
        **({"low": found["low"], "high": found["high"]} if found else {}),
    }


# --- the machine -----------------------------------------------------------------------------------------------------


def machine(directory: Path | None = None) -> dict[str, object]:
    """What it was measured on: nothing that names the machine or a place on it."""
    cpu = _fields(Path("/proc/cpuinfo"))
    memory = _fields(Path("/proc/meminfo")).get("MemTotal", "0 kB").split()[0]
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in cpu.get("flags", "").split(),
        "memory_gb": round(int(memory) / 1024**2),
        "file_system": _file_system(Path(directory or tempfile.gettempdir())),
        "python": platform.python_version(),
        "git": _version_of_git(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }


def _fields(path: Path) -> dict[str, str]:
    """The first value of each ``name: value`` line."""
    found: dict[str, str] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found


def _file_system(directory: Path) -> str:
    """Type and options of what *directory* is mounted from; ``unknown`` where the kernel does not say."""
    mounts = Path("/proc/self/mountinfo")
    device = directory.resolve().stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return f"{after.split()[0]} ({before.split()[5]})"
    return "unknown"


def _version_of_git() -> str | None:
    if shutil.which("git") is None:
        return None
    return subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]


# --- command line and report -----------------------------------------------------------------------------------------

_PLACES = {"json", "directory", "keep"}  # options that say where, not what


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark understands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where to write: on the disk that is to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    return parser


def report(
    name: str, parser: argparse.ArgumentParser, asked: argparse.Namespace, bars: list[dict[str, Any]], **figures: object
) -> dict[str, Any]:
    """What a run found, written where it was asked for; the bars are printed."""
    found = {
        "benchmark": name,
        "command": _repeated(parser, asked),
        "machine": machine(asked.directory),
        "bars": bars,
        **figures,
    }
    print()
    for each in bars:
        print(f"{'holds ' if each['holds'] else 'MISSED'}  bar {each['bar']}: {each['what']}: {described(each)}")
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def described(found: Mapping[str, Any]) -> str:
    """A bar's value, its spread, and what is wanted."""
    unit = found["unit"] if found["unit"] == "×" else f" {found['unit']}"
    apart = f" ({found['low']:.2f}–{found['high']:.2f})" if "low" in found else ""
    return (
        f"{found['value']:.2f}{unit}{apart}, wanted at {'least' if found['least'] else 'most'} {found['limit']:g}{unit}"
    )


def _repeated(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> str:
    """The command that repeats the run, without where it was."""
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for action in parser._actions:
        value = getattr(asked, action.dest, None)
        if action.dest in _PLACES or value == action.default or value is None:
            continue
        words.append(action.option_strings[0])
        if not isinstance(value, bool):
            words += [str(each) for each in value] if isinstance(value, list) else [str(value)]
    return " ".join(words)


def print_table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]) -> None:
    """*columns*: the keys of a row and their headings."""
    wide = max(len(name) for name in rows)
    print(f"{'':{wide}}" + "".join(f"{heading:>12}" for heading in columns.values()))
    for name, row in rows.items():
        cells = (
            f"{row[key]:12.3f}" if isinstance(row.get(key), float) else f"{row.get(key, ''):>12}" for key in columns
        )
        print(f"{name:{wide}}" + "".join(cells))
