"""Errors and warnings: one tree, with codes, exit codes, hints and facts; they pickle, and nothing else reaches a caller."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gitstate
from gitstate import StateRepository, errors
from gitstate.errors import GitStateError, shown
from gitstate.results import LeaseInfo

# Class, parents, code, exit code: the table of interface.md.
TREE: dict[type[GitStateError], tuple[tuple[type, ...], str, int]] = {
    gitstate.InvalidInputError: ((GitStateError, ValueError), "invalid_input", 2),
    gitstate.InvalidLoopIdError: ((gitstate.InvalidInputError, ValueError), "invalid_loop_id", 2),
    gitstate.InvalidRecordError: ((gitstate.InvalidInputError, ValueError), "invalid_record", 2),
    gitstate.LoopNotFoundError: ((GitStateError, LookupError), "loop_not_found", 3),
    gitstate.AmbiguousLoopError: ((gitstate.LoopNotFoundError, LookupError), "ambiguous_loop", 3),
    gitstate.RevisionNotFoundError: ((GitStateError, LookupError), "revision_not_found", 3),
    gitstate.LeaseTimeoutError: ((GitStateError, TimeoutError), "lease_timeout", 4),
    gitstate.LeaseLostError: ((GitStateError,), "lease_lost", 5),
    gitstate.StaleRevisionError: ((GitStateError,), "stale_revision", 5),
    gitstate.CorruptStateError: ((GitStateError,), "corrupt_state", 6),
    gitstate.LoopLimitError: ((GitStateError,), "loop_limit", 7),
    gitstate.RefusedError: ((GitStateError,), "refused", 8),
    gitstate.LoopExistsError: ((gitstate.RefusedError,), "loop_exists", 8),
    gitstate.StorageError: ((GitStateError,), "storage", 9),
    gitstate.UnsafeRepositoryError: ((gitstate.StorageError,), "unsafe_repository", 9),
}
EVERY = [*TREE, GitStateError]
WARNINGS = [gitstate.LoopLimitWarning, gitstate.DamageWarning, gitstate.UnknownStatusWarning]


def ids(kind: type) -> str:
    return kind.__name__


def test_the_table_is_whole() -> None:
    defined = {kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, GitStateError)}
    assert defined == set(EVERY)
    assert {kind.__name__ for kind in EVERY} <= set(gitstate.__all__)


@pytest.mark.parametrize("kind", TREE, ids=ids)
def test_each_error_stands_where_the_contract_has_it(kind: type[GitStateError]) -> None:
    parents, _, _ = TREE[kind]
    assert all(issubclass(kind, parent) for parent in parents)
    others = {other for other in TREE if issubclass(kind, other)} - {kind}
    assert others <= set(parents)


@pytest.mark.parametrize("kind", TREE, ids=ids)
def test_each_error_has_its_code_and_exit_code(kind: type[GitStateError]) -> None:
    _, code, exit_code = TREE[kind]
    assert (kind("words").code, kind("words").exit_code, kind.exit_code) == (code, exit_code, exit_code)


@pytest.mark.parametrize("kind", TREE, ids=ids)
def test_the_docstring_s_tree_says_the_same(kind: type[GitStateError]) -> None:
    lines = (errors.__doc__ or "").splitlines()
    (line,) = [line for line in lines if f" {kind.__name__} " in f"{line} " and "─" in line]
    depth = line.index("─") - next(line for line in lines if "InvalidInputError" in line).index("─")
    assert depth == (3 if any(parent in TREE for parent in TREE[kind][0]) else 0)
    numbers = [int(word) for word in line.split() if word.isdigit()]
    assert numbers == [TREE[kind][2]] or (numbers == [] and depth)


@pytest.mark.parametrize("kind", EVERY, ids=ids)
def test_an_error_is_its_message_with_a_hint_and_facts(kind: type[GitStateError]) -> None:
    error = kind("what happened", hint="gitstate status", loop_id="one", pid=7)
    assert str(error) == error.message == "what happened"
    assert error.args == ("what happened",)
    assert (error.hint, error.loop_id, error.pid) == ("gitstate status", "one", 7)
    assert error.facts == {"loop_id": "one", "pid": 7}
    assert kind("words").hint is None


def test_a_fact_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="RefusedError has no fact 'holder'"):
        _ = gitstate.RefusedError("words").holder
    assert not hasattr(gitstate.RefusedError("words"), "holder")


@pytest.mark.parametrize("kind", EVERY, ids=ids)
@pytest.mark.parametrize(
    "again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
def test_an_error_pickles_with_all_it_knows(
    kind: type[GitStateError], again: Callable[[GitStateError], GitStateError]
) -> None:
    holder = LeaseInfo("update", 1, "h", True, "process 1 runs", None, None, False, 4)
    error = kind("two\nlines", hint="gitstate status", code="outcome_unknown", holder=holder, fields=("/a",), path=None)
    back = again(error)
    assert type(back) is kind
    assert (str(back), back.hint, back.code, back.exit_code, back.facts) == (
        str(error), error.hint, "outcome_unknown", error.exit_code, error.facts,
    )  # fmt: skip


def test_an_error_of_a_real_refusal_pickles(state: StateRepository) -> None:
    state.create_loop("Fix", "it is fixed", loop_id="one")
    with pytest.raises(gitstate.LoopNotFoundError) as caught:
        state.get_loop("ones")
    back = pickle.loads(pickle.dumps(caught.value))
    assert (str(back), back.close, back.loop_id) == (str(caught.value), ("one",), "ones")


@pytest.mark.parametrize("kind", WARNINGS, ids=ids)
def test_warnings_are_one_family(kind: type[Warning]) -> None:
    assert issubclass(kind, gitstate.GitStateWarning)
    assert issubclass(gitstate.GitStateWarning, UserWarning)


def test_damage_is_also_logged(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gitstate.open(project) as state:
        state.create_loop("Fix", "it is fixed", loop_id="one")
        path = state.get_loop_dir("one") / "session-state.json"
        path.write_bytes(b"")
        with pytest.warns(gitstate.DamageWarning) as caught:
            state.get_loop("one")
        assert [(record.name, record.getMessage()) for record in caplog.records] == [
            ("gitstate", str(caught[0].message))
        ]
        with pytest.warns(gitstate.DamageWarning, match="restored from"):
            state.init()


def test_the_library_logs_nothing_else(state: StateRepository, caplog: pytest.LogCaptureFixture) -> None:
    state.create_loop("Fix", "it is fixed", loop_id="one")
    state.archive_loop("one")
    assert caplog.records == []


def ring() -> object:
    value: list[object] = []
    value.append(value)
    return value


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), "x" * 10**6, nested(50_000), ring(), "\ud800\n", None],
    ids=["huge", "minus huge", "long", "deep", "ring", "half", "none"],
)
def test_any_value_can_be_shown_in_a_message(value: Any) -> None:
    words = shown(value)
    assert len(words) <= 80
    words.encode()
    assert len(words.splitlines()) == 1
