"""What the page says of each benchmark's figures: its tables and its charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import charts
from charts import Bar, Line

NOT_YET = "Not measured yet."

# --- tables ----------------------------------------------------------------------------------------------------------


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table whose first column is words and whose others are figures."""
    named = list(headings)
    lines = [f"| {' | '.join(named)} |", f"|---|{'---:|' * (len(named) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def times(value: float) -> str:
    return f"{value:.2f}×"


def ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def within(row: Mapping[str, float]) -> str:
    return f"{row['low']:.2f}–{row['high']:.2f}"


def repeated(result: Mapping[str, Any], note: str = "") -> str:
    return f"Repeated by `{result['command']}`{note}."


def kilobytes(size: str) -> str:
    return f"{int(size) // 1000:,} KB"


# --- one mutation ----------------------------------------------------------------------------------------------------

SIDES = {
    "gitstate": "gitstate, `update_loop`",
    "plain": "plain durable save of both files",
    "encoded": "plain durable save, encoding included",
    "sqlite": "SQLite, WAL, synchronous=FULL, one row",
    "floor": "one record written in place, fdatasync",
    "git": "`git add && git commit`, core.fsync=all",
    "dulwich": "dulwich porcelain, not durable",
}


def peers(result: dict[str, Any]) -> str:
    parts = []
    for found in result["sizes"].values():
        rows = (
            (
                SIDES.get(name, name),
                times(row["ratio"]),
                within(row),
                ms(row["median_ms"]),
                ms(row["p90_ms"]),
                row["count"],
                times(found["firsts"][name]["ratio"]),
            )
            for name, row in found["sides"].items()
        )
        heading = f"a state of {found['bytes']['state']:,} bytes"
        columns = ["against the plain save", "spread", "median ms", "p90 ms", "saves", "first of a turn"]
        parts.append(table([heading, *columns], rows))
    return "\n\n".join([*parts, repeated(result)])


def peers_chart(result: dict[str, Any]) -> str:
    groups = {
        f"a state of {kilobytes(size)}": [
            Bar(
                SIDES.get(name, name).replace("`", ""),
                [row["ratio"]],
                f"{row['ratio']:.1f}× · {ms(row['median_ms'])} ms",
                name != "gitstate",
            )
            for name, row in sorted(found["sides"].items(), key=lambda side: side[1]["ratio"])
        ]
        for size, found in result["sizes"].items()
    }
    return charts.bars(
        "One mutation against its peers", "medians of one run, sides in turn; shorter is better",
        "times a plain durable save of the same two files", groups,
    )  # fmt: skip


# --- where it goes ---------------------------------------------------------------------------------------------------


def parts(result: dict[str, Any]) -> str:
    found = []
    for size, whole in result["sizes"].items():
        rows = [
            (name, f"{row['share']:.0%}", f"{row['ms']:.3f}", f"{row['waiting_ms']:.3f}", f"{row['syncs']:g}")
            for name, row in whole["parts"].items()
        ]
        rows.append(("all", "100%", f"{whole['whole_ms']:.3f}", f"{whole['waiting_ms']:.3f}", f"{whole['syncs']:g}"))
        found.append(table([f"a state of {kilobytes(size)}", "share", "ms", "of it in syncs", "syncs"], rows))
    return "\n\n".join([*found, repeated(result)])


def parts_chart(result: dict[str, Any]) -> str:
    groups = {}
    for size, whole in result["sizes"].items():
        groups[f"a state of {kilobytes(size)}: {ms(whole['whole_ms'])} ms"] = [
            Bar(
                name,
                [
                    (row["ms"] - row["waiting_ms"]) / whole["whole_ms"] * 100,
                    row["waiting_ms"] / whole["whole_ms"] * 100,
                ],
                f"{ms(row['ms'])} ms",
            )
            for name, row in whole["parts"].items()
        ]
    return charts.bars(
        "Where the time of update_loop goes", "means over the middle half of the mutations",
        "% of the mutation", groups, ["work", "waiting for the disk"],
    )  # fmt: skip


# --- history ---------------------------------------------------------------------------------------------------------


def cost(result: dict[str, Any]) -> str:
    names = {"fresh": "fresh", "plain": "plain durable save", "archived": f"{result['archived']:,} archived loops"}
    rows = (
        (
            names[name] if name in names else f"{int(name):,} mutations",
            times(row["ratio"]), within(row), times(row["to_plain"]), ms(row["median_ms"]), ms(row["p90_ms"]), ms(row["max_ms"]),
        )
        for name, row in result.get("update", {}).items()
    )  # fmt: skip
    whole = result["throughput"]
    growth = table(
        [f"growing from {whole['begin']} to {whole['end']:,} mutations", "gitstate", "plain durable save", "ratio"],
        [
            (
                "mean, ms: all that it takes is in it",
                ms(whole["mean_ms"]),
                ms(whole["plain_mean_ms"]),
                times(whole["mean_ratio"]),
            ),
            ("mutations per second", f"{whole['per_second']:.0f}", f"{1000 / whole['plain_mean_ms']:.0f}", ""),
            ("longest, ms", ms(whole["longest_ms"]), ms(whole["plain_longest_ms"]), ""),
            ("CPU of the longest, ms", ms(whole["cpu_of_longest_ms"]), "", ""),
            (
                "memory of the process, MB, first and most",
                " – ".join(f"{mb:.0f}" for mb in whole["memory_mb"] or []),
                "",
                "",
            ),
            ("99.9 % are shorter than, ms", ms(whole["p999_ms"]), "", ""),
        ],
    )
    headings = ["update_loop", "against fresh", "spread", "against plain", "median ms", "p90 ms", "longest ms"]
    return "\n\n".join(
        [table(headings, rows), growth, repeated(result, ", with `--keep DIR` for the grown repository")]
    )


def cost_chart(result: dict[str, Any]) -> str:
    course = result["course"]
    curves = [
        Line(name, [(point["mutations"], point[key]) for point in course])
        for name, key in (("median", "median"), ("p90", "p90"), ("mean, consolidation included", "mean"))
    ]
    ends = [course[0]["mutations"], course[-1]["mutations"]]
    curves.append(Line("a plain durable save", [(end, 1.0) for end in ends], dashed=True))
    return charts.lines(
        "Cost against history", "every mutation of a growing repository, against plain saves made in between",
        "mutations of history", "times a plain durable save", curves,
    )  # fmt: skip


def size(result: dict[str, Any]) -> str:
    gc = result.get("gc") or {}
    rows = (
        (
            f"{int(name):,}", f"{row['bytes'] / int(name) / 1000:.2f}", f"{row['bytes']:,}", f"{row['blocks']:,}", f"{row['files']:,}",
            f"{gc[name]['after']['bytes'] / int(name) / 1000:.2f}" if name in gc else "",
        )
        for name, row in result["size"].items()
    )  # fmt: skip
    words = f"A state had {result['throughput']['state_bytes']:,} bytes in the mean."
    headings = ["mutations", "KB each", "bytes of .git", "on the disk", "files", "KB each after gc"]
    return "\n\n".join([table(headings, rows), words])


def size_chart(result: dict[str, Any]) -> str:
    points = [(int(name), row["bytes"] / int(name) / 1000) for name, row in result["size"].items()]
    curves = [Line(".git", points)]
    gc = result.get("gc") or {}
    if gc:
        curves.append(
            Line("after gc", [(int(name), row["after"]["bytes"] / int(name) / 1000) for name, row in gc.items()])
        )
        git = [(int(name), row["git_after"]["bytes"] / int(name) / 1000) for name, row in gc.items()]
        curves.append(Line("after git's own gc", git))
    curves.append(Line("wanted at most", [(points[0][0], 1.5), (points[-1][0], 1.5)], dashed=True))
    return charts.lines(
        "Size against history", f"states of {result['throughput']['state_bytes'] / 1000:.0f} KB in the mean",
        "mutations of history", "KB of .git for each mutation", curves,
    )  # fmt: skip


def questions(result: dict[str, Any]) -> str:
    if "questions" not in result:
        return NOT_YET
    small, large = str(result["sizes"][0]), str(result["sizes"][-1])
    rows = (
        (words, times(row[large]["ratio"]), within(row[large]), ms(row[small]["median_ms"]), ms(row[large]["median_ms"]), ms(row[large]["p90_ms"]))
        for words, row in result["questions"].items()
    )  # fmt: skip
    at, least = f"{int(large):,}", f"{int(small):,}"
    headings = ["question", f"at {at} against {least}", "spread", f"ms at {least}", f"ms at {at}", f"p90 at {at}"]
    log = result["log"]
    whole = table(
        ["as whole processes", f"ms at {least}", f"ms at {at}"],
        [
            (words, ms(log[f"{who} {small}"]["median_ms"]), ms(log[f"{who} {large}"]["median_ms"]))
            for who, words in (("gitstate", "`gitstate log LOOP -n 20`"), ("git", "`git log -20 -- loops/LOOP`"))
        ],
    )
    return "\n\n".join([table(headings, rows), whole])


def questions_chart(result: dict[str, Any]) -> str:
    wanted = ["log LOOP -n 20", "get_loop(at=time)", "get_loop(at=HEAD~half)", "diff", "rollback, planned"]
    curves = [
        Line(words, [(int(name), row["ratio"]) for name, row in result["questions"][words].items()]) for words in wanted
    ]
    ends = result["sizes"][0], result["sizes"][-1]
    curves.append(Line("wanted at most", [(end, 1.5) for end in ends], dashed=True))
    return charts.lines(
        "Asking a long history", "of a loop that was last touched at the very beginning, in a repository that was just opened",
        "mutations of history", f"times the cost at {ends[0]:,}", curves,
    )  # fmt: skip


def memory(result: dict[str, Any]) -> str:
    if "memory" not in result:
        return NOT_YET
    small, large = str(result["sizes"][0]), str(result["sizes"][-1])
    rows = []
    for words, row in result["memory"].items():
        these, those = row[small], row[large]
        ratio = times(those["peak_kb"] / these["peak_kb"]) if these and those else ""
        mb = [f"{each['peak_kb'] / 1024:.1f}" if each else "given up" for each in (these, those)]
        rows.append((f"`gitstate {_general(words)}`", ratio, *mb, f"{those['seconds']:.2f}" if those else ""))
    at, least = f"{int(large):,}", f"{int(small):,}"
    return table(
        ["command", f"peak at {at} against {least}", f"MB at {least}", f"MB at {at}", f"seconds at {at}"], rows
    )


def _general(words: str) -> str:
    """A command with the names of what it was tried on taken out."""
    words = re.sub(r"ralph-[a-z-]+", "LOOP", words)
    return re.sub(r"\{\w+\}", "REV", words)


def gc(result: dict[str, Any]) -> str:
    if not result.get("gc"):
        return NOT_YET
    rows = (
        (
            f"{int(name):,}", *(f"{each:.2f}" if each is not None else "given up" for each in (row["seconds"], row["git_seconds"])),
            f"{row['peak_kb'] / 1024:.0f}", f"{row['before']['bytes']:,}", f"{row['after']['bytes']:,}", f"{row['git_after']['bytes']:,}",
        )
        for name, row in result["gc"].items()
    )  # fmt: skip
    headings = ["mutations", "seconds", "git gc, seconds", "peak, MB", "bytes before", "after", "after git gc"]
    return table(headings, rows)


# --- many writers ----------------------------------------------------------------------------------------------------


def contention(result: dict[str, Any]) -> str:
    named = {
        "alone": "one writer",
        "together": f"{result['writers']} writers",
        "original": f"{result['writers']} of the original",
    }
    rows = []
    for key, words in named.items():
        found = result[key]
        if found is None:
            continue
        rates, cpu, wait = sorted(found["per_second"]), sorted(found["cpu_seconds_each"]), found["wait"]
        figures = (f"{wait[share]:.3f}" for share in ("median", "p90", "p99", "max"))
        rows.append((words, f"{rates[len(rates) // 2]:.0f}", f"{cpu[len(cpu) // 2] * 1000:.1f}", *figures))
    headings = ["", "per second", "CPU ms each", "wait, median s", "p90", "p99", "longest"]
    return "\n\n".join([table(headings, rows), repeated(result)])


# --- any other ---


def sides(result: dict[str, Any]) -> str:
    """Of any other benchmark: a row for each of its ``sides``, with what the first of them has."""
    named = result.get("sides", {})
    keys = list(next(iter(named.values()), {}))
    rows = ([name, *(row.get(key, "") for key in keys)] for name, row in named.items())
    return "\n\n".join([table(["", *(key.replace("_", " ") for key in keys)], rows), repeated(result)])


# --- all of them ---

# What stands in a block: of which result, and written how.
BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "peers": ("mutation", peers),
    "parts": ("breakdown", parts),
    "cost": ("history", cost),
    "size": ("history", size),
    "questions": ("history", questions),
    "memory": ("history", memory),
    "gc": ("history", gc),
    "contention": ("contention", contention),
}
CHARTS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "peers": ("mutation", peers_chart),
    "parts": ("breakdown", parts_chart),
    "cost": ("history", cost_chart),
    "size": ("history", size_chart),
    "questions": ("history", questions_chart),
}
