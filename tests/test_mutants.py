"""The tests bite: every fault that is put into gitstate on purpose is noticed.

All of them, one after the other: ``python scripts/mutants.py``. Here, that the list is as long as it should be, that
each of its faults can still be put in, and that some are noticed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
TRIED = ("a file with a second name is written in place", "any repository counts as a clone")


def test_there_are_at_least_fifteen_each_with_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_present_source_once(mutant: Mutant) -> None:
    source = (ROOT / "gitstate" / mutant.file).read_text()
    assert source.count(mutant.old) == 1
    assert compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")
    assert mutant.new != mutant.old


@pytest.mark.parametrize("name", TRIED)
def test_a_mutant_is_caught(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/mutants.py"), name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 of 1 caught"), done.stderr
