"""The benchmarks run, and the page on performance says what they found. How long anything takes is asserted nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


def measured(tmp_path: Path, name: str, *words: str) -> dict[str, Any]:
    """What a small run of a benchmark found."""
    out = tmp_path / f"{name}.json"
    script(name, "--json", str(out), "--directory", str(tmp_path), *words)
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["benchmark"] == name
    assert str(tmp_path) not in out.read_text(), "figures name no place of the machine"
    assert found["machine"]["file_system"] != "unknown"
    return found


def script(name: str, *words: str) -> str:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *words]
    environment = {key: value for key, value in os.environ.items() if key != "GITSTATE_ORIGINAL"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_mutation_is_measured_against_its_peers(tmp_path: Path) -> None:
    found = measured(tmp_path, "mutation", "--rounds", "1", "--size", "2000")
    assert set(found["sizes"]["2000"]["sides"]) == {"gitstate", "plain", "encoded", "sqlite", "floor", "git", "dulwich"}
    assert [bar["bar"] for bar in found["bars"]] == [1, 1, 1]


def test_a_big_state_has_a_bar_of_its_own(tmp_path: Path) -> None:
    found = measured(tmp_path, "mutation", "--rounds", "5", "--size", "250000", "--only", "gitstate,plain")
    assert [bar["bar"] for bar in found["bars"]] == [6]
    assert found["sizes"]["250000"]["bytes"]["state"] > 200_000


def test_the_parts_of_a_mutation_are_all_there_and_add_up(tmp_path: Path) -> None:
    """A function that the breakdown wraps and that has another name now goes into its list of parts."""
    found = measured(tmp_path, "breakdown", "--rounds", "4", "--size", "2000")
    whole = found["sizes"]["2000"]
    assert found["missing"] == []
    assert sum(part["ms"] for part in whole["parts"].values()) == pytest.approx(whole["whole_ms"], abs=0.01)
    assert [name for name, part in whole["parts"].items() if part["ms"] == 0] == []


def test_a_history_is_grown_once_and_asked_again(tmp_path: Path) -> None:
    words = ["--rounds", "3", "--archived", "1", "--keep", str(tmp_path / "kept"), "--commands", "list"]
    first = measured(tmp_path, "history", "--sizes", "42", *words, "--only", "updates")
    assert set(first["update"]) == {"fresh", "archived", "42", "plain"}
    grown = (tmp_path / "kept/at-42/.aiwg/ralph-external/.git/HEAD").stat().st_ino
    found = measured(tmp_path, "history", "--sizes", "42", "44", *words, "--only", "questions", "memory", "gc")
    assert (tmp_path / "kept/at-42/.aiwg/ralph-external/.git/HEAD").stat().st_ino == grown
    assert set(found["size"]) == {"42", "44"}
    assert set(found["memory"]) == {"list", "list --archived"}
    assert all(row["44"]["peak_kb"] > 1000 for row in found["memory"].values())
    assert {4, 8} < {bar["bar"] for bar in found["bars"]}


def test_writers_are_measured_alone_and_together(tmp_path: Path) -> None:
    found = measured(tmp_path, "contention", "--writers", "2", "--operations", "2", "--warm", "1", "--rounds", "1")
    assert len(found["ratios"]) == 1


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_and_its_charts_are_those_of_the_results_kept() -> None:
    assert script("report", "--check") == ""


def test_a_page_is_written_from_what_was_found(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs/performance.md", docs)
    results = [str(path) for path in (ROOT / "docs/performance").glob("*.json")]
    script("report", "--docs", str(docs), *results)
    assert "Not measured yet" not in (docs / "performance.md").read_text().split("## gc")[0]
    for chart in ("peers", "parts", "cost", "size", "questions"):
        ET.parse(docs / f"performance/{chart}.svg")
    page = docs / "performance.md"
    page.write_text(page.read_text().replace("| yes |", "| no |", 1))
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "report.py"), "--docs", str(docs), "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "not those of the results: performance.md\n")
