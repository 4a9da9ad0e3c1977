"""What a mutation, a question and `.git` cost when history is long: one repository at 100 to 100,000 mutations.

    python benchmarks/history.py --keep DIR [--sizes 100 1000 10000 100000] [--archived 1000] [--json FILE]

The repository is grown once, in DIR, with a mix of creates, updates, iterations and archives, and a copy is kept at each
size; a later run goes on with what is there. All sizes are then measured together, on working copies, in turn with a
fresh repository, which has the first mutations of the same history. Questions are asked of a repository that was
just opened; `.git` is in the cache of the system, for all sides alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import children
from growth import archived, course, fresh, grown, size_of, throughput, working_copy
from measuring import Figures, Side, arguments, bar, print_table, ratio, report, scratch, spread, take_turns
from mutation import REGISTRY, save_durably
from workload import FRESH, LONG_AGO, MEASURED

import gitstate

Sizes = dict[str, Path]  # the working copies by their number of mutations
_LIMIT = 600.0  # seconds after which a command is given up


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--keep", type=Path, help="where the grown repository is kept, for other runs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="in mutations")
    parser.add_argument("--archived", type=int, default=0, help="also measure with so many archived loops")
    parser.add_argument("--rounds", type=int, default=200, help="of updates; a quarter of them for questions")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--commands", nargs="+", default=[], help="whose memory is measured; all of them without it")
    asked = parser.parse_args()
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
        asked.directory = asked.directory or asked.keep  # all on one disk
    parts = {**PARTS, "memory": partial(memory, only=asked.commands)}
    with scratch(asked.directory) as root:
        keep = asked.keep or root / "kept"
        trace = grown(keep, asked.sizes)
        copies = {str(size): working_copy(keep / f"at-{size}", root / f"at-{size}") for size in sorted(asked.sizes)}
        found: dict[str, Any] = {
            "sizes": sorted(asked.sizes),
            "archived": asked.archived,
            "size": {name: size_of(path) for name, path in copies.items()},
            "course": course(trace, max(asked.sizes)),
            "throughput": throughput(trace, FRESH, max(asked.sizes)),
        }
        others: Sizes = {}
        if "updates" in asked.only:
            # Copied as the others are: what lies elsewhere on the disk is made and removed there at another cost.
            others["fresh"] = working_copy(fresh(root / "made", FRESH), root / "fresh")
            if asked.archived:
                others["archived"] = working_copy(archived(keep, asked.archived), root / "archived")
        os.sync()  # what was copied is not written back while something is measured
        for name in asked.only:
            found |= parts[name](copies, others, asked.rounds, root)
    lines = bars(found)
    _print(found)
    report("history", parser, asked, lines, **found)


# --- updates ---------------------------------------------------------------------------------------------------------


def updates(copies: Sizes, others: Sizes, rounds: int, root: Path) -> dict[str, Any]:
    """``update_loop`` at each size, in turn, and a plain save of the same state."""
    sides: dict[str, Side] = {name: _updating(path) for name, path in [*others.items(), *copies.items()]}
    sides["plain"] = _saving(others["fresh"], root / "plain")
    times = take_turns(sides, rounds, warm=max(3, rounds // 10))
    return {
        "update": {
            name: {
                **ratio(each, times["fresh"]),
                "to_plain": ratio(each, times["plain"])["ratio"],
                **spread(each),
            }
            for name, each in times.items()
        }
    }


def _updating(root: Path) -> Side:
    state = gitstate.open(root, actor="agent:bench")
    return lambda number: state.update_loop(MEASURED, {"currentIteration": 1 + number, "note": f"number {number}"})


def _saving(like: Path, root: Path) -> Side:
    state = gitstate.open(like)
    root.mkdir()
    raw = (state.get_loop_dir(MEASURED) / "session-state.json").read_bytes()
    registry = state.registry_path.read_bytes()

    def save(number: int) -> None:
        save_durably(root / "session-state.json", raw)
        save_durably(root / REGISTRY, registry)

    return save


# --- questions -------------------------------------------------------------------------------------------------------

Question = Callable[[Path, dict[str, Any]], object]


def _facts(path: Path) -> dict[str, Any]:
    """What questions ask about: the last change of the loop that was touched long ago, and how long history is."""
    with gitstate.open(path) as state:
        newest = next(iter(state.log(LONG_AGO, limit=1)))
        words = ["git", "-C", state.base_dir, "rev-list", "--count", "main"]
        length = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    moment = newest.time
    assert isinstance(moment, datetime)
    return {"revision": newest.revision, "time": moment, "half": f"HEAD~{length // 2}", "first": newest.parent}


QUESTIONS: dict[str, Question] = {
    "log LOOP -n 20": lambda path, facts: list(gitstate.open(path).log(LONG_AGO, limit=20)),
    "get_loop": lambda path, facts: gitstate.open(path).get_loop(LONG_AGO),
    "get_loop(at=revision)": lambda path, facts: gitstate.open(path).get_loop(LONG_AGO, at=facts["revision"]),
    "get_loop(at=time)": lambda path, facts: gitstate.open(path).get_loop(LONG_AGO, at=facts["time"]),
    "get_loop(at=HEAD~half)": lambda path, facts: gitstate.open(path).get_loop(LONG_AGO, at=facts["half"]),
    "diff": lambda path, facts: gitstate.open(path).diff(facts["first"], "HEAD", loop_id=LONG_AGO),
    "rollback, planned": lambda path, facts: gitstate.open(path).rollback(LONG_AGO, steps=10, dry_run=True),
}
_BARRED = [name for name in QUESTIONS if name != "get_loop"] + ["rollback"]


def questions(copies: Sizes, others: Sizes, rounds: int, root: Path) -> dict[str, Any]:
    """Each question at each size, in turn; the ratio is to the smallest size. Rolling back, which writes, comes last."""
    names = list(copies)
    facts = {name: _facts(path) for name, path in copies.items()}
    asked = max(3, rounds // 4)
    found: dict[str, dict[str, Figures]] = {}
    for words, question in QUESTIONS.items():
        sides: dict[str, Side] = {name: partial(_asking, question, path, facts[name]) for name, path in copies.items()}
        found[words] = _against_first(take_turns(sides, asked, warm=3))
    sides = {name: partial(_rolling_back, path) for name, path in copies.items()}
    found["rollback"] = _against_first(take_turns(sides, asked, warm=3))
    return {"questions": found, "log": _processes(copies, names, max(3, rounds // 10))}


def _asking(question: Question, path: Path, facts: dict[str, Any], number: int) -> object:
    return question(path, facts)


def _rolling_back(path: Path, number: int) -> object:
    return gitstate.open(path, actor="agent:bench").rollback(MEASURED, steps=1)


def _against_first(times: dict[str, list[float]]) -> dict[str, Figures]:
    base = next(iter(times.values()))
    return {name: {**ratio(each, base), **spread(each)} for name, each in times.items()}


def _processes(copies: Sizes, names: list[str], rounds: int) -> dict[str, Figures]:
    """``gitstate log LOOP -n 20`` and ``git log -20 -- loops/LOOP`` as whole processes, smallest and largest."""
    sides: dict[str, Side] = {}
    for name in dict.fromkeys([names[0], names[-1]]):
        base = copies[name] / ".aiwg/ralph-external"
        git = ["git", "-C", base, "log", "-20", "--", f"loops/{LONG_AGO}"]
        sides[f"gitstate {name}"] = partial(_ran, [*children.GITSTATE, "-C", copies[name], "log", LONG_AGO, "-n", "20"])
        sides[f"git {name}"] = partial(_ran, git)
    return _against_first(take_turns(sides, rounds, warm=1))


def _ran(words: Sequence[str | Path], number: int) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(copies: Sizes, others: Sizes, rounds: int, root: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """The peak of each command at the smallest and the largest size, and how long it took."""
    names = list(dict.fromkeys([next(iter(copies)), list(copies)[-1]]))
    facts = {name: _facts(copies[name]) for name in names}
    found: dict[str, dict[str, Any]] = {}
    for words in (words for words in COMMANDS if not only or words[0] in only):
        row = {}
        for name in names:
            filled = [each.format(**facts[name]) for each in words]
            ended = children.gitstate(copies[name], *filled, limit=_LIMIT)
            if ended is not None and ended.exit_code not in (0, 1):
                sys.exit(f"gitstate {' '.join(filled)}: exit code {ended.exit_code} at {name} mutations")
            row[name] = None if ended is None else {"peak_kb": ended.peak_kb, "seconds": round(ended.seconds, 3)}
        found[" ".join(words)] = row
    return {"memory": found}


COMMANDS = [
    ["list"],
    ["status"],
    ["cat", MEASURED],
    ["cat", LONG_AGO, "--at", "{revision}"],
    ["cat", LONG_AGO, "--at", "{half}"],
    ["log", "-n", "20"],
    ["log", LONG_AGO],
    ["log", MEASURED],
    ["log"],
    ["show"],
    ["diff", "{first}", "--loop", LONG_AGO],
    ["diff", "{half}"],
    ["list", "--archived"],
    ["checkpoints"],
    ["update", MEASURED, "--set", "beat=1"],
    ["rollback", LONG_AGO, "--to", "{first}", "--dry-run"],
    ["undo", MEASURED],
    ["doctor"],
    ["check"],
    ["check", "--full"],
    ["repair", "--dry-run"],
    ["checkpoint", MEASURED, "measured"],
    ["reap"],
    ["archive", LONG_AGO],
    ["restore", LONG_AGO],
]


# --- gc --------------------------------------------------------------------------------------------------------------


def gc(copies: Sizes, others: Sizes, rounds: int, root: Path) -> dict[str, Any]:
    """``gitstate gc`` at each size, and git's own on another copy of the same."""
    if not children.has_command("gc"):
        return {"gc": None}
    found: dict[str, Any] = {}
    for name, path in copies.items():
        twin = working_copy(path, root / f"gc-{name}")
        before, ours = size_of(path), children.gitstate(path, "gc", limit=_LIMIT)
        words = ["git", "-C", twin / ".aiwg/ralph-external", "gc", "-q"]
        theirs = children.run(words, _LIMIT)
        found[name] = {
            "before": before,
            "after": size_of(path),
            "seconds": None if ours is None else round(ours.seconds, 3),
            "peak_kb": 0 if ours is None else ours.peak_kb,
            "exit_code": None if ours is None else ours.exit_code,
            "git_seconds": None if theirs is None else round(theirs.seconds, 3),
            "git_after": size_of(twin),
        }
        subprocess.run(
            ["git", "-C", path / ".aiwg/ralph-external", "fsck", "--strict"], check=True, capture_output=True
        )
    return {"gc": found}


PARTS = {"updates": updates, "questions": questions, "memory": memory, "gc": gc}


# --- what was asked for ----------------------------------------------------------------------------------------------


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    small, large = str(found["sizes"][0]), str(found["sizes"][-1])
    count, lines = f"{found['sizes'][-1]:,}", []
    if "update" in found:
        row = found["update"][large]
        lines.append(bar(2, f"update_loop at {count} mutations / fresh", row["ratio"], 1.3, found=row))
        if "archived" in found["update"]:
            row = found["update"]["archived"]
            lines.append(
                bar(2, f"update_loop at {found['archived']:,} archived loops / fresh", row["ratio"], 1.3, found=row)
            )
    whole = found["throughput"]
    lines.append(bar(2, f"longest pause in {count} mutations", whole["longest_ms"], 250, unit="ms"))
    size = found["size"][large]
    per_mutation = size["bytes"] / found["sizes"][-1] / 1000
    lines.append(bar(3, f".git per mutation at {count}", per_mutation, 1.5, unit="KB"))
    before = found["sizes"][-2:][0]
    files = size["files"] / found["size"][str(before)]["files"]
    lines.append(bar(3, f"files in .git at {count} / at {before:,}", files, 1.3))
    if "questions" in found:
        for words in _BARRED:
            row = found["questions"][words][large]
            lines.append(bar(4, f"{words} at {count} / at {int(small):,}", row["ratio"], 1.5, found=row))
        ours, theirs = found["log"][f"gitstate {large}"], found["log"][f"git {large}"]
        lines.append(bar(4, f"log LOOP -n 20 / git log -20 -- loops/LOOP at {count}", _over(ours, theirs), 1.0))
    if "memory" in found:
        commands = {**found["memory"], **({"gc": found["gc"]} if found.get("gc") else {})}
        peaks = {
            words: row[large]["peak_kb"] / row[small]["peak_kb"]
            for words, row in commands.items()
            if row[small] and row[large] and row[small]["peak_kb"]
        }
        worst = max(peaks, key=peaks.__getitem__)
        lines.append(bar(8, f"peak memory of gitstate {worst} at {count} / at {int(small):,}", peaks[worst], 1.5))
    if found.get("gc") and found["gc"][large]["seconds"] is not None:
        lines.append(bar(9, f"gc at {count}", found["gc"][large]["seconds"], 60, unit="s"))
    return lines


def _over(these: Figures, those: Figures) -> float:
    return these["median_ms"] / those["median_ms"]


def _print(found: dict[str, Any]) -> None:
    whole = found["throughput"]
    print(
        f"\ngrowth: {whole['per_second']:.0f} mutations per second, {whole['mean_ratio']:.2f} plain saves each, all included;"
    )
    print(f"longest {whole['longest_ms']:.0f} ms, of it {whole['cpu_of_longest_ms']:.0f} ms CPU; ", end="")
    print(f"longest plain save {whole['plain_longest_ms']:.0f} ms; states of {whole['state_bytes']:,} bytes\n")
    print_table(found["size"], {"bytes": "bytes", "blocks": "on disk", "files": "files"})
    headings = {
        "ratio": "ratio",
        "low": "low",
        "high": "high",
        "median_ms": "median ms",
        "p90_ms": "p90 ms",
        "max_ms": "max ms",
    }
    if "update" in found:
        print("\nupdate_loop, against the fresh repository")
        print_table(found["update"], headings)
    for words, rows in [*found.get("questions", {}).items(), ("log, as processes", found.get("log"))]:
        if rows:
            print(f"\n{words}")
            print_table(rows, headings)
    for words, row in found.get("memory", {}).items():
        cells = (
            f"{'given up':>22}" if each is None else f"{each['peak_kb'] / 1024:10.1f} MB {each['seconds']:7.2f} s"
            for each in row.values()
        )
        print(f"{words[:60]:60}" + "".join(cells))
    for name, row in (found.get("gc") or {}).items():
        print(
            f"gc at {name}: {row['seconds']} s, {row['before']['bytes']:,} -> {row['after']['bytes']:,} bytes; git gc {row['git_seconds']} s"
        )


if __name__ == "__main__":
    main()
