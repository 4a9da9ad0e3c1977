"""Every state in which a power cut may leave the files: nothing acknowledged is lost, nothing is in the way.

An operation is recorded once, call by call, and its legal crash states are made and opened: see
``faults/explorer.py`` for the three models. There are tens of thousands for each: in CI some are drawn, always the
same unless ``--seed`` is given; many thousands of them, over every operation, pairs and triples of them, and
operations that follow a killed one:

    pytest -n 2 tests/test_power_cut.py --full
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from faults import strace
from faults.bench import PERFORM, Bench, aimed, draw, found, is_aimed, judged, times
from faults.explorer import Explorer, State
from faults.recording import Call, Place, Recording, record
from faults.workloads import OPERATIONS, REPEATABLE, sequences

pytestmark = pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")

BOOT = "in another boot"
Record = Callable[[str, object], None]


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_power_cut_during_an_operation_leaves_it_done_or_not_begun(
    name: str, full: bool, seed: int, record_property: Record
) -> None:
    _try([name], 360 if full else times(6), seed, record_property)


@pytest.mark.parametrize("length", [2, 3])
@pytest.mark.parametrize("number", range(8))
def test_a_power_cut_during_a_sequence_keeps_what_was_acknowledged(
    length: int, number: int, full: bool, seed: int, record_property: Record
) -> None:
    if number and not full:
        pytest.skip("one of each length is enough for CI")
    names = random.Random(seed + number).choice(sequences(length))
    _try(names, 72 if full else times(6), seed, record_property)


# What is repeated after a kill may find its own commit there, or only its objects; what follows another finds what that
# made and moved: nobody knows how durable it is.
KILLED = (
    ("update", "update"), ("archive", "update"), ("checkpoint", "update"), ("iterate", "iterate"),
    ("restore", "update"), ("create", "create"), ("archive", "archive"), ("transaction", "update"),
    ("init", "create"), ("first adoption", "init"), *(() for _ in range(4)),
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(KILLED)))
def test_a_power_cut_after_a_kill_keeps_what_came_between(
    number: int, full: bool, seed: int, record_property: Record
) -> None:
    if number % 4 and not full and not is_aimed():
        pytest.skip("some are enough for CI")
    drawn = random.Random(seed + number)
    first, second = KILLED[number] or drawn.choice(sequences(2))
    with Bench([first, second], patches=[BOOT]) as bench:
        recording = _recorded(bench, [first])
        explorer = Explorer(bench.start, recording)
        kills = [state for state in explorer.states() if state.model == "kill" and not state.acknowledged]
        kills = aimed(kills, lambda state: _text(explorer, state))
        for kill in drawn.sample(kills, min(len(kills), 8 if full else times(2))):
            _after_kill(bench, explorer, recording, kill, 30 if full else times(4), drawn, record_property)


@pytest.mark.parametrize(("first", "second"), [("update", "create"), ("archive", "update")])
def test_a_power_cut_while_another_is_recovered_from_keeps_what_both_came_after(
    first: str, second: str, full: bool, seed: int, record_property: Record
) -> None:
    """The power is cut after the first operation, whose names and bytes are all lost but what was synced, and cut again."""
    with Bench([first, second], patches=[BOOT]) as bench:
        explorer = Explorer(bench.start, _recorded(bench, [first]))
        worst = max(
            (state for state in explorer.states() if state.acknowledged and state.model == "posix" and state.losses),
            key=lambda state: (len(state.omitted), state.time),
        )
        cut = bench.scratch / "cut"
        explorer.materialise(worst, cut)
        expected = bench.expect([(0, [[first]]), (1, [[first], [second]])])
        bench.patches = ["boot=11111111-0000-4000-8000-000000000000"]
        again = Explorer(cut, _recorded(bench, [second], cut))
        states = _aimed(again)
        chosen = _drawn(again, states, 240 if full else times(6), seed)
        wrong = found(
            f"{state.model}, after call {state.time} ({_text(again, state)}), {state.words}: {words}"
            for state, verdict in judged(bench, again, chosen, expected, was_cut=True)
            for words in verdict
        )
    record_property("figures", f"power cut, {first} cut + {second}: {len(chosen)} states, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize(
    ("names", "made"),
    [
        (["update"], [f"objects/{number:02x}" for number in range(256)]),
        (["checkpoint", "update"], ["refs/tags/checkpoint/beta"]),
    ],
)
def test_a_directory_that_somebody_made_and_did_not_sync_is_made_durable_by_whoever_uses_it(
    names: list[str], made: list[str], seed: int, record_property: Record
) -> None:
    with Bench(names, patches=[BOOT]) as bench:
        git = f"{bench.start.name}/.aiwg/ralph-external/.git"
        places = [name for name in made if not (bench.scratch / git / name).exists()]
        inside = git.partition("/")[2]
        killed = Recording([Call("mkdir", place=Place(None, f"{inside}/{name}"), text=name) for name in places])
        before = Explorer(bench.start, killed)
        source = bench.scratch / "killed"
        before.materialise(State("kill", len(places), 0), source)
        explorer = Explorer(bench.start, killed + _recorded(bench, names, source))
        last = [state for state in explorer.states() if state.acknowledged == len(names) and state.model == "posix"]
        chosen = _distinct(explorer, draw(last, 400, seed))[:60]
        wrong = found(
            f"{state.words}: {words}"
            for state, verdict in judged(bench, explorer, chosen, bench.expected)
            for words in verdict
        )
    record_property(
        "figures", f"power cut, {names[0]} in directories never synced: {len(chosen)} states, {len(wrong)} wrong"
    )
    assert wrong == [], "\n".join(wrong)


def test_an_artifact_that_is_moved_has_a_name_at_every_moment(full: bool, seed: int, record_property: Record) -> None:
    """Artifacts are in no history: a name that a power cut takes is gone for good. No state is opened, so many are tried."""
    with Bench(["migrate"], patches=[BOOT]) as bench:
        explorer = Explorer(bench.start, _recorded(bench, ["migrate"]))
        here = explorer.contents(next(explorer.states()))
        states = list(explorer.states())
        chosen = states if full else draw(states, times(2000), seed)
        gone = {
            f"{len(lost)} files after call {state.time} ({_text(explorer, state)}), {state.words}"
            for state in chosen
            if (lost := here - explorer.contents(state))
        }
    record_property("figures", f"power cut, artifacts of migrate: {len(chosen)} states, {len(gone)} wrong")
    assert gone == set()


def test_with_durability_switched_off_the_explorer_finds_many_bad_states(seed: int, record_property: Record) -> None:
    bad = 0
    for name in ("update", "archive"):
        with Bench([name], patches=[BOOT, "without durability"]) as bench:
            explorer = Explorer(bench.start, _recorded(bench, [name]))
            # The operation is over: what it acknowledged must be there, whatever the cut takes.
            chosen = [state for state in explorer.states() if state.acknowledged]
            chosen = _distinct(explorer, draw(chosen, 900, seed))[:120]
            bad += sum(bool(wrong) for _, wrong in judged(bench, explorer, chosen, bench.expected))
    record_property("figures", f"power cut, durability switched off: {bad} bad states found, as there should be")
    assert bad >= 10


def _try(names: Sequence[str], most: int, seed: int, record_property: Record) -> None:
    with Bench(names, patches=[BOOT]) as bench:
        explorer = Explorer(bench.start, _recorded(bench, names))
        states = _aimed(explorer)
        chosen = _drawn(explorer, states, most, seed)
        wrong = found(
            f"{state.model}, after call {state.time} ({_text(explorer, state)}), {state.words}: {words}"
            for state, verdict in judged(bench, explorer, chosen, bench.expected)
            for words in verdict
        )
    record_property(
        "figures",
        f"power cut, {' + '.join(names)}: {len(chosen)} states drawn from {len(states)}, {len(wrong)} wrong",
    )
    assert wrong == [], "\n".join(wrong)


def _after_kill(
    bench: Bench, explorer: Explorer, recording: Recording, kill: State, most: int, drawn: random.Random,
    record_property: Record,
) -> None:  # fmt: skip
    """The first operation killed, the second one done and acknowledged on what it left, then the power cut."""
    first, second = bench.names
    killed = bench.scratch / "killed"
    explorer.materialise(kill, killed)
    happened = len(bench.judges.call("faults.invariants:count_commits", root=str(killed), start=str(bench.start))) > 0
    if happened and first == second and first not in REPEATABLE:
        bench.drop(killed)
        return
    later = _recorded(bench, [second], killed)
    stages: list[tuple[int, list[list[str]]]] = [(0, [])]
    stages += [(0, [["init"]])] if bench.begins else []
    stages += [(0, [[first]]), (1, [[first], [second]])] if happened else [(1, [[second]])]
    bench.drop(killed)
    both = Explorer(bench.start, Recording(recording.calls[: kill.time]) + later)
    states = [state for state in _aimed(both) if state.time > kill.time]
    chosen = _drawn(both, states, most, drawn.randrange(1_000_000))
    wrong = found(
        f"{first} killed at call {kill.time} ({_text(explorer, kill)}), then {second}, {state.model}, after call "
        f"{state.time} ({_text(both, state)}), {state.words}: {words}"
        for state, verdict in judged(bench, both, chosen, bench.expect(stages))
        for words in verdict
    )
    record_property("figures", f"power cut, {first} killed + {second}: {len(chosen)} states, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)


def _recorded(bench: Bench, names: Sequence[str], source: Any = None) -> Recording:
    root = bench.fresh(source)
    recording = record(bench.victims, PERFORM, bench.arguments(root, names), root, bench.scratch / "log")
    bench.drop(root)
    assert recording.ended is not None
    assert isinstance(recording.ended.answer, dict)
    assert recording.ended.answer["acknowledged"] == len(names), recording.ended
    return recording


def _distinct(explorer: Explorer, states: Sequence[State]) -> list[State]:
    """One of each that are the same files."""
    return list({explorer.digest(state): state for state in states}.values())


def _drawn(explorer: Explorer, states: Sequence[State], most: int, seed: int) -> list[State]:
    """Some of them, no two alike: of each model, half of them from the end, when all is acknowledged."""
    done = max(state.acknowledged for state in states)
    chosen: list[State] = []
    for model in ("kill", "ordered", "posix"):
        for last in (False, True):
            group = [state for state in states if state.model == model and (state.acknowledged == done) == last]
            chosen += draw(_distinct(explorer, draw(group, most, seed)), max(1, most // 6), seed)
    return _distinct(explorer, chosen)


def _aimed(explorer: Explorer) -> list[State]:
    return aimed(explorer.states(), lambda state: f"{_text(explorer, state)}: {state.words}")


def _text(explorer: Explorer, state: State) -> str:
    return explorer.calls[state.time - 1].text if state.time else "nothing"
