"""The page on performance: its charts and tables, from what the benchmarks found.

    python benchmarks/report.py [results/*.json]      keep these results, and draw and write everything anew
    python benchmarks/report.py --check               say whether page and charts are those of the results kept

Results are kept in docs/performance/NAME.json, charts beside them. In docs/performance.md what stands between
``<!-- NAME -->`` and ``<!-- end -->`` is written by this command, the rest by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocks import BLOCKS, CHARTS, NOT_YET, sides, table
from measuring import described

Results = Mapping[str, dict[str, Any]]

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"<!-- (?P<name>[a-z][a-z -]*[a-z]) -->\n.*?<!-- end -->", re.DOTALL)


def bars_held(results: Results) -> str:
    """What was asked for, by the number of the bar."""
    every = [each for result in results.values() for each in result.get("bars", [])]
    every.sort(key=lambda each: (not isinstance(each["bar"], int), str(each["bar"]).zfill(3)))
    return table(
        ["bar", "what", "measured, and wanted", "holds"],
        ((each["bar"], each["what"], described(each), "yes" if each["holds"] else "**no**") for each in every),
    ).replace("|---|---:|---:|---:|", "|---|---|---|---|")


def machines(results: Results) -> str:
    """What the results were measured on: one line for each different machine."""
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        it = result.get("machine", {})
        if "load_at_start" not in it:
            continue  # of a benchmark that describes the machine in other words
        words = (
            f"{'a virtual machine' if it['virtual'] else 'a machine'} with {it['cores']} cores ({it['cpu']}) "
            f"and {it['memory_gb']} GB, {it['kernel']}, {it['file_system']}, Python {it['python']}, git {it['git']}"
        )
        found.setdefault(words, []).append(f"{name} (load {it['load_at_start']} when it began)")
    return "\n".join(f"- {', '.join(names)}: {words}." for words, names in found.items())


def written(page: str, results: Results) -> str:
    """The page with its blocks written anew. Whatever else a benchmark kept stands in its bars."""

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        if name in ("bars", "machines"):
            words = {"bars": bars_held, "machines": machines}[name](results)
        elif name in BLOCKS:
            benchmark, write = BLOCKS[name]
            words = write(results[benchmark]) if benchmark in results else NOT_YET
        else:
            words = sides(results[name]) if name in results else NOT_YET
        return f"<!-- {name} -->\n\n{words}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


def drawn(results: Results) -> dict[str, str]:
    """The charts by name; one whose figures were not measured is left out."""
    found = {}
    for name, (benchmark, draw) in CHARTS.items():
        if benchmark in results and (name != "questions" or "questions" in results[benchmark]):
            found[name] = draw(results[benchmark])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the directory of performance.md")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    kept = asked.docs / "performance"
    kept.mkdir(exist_ok=True)
    for path in asked.results:
        raw = path.read_text(encoding="utf-8")
        (kept / f"{json.loads(raw)['benchmark']}.json").write_text(raw, encoding="utf-8")
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(kept.glob("*.json"))}
    page = asked.docs / "performance.md"
    wanted = {kept / f"{name}.svg": svg for name, svg in drawn(results).items()}
    wanted[page] = written(page.read_text(encoding="utf-8"), results)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if asked.check:
        sys.exit(f"not those of the results: {', '.join(path.name for path in stale)}" if stale else 0)
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
