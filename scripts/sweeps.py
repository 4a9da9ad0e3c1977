"""Run every sweep in its full form, one after the other, and print the table of docs/explanation/durability.md.

::

    python scripts/sweeps.py --seed 1              all of them: some hours
    python scripts/sweeps.py --seed 1 "every byte" only those whose names hold this
    python scripts/sweeps.py --quick               the short forms of the ordinary test suite

``-n`` is how many processes pytest may use; ``--log DIR`` keeps what each sweep prints. Exits with 1 if anything that
was tried is wrong, or if a sweep tried less than it should.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Sweep(NamedTuple):
    """One row of the table: the tests as pytest takes them, what their figures begin with, and how many must be tried."""

    fault: str
    tests: tuple[str, ...]
    figures: str = ""  # without any, each test is a case
    least: int = 1
    times: int = 0  # so many times the samples of the short form, where the full one has more than are worth the time
    crew: bool = False  # it shares its cases out by itself


_CUT = "tests/test_power_cut.py"
_IO = "tests/test_io_errors.py"
_HOSTILE = "tests/test_hostile_directories.py"

SWEEPS = (
    Sweep("kill -9 at every system call that changes something, of 20 operations", ("tests/test_kill.py",), "kill", 2000),
    Sweep(
        "power cut, in three models of a file system, in and after operations, pairs and triples of them, and after kills",
        (_CUT, "-k", "not artifact"), "power cut", 5000,
    ),
    Sweep("power cut while artifacts are moved (names only)", (_CUT, "-k", "artifact"), "power cut", 17000),
    Sweep("an error (EIO, ENOSPC, EDQUOT, EROFS, EMFILE) at the N-th call", (_IO, "-k", "an_io_error"), "I/O errors", 2000),
    Sweep("a failed fsync, then a power cut", (_IO, "-k", "failed_fsync"), "failed fsync", 100),
    Sweep("a file that cannot grow", (_IO, "-k", "cannot_grow"), "largest file", 100),
    Sweep("a full disk, then room again", (_IO, "-k", "full_disk"), "full disk", 500),
    Sweep(
        "every byte of every file flipped; every file cut short, zeroed, deleted or replaced",
        ("tests/test_every_byte.py",), "every byte", 20000, crew=True,
    ),
    Sweep(
        "the branch, `HEAD`, packed refs, index, registry, a state, a directory, a tag, `.git` and so on lost",
        ("tests/test_lost_ends.py",),
    ),
    Sweep("a recovery killed, its recovery killed, and the recovery of that", ("tests/test_recovery_of_recovery.py",),
          "recovery of recovery", 3000),
    Sweep("odd values, encodings and documents, as input and as files; shapes of up to 100 MB",
          ("tests/test_hostile_content.py",)),
    Sweep("symlinks, hard links, foreign repositories, and every setting by which git runs a program",
          (_HOSTILE, "-k", "not swapped")),
    Sweep("a symlink swapped in during an operation", (_HOSTILE, "-k", "swapped"), "swapped in", 1000, times=20),
    Sweep("places that may not be written or read", ("tests/test_permissions.py",)),
    Sweep("histories of random operations, edits, damage and kills, against a plain model",
          ("tests/test_machine.py",), "machine"),
    Sweep("random records, messages and lease records", ("tests/test_fuzz.py",)),
)  # fmt: skip

_FIGURE = re.compile(r"^(?P<what>[^:\n]*): (?P<cases>\d+)\b(?! of \d+,).*?, (?P<wrong>\d+) wrong", re.MULTILINE)
_SUMMARY = re.compile(r"^(?=.*\b\d+ (?:passed|failed))(?P<words>.*) in (?P<seconds>[\d.]+)s", re.MULTILINE)


class Done(NamedTuple):
    """How a sweep went."""

    sweep: Sweep
    cases: int
    wrong: int
    minutes: float
    command: str
    ended: bool  # pytest found nothing wrong


def main() -> int:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, dest="processes")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "gitstate-sweeps")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.log.mkdir(parents=True, exist_ok=True)
    chosen = [sweep for sweep in SWEEPS if not options.names or any(name in sweep.fault for name in options.names)]
    done = []
    for number, sweep in enumerate(chosen):
        ended = _swept(sweep, options, options.log / f"{number:02}-{Path(sweep.tests[0]).stem}.txt")
        done.append(ended)
        state = "" if ended.ended else "  FAILED"
        print(
            f"{ended.cases:>7} cases {ended.wrong:>5} wrong {ended.minutes:6.1f} min  {sweep.fault}{state}", flush=True
        )
    print("\n| fault tried | cases | lost | command |\n|---|---|---|---|")
    for row in done:
        print(f"| {row.sweep.fault} | {row.cases:,} | {row.wrong:,} | `{row.command}` |")
    few = [row for row in done if not options.quick and row.cases < row.sweep.least]
    for row in few:
        print(f"too few: {row.sweep.fault}: {row.cases:,}, not {row.sweep.least:,}")
    return 1 if few or any(row.wrong or not row.ended for row in done) else 0


def _swept(sweep: Sweep, options: argparse.Namespace, log: Path) -> Done:
    processes = 0 if sweep.crew else options.processes
    full = not options.quick and not sweep.times
    words = [*sweep.tests, "--seed", str(options.seed), *(["--full"] if full else [])]
    variables = {"FAULTS_TIMES": str(sweep.times)} if sweep.times and not options.quick else {}
    began = time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-n", str(processes), *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | variables, check=False,
        ).returncode  # fmt: skip
    said = log.read_text(errors="replace")
    figures = [found for found in _FIGURE.finditer(said) if sweep.figures and found["what"].startswith(sweep.figures)]
    summary = _SUMMARY.search(said)
    outcomes = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", summary["words"] if summary else "")}
    cases = sum(int(found["cases"]) for found in figures)
    wrong = sum(int(found["wrong"]) for found in figures)
    if not sweep.figures:
        cases, wrong = outcomes.get("passed", 0) + outcomes.get("failed", 0), outcomes.get("failed", 0)
    before = [f"{name}={value}" for name, value in variables.items()]
    command = " ".join([*before, "pytest", *(f'"{word}"' if " " in word else word for word in words)])
    return Done(
        sweep, cases, wrong, (time.monotonic() - began) / 60, command, code == 0 and not outcomes.get("failed", 0)
    )


if __name__ == "__main__":
    sys.exit(main())
