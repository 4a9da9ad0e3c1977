"""Growing one repository, once: what every mutation cost is kept, and a copy of the repository at every size.

A directory that is kept holds ``repository/``, ``at-100/`` and so on, and ``trace/`` with the figures of every mutation.
What was interrupted goes on where history says it stopped.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import Figures, quantile
from mutation import REGISTRY, save_durably
from workload import many_archived, mutation, notes, steps_done

import gitstate

_PLAIN_EVERY = (2, 10)  # mutations to a plain save of the same size, by which a slow disk is known: at first, and later
_AT_FIRST = 1000
_ENOUGH = 8  # plain saves in a part of history without which it says nothing


class Trace:
    """What each mutation cost, by its number: seconds, CPU seconds, the state's bytes.

    Now and then also the seconds of a plain save, and what memory the process has then, in MB.
    """

    NAMES = ("seconds", "cpu", "bytes", "plain", "memory")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.series: dict[str, array[float]] = {name: self._read(name) for name in self.NAMES}

    def _read(self, name: str) -> array[float]:
        found = array("f")
        path = self._directory / f"{name}.f32"
        if path.exists():
            found.frombytes(path.read_bytes())
        return found

    def go_on_at(self, number: int) -> None:
        """Forget what comes later, and leave open what was not kept."""
        for values in self.series.values():
            del values[number:]
            values.extend([math.nan] * (number - len(values)))

    def add(self, **figures: float) -> None:
        for name, values in self.series.items():
            values.append(figures.get(name, math.nan))

    def save(self) -> None:
        self._directory.mkdir(exist_ok=True)
        for name, values in self.series.items():
            (self._directory / f"{name}.f32").write_bytes(values.tobytes())

    def of(self, name: str, begin: int, end: int) -> list[float]:
        return [value for value in self.series[name][begin:end] if not math.isnan(value)]


def grown(keep: Path, sizes: Sequence[int]) -> Trace:
    """Have a copy of the repository at each of *sizes* mutations in *keep*, growing what is not there yet."""
    trace = Trace(keep / "trace")
    root = keep / "repository"
    root.mkdir(parents=True, exist_ok=True)
    wanted = [size for size in sorted(sizes) if not (keep / f"at-{size}").is_dir()]
    if not wanted:
        return trace
    with gitstate.open(root, actor="agent:bench") as state:
        done = steps_done(state)
        if done > wanted[0]:
            sys.exit(f"the kept repository has {done} mutations, and a copy at {wanted[0]} was not made when it had")
        trace.go_on_at(done)
        for size in wanted:
            _grow(state, trace, done, size, keep)
            done = size
            trace.save()
            counted = _git(state, "rev-list", "--count", "main")
            assert int(counted) >= size, f"{counted} commits after {size} mutations"
            _copy(root, keep / f"at-{size}")
    return trace


def _grow(state: gitstate.StateRepository, trace: Trace, begin: int, end: int, keep: Path) -> None:
    aside = keep / "plain"
    aside.mkdir(exist_ok=True)
    state_bytes = repr(notes(9_000)).encode()
    shown = time.monotonic()
    for number in range(begin, end):
        loop_id, mutate = mutation(number)
        began, cpu = time.perf_counter(), time.process_time()
        mutate(state)
        figures = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        if loop_id is not None:
            figures["bytes"] = float((state.get_loop_dir(loop_id) / "session-state.json").stat().st_size)
        if number % _PLAIN_EVERY[number >= _AT_FIRST] == 0:
            began = time.perf_counter()
            save_durably(aside / "session-state.json", state_bytes)
            save_durably(aside / REGISTRY, state_bytes[:1000])
            figures["plain"] = time.perf_counter() - began
            figures["memory"] = _resident()
        trace.add(**figures)
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            trace.save()
            print(f"\r{number + 1:,} of {end:,} mutations", end="", file=sys.stderr, flush=True)
    print(f"\r{end:,} mutations            ", file=sys.stderr, flush=True)


def _resident() -> float:
    """MB of memory that this process has now; not a number where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2
    except OSError:
        return math.nan


def archived(keep: Path, count: int) -> Path:
    """A repository whose archive holds *count* loops, made if it is not there yet."""
    root, unfinished = keep / f"archived-{count}", keep / f"archived-{count}.unfinished"
    if not root.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with gitstate.open(unfinished, actor="agent:bench") as state:
            for number in range(4):
                mutation(number)[1](state)
            for mutate in many_archived(count):
                mutate(state)
        unfinished.rename(root)
    return root


def fresh(root: Path, count: int) -> Path:
    """A repository with the first *count* mutations of the same history."""
    root.mkdir()
    with gitstate.open(root, actor="agent:bench") as state:
        for number in range(count):
            mutation(number)[1](state)
    return root


def _copy(source: Path, target: Path) -> None:
    """A copy, complete under its name or not there."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, symlinks=True)
    unfinished.rename(target)


def working_copy(source: Path, target: Path) -> Path:
    """What may be changed of what is kept."""
    _copy(source, target)
    return target


def _git(state: gitstate.StateRepository, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", state.base_dir, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


# --- what the trace says ---------------------------------------------------------------------------------------------


def windows(end: int, count: int = 24) -> Iterator[tuple[int, int]]:
    """Parts of a history that look equally wide where its length is drawn logarithmically."""
    edges = sorted({round(10 ** (1.5 + (math.log10(end) - 1.5) * number / count)) for number in range(count + 1)})
    yield from itertools.pairwise(edges)


def course(trace: Trace, end: int) -> list[Figures]:
    """Cost along history, each part against the plain saves made in it."""
    found = []
    begin = 0
    for low, high in windows(end):
        begin = begin or low
        each, plain = trace.of("seconds", begin, high), trace.of("plain", begin, high)
        if len(plain) < _ENOUGH:
            continue  # the next one takes it along
        begin = 0
        base = statistics.median(plain)
        found.append(
            {
                "mutations": high,
                "median": round(statistics.median(each) / base, 3),
                "p90": round(quantile(each, 0.9) / base, 3),
                "mean": round(statistics.fmean(each) / statistics.fmean(plain), 3),
            }
        )
    return found


def throughput(trace: Trace, begin: int, end: int) -> dict[str, Any]:
    """All that mutations *begin* to *end* cost, whatever keeps it flat included, and the longest pauses of it."""
    each, cpu, plain = (trace.of(name, begin, end) for name in ("seconds", "cpu", "plain"))
    longest = max(range(len(each)), key=each.__getitem__)
    memory = trace.of("memory", begin, end)
    return {
        "begin": begin,
        "end": end,
        "per_second": round(len(each) / sum(each), 1),
        "mean_ms": round(statistics.fmean(each) * 1e3, 4),
        "median_ms": round(statistics.median(each) * 1e3, 4),
        "p90_ms": round(quantile(each, 0.9) * 1e3, 4),
        "p999_ms": round(quantile(each, 0.999) * 1e3, 3),
        "longest_ms": round(each[longest] * 1e3, 2),
        "cpu_of_longest_ms": round(cpu[longest] * 1e3, 2),
        "most_cpu_ms": round(max(cpu) * 1e3, 2),
        "plain_mean_ms": round(statistics.fmean(plain) * 1e3, 4),
        "plain_longest_ms": round(max(plain) * 1e3, 2),
        "mean_ratio": round(statistics.fmean(each) / statistics.fmean(plain), 3),
        "memory_mb": [round(memory[0], 1), round(max(memory), 1)] if memory else None,
        "state_bytes": round(statistics.fmean(trace.of("bytes", begin, end))),
    }


def size_of(root: Path) -> Figures:
    """Bytes and files of ``.git``; ``blocks`` is what they take on the disk."""
    files = [path.lstat() for path in (root / ".aiwg/ralph-external/.git").rglob("*") if not path.is_dir()]
    return {
        "bytes": sum(each.st_size for each in files),
        "blocks": sum(each.st_blocks * 512 for each in files),
        "files": len(files),
    }
