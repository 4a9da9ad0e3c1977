"""What the benchmarks write: session states of realistic prose, and a history of realistic mutations.

Everything follows from a number, so that a run can be repeated, and one that was interrupted can go on.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import gitstate

_TEXT = """the a of to in and that test fails because expected returned value when parser reads empty line after commit
branch module function argument raises TypeError instead ValueError fixture database timeout retry session cache token
config path missing import cycle refactor extract helper rename assertion mock patch coverage regression flaky race lock
thread async await queue worker payload schema migration column index query slow response status 404 500 header cookie
src/server/app.py tests/test_login.py src/parser/lexer.ts package.json README.md docs/usage.md Makefile pyproject.toml
fixed added removed changed verified reproduced narrowed suspected confirmed next step run again only with without still
one two three four first second last error warning stack trace line column offset byte unicode escape newline null none
"""
_WORDS = _TEXT.split()


def prose(draw: random.Random, length: int) -> str:
    """Text of about *length* characters that compresses as notes of an agent do, two or three to one."""
    words: list[str] = []
    total = 0
    while total < length:
        word = draw.choice(_WORDS)
        if draw.random() < 0.2:
            word = f"{word}:{draw.randrange(10_000)}"
        words.append(word)
        total += len(word) + 1
    return " ".join(words)[:length]


def notes(size: int) -> list[dict[str, object]]:
    """About *size* bytes of notes, as a state file has them."""
    draw = random.Random(size)
    return [
        {"number": number, "status": draw.choice(["failed", "passed"]), "text": prose(draw, 110)}
        for number in range(max(1, size // 200))
    ]


# --- a history -------------------------------------------------------------------------------------------------------

LONG_AGO = "ralph-long-ago"  # touched 25 times at the very beginning, and never again
MEASURED = "ralph-measured"  # a loop of 10 KB that the measurements themselves work on
_TOUCHES = 25
_LIVES = (211, 241, 271)  # mutations in the life of a loop, of each of three that are busy at a time
_BEGIN = 4 + _TOUCHES
FRESH = (
    _BEGIN + 3 * 2
)  # after so many mutations all loops are there: as fresh as a repository that does the same can be

Mutation = Callable[[gitstate.StateRepository], object]


def mutation(number: int) -> tuple[str | None, Mutation]:
    """The mutation that comes after *number* others, and the loop that it is about.

    Three loops live at a time. Each is created, gets notes of 2 KB, goes through an iteration at each eighth mutation
    and updates in between, grows to some 17 KB, and is archived; then comes the next. A state has 10 KB in the mean.
    """
    if number >= _BEGIN:
        slot, turn = (number - _BEGIN) % len(_LIVES), (number - _BEGIN) // len(_LIVES)
        life, step = divmod(turn, _LIVES[slot])
        return _lived(f"ralph-fix-{slot}-{life:05d}", step, _LIVES[slot], number)
    if number == 0:
        return None, lambda state: state.set_max_concurrent_loops(8, reason=why(0))
    if number < 3:
        return _created(LONG_AGO if number == 1 else MEASURED, number)
    if number == 3:
        return MEASURED, lambda state: state.update_loop(MEASURED, {"notes": notes(9_000)}, reason=why(3))
    return LONG_AGO, lambda state: state.update_loop(
        LONG_AGO, {"currentIteration": number - 3, "note": f"number {number}"}, reason=why(number)
    )


def why(number: int) -> str:
    """The reason that a planned mutation gives: history itself says how far the plan is."""
    return f"step {number}"


def steps_done(state: gitstate.StateRepository) -> int:
    """How many planned mutations a repository has."""
    if state.revision() is None:
        return 0
    for change in state.log(limit=1000):
        if change.reason is not None and change.reason.startswith("step "):
            return int(change.reason.removeprefix("step ")) + 1
    return 0


def _created(loop_id: str, number: int) -> tuple[str, Mutation]:
    objective = prose(random.Random(number), 300)
    return loop_id, lambda state: state.create_loop(
        objective, "all tests pass", loop_id=loop_id, max_iterations=100_000, pid=None, reason=why(number)
    )


def _lived(loop_id: str, step: int, life: int, number: int) -> tuple[str, Mutation]:
    draw = random.Random(number)
    if step == 0:
        return _created(loop_id, number)
    if step == life - 1:
        status = draw.choice(["completed", "completed", "failed", "aborted"])
        return loop_id, lambda state: state.archive_loop(loop_id, status=status, reason=why(number))
    if step == 1:
        return loop_id, lambda state: state.update_loop(loop_id, {"notes": notes(2_500)}, reason=why(number))
    if step % 8 == 2:
        record = {
            "number": step // 8 + 1,
            "status": draw.choice(["failed", "passed"]),
            "analysis": prose(draw, 120),
            "learnings": prose(draw, 70),
            "filesModified": [f"src/module_{draw.randrange(12)}.py"],
            "durationSeconds": draw.randrange(2_000),
        }
        return loop_id, lambda state: state.record_iteration(loop_id, record, reason=why(number))
    changes: dict[str, object] = draw.choice(
        [
            {"currentStep": prose(draw, 60)},
            {"lastOutput": {"tail": prose(draw, 200), "bytes": draw.randrange(100_000)}},
            {"metrics": {"tokens": draw.randrange(10**6), "cost": round(draw.random() * 9, 4)}},
            {"status": "paused" if step % 2 else "running"},
        ]
    )
    return loop_id, lambda state: state.update_loop(loop_id, {**changes, "beat": number}, reason=why(number))


def many_archived(count: int) -> list[Mutation]:
    """A short history that leaves *count* loops in the archive, and one to work on."""

    def of(number: int) -> list[Mutation]:
        loop_id = f"ralph-old-{number:05d}"
        return [
            _created(loop_id, number)[1],
            lambda state: state.update_loop(loop_id, {"notes": notes(9_000), "beat": number}),
            lambda state: state.archive_loop(loop_id, status="completed"),
        ]

    return [each for number in range(count) for each in of(number)]
