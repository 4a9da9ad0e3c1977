"""Put each of the named faults into a copy of gitstate, and see that the tests notice: ``python scripts/mutants.py``.

Names (or parts of them) as arguments choose some; ``-j N`` runs so many at a time. Prints a table; exits with 1 if a
mutant survives or no longer fits.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from faults.mutants import MUTANTS, Mutant  # noqa: E402

TIMES = "6"  # as many samples as usual: here one fault is looked for
TIMEOUT = 1200  # seconds


def main() -> int:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-j", type=int, default=os.cpu_count() or 1, dest="jobs")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or any(name in mutant.name for name in options.names)]
    survived = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (verdict, seconds) in zip(chosen, pool.map(_tried, chosen), strict=True):
            survived += verdict != "caught"
            print(
                f"{verdict:<10} {seconds:6.1f} s  {mutant.name}  ({mutant.file}; {' '.join(mutant.tests)})", flush=True
            )
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    return 1 if survived else 0


def _tried(mutant: Mutant) -> tuple[str, float]:
    began = time.monotonic()
    missing = [
        words for words in mutant.tests if words.startswith("tests/") and not (ROOT / words.partition("::")[0]).exists()
    ]
    if missing:
        return "no tests", 0.0
    with tempfile.TemporaryDirectory(prefix="gitstate-mutant-") as directory:
        copy = Path(directory)
        for part in ("gitstate", "tests", "pyproject.toml", "scripts", "docs", "README.md"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / part)
        file = copy / "gitstate" / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            return "misfit", 0.0
        file.write_text(text.replace(mutant.old, mutant.new))
        # pythonpath makes sure that the copy is imported, not the installed package.
        done = _run(
            [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", "-o", f"pythonpath={copy} {copy}/tests",
             *mutant.tests],
            copy, mutant.at,
        )  # fmt: skip
    if done is None:
        return "hung", time.monotonic() - began
    verdict = f"error {done.returncode}"
    if done.returncode == 0:
        verdict = "SURVIVED"
    elif re.search(r"^\d+ failed", done.stdout, re.MULTILINE):  # a test, not the collection of tests
        verdict = "caught"
    if verdict != "caught":
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return verdict, time.monotonic() - began


def _run(command: list[str], copy: Path, at: str) -> subprocess.CompletedProcess[str] | None:
    environment = os.environ | {"FAULTS_TIMES": TIMES, "FAULTS_AT": at, "PYTHONPATH": str(copy)}
    try:
        return subprocess.run(
            command, check=False, cwd=copy, capture_output=True, text=True, timeout=TIMEOUT, env=environment
        )
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    sys.exit(main())
