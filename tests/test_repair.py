"""Repair: back to the newest state that was published, whatever was lost, and never a new beginning."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import assert_sound, git
from listings import contents, listing
from templates import copy, loosen, template

import gitstate
from gitstate import CorruptStateError, DamageWarning, Finding, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
Harm = Callable[[Path], None]
ME = ("-c", "user.name=Dana", "-c", "user.email=d@h")


def build(state: State, clock: FakeClock) -> None:
    """Two active loops, one of them with a checkpoint, and an archived one."""
    state.create_loop("Old", "it is done", loop_id="old", pid=None)
    state.archive_loop("old", status="completed")
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    state.create_loop("Two", "it is done", loop_id="two", pid=None)
    state.checkpoint("one", "start")
    for number in range(1, 4):
        state.record_iteration("one", {"number": number})
        clock.advance(minutes=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template") / "project", build)


@pytest.fixture
def copied(built: Path, project: Path) -> tuple[State, FakeClock]:
    return copy(built, project)


@pytest.fixture
def clock(copied: tuple[State, FakeClock]) -> FakeClock:
    return copied[1]


@pytest.fixture
def state(copied: tuple[State, FakeClock]) -> Iterator[State]:
    with copied[0] as repository:
        yield repository


def inside(state: State, name: str) -> Path:
    return state.base_dir / ".git" / name


def fresh(state: State) -> State:
    """Another look at the same directory, by somebody who remembers nothing."""
    return StateRepository(state.project_root, actor="user:alice", clock=FakeClock())


def repaired(state: State) -> list[Finding]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        return fresh(state).repair()


def history(state: State) -> list[str]:
    return git(state.base_dir, "rev-list", "main").stdout.split()


# --- ways to lose a file ---------------------------------------------------------------------------------------------


def lost(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def nulled(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"\0" * max(41, path.stat().st_size))


def garbled(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"\xff garbage {")


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def made_a_directory(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


def made_a_symlink(path: Path) -> None:
    path.rename(path.with_name("moved-away"))
    path.symlink_to("moved-away")


HARMS = [lost, emptied, nulled, garbled, cut, made_a_directory]
EVERY_HARM = pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
SOME_HARM = pytest.mark.parametrize("harm", [lost, garbled, made_a_directory], ids=lambda harm: harm.__name__)


# --- the branch ------------------------------------------------------------------------------------------------------


@EVERY_HARM
def test_a_branch_that_is_lost_is_never_continued_as_if_new(state: State, harm: Harm) -> None:
    objects = contents(state.base_dir / ".git" / "objects")
    harm(inside(state, "refs/heads/main"))
    for mutate in (
        lambda other: other.create_loop("New", "it is done"),
        lambda other: other.update_loop("one", {"note": "x"}),
        lambda other: other.init(),
        lambda other: other.get_loop("one"),
        lambda other: list(other.log()),
    ):
        with pytest.raises(CorruptStateError) as caught:
            mutate(fresh(state))
        assert caught.value.hint == "gitstate repair"
    assert contents(state.base_dir / ".git" / "objects") == objects
    repaired(state)


@EVERY_HARM
def test_a_branch_that_is_lost_comes_back_where_it_was(state: State, harm: Harm) -> None:
    before, seen = history(state), fresh(state).get_loop("one")
    harm(inside(state, "refs/heads/main"))
    (finding,) = [finding for finding in repaired(state) if finding.code == "head_unreadable"]
    assert (finding.path, finding.revision) == (".git/refs/heads/main", before[0])
    assert (finding.action or "").startswith(f"main is at {before[0][:7]} again, ")
    assert history(state) == before
    assert fresh(state).get_loop("one") == seen
    fresh(state).update_loop("one", {"note": "x"})
    assert history(state)[1:] == before


def without_note(state: State) -> None:
    shutil.rmtree(inside(state, "gitstate"))


def without_reflog(state: State) -> None:
    shutil.rmtree(inside(state, "logs"))


def without_tags(state: State) -> None:
    shutil.rmtree(inside(state, "refs/tags"))


@pytest.mark.parametrize(
    ("losses", "known"),
    [
        ((without_note,), "the reflog"),
        ((without_reflog,), "the projection"),
        ((without_note, without_reflog), "the files"),
        ((without_note, without_reflog, without_tags), "the files"),
    ],
)
def test_one_piece_of_evidence_is_enough(state: State, losses: tuple[Callable[[State], None], ...], known: str) -> None:
    before = history(state)
    for loss in losses:
        loss(state)
    inside(state, "refs/heads/main").unlink()
    (finding,) = [finding for finding in repaired(state) if finding.code == "head_unreadable"]
    assert known in (finding.action or "")
    assert history(state) == before


def test_a_tag_is_evidence_of_what_it_names_and_of_nothing_later(state: State) -> None:
    checkpoint = git(state.base_dir, "rev-parse", "checkpoint/one/start^{}").stdout.strip()
    without_note(state)
    without_reflog(state)
    inside(state, "refs/heads/main").unlink()
    with_edits = state.loops_dir / "one" / "session-state.json"
    with_edits.write_bytes(with_edits.read_bytes().replace(b'"One"', b'"Uno"'))  # the files are no head's any more
    (finding,) = [finding for finding in repaired(state) if finding.code == "head_unreadable"]
    assert "the tag checkpoint/one/start" in (finding.action or "")
    assert history(state)[-1] != checkpoint
    assert checkpoint in history(state)
    assert fresh(state).get_loop("one")["objective"] == "Uno"
    assert fresh(state).get_loop("one")["currentIteration"] == 3


def test_packed_refs_are_evidence(state: State) -> None:
    before = history(state)
    git(state.base_dir, "pack-refs", "--all")
    assert not inside(state, "refs/heads/main").exists()
    without_note(state)
    without_reflog(state)
    inside(state, "refs/heads/main").parent.mkdir(exist_ok=True)
    inside(state, "refs/heads/main").write_bytes(b"")
    repaired(state)
    assert history(state) == before


def test_a_branch_that_lies_in_packed_refs_alone_is_not_lost(state: State) -> None:
    git(state.base_dir, "pack-refs", "--all")
    assert fresh(state).check() == []
    fresh(state).update_loop("one", {"note": "x"})


def test_an_unpublished_commit_is_never_taken_however_new_it_is(state: State) -> None:
    before = history(state)
    tree = git(state.base_dir, "rev-parse", "HEAD~1^{tree}").stdout.strip()
    message = "update one: never published\n\nGitstate-Operation: update\nGitstate-Loop: one\nGitstate-Generation: 900"
    unpublished = git(state.base_dir, *ME, "commit-tree", tree, "-p", "HEAD", "-m", message).stdout.strip()
    for loss in (without_note, without_reflog, lambda s: inside(s, "refs/heads/main").unlink()):
        loss(state)
    repaired(state)
    assert history(state) == before
    assert unpublished not in before


def test_an_unpublished_commit_of_the_same_files_is_not_taken_either(state: State) -> None:
    before = history(state)
    tree = git(state.base_dir, "rev-parse", "HEAD^{tree}").stdout.strip()
    message = "checkpoint one: x, iteration 3\n\nGitstate-Operation: checkpoint\nGitstate-Loop: one\n"
    git(state.base_dir, *ME, "commit-tree", tree, "-p", "HEAD", "-m", message + "Gitstate-Generation: 900")
    for loss in (without_note, without_reflog, lambda s: inside(s, "refs/heads/main").unlink()):
        loss(state)
    repaired(state)
    assert history(state) == before


def test_without_any_evidence_nothing_is_done_and_the_way_out_is_named(state: State, tmp_path: Path) -> None:
    for loss in (without_note, without_reflog, without_tags, lambda s: inside(s, "refs/heads/main").unlink()):
        loss(state)
    path = state.loops_dir / "one" / "session-state.json"
    path.write_bytes(path.read_bytes().replace(b'"One"', b'"Uno"'))
    findings = repaired(state)
    (finding,) = [finding for finding in findings if finding.code == "head_unreadable"]
    assert finding.action is None
    assert finding.hint == "move .git away and run gitstate init: the files are adopted anew"
    assert not inside(state, "refs/heads/main").exists()
    (state.base_dir / ".git").rename(tmp_path / "kept")
    with fresh(state) as again:
        again.init()
        assert again.get_loop("one")["objective"] == "Uno"
        assert [loop.loop_id for loop in again.list_archived_loops()] == ["old"]


def test_a_branch_that_was_put_back_by_a_program_that_crashed_is_brought_forward(state: State) -> None:
    before = history(state)
    inside(state, "refs/heads/main").write_text(f"{before[2]}\n")
    (finding,) = [finding for finding in repaired(state) if finding.code == "branch_behind"]
    assert finding.revision == before[0]
    assert history(state) == before


# --- HEAD, the index, packed refs, what is gitstate's own ------------------------------------------------------------


@EVERY_HARM
def test_a_lost_head_names_main_again(state: State, harm: Harm) -> None:
    before = history(state)
    harm(inside(state, "HEAD"))
    with pytest.raises(CorruptStateError) as caught:
        fresh(state).update_loop("one", {"note": "x"})
    assert caught.value.hint == "gitstate repair"
    (finding,) = [finding for finding in repaired(state) if finding.code == "head_unreadable"]
    assert finding.path == ".git/HEAD"
    assert (finding.action or "").startswith("HEAD names main again")
    assert git(state.base_dir, "symbolic-ref", "HEAD").stdout == "refs/heads/main\n"
    assert history(state) == before


@EVERY_HARM
def test_a_lost_index_is_written_anew(state: State, harm: Harm) -> None:
    before = history(state)
    harm(inside(state, "index"))
    assert "index_differs" in [finding.code for finding in fresh(state).check()]
    repaired(state)
    assert fresh(state).check() == []
    assert git(state.base_dir, "status", "--porcelain").stdout == ""
    assert history(state) == before


@pytest.mark.parametrize("harm", [lost, emptied, nulled, garbled, cut], ids=lambda harm: harm.__name__)
def test_a_mutation_needs_no_index_and_writes_it_anew(state: State, harm: Harm) -> None:
    harm(inside(state, "index"))
    fresh(state).update_loop("one", {"note": "x"})
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


@EVERY_HARM
def test_lost_packed_refs_lose_neither_branch_nor_tag(state: State, harm: Harm) -> None:
    git(state.base_dir, "pack-refs", "--all")
    before, tags = history(state), git(state.base_dir, "show-ref").stdout
    harm(inside(state, "packed-refs"))
    repaired(state)
    assert history(state) == before
    assert git(state.base_dir, "show-ref").stdout == tags
    assert_sound(state.project_root)


def test_without_gitstate_s_own_directory_everything_goes_on(state: State) -> None:
    before = history(state)
    generation = next(state.log()).generation or 0
    shutil.rmtree(inside(state, "gitstate"))
    assert fresh(state).get_loop("one")["currentIteration"] == 3
    assert fresh(state).check() == []
    assert not inside(state, "gitstate").exists()
    fresh(state).update_loop("one", {"note": "x"})
    assert history(state)[1:] == before
    assert (next(fresh(state).log()).generation or 0) > generation


@pytest.mark.parametrize("name", ["guard", "turn", "generation", "projected"])
@SOME_HARM
def test_each_file_of_gitstate_s_own_can_be_lost(state: State, name: str, harm: Harm) -> None:
    before = history(state)
    harm(inside(state, f"gitstate/{name}"))
    repaired(state)
    fresh(state).update_loop("one", {"note": "x"})
    assert history(state)[1:] == before


@pytest.mark.parametrize("name", ["config", "info/exclude"])
@pytest.mark.parametrize("harm", [lost, emptied, garbled], ids=lambda harm: harm.__name__)
def test_lost_settings_are_written_anew(state: State, name: str, harm: Harm) -> None:
    before = history(state)
    harm(inside(state, name))
    repaired(state)
    assert git(state.base_dir, "status", "--porcelain", "-uall").stdout == ""
    assert git(state.base_dir, "config", "gitstate.format").stdout == "1\n"
    assert history(state) == before


# --- tags ------------------------------------------------------------------------------------------------------------


@EVERY_HARM
@pytest.mark.parametrize("name", ["archive/old", "checkpoint/one/start"])
def test_a_lost_tag_is_made_again_as_it_was(state: State, name: str, harm: Harm) -> None:
    before = git(state.base_dir, "show-ref").stdout
    harm(inside(state, f"refs/tags/{name}"))
    repaired(state)
    assert git(state.base_dir, "show-ref").stdout == before


def test_the_tags_of_several_archivings_keep_their_order(state: State) -> None:
    for _ in range(3):
        state.restore_loop("old")
        state.archive_loop("old")
    before = git(state.base_dir, "show-ref").stdout
    assert "archive/old.4" in before
    shutil.rmtree(inside(state, "refs/tags/archive"))
    repaired(state)
    assert git(state.base_dir, "show-ref").stdout == before


def test_a_checkpoint_whose_name_was_damaged_is_missed_and_not_listed_under_another(state: State) -> None:
    git(state.base_dir, "pack-refs", "--all")
    packed = inside(state, "packed-refs")
    packed.write_bytes(packed.read_bytes().replace(b"checkpoint/one/start", b"checkpoint/one/stArt"))
    assert fresh(state).list_checkpoints() == []
    assert "tag_missing" in [finding.code for finding in fresh(state).check(full=True)]
    repaired(state)
    assert [point.tag for point in fresh(state).list_checkpoints()] == ["checkpoint/one/start"]


def test_a_tag_of_the_user_s_is_left_as_it_is(state: State) -> None:
    git(state.base_dir, "tag", "v1", "HEAD~2")
    before = git(state.base_dir, "rev-parse", "v1").stdout
    git(state.base_dir, "tag", "-d", "archive/old")
    repaired(state)
    assert git(state.base_dir, "rev-parse", "v1").stdout == before


# --- objects ---------------------------------------------------------------------------------------------------------


def object_of(state: State, name: str) -> Path:
    loosen(state.base_dir)
    found = git(state.base_dir, "rev-parse", name).stdout.strip()
    return inside(state, f"objects/{found[:2]}/{found[2:]}")


@SOME_HARM
@pytest.mark.parametrize(
    "name", ["HEAD:registry.json", "HEAD:loops/one/session-state.json", "HEAD:loops", "HEAD^{tree}"]
)
def test_an_object_of_the_head_that_the_files_make_is_written_again(state: State, name: str, harm: Harm) -> None:
    before = history(state)
    harm(object_of(state, name))
    repaired(state)
    assert history(state) == before
    assert_sound(state.project_root)


def test_a_lost_newest_commit_is_named_and_what_it_wrote_is_taken_from_the_files(state: State) -> None:
    before, seen = history(state), state.get_loop("one")
    object_of(state, "HEAD").unlink()
    (finding,) = [finding for finding in repaired(state) if finding.code == "head_unreadable"]
    assert f"main is at {before[1][:7]} again" in (finding.action or "")
    assert f"{before[0][:7]} iterate one: iteration 3" in (finding.action or "")
    found = history(state)
    assert found[1:] == before[1:]
    assert {**fresh(state).get_loop("one"), "gitstate": 0} == {**seen, "gitstate": 0}


def test_a_version_that_is_lost_for_good_is_said_to_remain(tmp_path: Path) -> None:
    with StateRepository(tmp_path, actor="user:alice", clock=FakeClock()) as state:
        state.create_loop("One", "it is done", loop_id="one", pid=None)
        state.update_loop("one", {"status": "paused"})
        before = history(state)
        object_of(state, "HEAD~1:loops/one/session-state.json").unlink()
        findings = repaired(state)
        assert [(finding.code, finding.action) for finding in findings] == [("object_damaged", None)]
        assert history(state) == before
        fresh(state).update_loop("one", {"status": "running"})  # what is lost in the past holds nothing up


@pytest.mark.parametrize("damage", [b"", b"\0" * 60, b"nothing of the kind"])
def test_an_object_that_somebody_left_damaged_is_never_taken_for_the_one_that_is_written(
    state: State, built: Path, tmp_path: Path, damage: bytes
) -> None:
    twin, _ = copy(built, tmp_path / "twin")  # it writes the same, at the same time
    with twin:
        twin.update_loop("one", {"note": "all of it anew"})
        needed = git(twin.base_dir, "rev-list", "--objects", "HEAD", "^HEAD~1").stdout.split()
    paths = [f".git/objects/{name[:2]}/{name[2:]}" for name in needed if re.fullmatch("[0-9a-f]{40}", name)]
    assert len(paths) > 3
    for path in paths:
        (state.base_dir / path).parent.mkdir(exist_ok=True)
        (state.base_dir / path).write_bytes(damage)
    state.update_loop("one", {"note": "all of it anew"})
    assert "all of it anew" in git(state.base_dir, "show", "HEAD:loops/one/session-state.json").stdout
    assert fresh(state).get_loop("one")["note"] == "all of it anew"
    repaired(state)
    left = [state.base_dir / path for path in paths if (state.base_dir / path).exists()]
    assert all(path.read_bytes() != damage for path in left)


@pytest.mark.parametrize("damage", [b"", b"\0" * 60, b"nothing of the kind"])
def test_a_tag_whose_object_lies_there_damaged_is_made_again_whole(state: State, damage: bytes) -> None:
    state.archive_loop("one")
    ref = inside(state, "refs/tags/archive/one")
    object_id = ref.read_text().strip()
    ref.unlink()
    path = inside(state, f"objects/{object_id[:2]}/{object_id[2:]}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damage)
    inside(state, "gitstate/projected").unlink()  # as if it had been interrupted
    state.update_loop("two", {"note": "what comes next"})
    assert ref.read_text().strip() == object_id
    assert path.read_bytes() != damage


# --- in the way ------------------------------------------------------------------------------------------------------


def test_a_lock_that_gitstate_itself_left_is_removed_at_once(state: State, clock: FakeClock) -> None:
    inside(state, "refs/heads/main.lock").write_text(f"{state.revision()}\n")
    before = clock.monotonic()
    state.update_loop("one", {"note": "x"})
    assert clock.monotonic() - before < 1
    assert not inside(state, "refs/heads/main.lock").exists()


def test_somebody_else_s_lock_is_waited_for_and_reported(state: State, clock: FakeClock) -> None:
    inside(state, "refs/heads/main.lock").write_bytes(b"")
    before, revision = clock.monotonic(), state.revision()
    with pytest.raises(gitstate.StorageError, match="another git program holds the branch") as caught:
        state.update_loop("one", {"note": "x"})
    assert "gitstate repair" in (caught.value.hint or "")
    assert 1 <= clock.monotonic() - before < 3
    assert state.revision() == revision
    assert inside(state, "refs/heads/main.lock").exists()
    inside(state, "refs/heads/main.lock").unlink()


def test_somebody_else_s_lock_goes_with_a_repair_after_ten_seconds(state: State, clock: FakeClock) -> None:
    inside(state, "refs/heads/main.lock").write_bytes(b"")
    before = clock.monotonic()
    state.repair()
    assert clock.monotonic() - before >= 10
    assert not inside(state, "refs/heads/main.lock").exists()
    state.update_loop("one", {"note": "x"})


def test_a_lock_that_changes_meanwhile_is_somebody_s_and_stays(
    state: State, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = inside(state, "refs/heads/main.lock")
    lock.write_bytes(b"")
    passing = clock.sleep

    def writing(seconds: float) -> None:
        passing(seconds)
        lock.write_bytes(b"x" * int(clock.monotonic() % 100))

    monkeypatch.setattr(clock, "sleep", writing)
    left = state.repair()
    assert "left_behind" in [finding.code for finding in left if finding.action is None]
    assert lock.exists()
    lock.unlink()


def test_the_lock_of_the_index_is_never_removed(state: State) -> None:
    inside(state, "index.lock").write_bytes(b"")
    state.update_loop("one", {"note": "x"})
    state.repair()
    assert inside(state, "index.lock").exists()
    inside(state, "index.lock").unlink()
    state.update_loop("one", {"note": "y"})
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


# --- itself ----------------------------------------------------------------------------------------------------------


def test_a_sound_store_is_left_as_it_is(state: State) -> None:
    before = listing(state.base_dir)
    assert state.repair() == []
    after = listing(state.base_dir)
    mine = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert all("/.git" in path or path == str(state.base_dir) for path in mine)
    assert not [path for path in mine if "/.git/objects" in path or "/.git/refs" in path]


def test_a_dry_run_finds_the_same_and_does_nothing(state: State) -> None:
    inside(state, "refs/heads/main").unlink()
    git(state.base_dir, "symbolic-ref", "HEAD", "refs/heads/main")
    (state.loops_dir / "one" / "session-state.json").write_bytes(b"")
    before = listing(state.base_dir)
    planned = fresh(state).repair(dry_run=True)
    assert [finding.code for finding in planned] == [finding.code for finding in fresh(state).check(full=True)]
    assert all(finding.action is None for finding in planned)
    assert listing(state.base_dir) == before
    repaired(state)


def test_a_second_repair_has_nothing_to_do(state: State) -> None:
    inside(state, "refs/heads/main").unlink()
    inside(state, "HEAD").unlink()
    inside(state, "index").unlink()
    shutil.rmtree(inside(state, "refs/tags"))
    (state.loops_dir / "one" / "session-state.json").write_bytes(b"")
    state.registry_path.unlink()
    assert len(repaired(state)) >= 6
    assert repaired(state) == []


def test_damaged_bytes_are_kept_in_quarantine(state: State) -> None:
    garbled(inside(state, "refs/heads/main"))
    garbled(state.loops_dir / "one" / "session-state.json")
    repaired(state)
    kept = [path.read_bytes() for path in inside(state, "gitstate/quarantine").iterdir()]
    assert kept.count(b"\xff garbage {") == 2


def test_there_is_never_a_second_root(state: State) -> None:
    roots = git(state.base_dir, "rev-list", "--max-parents=0", "--all").stdout
    for name in ("refs/heads/main", "HEAD", "index"):
        for harm in (lost, emptied, garbled):
            harm(inside(state, name))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DamageWarning)
                for attempt in (lambda: fresh(state).init(), lambda: fresh(state).update_loop("one", {"note": "x"})):
                    with contextlib.suppress(gitstate.GitStateError):
                        attempt()
            repaired(state)
            assert git(state.base_dir, "rev-list", "--max-parents=0", "--all").stdout == roots, (name, harm)
    assert os.path.isfile(inside(state, "refs/heads/main"))
