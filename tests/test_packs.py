"""Packs: read entry by entry, and joined into one without losing anything, whatever happens on the way."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from wrapping import (
    blob,
    blob_id,
    delta,
    directory_of,
    files,
    git,
    objects,
    overwrite,
    packs,
    repack,
    write_pack,
)

import gitstate
import gitstate.medium
import gitstate.store.objects
from gitstate import StateRepository
from gitstate.store import joining, packindex
from gitstate.store import packs as reading
from gitstate.store.consolidation import choose, consolidate, gather, is_spent, joinable, remove_spent
from gitstate.store.entries import relative, whole
from gitstate.store.joining import join
from gitstate.store.objects import Objects, Stored
from gitstate.store.packs import PACKS


def history(state: StateRepository, *, packs: int = 3, by_offset: bool = True) -> list[object]:
    """A loop with some past, in packs as git makes them; what it was at each revision."""
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    for number in range(packs):
        for step in range(4):
            state.record_iteration("fix", {"learnings": f"{number}.{step} " + "the same at every time " * 9})
        repack(state, by_offset=by_offset)
    return past(state)


def past(state: StateRepository) -> list[object]:
    with gitstate.open(state.project_root) as other:
        return [other.get_loop("fix", at=str(change.revision)) for change in list(other.log())[:-1]]


def has_offset_deltas(state: StateRepository, name: str) -> bool:
    with closing(reading.open_index(directory_of(state), name)) as index:
        data = (state.base_dir / PACKS / f"{name}.pack").read_bytes()
        return any(data[offset] >> 4 & 7 == 6 for offset in index.offsets())


# --- reading ---------------------------------------------------------------------------------------------------------


def test_nothing_of_a_pack_is_mapped_or_read_as_a_whole(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = history(state)
    monkeypatch.setattr(packindex, "_SMALL", 0)
    monkeypatch.setattr(mmap, "mmap", None)
    largest = 0
    whole = packindex.Pieces.some

    def watched(self: packindex.Pieces, offset: int, size: int) -> bytes:
        nonlocal largest
        found = whole(self, offset, size)
        largest = max(largest, len(found))
        return found

    monkeypatch.setattr(packindex.Pieces, "some", watched)
    assert past(state) == before
    assert 0 < largest <= 4096


def test_no_more_than_a_few_packs_are_open_at_once(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    before = history(state, packs=4)
    monkeypatch.setattr(packindex, "_SMALL", 0)
    monkeypatch.setattr(reading, "_KEPT", 2)
    assert past(state) == before
    store = Objects(directory_of(state))
    assert all(store.has(object_id) for object_id in objects(state))
    assert len(store._packs._open) == 2
    store.close()


def test_the_newest_of_large_objects_stay_at_hand_and_at_least_one(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitstate.store.objects, "_LARGE", 10)
    monkeypatch.setattr(gitstate.store.objects, "_LARGE_BYTES", 100)
    store = Objects(directory_of(state))
    small, *large = [Stored(b"blob", bytes([number]) * (30 if number else 9)) for number in range(20)]
    for stored in (small, *large):
        store.remember(stored.id, stored)
    assert [store.held(stored.id) for stored in large] == [None] * 16 + [stored.raw for stored in large[16:]]
    huge = Stored(b"blob", bytes(1000))
    store.remember(huge.id, huge)
    assert [store.held(stored.id) for stored in large] == [None] * 19
    assert (store.held(huge.id), store.held(small.id)) == (huge.raw, small.raw)
    store.forget()
    assert (store.held(huge.id), store.held(small.id)) == (None, None)


def test_a_state_of_any_size_is_at_hand_for_the_next_mutation(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    state.update_loop("fix", {"notes": ["a line of notes"] * 120_000})
    read: list[str] = []
    anywhere = Objects._read_anywhere
    monkeypatch.setattr(Objects, "_read_anywhere", lambda self, name: read.append(name) or anywhere(self, name))
    state.update_loop("fix", {"note": "one"})
    state.update_loop("fix", {"note": "two"})
    assert read == []


def test_an_object_is_found_in_the_pack_that_came_while_its_own_went(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = history(state)
    store = Objects(directory_of(state))
    opened = reading.OpenPack.__init__

    def meanwhile(self: reading.OpenPack, *words: object) -> None:
        monkeypatch.setattr(reading.OpenPack, "__init__", opened)
        assert join(directory_of(state), packs(state)).name is not None
        opened(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(reading.OpenPack, "__init__", meanwhile)
    assert store.has(str(state.revision()))
    store.close()
    assert past(state) == before


def test_an_id_that_seems_to_stand_across_two_others_is_not_there() -> None:
    one, other = b"\x11\x11" + b"\x22" * 18, b"\x11\x33" * 10
    across = (one + other)[1:21]
    index = packindex.PackIndex(packindex.Pieces(packindex.index_of([(one, 12, 0), (other, 40, 0)], bytes(20))))
    assert (one in index, other in index, across in index) == (True, True, False)


def test_an_index_of_the_first_version_is_read(state: StateRepository) -> None:
    before = history(state, packs=1)
    (name,) = packs(state)
    index = state.base_dir / PACKS / f"{name}.idx"
    index.unlink()
    git(state, "index-pack", "--index-version=1", f"{PACKS}/{name}.pack")
    assert not index.read_bytes().startswith(packindex.SIGNATURE)
    assert past(state) == before
    joined = join(directory_of(state), [name, write_pack(state, [blob(b"another")])])
    git(state, "verify-pack", f"{PACKS}/{joined.name}.idx")
    assert past(state) == before


@pytest.mark.parametrize("raw", [b"", b"x", b"\0" * 1063, b"\0" * 1064, b"\0" * 5000])
def test_what_is_no_index_is_damage(tmp_path: Path, raw: bytes) -> None:
    with gitstate.open(tmp_path) as state:
        state.init()
        name = write_pack(state, [blob(b"one")])
        sealed = raw + hashlib.sha1(raw).digest()
        for contents in (raw, sealed) if raw else (raw,):
            (state.base_dir / PACKS / f"{name}.idx").write_bytes(contents)
            with pytest.raises(packindex.PackDamagedError):
                reading.open_data(directory_of(state), name, reading.open_index(directory_of(state), name))
            assert str(reading.damage_of_pack(directory_of(state), name)).startswith(("its index", "the pack"))


def test_an_entry_that_builds_upon_itself_is_damage(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.init()
        write_pack(state, [delta(b"one", b"two"), delta(b"two", b"one")])
        store = Objects(directory_of(state))
        assert not store.has(blob_id(b"one").hex())
        store.close()


# --- joining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_offset", [True, False], ids=["bases by offset", "bases by id"])
def test_one_pack_takes_the_place_of_several(state: StateRepository, by_offset: bool) -> None:
    before, everything = history(state, by_offset=by_offset), objects(state)
    assert any(has_offset_deltas(state, name) for name in packs(state)) == by_offset
    joined = join(directory_of(state), packs(state))
    assert (joined.packs, joined.objects, joined.damage) == (3, len(everything), {})
    assert packs(state) == [joined.name]
    assert not has_offset_deltas(state, str(joined.name))
    git(state, "verify-pack", f"{PACKS}/{joined.name}.idx")
    git(state, "fsck", "--strict", "--full")
    assert objects(state) == everything
    assert past(state) == before


def test_what_several_packs_have_is_taken_once(state: StateRepository) -> None:
    before, everything = history(state), objects(state)
    olds = {name: raw for name, raw in files(state).items() if name.startswith("objects/")}
    join(directory_of(state), packs(state))
    for name, raw in olds.items():  # as a kill leaves them, that came before they were removed
        (state.base_dir / ".git" / name).write_bytes(raw)
    assert len(packs(state)) == 4
    joined = join(directory_of(state), packs(state))
    assert joined.objects == len(everything)
    assert packs(state) == [joined.name]
    git(state, "verify-pack", f"{PACKS}/{joined.name}.idx")
    assert past(state) == before


def record(number: int, size: int = 90) -> bytes:
    """A text that compresses badly, as version *number* of a record."""
    lines = [hashlib.sha1(b"%d" % line).hexdigest().encode() for line in range(size)]
    return b"\n".join([b"{", *lines[: size // 2], b"version %d" % number, *lines[size // 2 :], b"}"])


def entry(raw: bytes, base: bytes | None = None) -> tuple[bytes, bytes]:
    """A blob whole, or as its difference from another."""
    name, stored = blob_id(raw), Stored(b"blob", raw)
    found = whole(name.hex(), stored) if base is None else relative(name.hex(), raw, blob_id(base).hex(), base)
    assert found is not None
    return name, found.raw


def bases_in(state: StateRepository, name: str) -> dict[str, tuple[str, int]]:
    """What the entries of a pack build upon, as git sees it, and upon how many others."""
    rows = [line.split() for line in git(state, "verify-pack", "-v", f"{PACKS}/{name}.idx").splitlines()]
    return {row[0]: (row[6], int(row[5])) for row in rows if len(row) == 7}


def test_versions_that_were_whole_in_their_packs_build_upon_each_other_in_the_joined_one(
    state: StateRepository,
) -> None:
    state.init()
    other = record(7, 300)
    names = [
        write_pack(state, [entry(record(number)), entry(record(number + 100), record(number)), blob(b"%d" % number)])
        for number in range(4)
    ]
    joined = join(directory_of(state), [*names, write_pack(state, [entry(other)])])
    assert joined.objects == 13
    found = bases_in(state, str(joined.name))
    for number in range(1, 4):
        assert found[blob_id(record(number)).hex()] == (blob_id(record(number - 1)).hex(), number)
        assert found[blob_id(record(number + 100)).hex()] == (blob_id(record(number)).hex(), number + 1)
    with closing(Objects(directory_of(state))) as store:
        for raw in (*map(record, (0, 1, 2, 3, 100, 101, 102, 103)), other):
            assert store.read(blob_id(raw).hex()).raw == raw


def test_what_joining_builds_upon_each_other_is_never_many(state: StateRepository) -> None:
    state.init()
    joined = join(directory_of(state), [write_pack(state, [entry(record(number))]) for number in range(20)])
    found = bases_in(state, str(joined.name))
    assert len(found) == 19
    assert max(depth for _, depth in found.values()) == 4


def test_nothing_comes_to_build_upon_what_is_not_what_its_name_says(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.init()
        wrong = write_pack(state, [(blob_id(record(0)), entry(record(1))[1])])
        joined = join(directory_of(state), [wrong, write_pack(state, [entry(record(2))])])
        assert joined.objects == 2
        assert entry(record(2))[1] in (state.base_dir / PACKS / f"{joined.name}.pack").read_bytes()


def test_an_entry_that_cannot_be_unpacked_is_copied_as_it_is(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.init()
        torn = entry(record(0))[1][:-9]
        join(
            directory_of(state),
            [write_pack(state, [(blob_id(record(0)), torn)]), write_pack(state, [entry(record(2))])],
        )
        (name,) = packs(state)
        assert torn in (state.base_dir / PACKS / f"{name}.pack").read_bytes()
        assert git(state, "cat-file", "blob", blob_id(record(2)).hex()) == record(2).decode()


def test_long_deltas_that_cross_do_not_become_a_circle(state: StateRepository) -> None:
    state.init()
    one, two, three = (record(number) for number in range(3))
    first = write_pack(state, [entry(one), entry(two, one), entry(three)])
    second = write_pack(state, [entry(three, two), entry(two), entry(one, two)])
    for names in ([first, second], [second, first]):
        before = files(state)
        joined = join(directory_of(state), names)
        assert joined.objects == 3
        for text in (one, two, three):
            assert git(state, "cat-file", "blob", blob_id(text).hex()) == text.decode()
        git(state, "verify-pack", f"{PACKS}/{joined.name}.idx")
        for name, raw in before.items():
            (state.base_dir / ".git" / name).write_bytes(raw)


def test_deltas_that_cross_do_not_become_a_circle(state: StateRepository) -> None:
    state.init()
    one = write_pack(state, [blob(b"one"), delta(b"two", b"one")])
    other = write_pack(state, [blob(b"two"), delta(b"one", b"two")])
    for names in ([one, other], [other, one]):
        before = files(state)
        joined = join(directory_of(state), names)
        assert joined.objects == 2
        for text in (b"one", b"two"):
            assert git(state, "cat-file", "blob", blob_id(text).hex()) == text.decode()
        git(state, "verify-pack", f"{PACKS}/{joined.name}.idx")
        for name, raw in before.items():
            (state.base_dir / ".git" / name).write_bytes(raw)


def test_offsets_beyond_two_gigabytes_have_a_table_of_their_own(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = (b"\x01" * 20, 3 << 31, 7), (b"\x02" * 20, 12, 8)
    index = packindex.PackIndex(packindex.Pieces(packindex.index_of([near, far], b"\x09" * 20)))
    assert [index.offset(index.row(name)) for name, _, _ in (far, near)] == [3 << 31, 12]
    assert [*index.offsets()] == [3 << 31, 12]
    assert (index.pack_checksum, index.pieces.is_sealed()) == (b"\x09" * 20, True)


def test_an_index_is_what_git_makes_of_the_same_pack(state: StateRepository) -> None:
    history(state)
    joined = join(directory_of(state), packs(state))
    ours = state.base_dir / PACKS / f"{joined.name}.idx"
    raw = ours.read_bytes()
    ours.unlink()
    git(state, "index-pack", f"{PACKS}/{joined.name}.pack")
    assert ours.read_bytes() == raw


def test_what_somebody_wants_kept_stays_as_it_is(state: StateRepository) -> None:
    history(state)
    kept = packs(state)[0]
    (state.base_dir / PACKS / f"{kept}.keep").touch()
    assert kept not in joinable(directory_of(state))
    assert len(joinable(directory_of(state))) == 2


def test_what_git_made_of_packs_that_go_goes_with_them(state: StateRepository) -> None:
    before = history(state)
    git(state, "multi-pack-index", "write")
    git(state, "-c", "pack.writeReverseIndex=true", "repack", "-a", "-q")
    join(directory_of(state), packs(state))
    assert {path.suffix for path in (state.base_dir / PACKS).iterdir()} == {".pack", ".idx"}
    git(state, "fsck", "--strict", "--full")
    assert past(state) == before


# --- damage ----------------------------------------------------------------------------------------------------------


def flip_a_body(pack: Path, index: Path) -> None:
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 2] ^= 1
    overwrite(pack, bytes(raw))


def cut_short(pack: Path, index: Path) -> None:
    overwrite(pack, pack.read_bytes()[:-1])


def flip_in_the_index(pack: Path, index: Path) -> None:
    raw = bytearray(index.read_bytes())
    raw[1032 + 5] ^= 1
    overwrite(index, bytes(raw))


def change_a_body_and_the_seal(pack: Path, index: Path) -> None:
    """As if it had been written wrong: both files hold together, but for the checksum of one entry."""
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 2] ^= 1
    checksum = hashlib.sha1(raw[:-20]).digest()
    overwrite(pack, bytes(raw[:-20]) + checksum)
    listed = index.read_bytes()[:-40] + checksum
    overwrite(index, listed + hashlib.sha1(listed).digest())


def change_the_seal(pack: Path, index: Path) -> None:
    """Every entry is what the index says, and only the checksum of the whole is another."""
    overwrite(pack, pack.read_bytes()[:-20] + b"x" * 20)
    listed = index.read_bytes()[:-40] + b"x" * 20
    overwrite(index, listed + hashlib.sha1(listed).digest())


def leave_an_entry_out(pack: Path, index: Path) -> None:
    """An index that holds together, and does not name one of the entries."""
    found = packindex.PackIndex(packindex.Pieces(index.read_bytes()))
    _, names = found.names()
    rows = list(zip(packindex.separate(names), found.offsets(), found.checksums(), strict=True))
    raw = pack.read_bytes()
    body = raw[:8] + (len(rows) - 1).to_bytes(4, "big") + raw[12:-20]
    checksum = hashlib.sha1(body).digest()
    overwrite(pack, body + checksum)
    rows.remove(min(rows, key=lambda row: row[1]))
    overwrite(index, packindex.index_of(rows, checksum))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_body, "not what its index says"),
        (cut_short, "the index belongs to another pack"),
        (flip_in_the_index, "its index does not check"),
        (change_a_body_and_the_seal, "not what its index says"),
        (change_the_seal, "its checksum is another"),
        (leave_an_entry_out, "its index does not name every entry"),
    ],
)
def test_a_damaged_pack_is_told_of_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[Path, Path], None], words: str
) -> None:
    with gitstate.open(tmp_path) as state:
        history(state)
        bad, *good = packs(state)
        damage(state.base_dir / PACKS / f"{bad}.pack", state.base_dir / PACKS / f"{bad}.idx")
        before = files(state)
        joined = join(directory_of(state), packs(state))
        assert list(joined.damage) == [bad]
        assert joined.damage[bad].endswith(words)
        assert packs(state) == sorted([bad, str(joined.name)])
        after = files(state)
        assert {name: after[name] for name in after if bad in name} == {n: before[n] for n in before if bad in n}
        assert joined.packs == len(good)


def test_a_delta_without_its_base_is_damage(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.init()
        thin = write_pack(state, [blob(b"three"), delta(b"two", b"one")])
        other = write_pack(state, [blob(b"one")])
        before = files(state)
        joined = join(directory_of(state), [thin, other])
        assert (joined.name, list(joined.damage)) == (None, [thin])
        assert files(state) == before


def test_an_entry_that_is_not_what_the_index_says_is_damage(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.init()
        wrong = write_pack(state, [blob(b"one"), blob(b"two")], checksums=[zlib.crc32(blob(b"one")[1]), 4711])
        joined = join(directory_of(state), [wrong, write_pack(state, [blob(b"three")])])
        assert joined.damage == {wrong: f"{blob_id(b'two').hex()[:12]} is not what its index says"}


@pytest.mark.parametrize("number", range(1, 7))
def test_a_disk_that_refuses_leaves_everything_as_it_was(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before, everything = history(state), files(state)
    calls = 0
    fsync = gitstate.medium.fsync

    def refusing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(gitstate.medium, "fsync", refusing)
    if number > 5:  # the pack, its index, twice the directory, and the directory once more when the packs have gone
        join(directory_of(state), packs(state))
        assert calls == 5
        return
    with pytest.raises(gitstate.StorageError, match="no space left"):
        join(directory_of(state), packs(state))
    monkeypatch.undo()
    after = files(state)
    if number < 3:
        assert after == everything
    assert not any(name.startswith("gitstate/") for name in after)
    remove_spent(directory_of(state))
    assert past(state) == before


# --- two at once -----------------------------------------------------------------------------------------------------


def test_two_that_join_the_same_packs_at_once_harm_nothing(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, everything = history(state), objects(state)
    names, directory = packs(state), directory_of(state)
    place, ready, go_on = joining.place, threading.Event(), threading.Event()

    def late(*words: object) -> str:
        if threading.current_thread() is superseded:
            ready.set()
            assert go_on.wait(20)
        return place(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(joining, "place", late)
    superseded = threading.Thread(target=join, args=(directory_of(state), names))
    superseded.start()
    assert ready.wait(20)
    first = join(directory, names)
    write_pack(state, [blob(b"another")])
    second = join(directory, packs(state))
    assert first.name not in packs(state)
    go_on.set()
    superseded.join(20)
    assert len(packs(state)) == 2
    assert second.name in packs(state)
    assert objects(state) == everything | {blob_id(b"another").hex()}
    git(state, "fsck", "--strict", "--full")
    assert past(state) == before


def test_nothing_goes_when_the_new_pack_is_gone_already(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, names = history(state), packs(state)
    place = joining.place

    def taken_away(*words: object) -> str:
        name = place(*words)  # type: ignore[arg-type]
        for ending in (".pack", ".idx"):
            (state.base_dir / PACKS / f"{name}{ending}").unlink()
        return name

    monkeypatch.setattr(joining, "place", taken_away)
    join(directory_of(state), names)
    assert packs(state) == names
    assert past(state) == before


# --- what a kill leaves ----------------------------------------------------------------------------------------------


def test_an_index_without_its_pack_is_spent_when_other_packs_have_its_objects(state: StateRepository) -> None:
    history(state)
    name = packs(state)[0]
    index = (state.base_dir / PACKS / f"{name}.idx").read_bytes()
    join(directory_of(state), packs(state))
    alone = state.base_dir / PACKS / f"{name}.idx"
    alone.write_bytes(index)
    assert is_spent(directory_of(state), name)
    assert state.check(full=True) == []
    git(state, "fsck", "--strict", "--full")
    consolidate(directory_of(state))
    assert not alone.exists()


def test_an_index_without_its_pack_is_spent_when_its_objects_lie_by_themselves(state: StateRepository) -> None:
    state.init()
    name = write_pack(state, [blob(b"one")])
    (state.base_dir / PACKS / f"{name}.pack").unlink()
    assert not is_spent(directory_of(state), name)
    Objects(directory_of(state)).write([Stored(b"blob", b"one")])
    assert is_spent(directory_of(state), name)


def test_an_index_whose_objects_are_nowhere_is_damage_and_stays(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        history(state)
        name = packs(state)[0]
        (state.base_dir / PACKS / f"{name}.pack").unlink()
        assert not is_spent(directory_of(state), name)
        assert "pack_damaged" in {finding.code for finding in state.check(full=True)}
        consolidate(directory_of(state))
        assert (state.base_dir / PACKS / f"{name}.idx").exists()


# --- when, and which -------------------------------------------------------------------------------------------------


def test_eight_of_a_size_become_one_and_fewer_stay() -> None:
    sevens = {f"pack-{number}": 384 for number in range(7)}
    assert choose(sevens) == []
    assert sorted(choose(sevens | {"pack-7": 400})) == [*sorted(sevens), "pack-7"]
    assert choose(sevens | {"large": 3072}) == []


def test_packs_are_joined_in_the_order_in_which_they_were_written(state: StateRepository) -> None:
    state.init()
    names = [write_pack(state, [blob(b"%d %d" % (number, size)) for size in range(9 - number)]) for number in range(8)]
    for age, name in enumerate(names):
        os.utime(state.base_dir / PACKS / f"{name}.pack", (1000 + age, 1000 + age))
    weights = joinable(directory_of(state))
    assert [*weights] == names
    assert gather(weights) == names
    assert choose({name: 500 - 5 * number for number, name in enumerate(names)}) == names


def test_what_is_joined_at_once_is_bounded() -> None:
    assert len(choose({f"pack-{number}": 3500 for number in range(8)})) == 8
    assert len(choose({f"pack-{number}": 9000 for number in range(8)})) == 3
    assert choose({f"pack-{number}": 20_000 for number in range(30)}) == []


def test_the_number_of_packs_hardly_grows_and_each_object_moves_rarely() -> None:
    weights: dict[str, int] = {}
    moved = most = 0
    for number in range(100_000 // 64):
        weights[f"pack-{number}"] = 384
        names = choose(weights)
        if names:
            weights[f"joined-{number}"] = sum(weights.pop(name) for name in names)
            moved += weights[f"joined-{number}"]
        most = max(most, len(weights))
    large = sum(weight > 20_000 for weight in weights.values())
    assert most - large <= 3 * 7 + 2
    assert large == sum(weights.values()) // 24_576
    assert moved <= 2 * sum(weights.values())


def test_packs_are_consolidated_when_there_are_eight(state: StateRepository) -> None:
    state.init()
    directory = directory_of(state)
    for number in range(7):
        write_pack(state, [blob(b"number %d" % number)])
        assert consolidate(directory) is None
    write_pack(state, [blob(b"number 7")])
    assert consolidate(directory, leaving={packs(state)[0]}) is None
    joined = consolidate(directory)
    assert joined is not None
    assert (joined.packs, joined.objects, packs(state)) == (8, 8, [joined.name])


def test_what_is_joined_while_everything_is_listed_is_listed_all_the_same(state: StateRepository) -> None:
    history(state, packs=4)
    there = objects(state)
    directory = directory_of(state)
    with closing(Objects(directory)) as store:
        listed = store.entries()
        found = {next(listed)[0]}
        join(directory, packs(state))
        found |= {object_id for object_id, _ in listed}
    assert found >= there
