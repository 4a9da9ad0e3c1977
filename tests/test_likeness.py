"""What two versions have in common: never more than is there, and of a small change nearly everything."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gitstate import likeness
from gitstate.likeness import common_runs, unlike_lines

some_lines = st.lists(
    st.sampled_from([b"", b"a", b"ab", b"2.0", b"12.0", b"a line that is longer than what is looked for"]), max_size=12
)
texts = some_lines.map(b"\n".join) | some_lines.map(lambda found: b"".join(line + b"\n" for line in found))
LONG = b"".join(b'    "number %d of many",\n' % number for number in range(20_000))


@settings(max_examples=400, deadline=None)
@given(texts, texts)
def test_a_run_is_the_same_in_both_and_runs_follow_one_another(one: bytes, other: bytes) -> None:
    there = 0
    for run in common_runs(one, other):
        assert run.size > 0
        assert run.there >= there
        assert one[run.here : run.here + run.size] == other[run.there : run.there + run.size]
        assert run.here + run.size <= len(one)
        there = run.there + run.size
    assert there <= len(other)


@settings(max_examples=1000, deadline=None)
@given(texts, texts)
@example(b"1\n12.0\n", b"1\n2.0\n")
@example(b"2.0x\n", b"2.0\n")
@example(b"x2.0", b"2.0")
def test_a_line_that_is_left_out_is_a_whole_line_of_the_other(one: bytes, other: bytes) -> None:
    left_out = Counter(other.splitlines(keepends=True)) - Counter(unlike_lines(one, other).splitlines(keepends=True))
    assert left_out.keys() <= set(one.splitlines(keepends=True))


@pytest.mark.parametrize("place", [0, 1, 1023, 1024, 1025, 4096, len(LONG) // 2, len(LONG) - 1])
def test_of_a_long_text_the_lines_that_changed_are_found(place: int) -> None:
    changed = LONG[:place] + b"X" + LONG[place + 1 :]
    found = unlike_lines(LONG, changed)
    assert b"X" in found
    assert len(found) < 100


def test_wherever_one_byte_differs_it_is_in_no_run() -> None:
    text = bytes(range(11, 251)) * 20  # without a line break, so that it is found from both ends
    for place in range(len(text)):
        changed = text[:place] + b"\0" + text[place + 1 :]
        runs = [run for run in ((0, 0, place), (place + 1, place + 1, len(text) - place - 1)) if run[2]]
        assert list(common_runs(text, changed)) == runs


def test_an_end_of_any_length_is_found_whole_and_no_longer() -> None:
    for length in range(1, 5000):
        one, other = b"y" * (6000 - length) + b"x" * length, b"z" * (6000 - length) + b"x" * length
        assert list(common_runs(one, other)) == [(6000 - length, 6000 - length, length)]


def test_of_a_long_text_changed_in_several_places_only_these_are_found() -> None:
    lines = LONG.splitlines(keepends=True)
    lines[3], lines[9_000], lines[19_998] = b"3 is another\n", b"", b"so is this\nand this\n"
    found = unlike_lines(LONG, b"".join(lines))
    assert {b"3 is another\n", b"so is this\n", b"and this\n"} <= set(found.splitlines(keepends=True))
    assert len(found) < 500


def test_of_what_is_the_same_nothing_is_left() -> None:
    assert unlike_lines(LONG, bytes(bytearray(LONG))) == b""


def test_of_what_has_nothing_in_common_everything_is_left() -> None:
    assert unlike_lines(b"", LONG) == LONG


@pytest.mark.parametrize("line", [b"\n", b"aaaa\n", b"a\nb\nc\n"], ids=["empty", "short", "several"])
def test_texts_that_part_again_and_again_are_not_looked_at_without_end(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    common_start = likeness._common_start

    def counted(one: bytes, other: bytes, here: int = 0, there: int = 0) -> int:
        nonlocal looked
        looked += 1
        return common_start(one, other, here, there)

    monkeypatch.setattr(likeness, "_common_start", counted)
    one = line * (60_000 // len(line))
    other = bytearray(one)
    other[::60] = b"x" * len(other[::60])
    assert 0 < sum(run.size for run in common_runs(one, bytes(other))) < len(other)
    assert looked < len(other) // 2
