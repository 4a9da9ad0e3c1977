"""kill -9 at every system call of every operation, and whoever comes next finds nothing amiss.

In CI some of the calls that change something are drawn (the seed is printed, and can be given as ``FAULTS_SEED``);
all of them, and the calls that only look as well:

    pytest -n 2 tests/test_kill.py --full
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from faults import strace
from faults.bench import PERFORM, Bench, draw, seed, times
from faults.workloads import OPERATIONS

pytestmark = pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")

DRAWN = 14  # points of each operation in CI


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_killed_at_any_system_call_happened_or_did_not_and_leaves_nothing_in_the_way(
    name: str, full: bool, record_property: Callable[[str, object], None]
) -> None:
    drawn = seed()
    with Bench([name]) as bench:
        root = bench.fresh()
        points = strace.points(bench.victims, PERFORM, bench.arguments(root), bench.scratch / "log")
        bench.drop(root)
        chosen = points if full else draw(points, times(DRAWN), drawn)
        wrong = [line for point in chosen for line in _kill(bench, point)]
    record_property("figures", f"kill, {name}: {len(chosen)} of {len(points)} points, {len(wrong)} wrong, seed {drawn}")
    assert wrong == []


def _kill(bench: Bench, point: strace.Point) -> Iterator[str]:
    root = bench.fresh()
    ended = strace.killed_at(bench.victims, PERFORM, bench.arguments(root), point)
    assert isinstance(ended.answer, dict)
    if ended.hung or not (ended.signal == 9 or ended.answer["acknowledged"] == len(bench.names)):
        yield f"{point}: {ended}"
    for words in bench.judge([root], [ended.answer["acknowledged"]])[0]:
        yield f"{point} {point.text}: {words}"
    bench.drop(root)
