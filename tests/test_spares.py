"""Spare files: written over where nobody has them open, and for whoever reads what they were, as if they never were."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import git

import gitstate.medium
from gitstate import StateRepository
from gitstate.durable import Directory
from gitstate.layout import ASIDE, SPARES
from gitstate.spares import recycle, refill, swap, take

BRANCH = ".git/refs/heads/main"
INDEX = ".git/index"
KINDS = {"branch", "idx", "index", "lease", "pack"}

pytestmark = pytest.mark.skipif(
    not gitstate.medium.is_local(os.stat("/tmp").st_dev), reason="no file is written over on this file system"
)


@pytest.fixture
def busy(state: StateRepository) -> StateRepository:
    """So many mutations into an epoch that everything is written over by the next one."""
    state.create_loop("Fix the tests", "all pass", loop_id="one", pid=None)
    for number in range(5):
        updated(state, number)
    return state


def updated(state: StateRepository, number: int) -> None:
    state.update_loop("one", {"currentIteration": number, "note": f"number {number}"})


def inode(state: StateRepository, path: str) -> int:
    return (state.base_dir / path).stat().st_ino


def spares(state: StateRepository) -> dict[str, int]:
    """The inodes of the spare files, by their names."""
    return {path.name: path.stat().st_ino for path in (state.base_dir / SPARES).iterdir()}


# --- what is written over --------------------------------------------------------------------------------------------


def test_a_mutation_writes_over_what_the_one_before_it_left(busy: StateRepository) -> None:
    before = spares(busy)
    assert before.keys() == KINDS
    updated(busy, 6)
    pack = busy.base_dir / ".git/objects/pack"
    (index,) = {path.stat().st_ino for path in pack.glob("*.idx")} & set(before.values())
    assert index == before["idx"]
    assert before["pack"] in {path.stat().st_ino for path in pack.glob("*.pack")}
    assert (before["branch"], before["index"]) == (inode(busy, BRANCH), inode(busy, INDEX))
    assert spares(busy)["lease"] == before["lease"]


def test_a_mutation_makes_no_more_files_than_it_projects(busy: StateRepository) -> None:
    updated(busy, 6)
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        prepare = Directory.prepare

        def told(self: Directory, raw: bytes, *, mode: int = 0o600, durable: bool = True) -> str:
            made.append(raw[:20].decode(errors="replace"))
            return prepare(self, raw, mode=mode, durable=durable)

        patch.setattr(Directory, "prepare", told)
        updated(busy, 7)
    assert len(made) == 2
    assert all(raw.startswith('{\n  "version"') for raw in made)


def test_the_file_in_which_the_branch_was_made_durable_is_not_written_over(state: StateRepository) -> None:
    state.create_loop("Fix the tests", "all pass", loop_id="one", pid=None)
    (state.base_dir / ".git/gitstate/journal").unlink()
    updated(state, 0)  # finds no journal
    updated(state, 1)  # begins another: durable
    durable = inode(state, BRANCH)
    with (state.base_dir / BRANCH).open("rb") as kept:
        updated(state, 2)
        assert os.fstat(kept.fileno()).st_nlink == 0
        for number in range(3, 6):
            updated(state, number)
    assert durable not in spares(state).values()


# --- who still has them open -----------------------------------------------------------------------------------------


@contextmanager
def held(path: Path, how: str) -> Iterator[None]:
    """Somebody who reads a file, and has come no further than to open it."""
    with ExitStack() as stack:
        if how == "another process":
            there = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", f"f = open({str(path)!r}, 'rb'); print(flush=True); input()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert there.stdout is not None
            there.stdout.readline()
            yield
            return
        file = stack.enter_context(path.open("rb"))
        if how == "mapped":
            stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            file.close()
        yield


HOW = ("open", "mapped", "another process")


@pytest.mark.parametrize("how", HOW)
def test_what_somebody_has_open_is_not_written_over(tmp_path: Path, how: str) -> None:
    directory = Directory(tmp_path, ASIDE)
    directory.make(SPARES)
    spare = tmp_path / SPARES / "pack"
    spare.write_bytes(b"old")
    with held(spare, how):
        with spare.open("rb") as reader:
            filled = refill(directory, "pack", b"new")
            assert reader.read() == b"old"
        assert (tmp_path / filled).read_bytes() == b"new"
    recycle(directory, filled, "pack")
    assert refill(directory, "pack", b"newer") == f"{SPARES}/pack"
    assert spare.read_bytes() == b"newer"


def test_whoever_reads_the_index_the_branch_or_a_pack_reads_on_what_it_was(busy: StateRepository) -> None:
    with ExitStack() as stack:
        paths = [busy.base_dir / BRANCH, busy.base_dir / INDEX, *(busy.base_dir / ".git/objects/pack").iterdir()]
        files = [(path.read_bytes(), stack.enter_context(path.open("rb"))) for path in paths]
        for number in range(6, 12):
            updated(busy, number)
        for raw, file in files:
            assert file.read() == raw


def test_a_log_that_is_read_slowly_is_read_to_its_end(busy: StateRepository) -> None:
    """As in a pager: git has packs mapped, and takes more objects out of them later."""
    expected = git(busy.base_dir, "log", "--format=%H %B").stdout
    with subprocess.Popen(
        ["git", "-C", busy.base_dir, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        ids = git(busy.base_dir, "rev-list", "--objects", "HEAD").stdout.split("\n")
        for number, line in enumerate(filter(None, ids)):
            updated(busy, 100 + number)
            reader.stdin.write(line.split()[0].encode() + b"\n")
            reader.stdin.flush()
            head = reader.stdout.readline().split()
            assert head[0].decode() == line.split()[0]
            assert len(head) == 3, head
            assert len(reader.stdout.read(int(head[2]) + 1)) == int(head[2]) + 1
        reader.stdin.close()
    assert git(busy.base_dir, "log", "--format=%H %B").stdout.endswith(expected)


def test_somebody_who_opens_a_spare_file_at_the_wrong_moment_ends_nobody(tmp_path: Path) -> None:
    """The system tells the holder of a lease by a signal, and the usual one would end him."""
    spare = tmp_path / "spare"
    spare.write_bytes(b"old")
    descriptor = os.open(spare, os.O_RDWR)
    seen: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: seen.append(number))
    try:
        assert gitstate.medium.shut_out(descriptor)
        with pytest.raises(BlockingIOError):
            os.open(spare, os.O_RDONLY | os.O_NONBLOCK)
        assert seen == [signal.SIGURG]
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGURG, before)
    assert before == signal.SIG_DFL, "which is to ignore it"


def test_a_child_that_is_forked_while_a_spare_file_is_written_over_keeps_nobody_from_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory(tmp_path, ASIDE)
    directory.make(SPARES)
    spare = tmp_path / SPARES / "pack"
    spare.write_bytes(b"old")
    shut_out, children = gitstate.medium.shut_out, []

    def forking(descriptor: int) -> bool:
        done = shut_out(descriptor)
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        children.append(child)
        return done

    monkeypatch.setattr(gitstate.medium, "shut_out", forking)
    try:
        assert refill(directory, "pack", b"new") == f"{SPARES}/pack"
        os.close(os.open(spare, os.O_RDONLY | os.O_NONBLOCK))
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert spare.read_bytes() == b"new"


# --- what else may stand there ---------------------------------------------------------------------------------------


def test_what_has_another_name_is_not_written_over(busy: StateRepository, tmp_path: Path) -> None:
    """A copy of hard links, as a backup may be."""
    for name in KINDS:
        os.link(busy.base_dir / SPARES / name, tmp_path / name)
    kept = {name: (tmp_path / name).read_bytes() for name in KINDS}
    updated(busy, 6)
    assert {name: (tmp_path / name).read_bytes() for name in KINDS} == kept


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("thing", ["directory", "symlink", "pipe", "nothing", "not ours to write"])
def test_whatever_stands_in_the_place_of_a_spare_file_keeps_nobody_from_mutating(
    busy: StateRepository, tmp_path: Path, kind: str, thing: str
) -> None:
    spare, target = busy.base_dir / SPARES / kind, tmp_path / "target"
    target.write_bytes(b"somebody's")
    if thing == "not ours to write":
        spare.chmod(0o400)
    else:
        spare.unlink()
    if thing == "directory":
        (spare / "inner").mkdir(parents=True)
    elif thing == "symlink":
        spare.symlink_to(target)
    elif thing == "pipe":
        os.mkfifo(spare)
    for number in range(6, 9):
        updated(busy, number)
    assert busy.get_loop("one")["note"] == "number 8"
    assert target.read_bytes() == b"somebody's"
    assert not any((busy.base_dir / ASIDE).iterdir())


@pytest.mark.parametrize("thing", ["file", "symlink", "nothing"])
def test_whatever_stands_in_the_place_of_their_directory_keeps_nobody_from_mutating(
    busy: StateRepository, tmp_path: Path, thing: str
) -> None:
    place, outside = busy.base_dir / SPARES, tmp_path / "outside"
    outside.mkdir()
    place.rename(tmp_path / "away")
    if thing == "file":
        place.write_bytes(b"")
    elif thing == "symlink":
        place.symlink_to(outside)
    for number in range(6, 9):
        updated(busy, number)
    assert busy.get_loop("one")["note"] == "number 8"
    assert not any(outside.iterdir())
    assert not any((busy.base_dir / ASIDE).iterdir())


def test_a_file_that_is_swapped_keeps_its_mode(tmp_path: Path) -> None:
    directory, file = Directory(tmp_path, ASIDE), tmp_path / "index"
    directory.make(ASIDE)
    file.write_bytes(b"first, and long")
    file.chmod(0o640)
    for raw in (b"second", b"third", b"fourth, and longer than all before"):
        swap(directory, "index", raw, "index")
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (raw, 0o640)
    assert len(list((tmp_path / SPARES).iterdir())) == 1


# --- where nothing is written over -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["leases", "a list of mounts", "a file system of this machine alone"])
def test_where_it_cannot_be_told_who_has_a_file_open_files_are_made_and_removed(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    gitstate.medium.is_local.cache_clear()
    if missing == "leases":
        monkeypatch.delattr(fcntl, "F_SETLEASE")
    elif missing == "a list of mounts":
        monkeypatch.setattr(gitstate.medium, "_MOUNTS", "/nowhere")
    else:
        monkeypatch.setattr(gitstate.medium, "_LOCAL", frozenset(("virtiofs",)))
    try:
        state.create_loop("Fix the tests", "all pass", loop_id="one", pid=None)
        for number in range(5):
            updated(state, number)
        assert not (state.base_dir / SPARES).exists()
    finally:
        gitstate.medium.is_local.cache_clear()


def test_what_is_taken_has_a_name_of_its_own(tmp_path: Path) -> None:
    directory = Directory(tmp_path, ASIDE)
    first = take(directory, "lease", b"first")
    recycle(directory, first, "lease")
    second = take(directory, "lease", b"second")
    assert first != second
    assert second.startswith(f"{ASIDE}/")
    assert not any((tmp_path / SPARES).iterdir())
