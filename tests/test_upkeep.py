"""What a mutation does now and then, so that the repository stays small at any length of history."""

from __future__ import annotations

from conftest import git

from gitstate import StateRepository

LOG = ".git/logs/refs/heads/main"


def opened_an_epoch(state: StateRepository) -> None:
    """A mutation after which everything is looked after."""
    (state.base_dir / ".git/gitstate/journal").unlink()
    for _ in range(2):  # the first finds that there is no journal any more, and the next one begins another
        state.create_loop("Fix the tests", "all pass", pid=None)


def test_few_packs_are_left_however_many_epochs_there_were(state: StateRepository) -> None:
    loop = state.create_loop("Fix the tests", "all pass", pid=None)["loopId"]
    for number in range(1, 64 * 9):
        state.update_loop(loop, {"currentIteration": number})
    assert len(list((state.base_dir / ".git/objects/pack").glob("*.pack"))) < 8
    assert len(list(state.log(loop))) == 64 * 9
    assert sum(path.is_file() for path in (state.base_dir / ".git").rglob("*")) < 40


def test_tags_of_many_archives_share_a_file(state: StateRepository) -> None:
    for number in range(40):
        state.create_loop("Fix the tests", "all pass", loop_id=f"loop-{number}", pid=None)
        state.archive_loop(f"loop-{number}", status="completed")
    tags = git(state.base_dir, "tag").stdout
    opened_an_epoch(state)
    assert len(list((state.base_dir / ".git/refs/tags/archive").iterdir())) < 32
    assert git(state.base_dir, "tag").stdout == tags
    assert state.get_loop("loop-7")["status"] == "completed"


def test_tags_of_many_checkpoints_share_a_file_too(state: StateRepository) -> None:
    state.create_loop("Fix the tests", "all pass", loop_id="one", pid=None)
    for number in range(12):
        state.checkpoint("one", f"moment-{number}")
    tags = git(state.base_dir, "tag").stdout
    opened_an_epoch(state)
    assert not [path for path in (state.base_dir / ".git/refs/tags").rglob("*") if path.is_file()]
    assert git(state.base_dir, "tag").stdout == tags


def test_a_long_reflog_loses_its_older_part(state: StateRepository) -> None:
    state.create_loop("Fix the tests", "all pass", pid=None)
    log = state.base_dir / LOG
    last = log.read_bytes().splitlines(keepends=True)[-1]
    log.write_bytes(last * (2 * 1024 * 1024 // len(last)))
    opened_an_epoch(state)
    assert log.stat().st_size < 512 * 1024
    assert git(state.base_dir, "reflog", "-1", "--format=%H").stdout.strip() == state.revision()
