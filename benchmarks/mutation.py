"""One durable mutation against its peers, in one run, on one disk: ratios, medians and p90, as a table and as JSON.

    python benchmarks/mutation.py [--rounds 60] [--turn 8] [--size 10000 1000000] [--json FILE] [--directory DIR]

Every side saves the same two files, a session state of the size asked for and a registry of about 1 KB, with another
iteration and note each time. The sides take turns of a few saves each, so that a slow minute of the disk is slow for all
of them; ratios count, not milliseconds. The first save of each turn comes right after other programs, with none of
its own in the caches of the processor: it is told apart from those that follow.

    gitstate   update_loop: lease, commit, projection, index, with all that gitstate promises
    plain      both files written aside, fsynced, renamed, and their directories fsynced; encoded beforehand
    encoded    the same, encoded with orjson each time
    sqlite     one row of the state's size, WAL, synchronous=FULL: no history, no files
    floor      one record of 4 KB written in place and fdatasynced: the least that a durable answer costs on this disk
    git        git add and git commit with core.fsync=all
    dulwich    dulwich's porcelain, add and commit, as it comes: it does not survive a power cut
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from measuring import Figures, Side, arguments, bar, print_table, ratio, report, scratch, spread, take_long_turns
from workload import notes

import gitstate

LOOP = "ralph-measured"
STATE = f"loops/{LOOP}/session-state.json"
REGISTRY = "registry.json"
BIG = 200_000  # bytes from which on a state counts as big: fewer rounds, and a bar of its own


class Files:
    """The two files as gitstate writes them, for the others to save with a new iteration and note each time."""

    def __init__(self, state: bytes, registry: bytes) -> None:
        self.state, self.registry = state, registry
        self._pieces = {
            STATE: _pieces(state, [b'"currentIteration": 1,', b'"note": "number 0"']),
            REGISTRY: _pieces(registry, [b'"iteration": 1,']),
        }

    def versions(self, number: int) -> dict[str, bytes]:
        """What mutation *number* would write."""
        new = {b'"currentIteration": 1,': b'"currentIteration": %d,', b'"iteration": 1,': b'"iteration": %d,'}
        return {
            path: b"".join(
                new.get(piece, b'"note": "number %d"') % (1 + number) if is_mark else piece for piece, is_mark in pieces
            )
            for path, pieces in self._pieces.items()
        }


def _pieces(raw: bytes, marks: list[bytes]) -> list[tuple[bytes, bool]]:
    """*raw* in pieces, those that change marked: joining them costs no search."""
    found = re.split(b"(" + b"|".join(map(re.escape, marks)) + b")", raw)
    assert len(found) == 1 + 2 * len(marks), "each mark is there once"
    return [(piece, place % 2 == 1) for place, piece in enumerate(found)]


def begun(root: Path, size: int) -> gitstate.StateRepository:
    """A repository with one loop, whose state has about *size* bytes."""
    state = gitstate.open(root, actor="agent:bench")
    state.create_loop("Fix all failing tests " * 30, "done", loop_id=LOOP, max_iterations=1000, pid=None)
    state.update_loop(LOOP, {"notes": notes(size), "currentIteration": 1, "note": "number 0"})
    return state


def files_of(state: gitstate.StateRepository) -> Files:
    return Files(*((state.base_dir / path).read_bytes() for path in (STATE, REGISTRY)))


# --- the sides -------------------------------------------------------------------------------------------------------


def ours(root: Path, files: Files, size: int) -> Side:
    state = begun(root, size)
    return lambda number: state.update_loop(LOOP, {"currentIteration": 1 + number, "note": f"number {1 + number}"})


def plain(root: Path, files: Files, size: int) -> Side:
    (root / STATE).parent.mkdir(parents=True)

    def save(number: int) -> None:
        for path, raw in files.versions(number).items():
            save_durably(root / path, raw)

    return save


def save_durably(path: Path, raw: bytes) -> None:
    """A plain durable save: aside, fsync, rename, and fsync of the directory."""
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


def encoded(root: Path, files: Files, size: int) -> Side:
    (root / STATE).parent.mkdir(parents=True)
    state, registry = orjson.loads(files.state), orjson.loads(files.registry)

    def save(number: int) -> None:
        state.update(currentIteration=1 + number, note=f"number {number}")
        registry["active_loops"][0]["iteration"] = 1 + number
        save_durably(root / STATE, orjson.dumps(state, option=orjson.OPT_INDENT_2))
        save_durably(root / REGISTRY, orjson.dumps(registry, option=orjson.OPT_INDENT_2))

    return save


def sqlite(root: Path, files: Files, size: int) -> Side:
    connection = sqlite3.connect(root / "state.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE states (id TEXT PRIMARY KEY, document BLOB)")
    connection.execute("INSERT INTO states VALUES (?, ?)", (LOOP, files.state))

    def save(number: int) -> None:
        connection.execute("UPDATE states SET document = ? WHERE id = ?", (files.versions(number)[STATE], LOOP))

    return save


def floor(root: Path, files: Files, size: int) -> Side:
    descriptor = os.open(root / "journal", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(descriptor, b"\0" * 4096 * 64)
    os.fsync(descriptor)

    def save(number: int) -> None:
        os.pwrite(descriptor, number.to_bytes(8, "little") * 512, number % 64 * 4096)
        getattr(os, "fdatasync", os.fsync)(descriptor)

    return save


def write_both(root: Path, files: Files, number: int) -> None:
    for path, raw in files.versions(number).items():
        (root / path).write_bytes(raw)


def git(root: Path, files: Files, size: int) -> Side:
    (root / STATE).parent.mkdir(parents=True)
    run = ["git", "-C", str(root), "-c", "core.fsync=all", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)

    def save(number: int) -> None:
        write_both(root, files, number)
        subprocess.run([*run, "add", "-A"], check=True)
        subprocess.run([*run, "commit", "-q", "-m", f"number {number}"], check=True)

    return save


def dulwich(root: Path, files: Files, size: int) -> Side:
    from dulwich import porcelain

    (root / STATE).parent.mkdir(parents=True)
    repository = porcelain.init(str(root))

    def save(number: int) -> None:
        write_both(root, files, number)
        porcelain.add(repository, [str(root / REGISTRY), str(root / STATE)])
        porcelain.commit(repository, message=f"number {number}".encode(), author=b"a <a@b>", committer=b"a <a@b>")

    return save


SIDES: dict[str, tuple[Callable[[Path, Files, int], Side], int]] = {  # each, and of how many rounds it plays one
    "gitstate": (ours, 1),
    "plain": (plain, 1),
    "encoded": (encoded, 1),
    "sqlite": (sqlite, 1),
    "floor": (floor, 1),
    "git": (git, 8),
    "dulwich": (dulwich, 4),
}


# --- a run -----------------------------------------------------------------------------------------------------------


def measure(names: list[str], rounds: int, turn: int, size: int, directory: Path | None) -> dict[str, Any]:
    """Times of each side and their ratios to the plain save; ``bytes`` of the two files."""
    with scratch(directory) as root:
        (root / "template").mkdir()
        with begun(root / "template", size) as state:
            files = files_of(state)
        saves = {}
        for name in names:
            (root / name).mkdir()
            saves[name] = SIDES[name][0](root / name, files, size)
        first, times = take_long_turns(saves, rounds, turn, every={name: SIDES[name][1] for name in names})
    sides = {name: {**_to_plain(times, name), **spread(each)} for name, each in times.items()}
    firsts = {name: {**_to_plain(first, name), **spread(each)} for name, each in first.items()}
    against = (
        {name: ratio(times[name], times["gitstate"]) for name in ("git", "dulwich") if name in times}
        if ("gitstate" in times)
        else {}
    )
    return {
        "bytes": {"state": len(files.state), "registry": len(files.registry)},
        "rounds": rounds,
        "sides": sides,
        "firsts": firsts,
        "against_gitstate": against,
    }


def _to_plain(times: Mapping[str, list[float]], name: str) -> Figures:
    return ratio(times[name], times["plain"]) if "plain" in times else {}


def bars(size: int, found: dict[str, Any]) -> list[dict[str, Any]]:
    sides, against = found["sides"], found["against_gitstate"]
    lines = []
    if "gitstate" in sides and "plain" in sides:
        mine = sides["gitstate"]
        if size >= BIG:
            lines.append(bar(6, f"a state of {size // 1000:,} KB / its own plain save", mine["ratio"], 2.5, found=mine))
        else:
            lines.append(bar(1, "update_loop / plain durable save", mine["ratio"], 2.0, found=mine))
    if size < BIG:
        for name, wanted, words in (
            ("git", 5.0, "git add && git commit, core.fsync=all / update_loop"),
            ("dulwich", 3.5, "dulwich porcelain, not durable / update_loop"),
        ):
            if name in against:
                lines.append(bar(1, words, against[name]["ratio"], wanted, least=True, found=against[name]))
    return lines


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="of a big state a fifth")
    parser.add_argument("--turn", type=int, default=8, help="saves that a side makes in a row, the first told apart")
    parser.add_argument("--size", type=int, nargs="+", default=[10_000, 1_000_000], help="bytes of the session state")
    parser.add_argument("--only", default=",".join(SIDES), help="the sides, with commas between")
    asked = parser.parse_args()
    sizes, lines = {}, []
    for size in asked.size:
        rounds = asked.rounds if size < BIG else max(2, asked.rounds // 5)
        found = sizes[str(size)] = measure(asked.only.split(","), rounds, max(2, asked.turn), size, asked.directory)
        print(f"\na state of {found['bytes']['state']:,} bytes, {rounds} rounds")
        headings = {
            "ratio": "ratio",
            "low": "low",
            "high": "high",
            "median_ms": "median ms",
            "p90_ms": "p90 ms",
            "mean_ms": "mean ms",
            "max_ms": "max ms",
            "count": "count",
        }
        print_table(found["sides"], headings)
        print("\nthe first save of each turn")
        print_table(found["firsts"], headings)
        lines += bars(size, found)
    report("mutation", parser, asked, lines, sizes=sizes)


if __name__ == "__main__":
    main()
