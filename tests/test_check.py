"""Each finding of ``check``: what provokes it, and what ``repair`` makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from clocks import FakeClock
from conftest import git
from edits import path_of
from listings import listing
from original import Original
from templates import copy, loosen, template

from gitstate import CorruptStateError, DamageWarning, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
ME = ("-c", "user.name=Dana", "-c", "user.email=d@h")
FINDINGS = Path(__file__).parents[1] / "docs" / "reference" / "findings.md"


def build(state: State, clock: FakeClock) -> None:
    """Two active loops, one of them with a checkpoint, and an archived one."""
    state.create_loop("Old", "it is done", loop_id="old", pid=None)
    state.archive_loop("old", status="completed")
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    state.create_loop("Two", "it is done", loop_id="two", pid=None)
    state.checkpoint("one", "start")
    state.update_loop("one", {"status": "paused"})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template") / "project", build)


@pytest.fixture
def state(built: Path, tmp_path: Path) -> Iterator[State]:
    """Not the checked fixture: what a finding remains of is not sound at the end."""
    repository, _ = copy(built, tmp_path / "project")
    with repository:
        yield repository


def inside(state: State, name: str) -> Path:
    return state.base_dir / ".git" / name


def foreign_commit(state: State, message: str = "By hand") -> None:
    git(state.base_dir, *ME, "commit", "-q", "-am", message)


def signed_commit(state: State, kind: str, generation: int, subject: str = "update one: by a bad program") -> None:
    """What is staged, committed as if gitstate had done it."""
    git(state.base_dir, "add", "-u")
    trailers = f"Gitstate-Operation: {kind}\nGitstate-Loop: one\nGitstate-Generation: {generation}"
    git(state.base_dir, *ME, "commit", "-q", "--allow-empty", "-m", f"{subject}\n\n{trailers}")


def loose(state: State, revision: str) -> Path:
    loosen(state.base_dir)
    name = git(state.base_dir, "rev-parse", revision).stdout.strip()
    return inside(state, f"objects/{name[:2]}/{name[2:]}")


def overwrite(path: Path, raw: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(raw)


# --- what provokes each ----------------------------------------------------------------------------------------------


def head_unreadable(state: State) -> None:
    inside(state, "refs/heads/main").write_bytes(b"")


def head_elsewhere(state: State) -> None:
    git(state.base_dir, "checkout", "-q", "--detach")


def head_at_nothing(state: State) -> None:
    inside(state, "HEAD").write_text("ref: refs/heads/gone\n")


def branch_behind(state: State) -> None:
    inside(state, "refs/heads/main").write_text(git(state.base_dir, "rev-parse", "HEAD~2").stdout)


def in_the_way(state: State) -> None:
    inside(state, "gitstate/generation").unlink()
    inside(state, "gitstate/generation").mkdir()


def config_damaged(state: State) -> None:
    inside(state, "config").write_text("[core\nthis is = no [configuration\n")


def history_replaced(state: State) -> None:
    git(state.base_dir, "replace", "HEAD~1", "HEAD~2")


def history_not_linear(state: State) -> None:
    git(state.base_dir, *ME, "branch", "side", "HEAD~1")
    git(state.base_dir, *ME, "merge", "-q", "--no-ff", "-s", "ours", "-m", "Merged", "side", check=False)
    tree = git(state.base_dir, "rev-parse", "HEAD^{tree}").stdout.strip()
    words = (*ME, "commit-tree", tree, "-p", "HEAD", "-p", "HEAD~3", "-m", "Merged")
    merge = git(state.base_dir, *words).stdout.strip()
    git(state.base_dir, "update-ref", "refs/heads/main", merge)


def generation_decreased(state: State) -> None:
    signed_commit(state, "checkpoint", 1, "checkpoint one: start, iteration 0")


def object_damaged(state: State) -> None:
    overwrite(loose(state, "HEAD:loops/one/session-state.json"), b"garbage")


def object_lost(state: State) -> None:
    overwrite(loose(state, "HEAD~1:loops/one/session-state.json"), b"")


def pack_damaged(state: State) -> None:
    git(state.base_dir, "gc", "-q")
    (index,) = inside(state, "objects/pack").glob("*.idx")
    overwrite(index, index.read_bytes()[:-30] + b"x" * 30)


def ref_damaged(state: State) -> None:
    git(state.base_dir, "branch", "mine")
    inside(state, "refs/heads/mine").write_text("nonsense\n")


def packed_refs_damaged(state: State) -> None:
    git(state.base_dir, "pack-refs", "--all")
    overwrite(inside(state, "packed-refs"), inside(state, "packed-refs").read_bytes()[:-30])


def packed_refs_header_damaged(state: State) -> None:
    """git reads no refs at all then."""
    git(state.base_dir, "pack-refs", "--all")
    overwrite(inside(state, "packed-refs"), inside(state, "packed-refs").read_bytes().replace(b"with:", b"vith:", 1))


def packed_refs_header_runs_on(state: State) -> None:
    """Its end of line is lost, and with it the ref that follows."""
    packed_refs_header_damaged(state)
    whole = inside(state, "packed-refs").read_bytes().replace(b"vith:", b"with:", 1)
    overwrite(inside(state, "packed-refs"), whole.replace(b"\n", b"M", 1))


def tag_damaged(state: State) -> None:
    inside(state, "refs/tags/archive/old").write_text("nonsense\n")


def record_invalid(state: State) -> None:
    path_of(state).write_text('{"loopId": "one"}')
    signed_commit(state, "update", 99)


def active_and_archived(state: State) -> None:
    (state.archive_dir / "one").mkdir()
    (state.archive_dir / "one" / "session-state.json").write_bytes(path_of(state).read_bytes())
    git(state.base_dir, "add", "archive/one")
    foreign_commit(state)


def registry_disagrees(state: State) -> None:
    path_of(state).write_bytes(path_of(state).read_bytes().replace(b'"paused"', b'"failed"'))
    foreign_commit(state)


def registry_disagrees_in_the_past(state: State) -> None:
    path_of(state).write_bytes(path_of(state).read_bytes().replace(b'"paused"', b'"failed"'))
    signed_commit(state, "update", 99)


def tag_missing(state: State) -> None:
    git(state.base_dir, "tag", "-d", "archive/old")


def checkpoint_missing(state: State) -> None:
    git(state.base_dir, "tag", "-d", "checkpoint/one/start")


def file_damaged(state: State) -> None:
    path_of(state).write_bytes(b'{"status": ')


def file_missing(state: State) -> None:
    path_of(state).unlink()


def outside_edit(state: State) -> None:
    Original(state.project_root).update_loop("one", status="waiting")


def projection_stale(state: State) -> None:
    git(state.base_dir, "checkout", "-q", "HEAD~2", "--", "loops/one/session-state.json", "registry.json")
    git(state.base_dir, "reset", "-q")


def left_alone(state: State) -> None:
    (state.archive_dir / "one").mkdir()
    (state.archive_dir / "one" / "session-state.json").write_text('{"loopId": "one", "status": "failed"}')


def name_unusable(state: State) -> None:
    (state.loops_dir / "a b").mkdir()


def index_lost(state: State) -> None:
    inside(state, "index").unlink()


def index_differs(state: State) -> None:
    git(state.base_dir, "rm", "-q", "--cached", "loops/one/session-state.json")


def index_locked(state: State) -> None:
    inside(state, "index.lock").write_bytes(b"")


def a_dead_process() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def temporary_left_behind(state: State) -> None:
    inside(state, f"gitstate/aside/{a_dead_process()}-abcdef").write_bytes(b"x")


def lock_left_behind(state: State) -> None:
    inside(state, "refs/heads/main.lock").write_text(f"{state.revision()}\n")


def repository_left_behind(state: State) -> None:
    (state.base_dir / f".git.new-{a_dead_process()}-1-abcdef" / ".git").mkdir(parents=True)


def lease_held(state: State) -> None:
    record = {"pid": a_dead_process(), "loopId": "other", "timestamp": 0, "leaseExpiry": 2**41, "fencingToken": 1}
    state.lock_path.write_text(json.dumps(record))


class Case(NamedTuple):
    """How a finding shows, and whether it ``goes`` with a repair; the others are about history, or somebody else's."""

    provoke: Callable[[State], None]
    code: str
    severity: str
    path: str | None
    goes: bool = True


MAIN, ONE = ".git/refs/heads/main", "loops/one/session-state.json"
CASES = [
    Case(head_unreadable, "head_unreadable", "error", MAIN),
    Case(head_elsewhere, "head_elsewhere", "warning", ".git/HEAD", goes=False),
    Case(head_at_nothing, "head_elsewhere", "warning", ".git/HEAD"),
    Case(branch_behind, "branch_behind", "error", MAIN),
    Case(in_the_way, "in_the_way", "warning", ".git/gitstate/generation"),
    Case(config_damaged, "config_damaged", "warning", ".git/config"),
    Case(history_replaced, "history_replaced", "warning", None, goes=False),
    Case(history_not_linear, "history_not_linear", "warning", None, goes=False),
    Case(generation_decreased, "generation_decreased", "error", None, goes=False),
    Case(object_damaged, "object_damaged", "error", None),
    Case(object_lost, "object_damaged", "error", None, goes=False),
    Case(pack_damaged, "pack_damaged", "error", None),
    Case(ref_damaged, "ref_damaged", "error", ".git/refs/heads/mine"),
    Case(packed_refs_damaged, "ref_damaged", "error", ".git/packed-refs"),
    Case(packed_refs_header_damaged, "ref_damaged", "error", ".git/packed-refs"),
    Case(packed_refs_header_runs_on, "ref_damaged", "error", ".git/packed-refs"),
    Case(tag_damaged, "tag_damaged", "error", ".git/refs/tags/archive/old"),
    Case(record_invalid, "record_invalid", "error", None, goes=False),
    Case(active_and_archived, "active_and_archived", "error", None, goes=False),
    Case(registry_disagrees, "registry_disagrees", "warning", "registry.json"),
    Case(registry_disagrees_in_the_past, "registry_disagrees", "error", "registry.json", goes=False),
    Case(tag_missing, "tag_missing", "warning", ".git/refs/tags/archive/old"),
    Case(checkpoint_missing, "tag_missing", "warning", ".git/refs/tags/checkpoint/one/start"),
    Case(file_damaged, "file_damaged", "error", ONE),
    Case(file_missing, "file_missing", "warning", ONE),
    Case(outside_edit, "outside_edit", "note", None),
    Case(projection_stale, "projection_stale", "note", None),
    Case(left_alone, "left_alone", "warning", "archive/one/session-state.json", goes=False),
    Case(name_unusable, "name_unusable", "note", "loops/a b", goes=False),
    Case(index_lost, "index_differs", "warning", ".git/index"),
    Case(index_differs, "index_differs", "warning", ".git/index"),
    Case(index_locked, "index_locked", "warning", ".git/index.lock", goes=False),
    Case(temporary_left_behind, "left_behind", "warning", None),
    Case(lock_left_behind, "left_behind", "warning", ".git/refs/heads/main.lock"),
    Case(repository_left_behind, "left_behind", "warning", None),
    Case(lease_held, "lease_held", "note", "registry.json.lock"),
]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.provoke.__name__)


def codes(state: State) -> list[str]:
    return [finding.code for finding in state.check(full=True)]


def test_a_sound_store_has_no_findings(state: State) -> None:
    assert state.check() == state.check(full=True) == []


@EACH
def test_what_provokes_a_finding_is_found(state: State, case: Case) -> None:
    case.provoke(state)
    found = [finding for finding in state.check(full=True) if finding.code == case.code]
    assert [finding.severity for finding in found][:1] == [case.severity]
    if case.path is not None:
        assert case.path in [finding.path for finding in found]


@EACH
def test_looking_changes_nothing(state: State, case: Case) -> None:
    case.provoke(state)
    before = listing(state.base_dir)
    state.check()
    state.check(full=True)
    state.repair(dry_run=True)
    with contextlib.suppress(CorruptStateError), warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        state.status()
    assert listing(state.base_dir) == before


@EACH
def test_after_repair_the_finding_is_gone_or_is_said_to_remain(state: State, case: Case) -> None:
    case.provoke(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        told = [finding for finding in state.repair() if finding.code == case.code]
    assert told
    if case.goes:
        assert all(finding.action for finding in told)
        assert case.code not in codes(state)
        assert [finding for finding in state.check(full=True) if finding.severity != "note"] == []
    else:
        assert case.code in codes(state)


@EACH
def test_no_finding_is_without_words_and_each_that_needs_something_names_a_command(state: State, case: Case) -> None:
    case.provoke(state)
    for finding in state.check(full=True):
        assert finding.message
        assert finding.action is None
        if finding.severity != "note" and finding.code != "left_alone":
            assert re.match(r"(gitstate|git|rm) ", finding.hint or ""), finding


def test_the_provocations_are_all_the_codes_that_are_documented() -> None:
    section = FINDINGS.read_text().partition("## Of the store")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE))
    assert {case.code for case in CASES} | {"not_adopted", "clone", "journal_pending", "not_read"} == documented


def test_the_original_s_directory_is_not_adopted_yet(unpack: Callable[[str], Path]) -> None:
    with StateRepository(unpack("several-loops")) as state:
        assert codes(state) == ["not_adopted"]
        assert [finding.code for finding in state.repair()] == ["not_adopted"]
        state.init()
        assert codes(state) == []


def test_a_clone_is_a_note_that_init_removes(state: State, tmp_path: Path) -> None:
    base = tmp_path / "clone" / ".aiwg" / "ralph-external"
    base.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", str(state.base_dir), str(base)], check=True)
    with StateRepository(tmp_path / "clone") as clone:
        assert codes(clone) == ["clone"]
        assert [(finding.code, finding.action) for finding in clone.repair()] == [("clone", None)]
        clone.init()
        assert codes(clone) == []


def test_a_lease_of_ours_is_a_note(state: State) -> None:
    with state.transaction():
        assert codes(state) == ["lease_held"]


def test_what_a_live_process_prepares_is_not_left_behind(state: State) -> None:
    inside(state, f"gitstate/aside/{os.getpid()}-abcdef").write_bytes(b"x")
    assert codes(state) == []


def test_status_shows_what_the_cheap_part_sees(state: State) -> None:
    path_of(state).write_bytes(b"{")
    with pytest.warns(DamageWarning):
        assert [finding.code for finding in state.status().findings] == ["file_damaged"]


def test_status_looks_at_the_newest_twenty_commits_only(state: State) -> None:
    git(state.base_dir, "tag", "-d", "archive/old")
    assert [finding.code for finding in state.status().findings] == ["tag_missing"]
    for number in range(1, 20):
        state.record_iteration("two", {"number": number})
    assert state.status().findings == []
    assert codes(state) == ["tag_missing"]


def test_an_object_with_another_s_bytes_is_not_taken_for_itself(state: State) -> None:
    """Whole in itself, so nothing but its name says that it is the wrong one."""
    before = state.revision()
    state.update_loop("one", {"note": "newer"})
    path = "loops/one/session-state.json"
    older, newer = loose(state, f"{before}:{path}"), loose(state, f"HEAD:{path}")
    overwrite(older, newer.read_bytes())
    with StateRepository(state.project_root) as again:
        with pytest.raises(CorruptStateError):
            again.get_loop("one", at=before)
        assert ("object_damaged", "error") in [(finding.code, finding.severity) for finding in again.check()]
