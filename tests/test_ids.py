"""Names of loops: made, given, and kept for others."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gitstate
from gitstate.errors import InvalidLoopIdError
from gitstate.ids import is_servable, validate_known_id, validate_loop_id

# Not of the grammar, for whatever reason.
NO_IDS: list[object] = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    "UPPER",
    "camelCase",
    "x" * 101,
    "x" * 200,
    "trailing\n",
    "trailing ",
    " leading",
    "two words",
    "-rf",
    "--force",
    "dash-",
    ".git",
    ".hidden",
    "x.lock",
    "a.b",
    "a_b",
    "a..b",
    "a@{b",
    "@",
    "a~1",
    "a^",
    "a:b",
    "a?b",
    "a*b",
    "a[b",
    "é",
    "ĸ",
    "１",  # a digit to Python's str.isdigit
    "\ud800",
    "a\u200db",
    "\u202ea",
    None,
    0,
    1.5,
    True,
    b"bytes",
    ["a"],
    10**5000,
]


@pytest.mark.parametrize(
    ("task", "slug"),
    [
        ("Fix all failing tests", "fix-all-failing-tests"),
        ("  --Fix!!  the   Build-- ", "fix-the-build"),
        ("MiXeD Case 42", "mixed-case-42"),
        ("Refactor the shopping cart module to use the new pricing", "refactor-the-shopping-cart-mod"),
        ("abcdefghij klmnopqrst uvwxyzabc defg", "abcdefghij-klmnopqrst-uvwxyzab"),
        ("abcdefghij klmnopqrst uvwxyzab defg", "abcdefghij-klmnopqrst-uvwxyzab"),
        ("abcdefghij klmnopqrst uvwxyza defg", "abcdefghij-klmnopqrst-uvwxyza"),
        ("Миграция", "loop"),
        ("Миграция на TypeScript", "typescript"),
        ("", "loop"),
        ("---", "loop"),
        ("a/b\n../c", "a-b-c"),
        ("\ud800x", "x"),
    ],
)
def test_a_made_id_is_ralph_a_slug_of_the_task_and_eight_hex_digits(task: str, slug: str) -> None:
    assert re.fullmatch(rf"ralph-{re.escape(slug)}-[0-9a-f]{{8}}", gitstate.generate_loop_id(task))


@settings(max_examples=150)
@given(st.text(st.characters(), max_size=80))
def test_a_made_id_can_always_be_given(task: str) -> None:
    made = gitstate.generate_loop_id(task)
    assert validate_loop_id(made) == made
    assert "--" not in made
    assert len(made) <= len("ralph--") + 30 + 8


def test_made_ids_differ() -> None:
    assert len({gitstate.generate_loop_id("the same task") for _ in range(200)}) == 200


@pytest.mark.parametrize("loop_id", ["a", "0", "a-b", "ralph-fix-tests-a1b2c3d4", "cart-refactor", "1--2", "x" * 100])
def test_an_id_of_the_grammar_can_be_given(loop_id: str) -> None:
    assert validate_loop_id(loop_id) == loop_id
    assert validate_known_id(loop_id) == loop_id


@pytest.mark.parametrize("loop_id", NO_IDS, ids=lambda value: repr(value)[:20] if value != 10**5000 else "10**5000")
def test_anything_else_cannot_be_given(loop_id: object) -> None:
    with pytest.raises(InvalidLoopIdError) as caught:
        validate_loop_id(loop_id)
    assert caught.value.hint == "gitstate list"
    assert caught.value.loop_id is loop_id
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("loop_id", ["Upper_Case", "ralph--a1b2c3d4", "a.b", "Миграция", "x" * 200, "ralph-x-", "con"])
def test_an_id_of_another_s_is_kept_if_it_is_one_safe_name(loop_id: str) -> None:
    assert is_servable(loop_id)
    assert validate_known_id(loop_id) == loop_id


@pytest.mark.parametrize(
    "loop_id",
    ["", ".", "..", "a/b", "a\0b", "a b", "-a", ".a", "a.", "a..b", "x.lock", "@", "a@{b", "a~b", "a^b", "a:b", "a?b", "a*b",
     "a[b", "a\\b", "a\n", "a\x7f", "\ud800", "x" * 201, "ж" * 101],
)  # fmt: skip
def test_an_id_that_is_no_path_component_and_ref_name_is_not_kept(loop_id: str) -> None:
    assert not is_servable(loop_id)
    with pytest.raises(InvalidLoopIdError):
        validate_known_id(loop_id)


def refs_that_git_takes(names: list[str]) -> list[str]:
    taken = []
    for name in names:
        asked = subprocess.run(["git", "check-ref-format", b"refs/tags/archive/" + name.encode()], check=False)
        taken += [name] if asked.returncode == 0 else []
    return taken


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.text("ab.@{~^:-/\\lock", min_size=1, max_size=8)
)
def test_git_takes_every_id_that_is_kept_as_a_ref(name: str) -> None:
    if is_servable(name):
        assert refs_that_git_takes([name]) == [name]
        assert "/" not in name
