"""Where faults are tried: a scratch directory, a zygote to be hit, another to judge, and projects to copy from."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from faults.explorer import Explorer, State
from faults.workloads import OPERATIONS, legacy, nothing, originals
from faults.zygote import Zygote

T = TypeVar("T")
_BATCH = 20
PERFORM = "faults.workloads:perform"


class Bench:
    """One operation, or a few in turn, to be hit again and again from the same start."""

    def __init__(self, names: Sequence[str], *, patches: Sequence[str] = (), scratch: Path | None = None) -> None:
        self.names, self.patches = list(names), list(patches)
        memory = Path("/dev/shm")
        if scratch is None and memory.is_dir() and os.access(memory, os.W_OK):
            scratch = memory  # no fault here asks for a disk
        self.scratch = Path(tempfile.mkdtemp(prefix="gitstate-faults-", dir=scratch))
        self.victims, self.judges = Zygote(self.scratch), Zygote(self.scratch)
        self.start = self.scratch / "start"
        self.victims.call("faults.workloads:prepare", root=str(self.start), name=self.names[0], patches=self.patches)
        self._known: set[str] = set()
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.victims.close()
        self.judges.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def needs_repair(self) -> bool:
        return OPERATIONS[self.names[0]].needs_repair

    @property
    def begins(self) -> bool:
        """Whether there is no history yet, so that a first commit comes before that of the operation."""
        return OPERATIONS[self.names[0]].start in (nothing, originals, legacy)

    def fresh(self, source: Path | None = None) -> Path:
        """A new copy of the start, or of another project."""
        self._number += 1
        target = self.scratch / f"p{self._number}"
        shutil.copytree(source or self.start, target, symlinks=True)
        return target

    def drop(self, *roots: Path) -> None:
        for root in roots:
            shutil.rmtree(root)

    def arguments(self, root: Path, names: Sequence[str] | None = None, **more: object) -> dict[str, object]:
        """What ``perform`` is called with."""
        names = self.names if names is None else names
        return {"root": str(root), "names": list(names), "patches": self.patches, **more}

    @cached_property
    def expected(self) -> dict[str, Any]:
        """What is to be seen after none, one, … of the operations, from undisturbed runs."""
        stages: list[tuple[int, list[list[str]]]] = [(0, [])]
        if OPERATIONS[self.names[0]].adopts:
            stages.append((0, [["init"]]))
        stages += [(count, [self.names[:count]]) for count in range(1, len(self.names) + 1)]
        return self.expect(stages)

    def expect(self, stages: Sequence[tuple[int, list[list[str]]]]) -> dict[str, Any]:
        """What is to be seen at each stage: how many operations are acknowledged there, and which runs led to it."""
        projects = [self._after(runs) for _, runs in stages]
        found = self.judges.call(
            "faults.invariants:expect",
            stages=[[str(root) for root in pair] for pair in projects],
            levels=[level for level, _ in stages],
            needs_repair=self.needs_repair,
        )
        self.drop(*(root for pair in projects for root in pair))
        assert isinstance(found, dict)
        assert "trace" not in found, found["trace"]
        return found

    def _after(self, runs: list[list[str]]) -> tuple[Path, Path]:
        """Two projects after undisturbed runs."""
        root = self.fresh()
        for names in runs:
            told = self.victims.call(PERFORM, **self.arguments(root, names))
            assert isinstance(told, dict)
            assert told["acknowledged"] == len(names), told
        return root, self.fresh(root)

    def judge(
        self,
        roots: Sequence[Path],
        acknowledged: Sequence[int],
        *,
        lacks: Sequence[str] = (),
        exact: bool = False,
        tolerant: bool = False,
        expected: dict[str, Any] | None = None,
        cuts: Sequence[bool] | None = None,
    ) -> list[list[str]]:
        """What does not hold in each project; a fresh process judges them all. See ``judge_all``."""
        found = self.judges.call(
            "faults.invariants:judge_all",
            roots=[str(root) for root in roots],
            acknowledged=list(acknowledged),
            expected=self.expected if expected is None else expected,
            known=sorted(self._known),
            lacks=list(lacks) or ["nothing"] * len(roots),
            exact=exact,
            tolerant=tolerant,
            cuts=[False] * len(roots) if cuts is None else list(cuts),
        )
        assert isinstance(found, dict)
        assert "trace" not in found, found["trace"]
        self._known |= set(found["known"])
        return list(found["verdicts"])


def judged(
    bench: Bench,
    explorer: Explorer,
    states: Sequence[State],
    expected: dict[str, Any],
    *,
    was_cut: bool = False,
    tolerant: bool = False,
) -> Iterator[tuple[State, list[str]]]:
    """Crash states with what does not hold in each; many are made, and opened in turn by one process.

    With *was_cut* the power had been cut before, so that git has its history back once a mutation was acknowledged.
    With *tolerant* there may be more repairs than in an undisturbed run.
    """
    for begin in range(0, len(states), _BATCH):
        batch = states[begin : begin + _BATCH]
        roots = [bench.scratch / f"state-{begin + number}" for number in range(len(batch))]
        for state, root in zip(batch, roots, strict=True):
            explorer.materialise(state, root)
        counts = [state.acknowledged for state in batch]
        lacks = ["artifacts" if explorer.tears_a_directory(state) else "what is empty" for state in batch]
        cuts = [state.model != "kill" or (was_cut and not state.acknowledged) for state in batch]
        verdicts = bench.judge(roots, counts, lacks=lacks, expected=expected, cuts=cuts, tolerant=tolerant)
        yield from zip(batch, verdicts, strict=True)
        bench.drop(*roots)


def draw(population: Sequence[Any], most: int, seed: int) -> list[Any]:
    """At most so many of them, every k-th from a drawn beginning, so that they lie spread over the whole."""
    if len(population) <= most:
        return list(population)
    step = len(population) / most
    offset = random.Random(seed).random() * step
    return [population[int(offset + number * step)] for number in range(most)]


def is_aimed() -> bool:
    """Whether one fault is looked for, where ``FAULTS_AT`` says."""
    return bool(os.environ.get("FAULTS_AT"))


def aimed(population: Iterable[T], words: Callable[[T], str]) -> list[T]:
    """Those that ``FAULTS_AT``, a regular expression, is found in, where one fault is looked for; else all."""
    aim = re.compile(os.environ.get("FAULTS_AT", ""))
    return [one for one in population if aim.search(words(one))]


def found(wrong: Iterable[str]) -> list[str]:
    """The first of what is wrong: where much is, the rest says the same. Where one fault is looked for, one is enough."""
    return list(itertools.islice(wrong, 1 if is_aimed() else 20))


def times(count: int) -> int:
    """So many samples; ``FAULTS_TIMES`` as many where one fault is looked for."""
    return count * int(os.environ.get("FAULTS_TIMES", "1"))
