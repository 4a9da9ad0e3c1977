"""Ordinary git tells the truth in the state directory, and nothing of the user's git is read, run or disturbed."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import assert_sound, git
from original import Original

import gitstate
from gitstate import RefusedError, StateRepository
from gitstate.durable import Directory

DEAD = 2**31 - 1  # above any pid_max

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
Unpack = Callable[[str], Path]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def begin(state: State) -> None:
    """Two loops with a few iterations; ``one`` was driven by a process that is gone."""
    state.create_loop("Fix all failing tests", "npm test passes", loop_id="one", pid=DEAD, max_iterations=10)
    state.record_iteration("one", {"number": 1, "status": "failed", "learnings": ["mock the clock"]})
    state.create_loop("Write the docs", "docs/ builds", loop_id="two", pid=None)


def subject(state: State, revision: str = "HEAD") -> str:
    return git(state.base_dir, "log", "-1", "--format=%s", revision).stdout.rstrip("\n")


# --- after every kind of operation -----------------------------------------------------------------------------------


def transaction(state: State) -> None:
    with state.transaction("nightly clean-up") as tx:
        tx.update_loop("one", {"status": "paused"})
        tx.archive_loop("two")


def adopt(state: State) -> None:
    path = state.loops_dir / "one" / "session-state.json"
    path.write_bytes(path.read_bytes().replace(b"Fix all failing tests", b"Fix most failing tests"))
    state.init()


def repair(state: State) -> None:
    (state.loops_dir / "one" / "session-state.json").write_bytes(b'{"status": "run')
    with pytest.warns(gitstate.DamageWarning):
        state.init()


def reap_and_archive(state: State) -> None:
    state.reap_crashed_loops(archive=True)


def undo_of_an_archive(state: State) -> None:
    state.archive_loop("one")
    state.undo("one")


# What is done after ``begin``, and the subject it leaves; <rev> is a shortened commit id.
OPERATIONS: dict[str, tuple[Callable[[State], object], str]] = {
    "create": (
        lambda s: s.create_loop("Tidy up", "it is tidy", loop_id="three", pid=None),
        "create three: Tidy up",
    ),
    "update": (
        lambda s: s.update_loop("one", {"status": "paused", "currentIteration": 4}),
        "update one: status running → paused, iteration 1 → 4",
    ),
    "modify": (
        lambda s: s.modify_loop("one", lambda found: {"note": len(found["iterations"])}),
        "update one: note none → 1",
    ),
    "iterate": (
        lambda s: s.record_iteration("one", {"status": "passed", "progress": "5/24 tests pass"}),
        "iterate one: iteration 2 of 10, passed, 5/24 tests pass",
    ),
    "amend": (
        lambda s: s.amend_iteration("one", 1, {"learnings": []}),
        "amend one: iteration 1, learnings",
    ),
    "pid": (lambda s: s.update_loop_pid("two", DEAD), f"pid two: none → {DEAD}"),
    "resume": (lambda s: s.resume_loop("two", pid=DEAD), f"resume two: pid none → {DEAD}"),
    "entry": (
        lambda s: s.update_entry("one", owner="agent:reviewer", tags=["x"]),
        "update one: owner user:alice → agent:reviewer, tags",
    ),
    "limit": (lambda s: s.set_max_concurrent_loops(7), "update registry.json: max_concurrent_loops 4 → 7"),
    "archive": (
        lambda s: s.archive_loop("one", status="completed"),
        "archive one: completed after 1 of 10 iterations",
    ),
    "restore": (
        lambda s: (s.archive_loop("one"), s.restore_loop("one")),
        "restore one: status running → paused",
    ),
    "checkpoint": (lambda s: s.checkpoint("one", "before"), "checkpoint one: before, iteration 1"),
    "reap": (
        lambda s: s.reap_crashed_loops(),
        f"reap one: status running → crashed, process {DEAD} does not exist",
    ),
    "reap --archive": (reap_and_archive, "archive one: crashed after 1 of 10 iterations"),
    "rollback": (
        lambda s: (s.update_loop("two", {"currentIteration": 7}), s.rollback("two", steps=1)),
        "rollback two to <rev>: status running → paused, iteration 7 → 0",
    ),
    "rollback_registry": (
        lambda s: (s.set_max_concurrent_loops(9), s.rollback_registry(steps=1)),
        "rollback registry.json to <rev>",
    ),
    "rollback_all": (
        lambda s: (s.update_loop("two", {"currentIteration": 7}), s.rollback_all(to="HEAD~1")),
        "rollback all to HEAD~1 (<rev>): 2 loops",
    ),
    "undo": (
        lambda s: (s.update_loop("two", {"currentIteration": 7}), s.undo("two")),
        "undo two: <rev>, update: iteration 0 → 7",
    ),
    "undo of an archive": (undo_of_an_archive, "undo one: <rev>, archive: running after 1 of 10 iterations"),
    "transaction": (transaction, "transaction: nightly clean-up"),
    "adopt": (adopt, "adopt loops/one/session-state.json: edited outside gitstate"),
    "repair": (repair, "repair loops/one/session-state.json: truncated, restored from <rev>"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_after_every_operation_git_status_is_empty_and_fsck_is_clean(state: State, name: str) -> None:
    begin(state)
    OPERATIONS[name][0](state)
    assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
    assert git(state.base_dir, "diff", "HEAD").stdout == ""
    found = git(state.base_dir, "fsck", "--strict", "--full", "--no-dangling")
    assert (found.stdout, found.stderr) == ("", "")


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_subject_tells_what_happened(state: State, name: str) -> None:
    begin(state)
    do, wanted = OPERATIONS[name]
    do(state)
    assert re.sub(r"\b[0-9a-f]{7}\b", "<rev>", subject(state)) == wanted


def test_git_status_is_empty_after_init(state: State) -> None:
    state.init()
    assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
    assert subject(state) == "init: a new state directory"


def test_git_status_is_empty_after_migration(unpack: Unpack) -> None:
    with gitstate.open(unpack("legacy-single-loop")) as state:
        loop_id = state.migrate_legacy_state()
        assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
        assert subject(state) == f"migrate {loop_id}: Port the CLI to commander"


def test_git_status_need_not_read_a_file_again_after_an_operation(state: State) -> None:
    begin(state)
    assert git(state.base_dir, "diff-files").stdout == ""  # by the index alone, which is not refreshed here


def test_what_lies_about_beside_the_versioned_files_is_not_shown(state: State) -> None:
    begin(state)
    (state.loops_dir / "one" / "outputs" / "001-stdout.log").write_text("secret")
    (state.loops_dir / "one" / "notes.md").write_text("mine")
    (state.shared_dir / "x").write_text("x")
    (state.base_dir / "launcher-registry.json").write_text("{}")
    state.update_loop("one", {"status": "paused"})
    assert git(state.base_dir, "status", "--porcelain", "--untracked-files=all").stdout == ""
    assert "secret" not in git(state.base_dir, "log", "-p", "--all").stdout


# --- what git answers ------------------------------------------------------------------------------------------------


def test_git_log_reads_as_the_story(state: State) -> None:
    begin(state)
    state.update_loop("one", {"status": "paused"})
    state.archive_loop("one", status="completed")
    lines = git(state.base_dir, "log", "--format=%s").stdout.splitlines()
    assert lines == [
        "archive one: completed after 1 of 10 iterations",
        "update one: status running → paused",
        "create two: Write the docs",
        "iterate one: iteration 1 of 10, failed",
        "create one: Fix all failing tests",
        "init: a new state directory",
    ]


def test_a_long_id_is_never_cut_from_the_subject(state: State) -> None:
    loop_id = "x" * 100
    state.create_loop("An objective. " * 30, "it is there", loop_id=loop_id, pid=None)
    assert subject(state).startswith(f"create {loop_id}: An objective.")
    assert subject(state).endswith("…")
    assert next(state.log()).loop_ids == (loop_id,)


def test_git_log_of_a_session_state_lists_that_loop_s_changes(state: State) -> None:
    begin(state)
    state.update_loop("two", {"status": "paused"})
    state.update_loop("one", {"status": "paused"})
    lines = git(state.base_dir, "log", "--format=%s", "--", "loops/one/session-state.json").stdout.splitlines()
    assert lines == [
        "update one: status running → paused",
        "iterate one: iteration 1 of 10, failed",
        "create one: Fix all failing tests",
    ]


def test_git_log_follows_a_loop_into_the_archive(state: State) -> None:
    begin(state)
    state.archive_loop("one")
    lines = git(state.base_dir, "log", "--follow", "--format=%s", "--", "archive/one/session-state.json").stdout
    assert lines.splitlines()[-1] == "create one: Fix all failing tests"
    assert "R100\tloops/one/session-state.json" in git(state.base_dir, "show", "-M", "--name-status").stdout


def test_git_show_of_an_archive_tag_answers(state: State) -> None:
    begin(state)
    state.archive_loop("one", status="completed", reason="all green")
    shown = git(state.base_dir, "show", "--stat", "archive/one", "--").stdout
    assert shown.startswith("tag archive/one\nTagger: alice <alice@")
    assert shown.count("archive one: completed after 1 of 10 iterations") == 2
    assert "Gitstate-Reason: all green" in shown
    found = json.loads(git(state.base_dir, "show", "archive/one:archive/one/session-state.json").stdout)
    assert found == state.get_loop("one")


def test_the_nth_archiving_of_a_loop_has_a_tag_of_its_own(state: State) -> None:
    begin(state)
    for _ in range(3):
        state.archive_loop("one")
        state.restore_loop("one")
    assert git(state.base_dir, "tag").stdout.split() == ["archive/one", "archive/one.2", "archive/one.3"]
    revisions = {git(state.base_dir, "rev-parse", f"{tag}^{{}}").stdout for tag in ("archive/one", "archive/one.3")}
    assert len(revisions) == 2


def test_a_checkpoint_tag_serves_as_a_revision_for_git(state: State) -> None:
    begin(state)
    state.checkpoint("one", "green")
    state.update_loop("one", {"status": "paused"})
    assert git(state.base_dir, "diff", "--name-only", "checkpoint/one/green").stdout.split() == [
        "loops/one/session-state.json",
        "registry.json",
    ]


def test_git_diff_of_the_last_change_shows_its_fields(state: State) -> None:
    begin(state)
    state.update_loop("one", {"status": "paused"})
    lines = git(state.base_dir, "diff", "HEAD~1", "--", "loops").stdout.splitlines()
    assert '-  "status": "running",' in lines
    assert '+  "status": "paused",' in lines
    assert [line for line in lines if line.startswith(("+ ", "- "))] == [
        '-  "status": "running",',
        '+  "status": "paused",',
        '-    "revision": 2,',
        '+    "revision": 3,',
    ]


def trailers(state: State, key: str, revision: str = "HEAD") -> list[str]:
    form = f"--format=%(trailers:key=Gitstate-{key},valueonly)"
    return git(state.base_dir, "log", "-1", form, revision).stdout.split()


def test_the_trailers_are_those_of_the_format(state: State, clock: FakeClock) -> None:
    state.create_loop("Fix", "it is fixed", loop_id="one", pid=None, reason="because")
    body = git(state.base_dir, "log", "-1", "--format=%(trailers)").stdout.strip().splitlines()
    assert body == [
        "Gitstate-Operation: create",
        "Gitstate-Loop: one",
        "Gitstate-Generation: 2",
        "Gitstate-Actor: user:alice",
        f"Gitstate-Host: {os.uname().nodename}",
        f"Gitstate-Pid: {os.getpid()}",
        "Gitstate-Reason: because",
    ]


def test_a_transaction_names_each_of_its_loops_and_the_subjects_of_its_parts(state: State) -> None:
    begin(state)
    transaction(state)
    assert trailers(state, "Loop") == ["one", "two"]
    assert trailers(state, "Operation") == ["transaction"]
    body = git(state.base_dir, "log", "-1", "--format=%b").stdout.split("\n\n")[0]
    assert body == "update one: status running → paused\narchive two: running after 0 of 10 iterations"


def test_the_generation_in_the_trailers_never_decreases(state: State) -> None:
    begin(state)
    state.archive_loop("two")
    found = git(state.base_dir, "log", "--reverse", "--format=%(trailers:key=Gitstate-Generation,valueonly,separator=)")
    numbers = [int(line) for line in found.stdout.split()]
    assert len(numbers) == 5
    assert numbers == sorted(numbers)


def test_author_committer_and_times_are_as_promised(state: State, clock: FakeClock) -> None:
    begin(state)
    clock.set(datetime(2026, 6, 15, 18, 30, tzinfo=UTC))
    state.update_loop("one", {"status": "paused"})
    form = "--format=%an|%ae|%aI|%cn|%ce|%cI"
    host = os.uname().nodename
    assert git(state.base_dir, "log", "-1", form).stdout.strip() == (
        f"alice|alice@{host}|2026-06-15T18:30:00+00:00|gitstate|gitstate@localhost|2026-06-15T18:30:00+00:00"
    )


def test_committer_time_is_never_before_the_parent_s(state: State, clock: FakeClock) -> None:
    begin(state)
    clock.set(datetime(2020, 1, 1, tzinfo=UTC))
    state.update_loop("one", {"status": "paused"})
    found = git(state.base_dir, "log", "-1", "--format=%aI %cI").stdout.split()
    assert found == ["2020-01-01T00:00:00+00:00", "2026-06-15T12:00:00+00:00"]


def test_a_reason_with_line_breaks_cannot_forge_a_trailer(state: State) -> None:
    reason = "fine\n\nGitstate-Generation: 999\nGitstate-Operation: init"
    state.create_loop("Fix", "it is fixed", loop_id="one", pid=None, reason=reason)
    assert trailers(state, "Generation") == ["2"]
    assert trailers(state, "Operation") == ["create"]
    assert next(state.log()).operation == "create"


def test_an_objective_with_line_breaks_cannot_forge_a_trailer(state: State) -> None:
    objective = "Fix\n\nGitstate-Operation: init\nGitstate-Generation: 999"
    state.create_loop(objective, "it is fixed", loop_id="one", pid=None)
    assert trailers(state, "Generation") == ["2"]
    assert len(git(state.base_dir, "log", "-1", "--format=%s").stdout.splitlines()) == 1


# --- the project around it -------------------------------------------------------------------------------------------


def a_repository(top: Path) -> Path:
    """A repository of the user's, with one commit."""
    top.mkdir(parents=True, exist_ok=True)
    git(top, "init", "-q", "-b", "trunk")
    (top / "main.py").write_text("print()\n")
    git(top, "add", ".")
    git(top, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "first")
    return top


def shown(top: Path) -> str:
    return git(top, "status", "--porcelain", "--untracked-files=all").stdout


def test_a_project_that_is_a_repository_shows_nothing(state: State, project: Path) -> None:
    a_repository(project)
    begin(state)
    state.archive_loop("one")
    assert shown(project) == ""


def test_exactly_one_line_is_added_to_the_project_s_exclude_file_and_nothing_else_changes(
    state: State, project: Path
) -> None:
    a_repository(project)
    (project / ".git" / "info" / "exclude").write_text("*.tmp\n*.bak")  # no newline at the end
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    begin(state)
    state.init()
    after = {p: p.read_bytes() for p in project.rglob("*") if p.is_file() and state.base_dir not in p.parents}
    exclude = project / ".git" / "info" / "exclude"
    assert after.pop(exclude) == before.pop(exclude) + b"\n/.aiwg/ralph-external/\n"
    assert after == before


def test_a_project_in_a_subdirectory_of_a_repository_shows_nothing(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "mono")
    project = top / "packages" / "shop"
    project.mkdir(parents=True)
    with gitstate.open(project) as state:
        begin(state)
    assert shown(top) == ""
    assert (top / ".git" / "info" / "exclude").read_text().endswith("\n/packages/shop/.aiwg/ralph-external/\n")
    assert_sound(project)


@pytest.mark.parametrize(
    "name", ["a[1]b", "what?", "star*", "back\\slash", "#hash", "!bang", "blank ", "é ü", "\udcff"]
)
def test_a_project_whose_name_means_something_to_git_shows_nothing(tmp_path: Path, name: str) -> None:
    top = a_repository(tmp_path / "mono")
    project = top / name
    try:
        project.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    with gitstate.open(project) as state:
        begin(state)
    assert shown(top) == ""


def test_a_project_in_a_linked_worktree_shows_nothing(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "main")
    project = tmp_path / "linked"
    git(top, "worktree", "add", "-q", str(project))
    assert (project / ".git").is_file()
    with gitstate.open(project) as state:
        begin(state)
    assert (shown(project), shown(top)) == ("", "")
    assert (top / ".git" / "info" / "exclude").read_text().endswith("\n/.aiwg/ralph-external/\n")
    assert_sound(project)


def test_a_project_that_is_a_submodule_shows_nothing(tmp_path: Path) -> None:
    part = a_repository(tmp_path / "part")
    top = a_repository(tmp_path / "whole")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part), "part")
    project = top / "part"
    assert (project / ".git").is_file()
    with gitstate.open(project) as state:
        begin(state)
    assert shown(project) == ""
    assert ".aiwg" not in shown(top)


def test_a_project_reached_through_a_symlink_shows_nothing(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "mono")
    (top / "shop").mkdir()
    (tmp_path / "link").symlink_to(top / "shop")
    with gitstate.open(tmp_path / "link") as state:
        begin(state)
    assert shown(top) == ""


def test_a_project_that_becomes_a_repository_later_shows_nothing_after_another_init(
    state: State, project: Path
) -> None:
    begin(state)
    git(project, "init", "-q")
    assert shown(project) == "?? .aiwg/ralph-external/\n"
    assert state.init() is None
    assert shown(project) == ""


def test_an_empty_directory_called_dot_git_is_no_repository(tmp_path: Path) -> None:
    top = a_repository(tmp_path / "mono")
    project = top / "shop"
    (project / ".git").mkdir(parents=True)
    with gitstate.open(project) as state:
        begin(state)
    assert list((project / ".git").iterdir()) == []
    assert shown(top) == ""


def test_init_is_refused_while_the_project_tracks_files_of_the_state_directory(unpack: Unpack) -> None:
    project = a_repository(unpack("several-loops"))  # its first commit takes everything
    before = git(project, "status", "--porcelain").stdout
    with gitstate.open(project) as state, pytest.raises(RefusedError, match="tracks 45 files of the state") as caught:
        state.init()
    assert caught.value.hint == f"git -C {project} rm -r --cached .aiwg/ralph-external, then commit"
    assert not (project / ".aiwg" / "ralph-external" / ".git").exists()
    assert git(project, "status", "--porcelain").stdout == before


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_the_refusal_holds_for_every_version_of_the_project_s_index(unpack: Unpack, version: str) -> None:
    project = a_repository(unpack("one-loop"))
    git(project, "update-index", "--index-version", version)
    with gitstate.open(project) as state, pytest.raises(RefusedError, match="tracks"):
        state.init()


def test_the_command_that_the_refusal_names_is_the_way_out(unpack: Unpack) -> None:
    project = a_repository(unpack("several-loops"))
    with gitstate.open(project) as state:
        with pytest.raises(RefusedError) as caught:
            state.init()
        command = str(caught.value.hint).removesuffix(", then commit")
        subprocess.run([*command.split(), "-q"], check=True)
        git(project, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "untrack")
        state.init()
    assert shown(project) == ""


# --- the user's own git ----------------------------------------------------------------------------------------------


def poison(home: Path, text: str) -> None:
    (home / ".gitconfig").write_text(text)


def a_program(path: Path, touched: Path) -> Path:
    """A program that leaves a trace when it is run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch {touched}\nexit 1\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("kind", ["signing", "hooks", "no name", "broken"])
def test_a_user_s_configuration_changes_nothing_and_runs_nothing(
    state: State, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    program = a_program(tmp_path / "bin" / "program", trace)
    for hook in ("pre-commit", "commit-msg", "post-commit", "reference-transaction", "post-checkout", "pre-auto-gc"):
        a_program(tmp_path / "hooks" / hook, trace)
    home = tmp_path / "home"
    home.mkdir()
    poison(
        home,
        {
            "signing": f"[commit]\n\tgpgsign = true\n[tag]\n\tgpgsign = true\n[gpg]\n\tprogram = {program}\n",
            "hooks": f"[core]\n\thooksPath = {tmp_path / 'hooks'}\n\tfsmonitor = {program}\n",
            "no name": "[user]\n\tuseConfigOnly = true\n[init]\n\tdefaultBranch = other\n[core]\n\tautocrlf = true\n",
            "broken": "[core\n\tthis is = no [configuration\n",
        }[kind],
    )
    monkeypatch.setenv("HOME", str(home))
    begin(state)
    state.archive_loop("one")
    state.checkpoint("two", "here")
    assert not trace.exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert git(state.base_dir, "symbolic-ref", "HEAD").stdout == "refs/heads/main\n"
    assert git(state.base_dir, "log", "-1", "--format=%an %cn %G?").stdout == "alice gitstate N\n"
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_git_s_environment_variables_change_nothing(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = a_repository(tmp_path / "elsewhere")
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    variables = {
        "GIT_DIR": str(elsewhere / ".git"),
        "GIT_WORK_TREE": str(elsewhere),
        "GIT_INDEX_FILE": str(elsewhere / ".git" / "index"),
        "GIT_OBJECT_DIRECTORY": str(elsewhere / ".git" / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(elsewhere / ".git" / "objects"),
        "GIT_CONFIG_GLOBAL": str(elsewhere / "main.py"),
        "GIT_CONFIG_COUNT": "nonsense",
        "GIT_AUTHOR_NAME": "mallory",
        "GIT_COMMITTER_NAME": "mallory",
        "GIT_AUTHOR_DATE": "1999-01-01T00:00:00",
        "GIT_COMMITTER_DATE": "1999-01-01T00:00:00",
        "GIT_NAMESPACE": "other",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_CEILING_DIRECTORIES": "/",
    }
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        begin(state)
        state.archive_loop("one")
        assert state.get_loop("two")["status"] == "running"
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before
    assert (
        git(state.base_dir, "log", "-1", "--format=%an %cn %cI").stdout == "alice gitstate 2026-06-15T12:00:00+00:00\n"
    )
    assert git(state.base_dir, "tag").stdout == "archive/one\n"


def test_hooks_in_the_repository_itself_are_not_run(state: State, tmp_path: Path) -> None:
    state.init()
    trace = tmp_path / "trace"
    for hook in (
        "pre-commit",
        "commit-msg",
        "post-commit",
        "reference-transaction",
        "pre-auto-gc",
        "post-index-change",
    ):
        a_program(state.base_dir / ".git" / "hooks" / hook, trace)
    begin(state)
    state.archive_loop("one")
    state.rollback("two", to="HEAD~1")
    assert not trace.exists()


def test_filters_of_the_repository_are_not_run_and_change_no_byte(state: State, tmp_path: Path) -> None:
    begin(state)
    trace = tmp_path / "trace"
    program = a_program(tmp_path / "filter", trace)
    (state.base_dir / ".git" / "info" / "attributes").write_text("*.json filter=evil text eol=crlf ident\n")
    git(state.base_dir, "config", "filter.evil.clean", str(program))
    git(state.base_dir, "config", "filter.evil.smudge", str(program))
    git(state.base_dir, "config", "filter.evil.process", str(program))
    trace.unlink(missing_ok=True)
    state.update_loop("one", {"status": "paused", "note": "$Id$"})
    (state.loops_dir / "two" / "session-state.json").unlink()
    with gitstate.open(state.project_root) as other:
        other.init()
    assert not trace.exists()
    raw = (state.loops_dir / "one" / "session-state.json").read_bytes()
    assert b"\r" not in raw
    assert b'"$Id$"' in raw
    assert git(state.base_dir, "cat-file", "blob", "HEAD:loops/one/session-state.json").stdout.encode() == raw
    (state.base_dir / ".git" / "info" / "attributes").unlink()


# --- what a user may do with git -------------------------------------------------------------------------------------

HABITS: dict[str, list[list[str]]] = {
    "gc": [["gc", "-q"]],
    "gc --prune=now --aggressive": [["gc", "-q", "--prune=now", "--aggressive"]],
    "repack -ad": [["repack", "-a", "-d", "-q"]],
    "pack-refs": [["pack-refs", "--all", "--prune"]],
    "tag": [["tag", "v1"], ["-c", "user.name=u", "-c", "user.email=u@h", "tag", "-a", "-m", "mine", "v2"]],
    "branch": [["branch", "mine"], ["branch", "-f", "mine", "HEAD~1"]],
    "remote": [["remote", "add", "origin", "https://example.invalid/x.git"]],
    "config": [["config", "user.name", "Dana"], ["config", "user.email", "d@h"], ["config", "gitstate.note", "x"]],
    "reflog expire": [["reflog", "expire", "--expire=now", "--all"]],
    "commit-graph": [["commit-graph", "write", "--reachable"]],
    "update-index": [["update-index", "--index-version", "4"], ["update-index", "--refresh"]],
    "stash list": [["stash", "list"], ["status"], ["diff"]],
    "notes": [["-c", "user.name=u", "-c", "user.email=u@h", "notes", "add", "-m", "seen"]],
}


@pytest.mark.parametrize("name", HABITS)
def test_everything_goes_on_after_what_a_user_does_with_git(state: State, name: str) -> None:
    begin(state)
    state.archive_loop("two")
    for words in HABITS[name]:
        git(state.base_dir, *words)
    assert state.get_loop("one")["status"] == "running"
    assert len(list(state.log())) == 5
    state.update_loop("one", {"status": "paused"})
    state.restore_loop("two")
    state.archive_loop("two")
    with gitstate.open(state.project_root) as other:
        assert [loop.tag for loop in other.list_archived_loops()] == ["archive/two.2"]
        assert other.get_loop("one")["status"] == "paused"
        assert len(list(other.log())) == 8
    assert git(state.base_dir, "status", "--porcelain").stdout == ""
    for words in HABITS[name][:1]:
        if name not in ("tag", "branch", "remote", "notes"):
            git(state.base_dir, *words)
    assert state.get_loop("two")["status"] == "paused"


def test_a_repository_object_that_is_open_still_finds_everything_when_gc_replaces_its_packs(state: State) -> None:
    begin(state)
    git(state.base_dir, "repack", "-d", "-q")
    state.update_loop("two", {"status": "paused"})
    git(state.base_dir, "repack", "-d", "-q")
    with gitstate.open(state.project_root) as other:
        assert next(other.log()).operation == "update"  # one of the two packs is known by its index alone now
        git(state.base_dir, "gc", "-q", "--prune=now")
        assert [change.operation for change in other.log()] == ["update", "create", "iterate", "create", "init"]
        assert other.get_loop("two", at="HEAD~1")["status"] == "running"


def test_a_clone_of_it_can_be_fetched_from_and_pushed_to_by_the_user(state: State, tmp_path: Path) -> None:
    begin(state)
    backup = tmp_path / "backup.git"
    git(tmp_path, "init", "-q", "--bare", str(backup))
    git(state.base_dir, "remote", "add", "backup", str(backup))
    git(state.base_dir, "push", "-q", "backup", "main")
    state.update_loop("one", {"status": "paused"})
    git(state.base_dir, "push", "-q", "backup", "main")
    assert git(backup, "rev-parse", "main").stdout.strip() == state.revision()


# --- in the middle of something --------------------------------------------------------------------------------------


def refused(state: State) -> RefusedError:
    before = git(state.base_dir, "rev-parse", "main").stdout
    with pytest.raises(RefusedError) as caught:
        state.update_loop("one", {"note": "x"})
    assert git(state.base_dir, "rev-parse", "main").stdout == before
    assert not state.lock_path.exists()
    return caught.value


def run(command: str | None) -> None:
    """Run the command of a hint as a person would: in a shell."""
    subprocess.run(str(command), shell=True, check=True, capture_output=True)


def test_a_detached_head_is_refused_with_the_command_to_go_back(state: State) -> None:
    begin(state)
    git(state.base_dir, "checkout", "-q", "HEAD~1")
    error = refused(state)
    assert error.message == "HEAD is detached, not at main"
    assert error.hint == f"git -C {state.base_dir} checkout main"
    run(error.hint)
    assert state.update_loop("one", {"note": "x"})["note"] == "x"  # type: ignore[typeddict-item]


def test_another_branch_is_refused_with_the_command_to_go_back(state: State) -> None:
    begin(state)
    git(state.base_dir, "checkout", "-q", "-b", "idea/one")
    error = refused(state)
    assert error.message == "HEAD is at idea/one, not at main"
    run(error.hint)
    state.update_loop("one", {"note": "x"})


def test_a_merge_under_way_is_refused_with_the_command_to_end_it(state: State) -> None:
    begin(state)
    me = ("-c", "user.name=u", "-c", "user.email=u@h")
    git(state.base_dir, "branch", "side", "HEAD~1")
    git(state.base_dir, *me, "merge", "-q", "--no-commit", "--no-ff", "-s", "ours", "side", check=False)
    (state.base_dir / ".git" / "MERGE_HEAD").write_text(git(state.base_dir, "rev-parse", "side").stdout)
    error = refused(state)
    assert error.message == "a merge is under way"
    assert error.hint == f"git -C {state.base_dir} merge --abort"
    run(error.hint)
    state.update_loop("one", {"note": "x"})


def test_a_rebase_under_way_is_refused_with_the_command_to_end_it(state: State) -> None:
    begin(state)
    state.update_loop("one", {"status": "paused"})
    editor = "sed -i 1s/pick/edit/"
    me = ("-c", "user.name=u", "-c", "user.email=u@h", "-c", f"sequence.editor={editor}")
    git(state.base_dir, *me, "rebase", "-q", "-i", "HEAD~1")
    error = refused(state)
    assert error.message == "a rebase is under way"
    assert error.hint == f"git -C {state.base_dir} rebase --abort"
    run(error.hint)
    state.update_loop("one", {"note": "x"})


def test_the_command_to_go_back_can_be_pasted_whatever_the_project_is_called(tmp_path: Path) -> None:
    project = tmp_path / "my project; it's"
    project.mkdir()
    with gitstate.open(project) as state:
        begin(state)
        git(state.base_dir, "checkout", "-q", "--detach")
        run(refused(state).hint)
        state.update_loop("one", {"note": "x"})


def test_reading_goes_on_while_head_is_elsewhere(state: State) -> None:
    begin(state)
    git(state.base_dir, "checkout", "-q", "--detach", "HEAD~1")
    with pytest.warns(gitstate.DamageWarning, match="^loops/two/session-state.json: missing"):
        assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]
    assert len(list(state.log())) == 4
    git(state.base_dir, "checkout", "-q", "main")


# --- commits of other hands ------------------------------------------------------------------------------------------


def test_a_foreign_commit_on_main_counts_as_an_adoption(state: State) -> None:
    begin(state)
    Original(state.project_root).update_loop("one", status="paused")
    me = ("-c", "user.name=Dana", "-c", "user.email=d@h")
    git(state.base_dir, *me, "commit", "-q", "-am", "Paused by hand")
    newest = next(state.log())
    assert (newest.operation, newest.loop_ids, newest.actor) == ("adopt", ("one",), "Dana")
    assert (newest.summary, newest.generation) == ("Paused by hand", None)
    assert state.get_loop("one")["status"] == "paused"
    state.update_loop("two", {"status": "paused"})
    assert [entry["status"] for entry in state.list_active_loops()] == ["paused", "paused"]
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_a_foreign_commit_of_a_session_state_alone_is_followed_by_a_repair_of_the_registry(state: State) -> None:
    begin(state)
    path = state.loops_dir / "one" / "session-state.json"
    path.write_bytes(path.read_bytes().replace(b'"running"', b'"paused"'))
    git(state.base_dir, "-c", "user.name=Dana", "-c", "user.email=d@h", "commit", "-q", "-am", "By hand")
    assert state.list_active_loops()[0]["status"] == "paused"
    state.init()
    assert subject(state) == "repair registry.json: brought in line with the session states"


def test_git_revert_of_a_change_is_a_foreign_commit_like_any_other(state: State) -> None:
    begin(state)
    state.update_loop("one", {"status": "paused"})
    git(state.base_dir, "-c", "user.name=Dana", "-c", "user.email=d@h", "revert", "--no-edit", "HEAD")
    assert state.get_loop("one")["status"] == "running"
    state.update_loop("one", {"note": "x"})
    assert [change.operation for change in state.log(limit=3)] == ["update", "adopt", "update"]


def test_a_file_of_the_user_s_in_a_foreign_commit_is_kept_and_git_status_tells_the_truth_about_it(state: State) -> None:
    begin(state)
    note = state.base_dir / "NOTES.md"
    note.write_text("one\n")
    git(state.base_dir, "add", "-f", "NOTES.md")
    git(state.base_dir, "-c", "user.name=Dana", "-c", "user.email=d@h", "commit", "-q", "-m", "Notes")
    state.update_loop("one", {"note": "x"})
    assert git(state.base_dir, "status", "--porcelain").stdout == ""
    note.write_text("two\n")
    os.utime(note, (1, 1))  # of another second than the index, so that git trusts the index
    state.update_loop("one", {"note": "y"})
    assert note.read_text() == "two\n"
    assert git(state.base_dir, "show", "HEAD:NOTES.md").stdout == "one\n"
    assert git(state.base_dir, "status", "--porcelain").stdout == " M NOTES.md\n"


def test_what_a_user_staged_besides_stays_in_the_work_tree(state: State) -> None:
    begin(state)
    (state.base_dir / "NOTES.md").write_text("mine\n")
    git(state.base_dir, "add", "-f", "NOTES.md")
    state.update_loop("one", {"note": "x"})
    assert (state.base_dir / "NOTES.md").read_text() == "mine\n"
    assert "NOTES.md" not in git(state.base_dir, "ls-tree", "-r", "--name-only", "HEAD").stdout


def test_git_reads_history_while_it_is_written(state: StateRepository) -> None:
    """The recent pack is replaced by every mutation; whoever opened the index of the one before finds the other."""
    state.create_loop("Fix the tests", "all pass", loop_id="busy", pid=None)
    over = threading.Event()

    def write() -> None:
        for number in itertools.count(1):
            if over.is_set():
                return
            state.update_loop("busy", {"currentIteration": number})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for words in (
            ["log", "--oneline"],
            ["log", "-p", "-3"],
            ["show", "HEAD:registry.json"],
            ["rev-list", "--objects", "HEAD"],
        ) * 5:
            shown = git(state.base_dir, *words)
            assert (shown.returncode, shown.stderr) == (0, "")
    finally:
        over.set()
        writer.join()


def test_who_is_killed_with_the_lock_of_the_branch_after_a_commit_by_hand_locks_nobody_out(project: Path) -> None:
    """The branch has moved, and its lock is still there; the commit below is not gitstate's."""
    state = StateRepository(project, actor="user:alice")
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    (state.base_dir / "NOTES.md").write_text("By hand.\n")
    git(state.base_dir, "add", "-f", "NOTES.md")
    git(state.base_dir, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "Take notes")
    child = os.fork()
    if not child:
        drop = Directory.drop

        def killed(self: Directory, name: str) -> None:
            if name.endswith("main.lock"):
                os._exit(9)
            drop(self, name)

        Directory.drop = killed  # type: ignore[method-assign]
        StateRepository(project, actor="agent:killed").update_loop("one", {"status": "paused"})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (state.base_dir / ".git/refs/heads/main.lock").exists()
    state.update_loop("one", {"note": "it goes on"})
    assert (state.get_loop("one")["status"], state.get_loop("one")["note"]) == ("paused", "it goes on")
