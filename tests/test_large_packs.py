"""Large packs joined step by step: whoever takes the steps, and whatever becomes of him, nothing is lost and few are left."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from templates import copy, template
from wrapping import blob, blob_id, delta, directory_of, files, git, objects, overwrite, packs, repack, write_pack

import gitstate
from gitstate import StateRepository, process
from gitstate.durable import Directory
from gitstate.errors import LeaseTimeoutError, StorageError
from gitstate.guard import Guard
from gitstate.layout import JOINING, JOINING_GUARD
from gitstate.medium import UnreadableError, not_read
from gitstate.store import consolidation, stepwise
from gitstate.store.consolidation import choose_large
from gitstate.store.joining import Joined
from gitstate.store.objects import Objects
from gitstate.store.packs import PACKS
from gitstate.store.stepwise import take_a_step

COUNT, EACH = 4, 30
ALL = [b"%d of %d" % (each, number) for number in range(COUNT + 2) for each in range(EACH)]
TEXTS = ALL[: COUNT * EACH]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large here weighs more than 20, and four are joined."""
    monkeypatch.setattr(consolidation, "_LARGEST", 40)
    monkeypatch.setattr(consolidation, "_LARGE", 400)
    monkeypatch.setattr(consolidation, "_TOGETHER", COUNT)
    monkeypatch.setattr(stepwise, "_ENTRIES", 8)
    monkeypatch.setattr(stepwise, "_ROWS", 40)


@pytest.fixture
def large(state: StateRepository) -> StateRepository:
    """With large packs, in each of which are deltas, some of what the one before has as well, and what builds upon that."""
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    for number in range(COUNT):
        write_large(state, number)
    return state


def write_large(state: StateRepository, number: int) -> str:
    own = ALL[number * EACH : (number + 1) * EACH]
    before = ALL[(number - 1) * EACH : number * EACH][:3] if number else []
    name = write_pack(
        state,
        [
            *(delta(raw, before[0]) for raw in own[:2] if before),
            *(blob(raw) for raw in own[0 if not before else 2 : 4]),
            *(blob(raw) for raw in before),
            *(blob(raw) for raw in own[4:-4]),
            *(delta(raw, own[5]) for raw in own[-4:]),
        ],
    )
    os.utime(state.base_dir / PACKS / f"{name}.pack", (number, number))
    return name


def large_packs(state: StateRepository) -> list[str]:
    """Those that were written, or that came of them."""
    directory = directory_of(state)
    return [name for name in packs(state) if consolidation.weight_of(directory, name) > 20]


def finish(state: StateRepository) -> list[Joined | None]:
    """Take steps until there is nothing to do; what came of each."""
    found = [take_a_step(directory_of(state))]
    while left(state):
        found.append(take_a_step(directory_of(state)))
        assert len(found) < 200
    return found


def left(state: StateRepository) -> set[str]:
    """What lies there of a joining that is not done."""
    return {path.suffix or path.name for path in (state.base_dir / JOINING).glob("*")} - {"guard", "left"}


def part(state: StateRepository, ending: str) -> Path:
    (found,) = (state.base_dir / JOINING).glob(f"*.{ending}")
    return found


def take(state: StateRepository, steps: int) -> None:
    for _ in range(steps):
        assert take_a_step(directory_of(state)) is None


def begin_an_epoch(state: StateRepository, changes: dict[str, object]) -> None:
    """A mutation by somebody who finds no journal, after which everything is looked after."""
    (state.base_dir / ".git/gitstate/journal").unlink(missing_ok=True)
    with gitstate.open(state.project_root) as other:
        other.update_loop("fix", changes)


def damage(state: StateRepository) -> list[str]:
    with gitstate.open(state.project_root) as other:
        return [str(finding) for finding in other.check(full=True)]


def assert_all_is_there(state: StateRepository) -> None:
    with closing(Objects(directory_of(state))) as store:
        assert all(store.read(blob_id(raw).hex()).raw == raw for raw in TEXTS)
    git(state, "fsck", "--strict", "--full")


# --- what comes of it ------------------------------------------------------------------------------------------------


def test_large_packs_become_one_and_each_object_is_in_it_once(large: StateRepository) -> None:
    everything, olds = objects(large), large_packs(large)
    assert len(olds) == COUNT
    *steps, last = finish(large)
    assert steps == [None] * len(steps)
    assert last is not None
    assert (last.packs, last.objects, last.damage) == (COUNT, len(TEXTS), {})
    assert large_packs(large) == [last.name]
    git(large, "verify-pack", f"{PACKS}/{last.name}.idx")
    assert objects(large) == everything
    assert_all_is_there(large)
    assert damage(large) == []
    assert not (large.base_dir / PACKS / f"{last.name}.pack").stat().st_mode & 0o222


def test_its_index_is_what_git_makes_of_the_pack(large: StateRepository) -> None:
    name = finish(large)[-1].name  # type: ignore[union-attr]
    ours = large.base_dir / PACKS / f"{name}.idx"
    raw = ours.read_bytes()
    ours.unlink()
    git(large, "index-pack", f"{PACKS}/{name}.pack")
    assert ours.read_bytes() == raw


@pytest.mark.parametrize(("entries", "bytes_"), [(3, 1 << 20), (1000, 100)])
def test_no_step_copies_more_than_its_share(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch, entries: int, bytes_: int
) -> None:
    monkeypatch.setattr(stepwise, "_ENTRIES", entries)
    monkeypatch.setattr(stepwise, "_BYTES", bytes_)
    sizes = [0]
    while not sizes[1:] or sizes[-1] != sizes[-2]:
        take(large, 1)
        sizes.append(part(large, "body").stat().st_size)
    assert max(after - before for before, after in pairwise(sizes)) <= min(entries * 50, bytes_ + 50)
    assert len(sizes) > 10


def test_no_step_lists_more_than_its_share(large: StateRepository) -> None:
    while part_is_copied(large):
        take(large, 1)
    sizes = []
    while "placed" not in left(large):
        sizes.append(part(large, "notes").stat().st_size)
        take(large, 1)
    rows = [after - before for before, after in pairwise(sizes)]
    assert len(rows) == 4 + 1  # with that of its checksum
    assert max(rows) < len(TEXTS) / 2 * (20 + 8 + 4) + 64 * 4


def part_is_copied(state: StateRepository) -> bool:
    """Whether the next step copies something, as a copy of all this shows."""
    again = copied(state)
    take(again, 1)
    return "body" in {ending.strip(".") for ending in left(again)} and (
        not left(state) or part(again, "body").stat().st_size > part(state, "body").stat().st_size
    )


def test_fewer_than_are_joined_at_once_stay(state: StateRepository) -> None:
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    for number in range(COUNT - 1):
        write_large(state, number)
    before = files(state)
    assert take_a_step(directory_of(state)) is None
    assert files(state) == before


def test_the_oldest_are_joined_whatever_comes_meanwhile(large: StateRepository) -> None:
    olds = large_packs(large)
    take(large, 5)
    key = part(large, "body").name
    write_large(large, COUNT)
    take(large, 1)
    assert part(large, "body").name == key
    assert finish(large)[-1].packs == COUNT  # type: ignore[union-attr]
    assert len(large_packs(large)) == 2
    assert not set(olds) & set(packs(large))


def test_what_is_chosen_is_never_too_much_together() -> None:
    assert choose_large(dict.fromkeys("abc", 30)) == []
    assert choose_large(dict.fromkeys("abcde", 30)) == ["a", "b", "c", "d"]
    assert choose_large({"a": 30, "b": 30, "small": 20, "c": 30, "huge": 201, "d": 30}) == ["a", "b", "c", "d"]
    assert choose_large({"a": 150, "b": 150, "c": 150, "d": 100}) == ["a", "b", "d"]


def test_few_packs_are_left_however_long_history_is(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_TOGETHER", 8), ("_LARGEST", 160), ("_LARGE", 1300)):
        monkeypatch.setattr(consolidation, name, value)
    monkeypatch.setattr(stepwise, "_ENTRIES", 60)
    monkeypatch.setattr(stepwise, "_ROWS", 600)
    state.create_loop("Fix the tests", "all pass", loop_id="fix", pid=None)
    directory, most, end = directory_of(state), 0, 2000
    for number in range(end):  # an epoch each
        write_pack(state, [blob(b"%d.%d" % (number, each)) for each in range(2)])
        if consolidation.consolidate(directory) is None:
            take_a_step(directory)
        most = max(most, len(packs(state)))
    assert most < 8 * 4 + end // 512
    assert len(objects(state)) > 2 * end
    assert damage(state) == []


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_killed_process_s_work_is_gone_on_with(large: StateRepository) -> None:
    steps = len(finish(copied(large)))
    for done in range(1, steps):
        again = copied(large)
        pid = os.fork()
        if not pid:
            with suppress(BaseException):
                take(again, done)
            os._exit(9)
        os.waitpid(pid, 0)
        assert len(finish(again)) == steps - done
        assert len(large_packs(again)) == 1
        assert_all_is_there(again)


_copies = iter(range(10**9))


def copied(state: StateRepository) -> StateRepository:
    to = state.project_root.parent / f"copy-{next(_copies)}"
    return copy(state.project_root, to)[0]


CHANGING = ("pwrite", "write", "rename", "unlink", "fsync", "ftruncate", "fchmod", "link", "mkdir")


def test_a_kill_anywhere_leaves_one_pack_in_the_end(large: StateRepository) -> None:
    everything, nth, code = objects(large), 0, 9
    while code == 9:
        nth += 1
        again = copied(large)
        pid = os.fork()
        if not pid:
            _killed_at(nth, again)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finish(again)
        assert len(large_packs(again)) == 1, nth
        assert len(packs(again)) == len(packs(large)) - COUNT + 1, nth
        assert objects(again) == everything, nth
    assert nth > 60
    assert code == 0


def _killed_at(nth: int, state: StateRepository) -> None:
    """Join, until the *nth* call that changes something, of which half is done where it writes."""
    count = 0

    def counting(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def counted(*words: object, **more: object) -> object:
            nonlocal count
            count += 1
            if count == nth:
                if name == "pwrite":
                    call(words[0], bytes(words[1])[: len(words[1]) // 2], *words[2:])  # type: ignore[call-overload,arg-type]
                os._exit(9)
            return call(*words, **more)

        return counted

    try:
        for name in CHANGING:
            setattr(os, name, counting(name))
        finish(state)
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_two_processes_do_not_get_into_each_other_s_way(large: StateRepository) -> None:
    everything = objects(large)
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            try:
                for _ in range(60):
                    with suppress(LeaseTimeoutError):
                        take_a_step(directory_of(large))
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    finish(large)
    assert len(large_packs(large)) == 1
    assert objects(large) == everything
    assert_all_is_there(large)


def test_whoever_finds_another_at_it_does_not_wait(large: StateRepository) -> None:
    take(large, 2)
    before = part(large, "body").read_bytes()
    with Guard(directory_of(large), JOINING_GUARD).hold(0):
        with pytest.raises(LeaseTimeoutError):
            take_a_step(directory_of(large))
        begin_an_epoch(large, {"note": "no matter"})
    assert part(large, "body").read_bytes() == before


def test_a_mutation_that_begins_an_epoch_takes_a_step_if_nothing_else_was_joined(large: StateRepository) -> None:
    begin_an_epoch(large, {"note": "one"})
    size = part(large, "body").stat().st_size
    large.update_loop("fix", {"note": "two"})
    assert part(large, "body").stat().st_size == size
    for number in range(COUNT):
        write_pack(large, [blob(b"small %d" % number)])
    few = len(packs(large))
    begin_an_epoch(large, {"note": "three"})
    assert len(packs(large)) < few + 1
    assert part(large, "body").stat().st_size == size


def test_garbage_collection_throws_away_what_is_of_no_use_any_more(large: StateRepository) -> None:
    everything = objects(large)
    take(large, 6)
    large.collect_garbage()
    assert left(large) == set()
    assert objects(large) == everything
    assert_all_is_there(large)


def test_packs_that_go_meanwhile_take_along_what_was_begun(large: StateRepository) -> None:
    take(large, 6)
    key = part(large, "body").name
    directory, names = directory_of(large), large_packs(large)
    consolidation.join(directory, names[:2])
    for number in range(COUNT, COUNT + 2):
        write_large(large, number)
    take(large, 1)
    assert part(large, "body").name != key
    finish(large)
    assert_all_is_there(large)


# --- what lies there is not what was written --------------------------------------------------------------------------


def test_what_another_boot_left_is_thrown_away(large: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    take(large, 6)
    before = part(large, "body")
    monkeypatch.setattr(process, "boot_id", lambda: "another")
    take(large, 1)
    assert not before.exists()
    assert part(large, "body").stat().st_size < 400


def test_where_no_boot_can_be_told_nothing_is_begun(large: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "boot_id", lambda: None)
    take(large, 3)
    assert left(large) == set()


@pytest.mark.parametrize("steps", [1, 2])  # before it is in place: it is altered before it is sealed, or after
@pytest.mark.parametrize("at", [14, 150, 700, -1])
def test_an_altered_body_never_becomes_a_pack(large: StateRepository, at: int, steps: int) -> None:
    in_place = len(finish(copied(large))) - 1
    take(large, in_place - steps)
    flip(part(large, "body"), at)
    take(large, 1)
    assert left(large) == set()
    assert len(large_packs(large)) == COUNT
    finish(large)
    assert_all_is_there(large)
    assert damage(large) == []


def test_a_body_that_was_cut_short_is_begun_anew(large: StateRepository) -> None:
    take(large, 6)
    with part(large, "body").open("r+b") as file:
        file.truncate(200)
    take(large, 1)
    assert left(large) == set()
    finish(large)
    assert_all_is_there(large)


def test_what_no_note_tells_of_is_written_anew(large: StateRepository) -> None:
    take(large, 4)
    before, notes = part(large, "body").read_bytes(), part(large, "notes").read_bytes()
    take(large, 1)
    after = part(large, "body").read_bytes()
    for torn in (notes, part(large, "notes").read_bytes()[:-1], part(large, "notes").read_bytes()[:-1] + b"\xff"):
        part(large, "notes").write_bytes(torn)
        part(large, "body").write_bytes(before + os.urandom(len(after)))
        take(large, 1)
        assert part(large, "body").read_bytes() == after
    finish(large)
    assert_all_is_there(large)


def test_the_old_packs_stay_if_the_new_one_is_not_whole(large: StateRepository) -> None:
    for ending, at in ((".pack", 300), (".idx", 1032 + 5), (".idx", 1032 + 20 * len(TEXTS) + 5)):
        again = copied(large)
        while "placed" not in left(again):
            take(again, 1)
        (new,) = set(large_packs(again)) - set(large_packs(large))
        flip(again.base_dir / PACKS / f"{new}{ending}", at)
        take(again, 1)
        assert set(large_packs(large)) <= set(packs(again))
        assert "placed" not in left(again)
        count = len(packs(again))
        take(again, 30)
        assert len(packs(again)) == count  # no other is made


@pytest.mark.parametrize("name", ["another pack", "none", "no name", "a directory"])
def test_the_old_packs_stay_if_the_new_one_has_not_all_of_theirs(large: StateRepository, name: str) -> None:
    olds = large_packs(large)
    other = write_pack(large, [blob(b"another")])
    words = {"another pack": other, "none": "pack-00", "no name": "../../HEAD", "a directory": "x"}[name]
    (large.base_dir / JOINING).mkdir()
    placed = large.base_dir / JOINING / "placed"
    placed.write_text("\n".join((words, *olds)))
    if name == "a directory":
        placed.unlink()
        placed.mkdir()
    with suppress(StorageError):
        take_a_step(directory_of(large))
    assert set(olds) <= set(packs(large))


def test_a_row_that_is_missing_from_the_index_keeps_it_from_becoming_a_pack(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = stepwise._places
    monkeypatch.setattr(stepwise, "_places", lambda runs, offsets: [*places(runs, offsets)[:-1], 0])
    take(large, 40)
    assert len(large_packs(large)) == COUNT


def test_the_old_packs_go_when_the_name_of_the_new_one_is_durable(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever put it there may have been killed before he synced that."""
    while "placed" not in left(large):
        take(large, 1)
    told: list[str] = []
    for name in ("sync", "discard"):
        call = getattr(Directory, name)
        monkeypatch.setattr(
            Directory,
            name,
            lambda self, path, call=call, name=name: (told.append(f"{name} {path}"), call(self, path))[1],
        )
    take_a_step(directory_of(large))
    first = next(at for at, words in enumerate(told) if words.startswith(f"discard {PACKS}/pack-"))
    assert f"sync {PACKS}" in told[:first]


def test_what_is_put_in_place_was_synced_after_its_last_byte(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    for name in ("pwrite", "fsync"):
        call = getattr(os, name)

        def noted(descriptor: int, *words: object, call: Callable[..., object] = call, name: str = name) -> object:
            told.append((name, os.fstat(descriptor).st_ino))
            return call(descriptor, *words)

        monkeypatch.setattr(os, name, noted)
    while "placed" not in left(large):
        take(large, 1)
    (new,) = set(large_packs(large)) - set(before_all(large))
    for ending in (".pack", ".idx"):
        inode = (large.base_dir / PACKS / f"{new}{ending}").stat().st_ino
        assert [name for name, other in told if other == inode][-1] == "fsync"


def before_all(state: StateRepository) -> list[str]:
    """The large packs that were written first."""
    return [name for name in packs(state) if (state.base_dir / PACKS / f"{name}.pack").stat().st_mtime < COUNT]


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    overwrite(path, bytes(raw))


def a_body(pack: Path) -> None:
    flip(pack, 300)


def a_header(pack: Path) -> None:
    flip(pack, 7)  # there are two versions of packs, and they are the same


def an_end(pack: Path) -> None:
    flip(pack, -1)


def an_index(pack: Path) -> None:
    flip(pack.with_suffix(".idx"), 1032 + 5)


def an_index_and_its_checksum(pack: Path) -> None:
    raw = bytearray(pack.with_suffix(".idx").read_bytes()[:-20])
    raw[1032 + 20 * int.from_bytes(raw[1028:1032]) + 7] ^= 1  # a checksum of an entry
    overwrite(pack.with_suffix(".idx"), bytes(raw) + hashlib.sha1(raw).digest())


def an_offset(pack: Path) -> None:
    raw = bytearray(pack.with_suffix(".idx").read_bytes()[:-20])
    at = 1032 + 24 * int.from_bytes(raw[1028:1032])
    raw[at : at + 4] = bytes(4)
    overwrite(pack.with_suffix(".idx"), bytes(raw) + hashlib.sha1(raw).digest())


def no_index_at_all(pack: Path) -> None:
    overwrite(pack.with_suffix(".idx"), b"x" * pack.with_suffix(".idx").stat().st_size)


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize(
    "how", [a_body, a_header, an_end, an_index, an_index_and_its_checksum, an_offset, no_index_at_all]
)
def test_a_damaged_pack_stays_as_it_is_and_is_told_of(
    large: StateRepository, how: Callable[[Path], None], number: int
) -> None:
    write_large(large, COUNT)
    large = copied(large)
    names = sorted(large_packs(large), key=lambda name: (large.base_dir / PACKS / f"{name}.pack").stat().st_mtime)
    pack = large.base_dir / PACKS / f"{names[number]}.pack"
    how(pack)
    os.utime(pack, (number, number))
    before = {path.name: path.read_bytes() for path in (pack, pack.with_suffix(".idx"))}
    told: dict[str, str] = {}
    joined = [found for found in finish(large) + finish(large) if found is not None]
    for found in joined:
        told |= found.damage
    assert list(told) == [names[number]]
    assert [found.packs for found in joined if found.name is not None] == [COUNT]
    assert {path.name: path.read_bytes() for path in (pack, pack.with_suffix(".idx"))} == before
    assert set(names) & set(packs(large)) == {names[number]}
    assert [found for found in finish(large) if found is not None] == []


def test_a_pack_whose_deltas_lack_a_base_stays_as_it_is(large: StateRepository) -> None:
    large = copied(large)
    name = write_pack(large, [*(blob(b"more %d" % number) for number in range(EACH)), delta(b"a text", b"not there")])
    os.utime(large.base_dir / PACKS / f"{name}.pack", (0, 0))
    told = [found.damage for found in finish(large) + finish(large) if found is not None]
    assert list(told[0]) == [name]
    assert "a delta of what is not there" in told[0][name]
    assert name in packs(large)


def test_a_pack_of_git_s_is_left_to_garbage_collection(large: StateRepository) -> None:
    for number in range(12):
        large.record_iteration("fix", {"learnings": f"{number} " + "the same at every time " * 9})
    repack(large)
    (name,) = [name for name in large_packs(large) if name not in known(large)]
    os.utime(large.base_dir / PACKS / f"{name}.pack", (0, 0))
    assert [found.damage for found in finish(large) + finish(large) if found is not None] == [{}, {}]
    assert name in packs(large)
    assert len(large_packs(large)) == 2
    large.collect_garbage()
    assert name not in packs(large)
    assert_all_is_there(large)


def known(state: StateRepository) -> set[str]:
    ids = {blob_id(raw).hex() for raw in TEXTS}
    return {
        name
        for name in packs(state)
        if ids & {line.split(" ")[0] for line in git(state, "verify-pack", "-v", f"{PACKS}/{name}.idx").splitlines()}
    }


# --- what the system refuses -----------------------------------------------------------------------------------------


def refusing(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, number: int) -> None:
    call, count = getattr(os, name), 0

    def counted(*words: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == nth:
            raise OSError(number, os.strerror(number))
        return call(*words, **more)

    monkeypatch.setattr(os, name, counted)


@pytest.mark.parametrize(("name", "nth"), [("pwrite", 2), ("fsync", 1)])  # the first is the signature of the guard
def test_where_the_disk_refuses_what_was_begun_makes_room(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    take(large, 4)
    with monkeypatch.context() as patch:
        refusing(patch, name, nth, errno.ENOSPC)
        with pytest.raises(StorageError):
            take_a_step(directory_of(large))
    assert left(large) == set()
    finish(large)
    assert len(large_packs(large)) == 1
    assert_all_is_there(large)


def test_a_pack_whose_name_was_not_synced_is_not_relied_upon(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    olds = large_packs(large)
    while "placed" not in left(large):
        before = copied(large)
        take(large, 1)
    sync = Directory.sync

    def refused(self: Directory, name: str) -> None:
        if name == PACKS and len(large_packs(before)) > COUNT:
            raise StorageError("refused")
        sync(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "sync", refused)
        with pytest.raises(StorageError):
            take_a_step(directory_of(before))
    assert "placed" not in left(before)
    count = len(packs(before))
    take(before, 30)
    assert set(olds) <= set(packs(before))
    assert len(packs(before)) == count  # no other is made


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_what_cannot_be_read_just_now_says_nothing_of_a_pack(
    large: StateRepository, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(self: Directory, name: str) -> None:
        raise not_read(name, OSError(number, os.strerror(number)))

    take(large, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "opened", refused)
        with pytest.raises(UnreadableError):
            take_a_step(directory_of(large))
    assert not (large.base_dir / JOINING / "left").exists()
    finish(large)
    assert len(large_packs(large)) == 1


# --- what else may lie in its place ----------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of somebody else's, which stays as it is."""
    target = tmp_path / "outside"
    target.mkdir()
    for name in ("guard", "file"):
        (target / name).write_text("somebody's")
    yield target
    assert {path.name: path.read_text() for path in target.iterdir()} == {"guard": "somebody's", "file": "somebody's"}


def mutate(state: StateRepository) -> None:
    begin_an_epoch(state, {"note": "one"})
    assert damage(state) == []
    assert len(large_packs(state)) == COUNT


@pytest.mark.parametrize("what", ["symlink", "file"])
def test_something_else_in_the_place_of_the_directory_does_no_harm(
    large: StateRepository, outside: Path, what: str
) -> None:
    place = large.base_dir / JOINING
    if what == "symlink":
        place.symlink_to(outside)
    else:
        place.write_text("somebody's")
    mutate(large)
    assert place.is_symlink() or place.read_text() == "somebody's"


@pytest.mark.parametrize("what", ["symlink", "link", "directory", "fifo"])
@pytest.mark.parametrize("name", ["guard", "left", "placed", "body", "notes"])
def test_something_else_in_the_place_of_a_file_does_no_harm(
    large: StateRepository, outside: Path, what: str, name: str
) -> None:
    take(large, 3)
    place = large.base_dir / JOINING / name
    if name in ("body", "notes"):
        place = part(large, name)
    place.unlink(missing_ok=True)
    if what == "symlink":
        place.symlink_to(outside / "file")
    elif what == "link":
        place.hardlink_to(outside / "file")
    elif what == "directory":
        place.mkdir()
        (place / "file").write_text("somebody's")
    else:
        os.mkfifo(place)
    mutate(large)
    mutate(large)
    assert what != "directory" or (place / "file").read_text() == "somebody's"


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_process_that_joins_nothing_large_does_not_load_how(tmp_path: Path) -> None:
    template(tmp_path / "project", lambda state, clock: state.create_loop("Fix", "done", loop_id="fix", pid=None))
    code = (
        "import sys, gitstate; state = gitstate.open(sys.argv[1]); state.update_loop('fix', {'note': 'x'});"
        "sys.exit('gitstate.store.stepwise' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "project")], check=True)
