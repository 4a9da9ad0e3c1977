"""Hints about packs: whatever they say, or are, only the order changes in which packs are looked into."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from wrapping import blob, blob_id, directory_of, packs, write_pack

from gitstate import StateRepository
from gitstate.layout import HINTS
from gitstate.store import consolidation
from gitstate.store import packs as reading
from gitstate.store.consolidation import consolidate, hint
from gitstate.store.hints import Hints
from gitstate.store.objects import Objects

COUNT = 20


@pytest.fixture
def packed(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[bytes]]:
    """Packs that are large enough for hints, of which there are some, and the objects in each."""
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    monkeypatch.setattr(consolidation, "FEWEST", 1)
    found = {}
    for number in range(COUNT):
        contents = [b"%d of %d" % (each, number) for each in range(30)]
        found[write_pack(state, [blob(raw) for raw in contents])] = contents
    hint(directory_of(state))
    return found


def hints_of(state: StateRepository) -> tuple[set[str], Callable[[bytes], frozenset[str]]]:
    with closing(Hints(directory_of(state))) as hints:
        answers = {
            raw: hints.without(blob_id(raw)) for raw in (b"%d of %d" % (e, n) for e in range(30) for n in range(60))
        }
        return {name for name in hints.names if name}, answers.__getitem__


def test_no_pack_is_said_to_be_without_what_it_has(state: StateRepository, packed: dict[str, list[bytes]]) -> None:
    names, without = hints_of(state)
    assert names == set(packs(state))
    for name, contents in packed.items():
        for raw in contents:
            assert name not in without(raw)
            assert len(without(raw)) > COUNT - 4


def test_a_pack_that_may_have_almost_any_object_has_no_hints(
    state: StateRepository, packed: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(packed) <= hints_of(state)[0]
    monkeypatch.setattr(consolidation, "MOST", 29)
    hint(directory_of(state))
    assert not set(packed) & hints_of(state)[0]
    store = Objects(directory_of(state))
    assert all(store.has(blob_id(raw).hex()) for contents in packed.values() for raw in contents)
    store.close()


def test_hints_follow_packs_as_they_come_and_go(state: StateRepository, packed: dict[str, list[bytes]]) -> None:
    for name in list(packed)[3:9]:
        for ending in (".pack", ".idx"):
            (state.base_dir / reading.PACKS / (name + ending)).unlink()
        del packed[name]
    size = (state.base_dir / HINTS).stat().st_size
    for number in range(40, 44):
        contents = [b"%d of %d" % (each, number) for each in range(30)]
        packed[write_pack(state, [blob(raw) for raw in contents])] = contents
    hint(directory_of(state), 2)
    hint(directory_of(state), 2)
    names, without = hints_of(state)
    assert names == set(packs(state))
    assert (state.base_dir / HINTS).stat().st_size == size
    for name, contents in packed.items():
        assert not any(name in without(raw) for raw in contents)


def test_whoever_joins_packs_has_hints_about_the_new_one(
    state: StateRepository, packed: dict[str, list[bytes]]
) -> None:
    joined = consolidate(directory_of(state))
    assert joined is not None
    assert joined.name in hints_of(state)[0]


def test_an_object_is_looked_for_where_it_may_be(
    state: StateRepository, packed: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    begin = reading.open_index
    monkeypatch.setattr(reading, "open_index", lambda directory, name: (opened.append(name), begin(directory, name))[1])
    for contents in packed.values():
        opened.clear()
        with closing(Objects(directory_of(state))) as objects:
            assert objects.read(blob_id(contents[7]).hex()).raw == contents[7]
        assert len(opened) < 6


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "nothing is anywhere": lambda raw: raw[: 12 + 20 * (COUNT + 1)] + bytes(len(raw) - 12 - 20 * (COUNT + 1)),
    "no pack has its name": lambda raw: raw[:12] + bytes(20 * COUNT) + raw[12 + 20 * COUNT :],
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "more than there is": lambda raw: raw[:8] + b"\xff" * 4 + raw[12:],
    "NULs": lambda raw: bytes(len(raw)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_hints_that_are_not_true_hide_nothing(
    state: StateRepository, packed: dict[str, list[bytes]], harm: str
) -> None:
    file = state.base_dir / HINTS
    file.write_bytes(HARMS[harm](file.read_bytes()))
    with closing(Objects(directory_of(state))) as objects:
        for contents in packed.values():
            assert [objects.read(blob_id(raw).hex()).raw for raw in contents] == contents
    hint(directory_of(state))
    assert state.check(full=True) == []


def test_hints_that_the_disk_cannot_read_hide_nothing(
    state: StateRepository, packed: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, pread = (state.base_dir / HINTS).stat().st_size, os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_size == size and offset > 12 + 20 * COUNT:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, offset)

    with closing(Objects(directory_of(state))) as objects, monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        for contents in packed.values():
            assert [objects.read(blob_id(raw).hex()).raw for raw in contents] == contents


def test_something_else_in_the_place_of_hints_hides_nothing(
    state: StateRepository, packed: dict[str, list[bytes]], tmp_path: Path
) -> None:
    (state.base_dir / HINTS).unlink()
    (state.base_dir / HINTS).symlink_to(tmp_path)
    with closing(Objects(directory_of(state))) as objects:
        for contents in packed.values():
            assert [objects.read(blob_id(raw).hex()).raw for raw in contents] == contents
