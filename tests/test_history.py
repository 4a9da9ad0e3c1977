"""What happened: log, show, diff, the names of revisions, and the answers they are given in."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import GeneratorType
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from processes import dead_pid

import gitstate
from gitstate import (
    Change,
    FieldChange,
    InvalidInputError,
    LoopNotFoundError,
    RevisionNotFoundError,
    StateRepository,
    results,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
LOCAL = NOON.replace(tzinfo=None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture(scope="module")
def told_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six changes an hour apart, from noon: init, create one, create two, update one, update two, archive one."""
    root = tmp_path_factory.mktemp("story")
    clock = FakeClock(NOON)
    state = StateRepository(root, actor="user:alice", clock=clock)
    steps: list[Callable[[], object]] = [
        state.init,
        lambda: state.create_loop("First", "done", loop_id="one", pid=None),
        lambda: state.create_loop("Second", "done", loop_id="two", pid=None),
        lambda: state.update_loop("one", {"status": "completed"}, reason="all green"),
        lambda: state.update_loop("two", {"note": 1}),
        lambda: state.archive_loop("one"),
    ]
    for step in steps:
        step()
        clock.advance(hours=1)
    return root


@pytest.fixture
def story(told_once: Path, project: Path, clock: FakeClock) -> Iterator[State]:
    """A copy of the story, at six o'clock."""
    shutil.copytree(told_once, project, symlinks=True, dirs_exist_ok=True)
    clock.advance(hours=6)
    with StateRepository(project, actor="user:alice", clock=clock) as repository:
        yield repository


@pytest.fixture(scope="module")
def tale(told_once: Path) -> State:
    """The story itself, for those who only read."""
    return StateRepository(told_once, actor="user:alice", clock=FakeClock(NOON + timedelta(hours=6)))


def at(hour: int, **more: int) -> datetime:
    return NOON + timedelta(hours=hour, **more)


def told(changes: Any) -> list[str]:
    return [f"{change.operation} {change.loop_id}" for change in changes]


def by_hand(state: State, message: str, **changes: object) -> str:
    """A commit of a user's, made with ordinary git."""
    path = state.get_loop_dir("two") / "session-state.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}, indent=2) + "\n")
    git(state.base_dir, "-c", "user.name=Mallory", "-c", "user.email=m@h", "commit", "-q", "-a", "-m", message)
    return git(state.base_dir, "rev-parse", "HEAD").stdout.strip()


# --- log -------------------------------------------------------------------------------------------------------------


def test_the_log_is_newest_first(tale: State) -> None:
    assert told(tale.log()) == ["archive one", "update two", "update one", "create two", "create one", "init None"]


def test_the_log_of_a_loop_has_its_changes_only_also_when_it_is_archived(tale: State) -> None:
    assert told(tale.log("one")) == ["archive one", "update one", "create one"]
    assert told(tale.log("two")) == ["update two", "create two"]


def test_a_change_says_who_when_what_and_why(tale: State) -> None:
    change = next(itertools.islice(tale.log(), 2, None))
    head = tale.revision() or ""
    assert change == Change(
        revision=git(tale.base_dir, "rev-parse", f"{head}~2").stdout.strip(),
        parent=git(tale.base_dir, "rev-parse", f"{head}~3").stdout.strip(),
        time=at(3),
        operation="update",
        loop_ids=("one",),
        generation=change.generation,
        actor="user:alice",
        host=gitstate.process.hostname(),
        pid=os.getpid(),
        reason="all green",
        summary="update one: status running → completed",
        fields=(),
    )
    assert change.loop_id == "one"


def test_generations_grow_along_history(tale: State) -> None:
    generations = [change.generation or 0 for change in tale.log()]
    assert generations == sorted(set(generations), reverse=True)


def test_the_log_is_read_as_it_is_asked_for(story: State, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = gitstate.store.revisions.Revisions.read

    def counted(self: Any, revision: str) -> Any:
        read.append(revision)
        return original(self, revision)

    monkeypatch.setattr(gitstate.store.revisions.Revisions, "read", counted)
    log = story.log()
    assert isinstance(log, GeneratorType)
    assert read == []
    next(log)
    next(log)
    assert len(read) <= 3


def test_the_log_is_of_the_moment_when_it_was_asked_for(story: State) -> None:
    log = story.log()
    story.update_loop("two", {"note": 2})
    assert told(log)[0] == "archive one"


@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_the_log_can_be_limited(tale: State, limit: int) -> None:
    assert told(tale.log(limit=limit)) == told(tale.log())[:limit]
    assert told(tale.log("one", limit=limit)) == told(tale.log("one"))[:limit]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (at(3), None, ["archive one", "update two", "update one"]),
        (at(3, seconds=1), None, ["archive one", "update two"]),
        (None, at(1), ["create one", "init None"]),
        (None, at(1, seconds=-1), ["init None"]),
        (at(2), at(3), ["update one", "create two"]),
        (at(3), at(2), []),
        (at(-10), at(100), None),
        (at(3).astimezone(timezone(timedelta(hours=-7))), None, ["archive one", "update two", "update one"]),
        ("HEAD~2", None, ["archive one", "update two"]),
        (None, "HEAD~4", ["create one", "init None"]),
        ("HEAD~4", "HEAD~2", ["update one", "create two"]),
        ("HEAD", None, []),
        (None, "HEAD", None),
    ],
)
def test_since_and_until_are_moments_inclusive_or_revisions_as_in_git(
    tale: State, since: Any, until: Any, expected: list[str] | None
) -> None:
    found = told(tale.log(since=since, until=until))
    assert found == (told(tale.log()) if expected is None else expected)


def test_the_log_is_filled_with_fields_when_asked(tale: State) -> None:
    changes = list(tale.log("two", fields=True))
    assert changes == [tale.show(change.revision or "") for change in changes]
    assert [field.path for field in changes[0].fields] == ["/lastUpdate", "/note"]
    assert all(change.fields == () for change in tale.log("two"))


def test_the_log_of_nothing_is_empty(state: State) -> None:
    assert list(state.log()) == []
    assert list(state.log(since=at(1))) == []


@pytest.mark.parametrize(
    "names", [{"since": "nowhere"}, {"until": "nowhere"}, {"since": "HEAD~99"}, {"until": "archive/two"}]
)
def test_a_revision_that_is_not_there_is_said_at_once(tale: State, names: Any) -> None:
    with pytest.raises(RevisionNotFoundError):
        tale.log(**names)


@pytest.mark.parametrize("names", [{"since": LOCAL}, {"until": LOCAL}, {"limit": -1}, {"since": 5}])
def test_the_log_refuses_what_it_cannot_mean(tale: State, names: Any) -> None:
    with pytest.raises(InvalidInputError):
        tale.log(**names)


def test_the_log_of_an_unknown_loop_is_an_error(tale: State) -> None:
    with pytest.raises(LoopNotFoundError, match="did you mean two"):
        tale.log("twoo")


def test_a_commit_that_gitstate_did_not_make_counts_as_an_adoption(story: State) -> None:
    revision = by_hand(story, "tweak\n\nby hand", note=2)
    change = next(story.log())
    assert (change.revision, change.operation, change.loop_ids, change.actor) == (
        revision,
        "adopt",
        ("two",),
        "Mallory",
    )
    assert (change.generation, change.host, change.pid, change.summary) == (None, None, None, "tweak")
    assert [field.path for field in story.show("HEAD").fields] == ["/note"]


def test_the_author_s_time_is_the_clock_s_and_the_committer_s_never_runs_backwards(
    state: State, clock: FakeClock
) -> None:
    state.create_loop("First", "done", loop_id="one", pid=None)
    clock.set(NOON - timedelta(days=400))
    state.update_loop("one", {"note": 1})
    clock.set(NOON + timedelta(hours=1))
    state.update_loop("one", {"note": 2})
    stamps = git(state.base_dir, "log", "--reverse", "--format=%at %ct").stdout.split("\n")[1:-1]
    first, second, third = ([int(word) for word in line.split()] for line in stamps)
    assert second[0] == int((NOON - timedelta(days=400)).timestamp())
    assert first[1] <= second[1] <= third[1]
    assert [change.time for change in state.log("one")] == [
        NOON + timedelta(hours=1), NOON - timedelta(days=400), NOON,
    ]  # fmt: skip


# --- show and fields -------------------------------------------------------------------------------------------------


def test_showing_fills_the_fields(story: State) -> None:
    assert story.show("HEAD~2").fields == (
        FieldChange("one", "/status", "changed", "running", "completed"),
        FieldChange("one", "/lastUpdate", "changed", "2026-06-15T13:00:00.000Z", "2026-06-15T15:00:00.000Z"),
    )


MUTATIONS: dict[str, Callable[[State], object]] = {
    "create": lambda state: state.create_loop("x", "done", loop_id="new", tags=["a"]),
    "update": lambda state: state.update_loop("two", {"status": "paused", "list": [1, {"a": None}]}, reason="r"),
    "remove": lambda state: state.update_loop("two", {}, remove=["note"]),
    "modify": lambda state: state.modify_loop("two", lambda record: {"n": 1}),
    "iterate": lambda state: state.record_iteration("two", {"learnings": "x", "filesModified": ["a"]}),
    "pid": lambda state: state.update_loop_pid("two", "self"),
    "resume": lambda state: state.resume_loop("two"),
    "entry": lambda state: state.update_entry("two", owner="x", tags=["y"]),
    "limit": lambda state: state.set_max_concurrent_loops(9),
    "archive": lambda state: state.archive_loop("two", status="failed"),
    "archive as it is": lambda state: state.archive_loop("two"),
    "restore": lambda state: state.restore_loop("one"),
    "checkpoint": lambda state: state.checkpoint("two", "name"),
    "rollback": lambda state: state.rollback("two", steps=1),
    "rollback registry": lambda state: state.rollback_registry(to="HEAD~4"),
    "undo": lambda state: state.undo("two"),
    "undo of an archiving": lambda state: state.undo("one"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_change_is_the_same_from_what_made_it_and_from_history(story: State, name: str) -> None:
    story.update_entry("two", tags=["before"])
    story.update_loop("two", {"note": 5})
    before = story.revision()
    answer = MUTATIONS[name](story)
    change = story.last_change
    assert change is not None
    assert change == story.show("HEAD")
    assert (change.parent, change.revision) == (before, story.revision())
    assert change in [dataclasses.replace(logged, fields=change.fields) for logged in story.log(limit=1)]
    assert not isinstance(answer, Change) or answer == change


def test_reaping_answers_with_the_changes_of_history(state: State) -> None:
    state.create_loop("x", "done", loop_id="one", pid=dead_pid())
    (change,) = state.reap_crashed_loops()
    assert change == state.show("HEAD")


def test_the_stamp_and_what_follows_from_the_states_are_nobody_s_fields(story: State) -> None:
    story.update_loop("two", {"currentIteration": 3})
    assert [(field.loop_id, field.path) for field in story.show("HEAD").fields] == [
        ("two", "/currentIteration"), ("two", "/lastUpdate"),
    ]  # fmt: skip


# --- diff ------------------------------------------------------------------------------------------------------------


def paths(changes: list[FieldChange]) -> list[tuple[str | None, str]]:
    return [(change.loop_id, change.path) for change in changes]


def test_a_diff_is_from_the_first_to_the_second(tale: State) -> None:
    forward = tale.diff("HEAD~3", "HEAD~2")
    assert next((change.path, change.before, change.after) for change in forward) == ("/status", "running", "completed")
    backward = tale.diff("HEAD~2", "HEAD~3")
    assert next((change.path, change.before, change.after) for change in backward) == (
        "/status",
        "completed",
        "running",
    )


def test_a_diff_ends_at_the_head_unless_told(tale: State) -> None:
    assert tale.diff("HEAD~2") == tale.diff("HEAD~2", "HEAD") == tale.diff("HEAD~2", tale.revision() or "")


def test_a_diff_from_none_is_everything_there_is(tale: State) -> None:
    found = tale.diff(None)
    assert {change.kind for change in found} == {"added"}
    assert {change.loop_id for change in found} == {"one", "two", None}
    assert ("one", "/objective") in paths(found)
    assert (None, "/active_loops") in paths(found)


def test_a_diff_of_a_loop_has_its_state_and_its_entry(story: State) -> None:
    story.update_entry("two", owner="x")
    story.update_loop("two", {"note": 2})
    story.set_max_concurrent_loops(9)
    assert paths(story.diff("HEAD~3", loop_id="two")) == [
        ("two", "/lastUpdate"), ("two", "/note"), (None, "/active_loops/two/owner"),
    ]  # fmt: skip


def test_a_diff_of_the_same_is_nothing(tale: State) -> None:
    assert tale.diff("HEAD", "HEAD") == []
    assert tale.diff("HEAD~1", "HEAD~1", loop_id="one") == []


def test_a_diff_takes_moments(tale: State) -> None:
    assert tale.diff(at(2), at(3)) == tale.diff("HEAD~3", "HEAD~2")


def test_a_moved_loop_has_no_other_difference_than_its_entry_s(tale: State) -> None:
    assert paths(tale.diff("HEAD~1")) == [(None, "/active_loops/one"), (None, "/total_completed")]


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_revision_is_a_commit_id_or_a_unique_beginning(tale: State) -> None:
    head = tale.revision() or ""
    for length in (4, 7, 20, 40):
        found = [i for i in git(tale.base_dir, "rev-list", "HEAD").stdout.split() if i.startswith(head[:length])]
        if found == [head]:
            assert tale.show(head[:length]).revision == head


@pytest.mark.parametrize(
    ("name", "back"),
    [
        ("HEAD", 0), ("main", 0), ("heads/main", 0), ("refs/heads/main", 0), ("archive/one", 0), ("tags/archive/one", 0),
        ("refs/tags/archive/one", 0), ("HEAD~0", 0), ("HEAD~", 1), ("HEAD^", 1), ("HEAD~1", 1), ("HEAD^1", 1), ("HEAD~3", 3),
        ("HEAD^^", 2), ("HEAD~1^", 2), ("HEAD^0", 0), ("main~2", 2), ("archive/one~4", 4), ("checkpoint/two/name", -1),
    ],
)  # fmt: skip
def test_a_revision_is_a_name_with_steps_back(story: State, name: str, back: int) -> None:
    revisions = [change.revision for change in story.log()]
    if back < 0:
        assert story.checkpoint("two", "name").revision == story.show(name).revision
        return
    assert story.show(name).revision == revisions[back]


def test_git_and_gitstate_mean_the_same(tale: State) -> None:
    for name in ("HEAD", "HEAD~2", "main^", "archive/one", "archive/one~1", (tale.revision() or "")[:8] + "^^"):
        assert tale.show(name).revision == git(tale.base_dir, "rev-parse", f"{name}^{{commit}}").stdout.strip()


def test_a_tag_and_a_branch_of_the_user_s_are_names(story: State) -> None:
    git(story.base_dir, "tag", "release-1", "HEAD~2")
    git(story.base_dir, "branch", "idea", "HEAD~3")
    git(story.base_dir, "-c", "user.name=a", "-c", "user.email=a@b", "tag", "-a", "-m", "x", "v2", "release-1")
    revisions = [change.revision for change in story.log()]
    assert [story.show(name).revision for name in ("release-1", "idea", "v2", "v2~1")] == [
        revisions[2], revisions[3], revisions[2], revisions[3],
    ]  # fmt: skip


def test_a_full_id_is_that_commit_whatever_a_ref_is_called(story: State) -> None:
    older, newer = [str(change.revision) for change in story.log()][2:4]
    git(story.base_dir, "update-ref", f"refs/heads/{older}", newer)
    assert story.show(older).revision == git(story.base_dir, "rev-parse", older).stdout.strip() == older


def test_packed_refs_are_read_anew_when_they_are_others(story: State) -> None:
    revisions = [change.revision for change in story.log()]
    for number in (1, 2, 1):
        git(story.base_dir, "tag", "-f", "mine", str(revisions[number]))
        git(story.base_dir, "pack-refs", "--all")
        assert [story.show("mine").revision for _ in range(2)] == [revisions[number]] * 2


@pytest.mark.parametrize(
    ("moment", "back"),
    [(at(5), 0), (at(100), 0), (at(5, seconds=-1), 1), (at(3, minutes=59), 2), (at(0), 5), (at(0, milliseconds=1), 5)],
)
def test_a_moment_means_the_newest_change_not_after_it(tale: State, moment: datetime, back: int) -> None:
    assert tale.show(moment).revision == [change.revision for change in tale.log()][back]


def test_a_moment_of_any_time_zone_is_that_moment(tale: State) -> None:
    for hours in (-12, 5, 14):
        zone = timezone(timedelta(hours=hours))
        assert tale.show(at(3).astimezone(zone)) == tale.show(at(3))


def test_a_moment_before_all_history_is_not_found(tale: State) -> None:
    with pytest.raises(RevisionNotFoundError, match="history begins at 2026-06-15 12:00:00 UTC"):
        tale.show(at(0, seconds=-1))


def test_a_moment_without_a_time_zone_is_refused(story: State) -> None:
    for call in (story.show, story.diff, lambda moment: story.get_loop("two", at=moment)):
        with pytest.raises(InvalidInputError, match="time zone"):
            call(LOCAL)


NOWHERE = [
    "", " ", "nowhere", "HEAD~99", "HEAD~" + "9" * 5000, "HEAD^2", "head", "@", "-x", "--all", "..", "HEAD..main", "HEAD:registry.json",
    "abc", "0" * 40, "f" * 39, "ABCD", "archive", "tags", "heads", "refs", "refs/tags", "archive/two", "checkpoint/one", "../HEAD",
    "refs/../HEAD", "/etc/passwd", "a\0b", "HEAD\n", "\ud800", "é" * 300, "x" * 5000, "refs/heads/main.lock", "HEAD~-1", "HEAD~1x",
]  # fmt: skip


@pytest.mark.parametrize("name", NOWHERE, ids=lambda name: ascii(name)[:16])
def test_what_is_no_revision_is_not_found(tale: State, name: str) -> None:
    for call in (
        lambda: tale.show(name),
        lambda: tale.get_loop("two", at=name),
        lambda: tale.load_registry(at=name),
        lambda: tale.diff(name),
        lambda: tale.rollback("two", to=name),
        lambda: tale.undo("two", revision=name),
    ):
        with pytest.raises(RevisionNotFoundError) as caught:
            call()
        assert caught.value.hint == "gitstate log"
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [5, None, b"HEAD", ["HEAD"], 1.5])
def test_what_cannot_be_a_revision_is_refused(tale: State, name: Any) -> None:
    with pytest.raises(InvalidInputError, match="revision"):
        tale.show(name)


def test_a_beginning_that_fits_several_commits_names_them(story: State, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [change.revision or "" for change in story.log(limit=2)]
    monkeypatch.setattr(story._revisions.objects, "beginning_with", lambda prefix: ids)
    with pytest.raises(RevisionNotFoundError, match="several begin like that") as caught:
        story.show("abcd")
    assert all(i[:7] in str(caught.value) for i in ids)


def test_the_beginning_of_a_tree_or_blob_is_no_revision(tale: State) -> None:
    tree = git(tale.base_dir, "rev-parse", "HEAD^{tree}").stdout.strip()
    with pytest.raises(RevisionNotFoundError):
        tale.show(tree)


def test_without_history_no_revision_is_found(state: State) -> None:
    for call in (state.show, state.diff, lambda name: state.load_registry(at=name)):
        with pytest.raises(RevisionNotFoundError, match="no history yet") as caught:
            call("HEAD")
        assert caught.value.hint == "gitstate init"


# --- answers ---------------------------------------------------------------------------------------------------------


ANSWERS = [
    kind
    for kind in vars(results).values()
    if inspect.isclass(kind) and kind.__module__ == results.__name__ and not kind.__name__.startswith("_")
]


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_answers_are_frozen_slotted_dataclasses_with_to_dict(kind: Any) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)
    assert callable(kind.to_dict)
    assert kind.__doc__


def test_json_keys_are_the_field_names_and_times_are_iso_8601(tale: State) -> None:
    change = tale.show("HEAD~2")
    found = change.to_dict()
    assert list(found) == [field.name for field in dataclasses.fields(Change)]
    assert (found["time"], found["loop_ids"]) == ("2026-06-15T15:00:00.000Z", ["one"])
    assert found["fields"][0] == {  # type: ignore[index]
        "loop_id": "one", "path": "/status", "kind": "changed", "before": "running", "after": "completed",
    }  # fmt: skip


def test_every_answer_can_be_written_as_json(story: State) -> None:
    answers: list[Any] = [
        story.status(),
        story.report("one"),
        story.list_archived_loops()[0],
        story.checkpoint("two", "name"),
        story.list_checkpoints()[0],
        story.liveness("two"),
        story.get_output_paths("two", 1),
        *story.check(),
        *story.diagnose(),
    ]
    for answer in answers:
        assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


def test_a_change_of_several_loops_has_no_single_one(story: State) -> None:
    with story.transaction() as tx:
        tx.update_loop("two", {"note": 9})
        tx.create_loop("Third", "done", loop_id="three", pid=None)
    change = story.show("HEAD")
    assert (change.loop_ids, change.loop_id) == (("two", "three"), None)
