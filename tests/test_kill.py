"""kill -9 at every system call of every operation, and whoever comes next finds nothing amiss.

What a kill leaves at a call that only looks, a kill at the next that changes something leaves as well. In CI some of
these are drawn, always the same unless ``--seed`` is given; all of them:

    pytest -n 2 tests/test_kill.py --full
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from faults import strace
from faults.bench import PERFORM, Bench, aimed, draw, found, times
from faults.workloads import OPERATIONS

pytestmark = pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")

DRAWN = 14  # points of each operation in CI


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_killed_at_any_system_call_happened_or_did_not_and_leaves_nothing_in_the_way(
    name: str, full: bool, seed: int, record_property: Callable[[str, object], None]
) -> None:
    with Bench([name]) as bench:
        root = bench.fresh()
        points = strace.points(bench.victims, PERFORM, bench.arguments(root), bench.scratch / "log")
        points = aimed(points, lambda point: point.text)
        bench.drop(root)
        chosen = points if full else draw(points, times(DRAWN), seed)
        wrong = found(line for point in chosen for line in _kill(bench, point))
    record_property("figures", f"kill, {name}: {len(chosen)} of {len(points)} points, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)


def _kill(bench: Bench, point: strace.Point) -> Iterator[str]:
    root = bench.fresh()
    ended = strace.killed_at(bench.victims, PERFORM, bench.arguments(root), point)
    assert isinstance(ended.answer, dict)
    if ended.hung or not (ended.signal == 9 or ended.answer["acknowledged"] == len(bench.names)):
        yield f"{point}: {ended}"
    for words in bench.judge([root], [ended.answer["acknowledged"]])[0]:
        yield f"{point} {point.text}: {words}"
    bench.drop(root)
