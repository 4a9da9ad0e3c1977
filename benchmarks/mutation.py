"""One durable mutation against its peers, in one run, on one disk: medians and p90, as a table and as JSON.

    python benchmarks/mutation.py [--rounds 300] [--size 10000] [--json FILE] [--directory DIR] [--only gitstate,plain]

Every side saves the same two files, a session state and a registry of about 1 KB. The sides take turns, so that a slow
minute of the disk is slow for all of them; ratios count, not milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gitstate

Side = Callable[[int], None]
LOOP = "bench-loop"


def state_of(number: int, size: int) -> dict[str, object]:
    """A session state of about *size* bytes, one field of which is another every time."""
    entries = [
        {"number": n, "status": "failed", "learnings": f"lesson {n:06d}: {'x' * 60}"} for n in range(size // 150)
    ]
    return {"loopId": LOOP, "status": "running", "currentIteration": number, "iterationLog": entries}


def registry_of(number: int) -> dict[str, object]:
    entry = {"loop_id": LOOP, "status": "running", "iteration": number, "task_summary": "y" * 700}
    return {"version": "2.0.0", "active_loops": [entry], "total_active": 1}


def _write_aside(path: Path, raw: bytes) -> None:
    aside = path.with_suffix(".aside")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, raw)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _save(root: Path, number: int, size: int, write: Callable[[Path, bytes], object]) -> None:
    (root / "loops" / LOOP).mkdir(parents=True, exist_ok=True)
    state = json.dumps(state_of(number, size), indent=2).encode()
    write(root / "loops" / LOOP / "session-state.json", state)
    write(root / "registry.json", json.dumps(registry_of(number), indent=2).encode())


def plain(root: Path, size: int) -> Side:
    """Both files written aside, fsynced, renamed, and their directories fsynced."""
    states = [json.dumps(state_of(number, size), indent=2).encode() for number in range(2)]
    registries = [json.dumps(registry_of(number), indent=2).encode() for number in range(2)]
    state = root / "loops" / LOOP / "session-state.json"
    state.parent.mkdir(parents=True)

    def save(number: int) -> None:
        _write_aside(state, states[number % 2])
        _write_aside(root / "registry.json", registries[number % 2])

    return save


def ours(root: Path, size: int) -> Side:
    """``update_loop``: lease, commit, projection, index, with all that gitstate promises."""
    repository = gitstate.open(root, actor="agent:bench")
    repository.create_loop("y" * 700, "done", loop_id=LOOP, pid=None)
    repository.update_loop(LOOP, {"payload": state_of(0, size)["iterationLog"]})

    def save(number: int) -> None:
        repository.update_loop(LOOP, {"currentIteration": 1 + number % 1000, "note": f"number {number}"})

    return save


def git(root: Path, size: int) -> Side:
    """``git add`` and ``git commit`` with ``core.fsync=all``."""
    run = ["git", "-C", str(root), "-c", "core.fsync=all", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)

    def save(number: int) -> None:
        _save(root, number, size, Path.write_bytes)
        subprocess.run([*run, "add", "-A"], check=True)
        subprocess.run([*run, "commit", "-q", "-m", f"number {number}"], check=True)

    return save


def dulwich(root: Path, size: int) -> Side:
    """dulwich's porcelain: add and commit, as it comes, which does not survive a power cut."""
    from dulwich import porcelain

    repository = porcelain.init(str(root))

    def save(number: int) -> None:
        _save(root, number, size, Path.write_bytes)
        porcelain.add(repository, [str(root / "registry.json"), str(root / "loops" / LOOP / "session-state.json")])
        porcelain.commit(repository, message=f"number {number}".encode(), author=b"a <a@b>", committer=b"a <a@b>")

    return save


SIDES: dict[str, tuple[Callable[[Path, int], Side], int]] = {  # each, and how many rounds it sits out between two
    "plain": (plain, 1),
    "gitstate": (ours, 1),
    "git": (git, 8),
    "dulwich": (dulwich, 4),
}


@contextmanager
def scratch(directory: Path | None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="gitstate-bench-", dir=directory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def measure(names: list[str], rounds: int, size: int, directory: Path | None) -> dict[str, list[float]]:
    """Seconds of each save of each side, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in names}
    with scratch(directory) as root:
        saves = {}
        for name in names:
            (root / name).mkdir()
            saves[name] = SIDES[name][0](root / name, size)
        warm = max(8, rounds // 10)
        for number in range(warm + rounds):
            for name, save in saves.items():
                if number % SIDES[name][1]:
                    continue
                began = time.perf_counter()
                save(number)
                if number >= warm:
                    times[name].append(time.perf_counter() - began)
    return times


def figures(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians, p90 and worst in milliseconds, and the ratio of medians to the plain save's."""
    base = statistics.median(times["plain"]) if times.get("plain") else float("nan")
    found = {}
    for name, each in times.items():
        ordered = sorted(each)
        middle = statistics.median(ordered)
        found[name] = {
            "median_ms": round(middle * 1e3, 3),
            "p90_ms": round(ordered[int(len(ordered) * 0.9)] * 1e3, 3),
            "max_ms": round(ordered[-1] * 1e3, 3),
            "mean_ms": round(statistics.fmean(ordered) * 1e3, 3),
            "ratio": round(middle / base, 2),
            "count": len(ordered),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--size", type=int, default=10_000, help="bytes of the session state")
    parser.add_argument("--directory", type=Path, help="where to write; on a disk, not in memory")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--only", default=",".join(SIDES), help="the sides, with commas between")
    arguments = parser.parse_args()
    found = figures(measure(arguments.only.split(","), arguments.rounds, arguments.size, arguments.directory))
    print(f"{'':10} {'ratio':>6} {'median':>9} {'p90':>9} {'mean':>9} {'max':>9}  (ms)")
    for name, row in found.items():
        values = "".join(f"{row[key]:10.3f}" for key in ("median_ms", "p90_ms", "mean_ms", "max_ms"))
        print(f"{name:10} {row['ratio']:6.2f}{values}")
    if arguments.json:
        machine = {"system": platform.platform(), "python": sys.version.split()[0], "cpus": os.cpu_count()}
        report = {"machine": machine, "size": arguments.size, "rounds": arguments.rounds, "sides": found}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
