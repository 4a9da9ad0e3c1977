"""What recovers is killed, too, and what recovers from that: it ends clean all the same, after three re-runs at most.

A repair, rollback, takeover, migration or first adoption is killed; the call that recovers from it is killed; and the
one that recovers from that. In CI some chains are drawn, always the same unless ``--seed`` is given; from every point
at which a kill leaves something else, at 8 points and from there at 3 more:

    pytest -n 2 tests/test_recovery_of_recovery.py --full
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import strace
from faults.bench import PERFORM, Bench, draw

pytestmark = pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")

# What is killed, and the call that recovers from it: itself again where it may be repeated, else one that only reconciles.
CHAINS = {
    "repair": "repair",
    "repair of the branch": "repair of the branch",
    "rollback": "init",
    "takeover": "init",
    "migrate": "migrate",
    "first adoption": "first adoption",
}
RERUNS = 3
PARTS = 4  # of the points of each, to be tried at the same time


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("first", CHAINS)
def test_recovery_that_is_killed_again_and_again_ends_clean(
    first: str, part: int, full: bool, seed: int, record_property: Callable[[str, object], None]
) -> None:
    if part >= 2 and not full:
        pytest.skip("a few of half of the points are enough for CI")
    wrong, count, most = [], 0, 0
    drawn = random.Random(seed + part)
    with Bench([first]) as bench:
        points = _distinct(_points(bench, bench.start, first))[part::PARTS]
        for one in points if full else _fruitful(bench, points, CHAINS[first], drawn):
            for chain, reruns, words in _chains(bench, CHAINS[first], one, drawn, full=full):
                count += 1
                most = max(most, reruns)
                wrong += [f"{chain}: {line}" for line in words]
    record_property(
        "figures",
        f"recovery of recovery, {first} ({part + 1}/{PARTS}): {count} chains, {len(wrong)} wrong, "
        f"at most {most} re-runs",
    )
    assert wrong == [], "\n".join(wrong)


def _fruitful(bench: Bench, points: list[strace.Point], again: str, drawn: random.Random) -> Iterator[strace.Point]:
    """Three drawn points after which there is something left to recover."""
    found = 0
    for point in drawn.sample(points, len(points)):
        root = _killed(bench, bench.start, bench.names[0], point)
        if len(_points(bench, root, again)) > 3:
            found += 1
            yield point
        bench.drop(root)
        if found == 3:
            return


def _chains(
    bench: Bench, again: str, one: strace.Point, drawn: random.Random, *, full: bool
) -> Iterator[tuple[str, int, list[str]]]:
    """Each chain of kills that begins at *one*, with the re-runs that it took to end clean, and what did not hold."""
    first = _killed(bench, bench.start, bench.names[0], one)
    second_points = _points(bench, first, again)
    for two in draw(second_points, 8 if full else 1, drawn.randrange(1_000_000)):
        second = _killed(bench, first, again, two)
        third_points = _points(bench, second, again)
        for three in drawn.sample(third_points, min(3, len(third_points))):
            third = _killed(bench, second, again, three)
            reruns, words = _ended(bench, third, again)
            yield f"{one}, {two}, {three} {three.text[:200]}", reruns, words
            bench.drop(third)
        bench.drop(second)
    bench.drop(first)


def _points(bench: Bench, source: Path, name: str) -> list[strace.Point]:
    root = bench.fresh(source)
    points = strace.points(bench.victims, PERFORM, bench.arguments(root, [name]), bench.scratch / "log")
    bench.drop(root)
    return points


def _distinct(points: list[strace.Point]) -> list[strace.Point]:
    """Those before which something has changed since the one before: a kill there leaves something else."""
    idle = ("fsync", "fdatasync", "flock")
    return [
        point
        for before, point in zip([None, *points], points, strict=False)
        if before is None or (before.name not in idle and " = -1 " not in before.text)
    ]


def _killed(bench: Bench, source: Path, name: str, point: strace.Point) -> Path:
    root = bench.fresh(source)
    strace.killed_at(bench.victims, PERFORM, bench.arguments(root, [name]), point)
    return root


def _ended(bench: Bench, root: Path, again: str) -> tuple[int, list[str]]:
    """Run the recovering call until the check is clean; how often that was, and what did not hold then."""
    reruns, left = 0, None
    while reruns < RERUNS:
        reruns += 1
        ended = bench.victims.wait(bench.victims.start(PERFORM, bench.arguments(root, [again])))
        assert isinstance(ended.answer, dict)
        left = bench.judges.call("faults.invariants:unclean", root=str(root))
        if ended.answer["error"] is None and left == []:
            break
    else:
        return RERUNS, [f"not clean after {RERUNS} re-runs: {ended.answer}, {left}"]
    repeated = again == bench.names[0]  # so it was acknowledged, at last
    return reruns, bench.judge([root], [1 if repeated else 0], tolerant=True)[0]
