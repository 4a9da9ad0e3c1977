"""What git answers when it is asked what happened."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pytest
from beginnings import begin, subject, transaction
from clocks import FakeClock
from conftest import git

from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


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
