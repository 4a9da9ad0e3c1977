"""The journal after a power cut and after damage, and the pack entries that it holds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from dulwich.pack import apply_delta
from hypothesis import given, settings
from hypothesis import strategies as st

import gitstate.medium
import gitstate.process
from gitstate import StateRepository
from gitstate.durable import Directory
from gitstate.layout import ASIDE
from gitstate.store.entries import base_of, difference, relative, unpacked, whole
from gitstate.store.journal import SIZE, Journal
from gitstate.store.objects import Stored
from gitstate.store.recent import Prepared, Recent

JOURNAL = ".git/gitstate/journal"
BRANCH = ".git/refs/heads/main"


@pytest.fixture
def busy(state: StateRepository) -> StateRepository:
    state.create_loop("Fix the tests", "all pass", loop_id="one", pid=None)
    state.update_loop("one", {"note": "before"})
    return state


def restarted(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> StateRepository:
    """The state as whoever comes first after the machine was restarted finds it."""
    monkeypatch.setattr(gitstate.process, "boot_id", lambda: "another-boot")
    return StateRepository(state.project_root, actor="user:alice", clock=FakeClock())


def cut(state: StateRepository, head: str) -> None:
    """Take what was not synced: the recent pack, and the last moves of the branch."""
    for path in (state.base_dir / ".git/objects/pack").iterdir():
        path.unlink()
    (state.base_dir / BRANCH).write_text(f"{head}\n")


# --- while it is written ---------------------------------------------------------------------------------------------


def test_a_reader_who_learns_of_a_publication_before_its_writer_goes_on_does_no_harm(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal._write

    def watched(self: Journal, *words: Any) -> None:
        write(self, *words)
        busy._revisions.recent.learn()  # as another thread of the same process may at any moment

    monkeypatch.setattr(Journal, "_write", watched)
    for number in range(4):
        busy.update_loop("one", {"note": f"number {number}"})
    chain = Journal(Directory(busy.base_dir, ASIDE)).chain()
    assert [publication.number for publication in chain] == list(range(len(chain)))
    assert chain[-1].head == busy.revision()


def test_what_another_thread_read_before_an_epoch_was_opened_has_nothing_acknowledged_behind_it(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent, directory = busy._revisions.recent, Directory(busy.base_dir, ASIDE)
    before, head = recent.learn(), busy.revision()
    Journal(directory).begin(head, None)  # by somebody who is killed before the branch moves
    prepare = Recent.prepare

    def overtaken(self: Recent, *words: Any) -> Prepared:
        self._follow(before)  # as a thread that was stopped when it had read the journal
        return prepare(self, *words)

    monkeypatch.setattr(Recent, "prepare", overtaken)
    synced: list[str] = []
    sync_file = Directory.sync_file
    monkeypatch.setattr(Directory, "sync_file", lambda self, name: (synced.append(name), sync_file(self, name))[1])
    busy.update_loop("one", {"note": "acknowledged"})
    assert BRANCH in synced
    assert [name for name in synced if name.endswith(".pack")]
    assert Journal(directory).chain() == ()  # or it would take the branch back after a power cut


# --- after a power cut -----------------------------------------------------------------------------------------------


def test_what_was_acknowledged_is_read_from_the_journal_at_once_and_nothing_is_written(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = git(busy.base_dir, "rev-list", "--max-parents=0", "main").stdout.strip()
    cut(busy, first)
    with restarted(busy, monkeypatch) as later:
        assert later.get_loop("one")["note"] == "before"
        assert [change.operation for change in later.log("one")] == ["update", "create"]
        assert [finding.code for finding in later.check()] == ["journal_pending"]
        assert (busy.base_dir / BRANCH).read_text().strip() == first
        later.update_loop("one", {"note": "after"})


def test_the_next_mutation_gives_git_its_history_back(busy: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    first = git(busy.base_dir, "rev-list", "--max-parents=0", "main").stdout.strip()
    cut(busy, first)
    with restarted(busy, monkeypatch) as later:
        later.update_loop("one", {"note": "after"})
    subjects = git(busy.base_dir, "log", "--format=%s").stdout.splitlines()
    assert [subject.split()[0] for subject in subjects] == ["update", "update", "create", "init:"]


def test_repair_alone_gives_it_back_too(busy: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    head = busy.revision()
    cut(busy, git(busy.base_dir, "rev-list", "--max-parents=0", "main").stdout.strip())
    with restarted(busy, monkeypatch) as later:
        assert ("journal_pending", "put back") in [(found.code, found.action) for found in later.repair()]
    assert git(busy.base_dir, "rev-parse", "main").stdout.strip() == head


def test_a_branch_that_went_on_from_the_journal_stays_where_it_is(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = ("-c", "user.name=a", "-c", "user.email=a@b")
    git(busy.base_dir, *me, "commit", "-q", "--allow-empty", "-m", "By hand")
    by_hand = git(busy.base_dir, "rev-parse", "main").stdout.strip()
    with restarted(busy, monkeypatch) as later:
        later.update_loop("one", {"note": "after"})
    assert git(busy.base_dir, "rev-parse", "main~1").stdout.strip() == by_hand


def test_what_is_published_where_the_branch_was_set_back_by_hand_is_acknowledged(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: path.read_bytes() for path in busy.base_dir.rglob("*.json") if ".git" not in path.parts}
    back = busy.revision()
    with StateRepository(busy.project_root, actor="user:bob") as another:
        for number in range(3):
            another.update_loop("one", {"note": f"number {number}"})
    git(busy.base_dir, "update-ref", "refs/heads/main", back)
    for path, raw in files.items():
        path.write_bytes(raw)
    busy.update_loop("one", {"note": "after"})
    head = busy.revision()
    (busy.base_dir / BRANCH).write_text(f"{back}\n")  # its last move was not synced
    late = restarted(busy, monkeypatch)
    assert (late.revision(), late.get_loop("one")["note"]) == (head, "after")


def test_what_changes_nothing_is_acknowledged_after_a_sync_of_what_stands_there(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = gitstate.medium.datasync
    monkeypatch.setattr(gitstate.medium, "datasync", lambda descriptor: synced.append(descriptor) or sync(descriptor))
    busy.update_loop("one", {"note": "before"})
    assert busy.last_change is None
    assert len(synced) == 1


# --- after damage ----------------------------------------------------------------------------------------------------


def removed(path: Path) -> None:
    path.unlink()


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(SIZE))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096 + 200] ^= 1  # in the first publication that moves the branch
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("harm", [removed, zeroed, cut_short, flipped])
def test_what_a_damaged_journal_no_longer_holds_survives_once_anything_is_built_upon_it(
    busy: StateRepository, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    harm(busy.base_dir / JOURNAL)
    synced: set[str] = set()
    sync_file = Directory.sync_file

    def watched(directory: Directory, name: str) -> None:
        sync_file(directory, name)
        synced.add(name)

    monkeypatch.setattr(Directory, "sync_file", watched)
    with StateRepository(busy.project_root, actor="user:alice", clock=FakeClock()) as again:
        again.update_loop("one", {"note": "after"})
    assert BRANCH in synced
    for path in (busy.base_dir / ".git/objects/pack").iterdir():
        if f".git/objects/pack/{path.name}" not in synced:
            path.unlink()  # as a power cut may
    with restarted(busy, monkeypatch) as later:
        assert later.get_loop("one")["note"] == "after"
        assert [change.operation for change in later.log("one")] == ["update", "update", "create"]
        later.update_loop("one", {"note": "and on"})


def test_in_its_own_boot_a_journal_without_a_byte_of_truth_changes_no_answer(busy: StateRepository) -> None:
    flipped(busy.base_dir / JOURNAL)
    with StateRepository(busy.project_root, actor="user:alice", clock=FakeClock()) as again:
        assert again.get_loop("one")["note"] == "before"
        assert again.check(full=True) == []


# --- entries ---------------------------------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from([b"{\n", b'  "a": 1,\n', b'  "note": "x",\n', b"}\n", b"\0\xff", b"tree"]), max_size=60
)
ID, OTHER = "1" * 40, "2" * 40


@settings(deadline=None)
@given(LINES.map(b"".join), LINES.map(b"".join))
def test_a_difference_makes_its_target_of_its_base(base: bytes, target: bytes) -> None:
    assert b"".join(apply_delta(base, difference(base, target))) == target


@pytest.mark.parametrize("size", [0, 15, 16, 127, 2047, 2048, 70_000])
def test_an_entry_gives_back_its_object_at_any_size(size: int) -> None:
    stored = Stored(b"blob", bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    assert unpacked(whole(ID, stored).raw, lambda name: stored) == stored


def test_a_small_change_of_a_large_record_takes_few_bytes() -> None:
    lines = [b'  "lesson %06d": "%s",\n' % (number, b"x" * 60) for number in range(1000)]
    before, after = b"".join(lines), b"".join([*lines[:10], b'  "new": 1,\n', *lines[11:], b"}\n"])
    made = relative(ID, after, OTHER, before)
    assert made is not None
    assert base_of(made.raw) == OTHER
    assert len(made.raw) < 200
    assert unpacked(made.raw, lambda name: Stored(b"blob", before)).raw == after


def test_a_record_that_is_inserted_into_one_of_several_lists_takes_few_bytes() -> None:
    def listed(count: int) -> bytes:
        return b"".join(
            b'  {\n    "number": %d,\n    "text": "%s"\n  },\n' % (number, b"x" * 90) for number in range(count)
        )

    between = b'],\n"lessons": "%s",\n"notes": [\n' % b"".join(b"lesson %d. " % number for number in range(300))
    before, after = (listed(count) + between + listed(30) + b"]\n" for count in (8, 9))
    assert len(difference(before, after)) < 400


def test_no_entry_builds_upon_many_others(state: StateRepository) -> None:
    loop = state.create_loop("Fix the tests", "all pass", pid=None)["loopId"]
    for number in range(1, 62):
        state.update_loop(loop, {"currentIteration": number})
    (index,) = (state.base_dir / ".git/objects/pack").glob("*.idx")
    rows = [line.split() for line in git(state.base_dir, "verify-pack", "-v", str(index)).stdout.splitlines()]
    depths = [int(row[5]) for row in rows if len(row) == 7 and row[1] == "blob"]
    assert len(depths) > 50
    assert max(depths) == 8


def test_a_damaged_entry_is_damage_and_nothing_else() -> None:
    raw = bytearray(whole(ID, Stored(b"blob", b"some bytes of a record")).raw)
    raw[5] ^= 0xFF
    with pytest.raises((ValueError, AssertionError)):
        assert unpacked(bytes(raw), lambda name: Stored(b"blob", b"")).raw == b"some bytes of a record"
    with pytest.raises(ValueError, match="unreadable"):
        unpacked(
            bytes([0x70 | 5]) + bytes.fromhex(OTHER) + zlib.compress(b"\xff\xff"), lambda name: Stored(b"blob", b"")
        )
