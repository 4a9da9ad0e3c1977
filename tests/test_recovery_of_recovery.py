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


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("first", CHAINS)
def test_recovery_that_is_killed_again_and_again_ends_clean(
    first: str, part: int, full: bool, seed: int, record_property: Callable[[str, object], None]
) -> None:
    wrong, count, most = [], 0, 0
    with Bench([first]) as bench:
        for chain, reruns, words in _chains(bench, CHAINS[first], part, random.Random(seed + part), full=full):
            count += 1
            most = max(most, reruns)
            wrong += [f"{chain}: {line}" for line in words]
    record_property(
        "figures",
        f"recovery of recovery, {first} ({part + 1}/2): {count} chains, {len(wrong)} wrong, at most {most} re-runs",
    )
    assert wrong == [], "\n".join(wrong)


def _chains(
    bench: Bench, again: str, part: int, drawn: random.Random, *, full: bool
) -> Iterator[tuple[str, int, list[str]]]:
    """Each chain of kills, with the re-runs that it took to end clean, and what did not hold."""
    points = _distinct(_points(bench, bench.start, bench.names[0]))[part::2]
    for one in points if full else drawn.sample(points, 3):
        first = _killed(bench, bench.start, bench.names[0], one)
        second_points = _points(bench, first, again)
        for two in (
            draw(second_points, 8, drawn.randrange(1_000_000))
            if full
            else drawn.sample(second_points, min(1, len(second_points)))
        ):
            second = _killed(bench, first, again, two)
            third_points = _points(bench, second, again)
            for three in drawn.sample(third_points, min(3, len(third_points))):
                third = _killed(bench, second, again, three)
                reruns, words = _ended(bench, third, again)
                yield f"{one}, {two}, {three} {three.text[:100]}", reruns, words
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
