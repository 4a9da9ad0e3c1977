"""gc: a few packs and one file of tags, made beside readers and writers; nothing is lost, whatever ends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from wrapping import blob, blob_id, files, git, loosen, objects, overwrite, packs, repack, write_pack

import gitstate
import gitstate.durable
from gitstate import StateRepository
from gitstate.cli import root
from gitstate.store import gathering, joining, tags
from gitstate.store.packs import PACKS


@pytest.fixture
def worn(state: StateRepository) -> StateRepository:
    """Packs of git's, loose objects, loose and packed tags."""
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    state.create_loop("Another", "done", loop_id="other", pid=None)
    state.checkpoint("fix", "packed")
    git(state, "pack-refs", "--all")
    for number in range(3):
        state.record_iteration("fix", {"learnings": f"lesson {number}"})
        repack(state)
    state.checkpoint("fix", "loose")
    state.archive_loop("other")
    loosen(state)
    return state


def past(state: StateRepository) -> list[object]:
    """All that can be asked about the past, asked anew."""
    with gitstate.open(state.project_root) as other:
        changes = list(other.log())
        return [
            *changes,
            *(other.load_registry(at=str(change.revision)) for change in changes),
            other.list_archived_loops()[0].tag,
            *other.list_checkpoints(),
            git(state, "show-ref", "-d"),
        ]


def loose(state: StateRepository) -> list[Path]:
    return [path for path in (state.base_dir / ".git" / "objects").glob("??/*") if path.is_file()]


# --- what it does ----------------------------------------------------------------------------------------------------


def test_all_objects_are_in_one_pack_and_all_tags_in_one_file(worn: StateRepository) -> None:
    before, everything = past(worn), objects(worn)
    report = worn.collect_garbage()
    assert loose(worn) == []
    (name,) = packs(worn)
    assert objects(worn) == everything
    assert (report.packs_before, report.packs_after, report.objects) == (3, 1, len(everything))
    assert report.bytes_after < report.bytes_before
    assert [path for path in (worn.base_dir / ".git/refs/tags").rglob("*") if path.is_file()] == []
    assert past(worn) == before
    git(worn, "verify-pack", f"{PACKS}/{name}.idx")
    git(worn, "fsck", "--strict", "--full")


def test_the_second_time_there_is_nothing_to_do(worn: StateRepository) -> None:
    worn.collect_garbage()
    before = files(worn)
    report = worn.collect_garbage()
    assert (report.packs_before, report.packs_after, report.bytes_before) == (1, 1, report.bytes_after)
    assert files(worn) == before


def test_nothing_is_thrown_away_whether_anything_leads_to_it_or_not(worn: StateRepository) -> None:
    orphan = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=worn.base_dir, input=b"nobody's", capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    os.utime(worn.base_dir / f".git/objects/{orphan[:2]}/{orphan[2:]}", (0, 0))
    write_pack(worn, [blob(b"nobody's either")])
    worn.collect_garbage()
    assert {orphan, blob_id(b"nobody's either").hex()} <= objects(worn)


def test_without_a_repository_there_is_nothing_to_do_and_nothing_is_made(state: StateRepository) -> None:
    assert state.collect_garbage().packs_after == 0
    assert not state.base_dir.exists()


def test_a_plan_takes_no_lease_and_writes_nothing(worn: StateRepository) -> None:
    def seen() -> dict[str, tuple[int, int]]:
        found = list(worn.base_dir.rglob("*"))
        return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in found}

    with worn.transaction():
        before = seen()
        plan = worn.collect_garbage(dry_run=True)
        assert seen() == before
    report = worn.collect_garbage()
    assert (plan.packs_before, plan.packs_after) == (report.packs_before, report.packs_after)


def test_large_packs_stay_as_they_are(worn: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    worn.collect_garbage()
    (large,) = packs(worn)
    monkeypatch.setattr("gitstate.store.consolidation._LARGE", 20)
    write_pack(worn, [blob(b"one")])
    write_pack(worn, [blob(b"two")])
    plan = worn.collect_garbage(dry_run=True)
    report = worn.collect_garbage()
    assert large in packs(worn)
    assert (plan.packs_after, report.packs_after) == (2, 2)


# --- beside others ---------------------------------------------------------------------------------------------------


def test_others_read_and_write_while_objects_are_copied_and_packs_removed(
    worn: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, discard = joining.place, gitstate.durable.Directory.discard
    with gitstate.open(worn.project_root, lock_timeout=0.0) as other:
        first = str(list(other.log())[-2].revision)
        known = other.get_loop("fix", at=first)
        busy = False

        def go_on() -> None:
            nonlocal busy
            if not busy:
                busy = True
                state = other.record_iteration("fix", {"learnings": "meanwhile"})
                assert other.get_loop("fix") == state
                assert other.get_loop("fix", at=first) == known
                busy = False

        def placed(*words: object) -> str:
            go_on()
            name = place(*words)  # type: ignore[arg-type]
            go_on()
            return name

        def discarded(directory: gitstate.durable.Directory, name: str) -> bool:
            if name.startswith(PACKS):
                go_on()
            return discard(directory, name)

        monkeypatch.setattr(joining, "place", placed)
        monkeypatch.setattr(gitstate.durable.Directory, "discard", discarded)
        worn.collect_garbage()
        monkeypatch.undo()
        made = [change for change in other.log() if change.operation == "iterate"]
        assert len(made) > 3 + 4
    assert len(other.get_loop("fix")["iterations"]) == len(made)


def test_while_somebody_mutates_it_waits_and_then_gives_up(worn: StateRepository) -> None:
    failed: list[Exception] = []

    def collect() -> None:
        with gitstate.open(worn.project_root, lock_timeout=0.0) as other:
            try:
                other.collect_garbage()
            except gitstate.LeaseTimeoutError as error:
                failed.append(error)

    with worn.transaction():
        before = files(worn)
        thread = threading.Thread(target=collect)
        thread.start()
        thread.join(20)
        assert files(worn) == before
    assert len(failed) == 1


def test_a_reader_that_has_read_the_packed_refs_misses_no_tag_that_is_packed_then(
    worn: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [checkpoint.name for checkpoint in worn.list_checkpoints("fix")]
    with gitstate.open(worn.project_root) as other:
        refs = other._revisions.refs
        names = refs.loose_names

        def meanwhile(directory: str) -> list[str]:
            monkeypatch.undo()
            found = names(directory)
            worn.collect_garbage()
            return found

        monkeypatch.setattr(refs, "loose_names", meanwhile)
        assert [checkpoint.name for checkpoint in other.list_checkpoints("fix")] == known


def test_two_at_once_lose_nothing(worn: StateRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    before, everything, place = past(worn), objects(worn), joining.place

    def overtaken(*words: object) -> str:
        monkeypatch.undo()
        with gitstate.open(worn.project_root) as other:
            other.collect_garbage()
        return place(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(joining, "place", overtaken)
    worn.collect_garbage()
    assert objects(worn) == everything
    assert past(worn) == before


# --- tags ------------------------------------------------------------------------------------------------------------


def test_packed_tags_are_as_git_packs_them(worn: StateRepository, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(worn.base_dir, copy)
    subprocess.run(["git", "pack-refs", "--all"], cwd=copy, check=True)
    worn.collect_garbage()
    ours, theirs = (
        [line for line in (base / ".git/packed-refs").read_bytes().splitlines() if not line.endswith(b"heads/main")]
        for base in (worn.base_dir, copy)
    )
    assert ours[1:] == theirs[1:]
    assert ours[0].split() == theirs[0].split()


def test_a_tag_that_is_moved_while_it_is_packed_stays_where_it_was_moved_to(
    worn: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(worn, "tag", "mine", "HEAD~1")
    remove = tags._remove

    def moved(directory: gitstate.durable.Directory, path: str, value: str) -> None:
        if path.endswith("/mine"):
            (worn.base_dir / path).write_text(git(worn, "rev-parse", "HEAD~2"))
        remove(directory, path, value)

    monkeypatch.setattr(tags, "_remove", moved)
    worn.collect_garbage()
    assert git(worn, "rev-parse", "mine") == git(worn, "rev-parse", "HEAD~2")


def test_tags_stay_as_they_are_while_git_is_at_them(worn: StateRepository) -> None:
    lock = worn.base_dir / ".git/packed-refs.lock"
    lock.touch()
    before = past(worn)
    worn.collect_garbage()
    assert past(worn) == before
    assert (worn.base_dir / ".git/refs/tags/archive/other").is_file()
    assert lock.exists()
    lock.unlink()


def test_a_lock_that_a_killed_gc_left_is_removed_by_the_next_mutation(worn: StateRepository) -> None:
    lock = worn.base_dir / ".git/packed-refs.lock"
    lock.write_bytes(tags._OURS)
    with StateRepository(worn.project_root) as fresh:
        fresh.update_loop("fix", {"note": 1})
    assert not lock.exists()


def test_tags_can_be_made_and_taken_again_after_they_were_packed(worn: StateRepository) -> None:
    worn.collect_garbage()
    worn.restore_loop("other")
    worn.archive_loop("other")
    worn.checkpoint("fix", "third")
    with pytest.raises(gitstate.RefusedError):
        worn.checkpoint("fix", "packed")
    assert worn.list_archived_loops()[0].tag == "archive/other.2"
    assert {checkpoint.name for checkpoint in worn.list_checkpoints("fix")} == {"packed", "loose", "third"}


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["gathering", "joining", "removing", "tags"])
def test_an_interrupt_at_any_point_loses_nothing_and_leaves_nothing_lying_about(
    worn: StateRepository, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before, everything = past(worn), objects(worn)

    def interrupted(*words: object, **more: object) -> Iterator[None]:
        raise KeyboardInterrupt

    target = {
        "gathering": (gathering, "place"),
        "joining": (joining, "index_pieces"),
        "removing": (joining, "retire"),
        "tags": (tags, "_remove"),
    }[where]
    monkeypatch.setattr(*target, interrupted)
    with pytest.raises(KeyboardInterrupt):
        worn.collect_garbage()
    monkeypatch.undo()
    assert not any(name.startswith("gitstate/aside") for name in files(worn))
    assert worn.lease_info() is None
    assert objects(worn) == everything
    assert past(worn) == before
    worn.update_loop("fix", {"note": "next"})
    worn.collect_garbage()
    assert len(packs(worn)) == 1


def test_a_signal_ends_the_command_with_130(worn: StateRepository) -> None:
    words = (
        "import os, signal; from gitstate.store import joining; from gitstate.cli import root\n"
        "joining.place = lambda *words: os.kill(os.getpid(), signal.SIGINT)\n"
        "root.main(['gc'])"
    )
    done = subprocess.run([sys.executable, "-c", words], cwd=worn.project_root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert not any(name.startswith("gitstate/aside") for name in files(worn))


def test_a_damaged_pack_stays_and_is_told_of_and_the_others_are_joined(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
        for number in range(3):
            state.record_iteration("fix", {"learnings": f"lesson {number}"})
            repack(state)
        bad = state.base_dir / PACKS / f"{packs(state)[0]}.pack"
        raw = bytearray(bad.read_bytes())
        raw[-30] ^= 1
        overwrite(bad, bytes(raw))
        with pytest.warns(gitstate.DamageWarning, match=f"{bad.name} is damaged .* stays as it is"):
            report = state.collect_garbage()
        assert (bad.read_bytes(), report.packs_after) == (raw, 2)


def test_a_damaged_loose_object_stays(tmp_path: Path) -> None:
    with gitstate.open(tmp_path) as state:
        state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
        bad = loose(state)[0]
        overwrite(bad, b"nonsense")
        state.collect_garbage()
        assert loose(state) == [bad]


def test_what_a_killed_gc_left_aside_is_removed_by_the_next_mutation(worn: StateRepository) -> None:
    aside = worn.base_dir / ".git/gitstate/aside"
    aside.mkdir(exist_ok=True)
    child = subprocess.Popen(["true"])
    child.wait()
    (aside / f"{child.pid}-abcdefabcdef").write_bytes(b"half a pack")
    worn.update_loop("fix", {"note": 1})
    assert not any(name.startswith("gitstate/aside") for name in files(worn))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_answers_with_the_report(worn: StateRepository) -> None:
    project = str(worn.project_root)
    planned = CliRunner().invoke(root, ["-C", project, "gc", "--dry-run", "--json"])
    assert json.loads(planned.stdout)["data"]["packs_after"] == 1
    done = CliRunner().invoke(root, ["-C", project, "gc", "--yes", "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["change"], document["warnings"]) == (0, None, [])
    assert document["data"].keys() == {
        "bytes_before", "bytes_after", "objects", "packs_before", "packs_after", "seconds",
    }  # fmt: skip
    shown = CliRunner().invoke(root, ["-C", project, "gc"])
    assert " objects, 1 -> 1 pack, " in shown.stdout


def test_progress_says_what_is_looked_at(worn: StateRepository) -> None:
    said: list[tuple[str, int, int]] = []
    worn.collect_garbage(progress=lambda what, done, total: said.append((what, done, total)))
    assert [what for what, _, _ in dict.fromkeys((what, 0, 0) for what, _, _ in said)] == [
        "tags", "loose objects", "objects",
    ]  # fmt: skip
    assert said[-1][1] >= len(objects(worn))
