"""What others write into the state directory: adopted, rolled forward, repaired or left alone, by one rule.

Every test that says what reconciling makes of a file has the next mutation do
it; what a read makes of the same files before that is said at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import git
from listings import listing
from original import Original, stringify
from templates import copy, template

import gitstate
from gitstate import CorruptStateError, DamageWarning, StateRepository, durable

pytestmark = pytest.mark.usefixtures("quick_disk")

DEAD = 2**31 - 1
State = StateRepository


def build(state: State, clock: FakeClock) -> None:
    """Two active loops and an archived one, each with some history."""
    state.create_loop("Zero", "it is done", loop_id="old", pid=None)
    state.archive_loop("old", status="completed")
    state.create_loop("One", "it is done", loop_id="one", pid=None)
    state.create_loop("Two", "it is done", loop_id="two", pid=None)
    state.update_loop("one", {"status": "paused", "note": "first"})


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


@pytest.fixture
def original(state: State) -> Original:
    return Original(state.project_root)


def path_of(state: State, loop_id: str = "one") -> Path:
    return state.loops_dir / loop_id / "session-state.json"


def edit(
    path: Path, function: Callable[[dict[str, Any]], object], *, encode: Callable[[object], bytes] = stringify
) -> bytes:
    """Edit a record by hand; its new bytes."""
    record = json.loads(path.read_bytes())
    function(record)
    path.write_bytes(encode(record))
    return path.read_bytes()


def reconcile(state: State) -> list[str]:
    """Have the next mutation look at the files; the subjects of the commits that this led to, oldest first."""
    before = state.revision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        state.init()
    assert git(state.base_dir, "status", "--porcelain", "-uall").stdout == ""
    return [change.summary for change in state.log(since=before)][::-1]


def body(state: State) -> list[str]:
    """The body of the newest commit, without its trailers."""
    text = git(state.base_dir, "log", "-1", "--format=%b").stdout
    return [line for line in text.splitlines() if line and not line.startswith("Gitstate-")]


def in_head(state: State, path: str) -> bytes:
    return subprocess_bytes(state.base_dir, "show", f"HEAD:{path}")


def subprocess_bytes(base: Path, *words: str) -> bytes:
    import subprocess

    return subprocess.run(["git", *words], cwd=base, check=True, capture_output=True).stdout


ADOPT_ONE = ["adopt loops/one/session-state.json: edited outside gitstate"]
ADOPT_REGISTRY = ["adopt registry.json: edited outside gitstate"]


# --- a valid edit, made from the head --------------------------------------------------------------------------------


@pytest.mark.parametrize("staged", [False, True])
def test_a_hand_edit_of_a_session_state_is_adopted_byte_for_byte(state: State, staged: bool) -> None:
    written = edit(path_of(state), lambda found: found.update(objective="Bye"), encode=lambda r: json.dumps(r).encode())
    if staged:
        git(state.base_dir, "add", "loops/one/session-state.json")
    assert reconcile(state) == ADOPT_ONE
    assert path_of(state).read_bytes() == written == in_head(state, "loops/one/session-state.json")
    assert state.get_loop("one")["objective"] == "Bye"


@pytest.mark.parametrize("staged", [False, True])
def test_a_hand_edit_of_the_registry_is_adopted_byte_for_byte(state: State, staged: bool) -> None:
    written = edit(state.registry_path, lambda found: found.update(max_concurrent_loops=9))
    if staged:
        git(state.base_dir, "add", "registry.json")
    assert reconcile(state) == ADOPT_REGISTRY
    assert state.registry_path.read_bytes() == written == in_head(state, "registry.json")


def test_an_edit_that_was_only_staged_and_then_taken_back_is_no_edit(state: State) -> None:
    before = path_of(state).read_bytes()
    edit(path_of(state), lambda found: found.update(objective="Bye"))
    git(state.base_dir, "add", "loops/one/session-state.json")
    path_of(state).write_bytes(before)
    revision = state.revision()
    state.repair()
    assert state.revision() == revision
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_an_adoption_names_the_loop_and_can_be_undone(state: State) -> None:
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    newest = next(state.log(fields=True))
    assert (newest.operation, newest.loop_ids) == ("adopt", ("one",))
    assert [(field.path, field.before, field.after) for field in newest.fields] == [("/note", "first", "by hand")]
    state.undo("one")
    assert state.get_loop("one")["note"] == "first"  # type: ignore[typeddict-item]


def test_an_edit_of_an_archived_loop_is_adopted_too(state: State) -> None:
    edit(state.archive_dir / "old" / "session-state.json", lambda found: found.update(objective="Null"))
    assert reconcile(state) == ["adopt archive/old/session-state.json: edited outside gitstate"]
    assert state.get_loop("old")["objective"] == "Null"


def test_a_corrected_status_of_an_archived_loop_moves_it_from_one_total_to_the_other(state: State) -> None:
    edit(state.archive_dir / "old" / "session-state.json", lambda found: found.update(status="failed"))
    reconcile(state)
    registry = state.load_registry()
    assert (registry["total_completed"], registry["total_aborted"]) == (0, 1)


def test_several_edits_are_one_adoption(state: State) -> None:
    edit(path_of(state, "two"), lambda found: found.update(note="x"))
    edit(path_of(state, "one"), lambda found: found.update(note="y"))
    edit(state.registry_path, lambda found: found.update(max_concurrent_loops=9))
    assert reconcile(state) == [
        "adopt loops/one/session-state.json, loops/two/session-state.json, registry.json: edited outside gitstate"
    ]


def test_unknown_keys_and_values_of_an_edit_survive_every_later_rewrite(state: State) -> None:
    edit(path_of(state), lambda found: found.update(extra={"deep": [1, {"x": None}]}, количество=2.5))
    state.update_loop("one", {"status": "running"})
    state.record_iteration("one", {"number": 1})
    found = json.loads(path_of(state).read_bytes())
    assert (found["extra"], found["количество"]) == ({"deep": [1, {"x": None}]}, 2.5)


def test_a_status_that_gitstate_would_not_write_is_adopted(state: State) -> None:
    edit(path_of(state), lambda found: found.update(status="pondering"))
    assert reconcile(state) == ADOPT_ONE
    with pytest.warns(gitstate.UnknownStatusWarning):
        assert state.get_loop("one")["status"] == "pondering"


def test_the_update_of_the_original_is_adopted_with_the_registry_that_it_wrote(
    state: State, original: Original
) -> None:
    original.update_loop("one", status="running", currentIteration=3)
    assert reconcile(state) == [
        "adopt loops/one/session-state.json, registry.json: edited outside gitstate",
    ]
    assert path_of(state).read_bytes() == in_head(state, "loops/one/session-state.json")
    assert not path_of(state).read_bytes().endswith(b"\n")  # as the original wrote it
    (entry, _) = state.list_active_loops()
    assert (entry["status"], entry["iteration"]) == ("running", 3)


# --- a valid edit, made from an older revision -----------------------------------------------------------------------


def test_an_edit_of_an_older_revision_is_merged_by_top_level_keys(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    assert reconcile(state) == ADOPT_ONE
    found = state.get_loop("one")
    assert (found["note"], found["currentIteration"]) == ("by hand", 5)  # type: ignore[typeddict-item]
    assert body(state) == []


def test_where_both_sides_changed_a_key_the_edit_wins_and_the_commit_names_it(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"note": "by gitstate", "currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    found = state.get_loop("one")
    assert (found["note"], found["currentIteration"]) == ("by hand", 5)  # type: ignore[typeddict-item]
    assert body(state) == ["replaced what gitstate had: one/note"]
    assert state.get_loop("one", at="HEAD~1")["note"] == "by gitstate"  # type: ignore[typeddict-item]


def test_a_key_that_the_edit_of_an_older_revision_removed_is_removed(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.pop("note"))
    reconcile(state)
    assert "note" not in state.get_loop("one")
    assert state.get_loop("one")["currentIteration"] == 5


def test_a_merged_edit_carries_the_revision_after_the_head_s(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    now = state.get_loop("one")["gitstate"]["revision"]
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    assert state.get_loop("one")["gitstate"]["revision"] == now + 1


def test_a_merged_edit_keeps_the_process_that_gitstate_recorded(state: State) -> None:
    older = path_of(state).read_bytes()
    state.resume_loop("one")
    process = state.get_loop("one")["gitstate"]["process"]
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    found = state.get_loop("one")
    assert (found["currentPid"], found["gitstate"]["process"]) == (os.getpid(), process)


def test_an_edit_of_an_older_registry_is_merged_entry_by_entry(state: State) -> None:
    older = state.registry_path.read_bytes()
    state.update_entry("one", owner="agent:reviewer")
    state.set_max_concurrent_loops(6)
    state.registry_path.write_bytes(older)
    edit(state.registry_path, lambda found: found["active_loops"][0].update(priority="high"))
    assert reconcile(state) == ADOPT_REGISTRY
    entry = state.list_active_loops()[0]
    assert (entry["owner"], entry["priority"]) == ("agent:reviewer", "high")
    assert state.load_registry()["max_concurrent_loops"] == 6


def test_the_original_s_registry_of_a_moment_ago_does_not_take_back_what_gitstate_did_since(
    state: State, original: Original
) -> None:
    registry = original.read(state.registry_path)  # the original reads, and is slow
    state.create_loop("Three", "it is done", loop_id="three", pid=None)
    state.archive_loop("two", status="completed")
    original.replace(state.registry_path, {**registry, "updated_at": original.now})
    reconcile(state)
    registry_now = state.load_registry()
    assert [entry["loop_id"] for entry in registry_now["active_loops"]] == ["one", "three"]
    assert registry_now["total_completed"] == 2


def test_an_edit_without_a_stamp_is_made_from_the_newest_version_without_one(state: State, original: Original) -> None:
    original.create_loop("theirs")
    reconcile(state)
    read = original.read(original.state_path("theirs"))  # the original reads, and is slow
    state.update_loop("theirs", {"currentIteration": 5})
    original.replace(original.state_path("theirs"), {**read, "accumulatedLearnings": "by the original"})
    reconcile(state)
    found = state.get_loop("theirs")
    assert (found["currentIteration"], found["accumulatedLearnings"]) == (5, "by the original")
    assert body(state) == []


def test_what_an_edit_without_a_stamp_replaces_is_named(state: State, original: Original) -> None:
    original.create_loop("theirs")
    reconcile(state)
    read = original.read(original.state_path("theirs"))
    state.update_loop("theirs", {"accumulatedLearnings": "by gitstate"})
    original.replace(original.state_path("theirs"), {**read, "accumulatedLearnings": "by the original"})
    reconcile(state)
    assert state.get_loop("theirs")["accumulatedLearnings"] == "by the original"
    assert body(state) == ["replaced what gitstate had: theirs/accumulatedLearnings"]


def test_an_edit_that_dropped_the_stamp_of_every_version_is_taken_to_be_made_from_the_head(state: State) -> None:
    edit(path_of(state), lambda found: (found.pop("gitstate"), found.update(note="by hand")))
    assert reconcile(state) == ADOPT_ONE
    assert state.get_loop("one")["note"] == "by hand"  # type: ignore[typeddict-item]
    assert body(state) == []


def test_the_revision_goes_on_growing_after_an_edit_that_dropped_it(state: State) -> None:
    before = state.get_loop("one")["gitstate"]["revision"]
    edit(path_of(state), lambda found: (found.pop("gitstate"), found.update(note="by hand")))
    reconcile(state)
    state.update_loop("one", {"note": "x"})
    assert state.get_loop("one")["gitstate"]["revision"] > before


def test_an_edit_made_before_an_adoption_takes_back_nothing_that_gitstate_changed_after_it(
    state: State, original: Original
) -> None:
    read = original.read(path_of(state))  # one process of the original reads, and is slow
    original.update_loop("one", note="by the other")
    state.update_loop("one", {"note": "by gitstate"})
    original.replace(path_of(state), {**read, "currentIteration": 5})
    reconcile(state)
    found = state.get_loop("one")
    assert (found["currentIteration"], found["note"]) == (5, "by gitstate")  # type: ignore[typeddict-item]
    assert body(state) == []


def test_a_value_that_an_edit_sets_back_is_taken(state: State, original: Original) -> None:
    original.update_loop("one", status="running")
    reconcile(state)
    read = original.read(path_of(state))
    state.update_loop("one", {"currentIteration": 5})
    original.replace(path_of(state), {**read, "status": "paused"})  # as it was before, under the same number
    reconcile(state)
    assert state.get_loop("one")["status"] == "paused"


# --- and the power cut after it --------------------------------------------------------------------------------------


@pytest.fixture
def hardened(state: State, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What was made durable from here on: the branch at that moment, and the bytes."""
    noted: list[tuple[str, bytes]] = []

    def note(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raw = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            noted.append(((state.base_dir / ".git/refs/heads/main").read_text().strip(), raw))

    monkeypatch.setattr(durable, "fsync", note)
    return noted


def test_an_edit_is_durable_before_it_is_adopted(state: State, hardened: list[tuple[str, bytes]]) -> None:
    before = state.revision()
    written = edit(path_of(state), lambda found: found.update(note="by hand"))
    assert reconcile(state) == ADOPT_ONE
    assert (before, written) in hardened


def test_what_is_adopted_when_a_repository_is_made_is_durable_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = project / ".aiwg/ralph-external"
    base.mkdir(parents=True)
    (base / "registry.json").write_bytes(b'{"active_loops": []}')
    hardened: list[tuple[str, bool]] = []

    def note(descriptor: int) -> None:
        hardened.append((os.readlink(f"/proc/self/fd/{descriptor}"), (base / ".git").exists()))

    monkeypatch.setattr(durable, "fsync", note)
    gitstate.open(project).init()
    assert (str(base / "registry.json"), False) in hardened


def test_what_replaces_anything_but_the_head_s_version_is_durable(
    state: State, hardened: list[tuple[str, bytes]]
) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))
    reconcile(state)
    assert path_of(state).read_bytes() in [raw for _, raw in hardened]


def test_what_replaces_the_head_s_version_waits_for_no_medium(state: State, hardened: list[tuple[str, bytes]]) -> None:
    state.update_loop("one", {"currentIteration": 5})
    assert path_of(state).read_bytes() not in [raw for _, raw in hardened]


def test_an_edit_that_is_moved_away_before_it_is_durable_is_adopted_all_the_same(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(path_of(state), lambda found: found.update(note="by hand"))

    sync = durable.Directory.sync_file

    def moved_away(directory: durable.Directory, name: str) -> None:
        if name == "loops/one/session-state.json":
            path_of(state).unlink()
        sync(directory, name)

    monkeypatch.setattr(durable.Directory, "sync_file", moved_away)
    assert reconcile(state) == ADOPT_ONE
    assert state.get_loop("one")["note"] == "by hand"  # type: ignore[typeddict-item]


# --- the registry ----------------------------------------------------------------------------------------------------


def test_derived_fields_of_the_registry_follow_the_session_states(state: State) -> None:
    revision = state.revision()

    def wrong(found: dict[str, Any]) -> None:
        found["active_loops"][0].update(status="failed", iteration=99, max_iterations=1, pid=1)
        found.update(total_active=7, total_completed=70, total_aborted=700)

    edit(state.registry_path, wrong)
    state.init()
    assert state.revision() == revision  # nothing in it was to be taken, so there is nothing to tell
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (2, 1, 0)
    entry = registry["active_loops"][0]
    assert (entry["status"], entry["iteration"], entry["max_iterations"], entry["pid"]) == ("paused", 0, 10, None)
    assert state.registry_path.read_bytes() == in_head(state, "registry.json")


def test_what_only_the_registry_knows_is_taken_from_an_edit(state: State) -> None:
    def change(found: dict[str, Any]) -> None:
        found["max_concurrent_loops"] = 12
        found["team"] = "blue"
        found["active_loops"][1].update(
            owner="user:dana", priority="critical", tags=["a"], task_summary="Else", ticket=17, started_at="long ago"
        )

    edit(state.registry_path, change)
    reconcile(state)
    registry = state.load_registry()
    assert (registry["max_concurrent_loops"], registry["team"]) == (12, "blue")  # type: ignore[typeddict-item]
    entry: Any = registry["active_loops"][1]
    assert (entry["owner"], entry["priority"], entry["tags"], entry["task_summary"], entry["ticket"]) == (
        "user:dana",
        "critical",
        ["a"],
        "Else",
        17,
    )
    state.update_loop("two", {"status": "paused"})
    assert state.list_active_loops()[1]["ticket"] == 17  # type: ignore[typeddict-item]


def test_an_edit_of_derived_and_other_fields_is_taken_by_halves(state: State) -> None:
    edit(state.registry_path, lambda found: found["active_loops"][0].update(status="failed", priority="low"))
    reconcile(state)
    entry = state.list_active_loops()[0]
    assert (entry["status"], entry["priority"]) == ("paused", "low")


def test_an_entry_that_was_removed_by_hand_comes_back(state: State) -> None:
    edit(state.registry_path, lambda found: (found["active_loops"].pop(0), found.update(max_concurrent_loops=5)))
    reconcile(state)
    registry = state.load_registry()
    assert {entry["loop_id"] for entry in registry["active_loops"]} == {"one", "two"}
    assert registry["max_concurrent_loops"] == 5
    assert next(e for e in registry["active_loops"] if e["loop_id"] == "one")["owner"] == "user:alice"


def test_an_entry_without_any_state_is_dropped_and_named(state: State) -> None:
    ghost = {"loop_id": "ghost", "status": "running"}
    edit(state.registry_path, lambda found: (found["active_loops"].append(ghost), found.update(total_active=3)))
    assert reconcile(state) == ADOPT_REGISTRY
    assert body(state) == ["dropped, no session state: ghost"]
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]
    assert b"ghost" not in state.registry_path.read_bytes()


def test_a_ghost_in_a_registry_that_is_adopted_is_dropped_and_named(project: Path) -> None:
    original = Original(project)
    original.base.mkdir(parents=True)
    with gitstate.open(project) as state:
        registry = {**state.load_registry(), "active_loops": [{"loop_id": "ghost", "status": "running"}]}
        state.registry_path.write_bytes(stringify(registry))
        state.init()
        assert body(state) == ["ghost dropped, it has no session state"]
        assert state.list_active_loops() == []
        assert json.loads(subprocess_bytes(state.base_dir, "show", "HEAD~1:registry.json"))["active_loops"] != []


# --- older versions --------------------------------------------------------------------------------------------------


def test_a_file_checked_out_from_an_older_revision_is_rolled_forward_without_a_commit(state: State) -> None:
    state.update_loop("one", {"currentIteration": 5})
    revision, now = state.revision(), path_of(state).read_bytes()
    git(state.base_dir, "checkout", "-q", "HEAD~1", "--", "loops/one/session-state.json", "registry.json")
    assert path_of(state).read_bytes() != now
    state.init()
    assert (state.revision(), path_of(state).read_bytes()) == (revision, now)
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_any_version_that_history_holds_is_rolled_forward(state: State) -> None:
    for number in range(1, 6):
        state.record_iteration("one", {"number": number})
    revision, now = state.revision(), path_of(state).read_bytes()
    for line in git(state.base_dir, "log", "--format=%H", "--", "loops/one/session-state.json").stdout.split():
        path_of(state).write_bytes(subprocess_bytes(state.base_dir, "show", f"{line}:loops/one/session-state.json"))
        state.init()
        assert (state.revision(), path_of(state).read_bytes()) == (revision, now)


def test_a_version_that_was_adopted_from_the_original_is_rolled_forward_like_any_other(
    unpack: Callable[[str], Path],
) -> None:
    with gitstate.open(unpack("one-loop")) as state:
        loop_id = "ralph-raise-coverage-to-80-e2d007cf"
        first = path_of(state, loop_id).read_bytes()
        state.update_loop(loop_id, {"status": "paused"})
        revision = state.revision()
        path_of(state, loop_id).write_bytes(first)
        state.init()
        assert state.revision() == revision
        assert state.get_loop(loop_id)["status"] == "paused"


def test_a_version_from_before_a_stamp_was_dropped_is_rolled_forward(state: State) -> None:
    state.update_loop("one", {"currentIteration": 5})
    older = path_of(state).read_bytes()
    edit(path_of(state), lambda found: (found.pop("gitstate"), found.update(note="by hand")))
    state.update_loop("one", {"note": "x"})
    revision = state.revision()
    path_of(state).write_bytes(older)
    state.init()
    assert state.revision() == revision
    assert state.get_loop("one")["note"] == "x"  # type: ignore[typeddict-item]


def test_a_version_from_before_a_git_revert_is_rolled_forward(state: State) -> None:
    state.update_loop("one", {"currentIteration": 5})
    state.update_loop("one", {"currentIteration": 6})
    older = path_of(state).read_bytes()
    me = ("-c", "user.name=u", "-c", "user.email=u@h")
    git(state.base_dir, *me, "revert", "--no-commit", "HEAD", "HEAD~1")
    git(state.base_dir, *me, "commit", "-q", "-m", "Both taken back")
    state.init()
    revision = state.revision()
    path_of(state).write_bytes(older)
    state.init()
    assert state.revision() == revision
    assert state.get_loop("one")["currentIteration"] == 0


# --- damage ----------------------------------------------------------------------------------------------------------

DAMAGES = {
    "empty": (b"", "empty"),
    "truncated": (b'{\n  "status": "runn', "truncated"),
    "NULs": (b"\0" * 400, "nothing but NULs"),
    "NULs inside": (b'{"status": "run\0\0\0"}', "NULs inside"),
    "another encoding": ('{"status": "läuft"}'.encode("latin-1"), "not UTF-8 (byte 13)"),
    "a mark": (b'\xef\xbb\xbf{"status": "running"}', "starts with a byte order mark"),
    "a list": (b"[]", "not an object"),
    "a key twice": (b'{"status": "a", "status": "b"}', "the key 'status' is there twice"),
    "NaN": (b'{"status": "a", "x": NaN}', "NaN is not JSON"),
    "no status": (b'{"loopId": "one"}', "status is not a string"),
    "iterations": (b'{"status": "paused", "iterations": {}}', "iterations is not a list"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_an_invalid_session_state_is_replaced_by_the_head_s_in_a_repair_that_says_so(state: State, kind: str) -> None:
    good, revision = path_of(state).read_bytes(), str(state.revision())
    path_of(state).write_bytes(DAMAGES[kind][0])
    assert reconcile(state) == [
        f"repair loops/one/session-state.json: {DAMAGES[kind][1]}, restored from {last_of(state, 'one')}"
    ]
    assert path_of(state).read_bytes() == good
    assert git(state.base_dir, "diff", "--stat", revision).stdout == ""


def last_of(state: State, loop_id: str) -> str:
    """The shortened id of the newest commit that wrote a session state."""
    return git(state.base_dir, "log", "-1", "--format=%H", "--", f"loops/{loop_id}/session-state.json").stdout[:7]


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_damaged_bytes_are_kept_in_quarantine(state: State, kind: str) -> None:
    path_of(state).write_bytes(DAMAGES[kind][0])
    reconcile(state)
    (kept,) = (state.base_dir / ".git" / "gitstate" / "quarantine").iterdir()
    assert kept.name.startswith("loops_one_session-state.json-")
    assert kept.read_bytes() == DAMAGES[kind][0]


def test_the_warning_says_what_was_restored_and_where_the_damaged_bytes_are(state: State) -> None:
    path_of(state).write_bytes(b"")
    with pytest.warns(
        DamageWarning, match="one/session-state.json: empty, restored from .* kept in .git/gitstate/quar"
    ):
        state.init()


def test_an_invalid_registry_is_replaced_by_the_head_s(state: State) -> None:
    good = state.registry_path.read_bytes()
    state.registry_path.write_bytes(b'{"active_loops": {}}')
    last = git(state.base_dir, "log", "-1", "--format=%H", "--", "registry.json").stdout[:7]
    assert reconcile(state) == [f"repair registry.json: active_loops is not a list, restored from {last}"]
    assert state.registry_path.read_bytes() == good


def test_several_damaged_files_are_one_repair_that_names_each(state: State) -> None:
    path_of(state, "one").write_bytes(b"")
    path_of(state, "two").write_bytes(b"{")
    (state.archive_dir / "old" / "session-state.json").write_bytes(b"\0\0")
    (subject,) = reconcile(state)
    names = [f"{place}/session-state.json" for place in ("archive/old", "loops/one", "loops/two")]
    assert subject.startswith("repair 3 files: ")
    assert all(name in subject for name in names)
    assert sorted(line.partition(",")[0] for line in body(state)) == [
        "archive/old/session-state.json: nothing but NULs",
        "loops/one/session-state.json: empty",
        "loops/two/session-state.json: truncated",
    ]


def test_something_else_than_a_file_is_damage_too(state: State) -> None:
    good = path_of(state).read_bytes()
    path_of(state).unlink()
    path_of(state).mkdir()
    (path_of(state) / "inner").write_text("kept")
    (subject,) = reconcile(state)
    assert subject.startswith("repair loops/one/session-state.json: a directory, not a file, restored from ")
    assert path_of(state).read_bytes() == good
    (kept,) = (state.base_dir / ".git" / "gitstate" / "quarantine").iterdir()
    assert (kept / "inner").read_text() == "kept"


def test_a_symlink_in_the_place_of_a_file_is_neither_followed_nor_served(state: State, tmp_path: Path) -> None:
    good = path_of(state).read_bytes()
    (tmp_path / "elsewhere.json").write_bytes(good.replace(b'"paused"', b'"failed"'))
    path_of(state).unlink()
    path_of(state).symlink_to(tmp_path / "elsewhere.json")
    with pytest.warns(DamageWarning):
        assert state.get_loop("one")["status"] == "paused"
    reconcile(state)
    assert not path_of(state).is_symlink()
    assert (tmp_path / "elsewhere.json").read_bytes() == good.replace(b'"paused"', b'"failed"')


def test_damage_beside_an_edit_is_repaired_after_the_edit_was_adopted(state: State) -> None:
    edit(path_of(state, "one"), lambda found: found.update(note="by hand"))
    path_of(state, "two").write_bytes(b"")
    adopted, repaired = reconcile(state)
    assert adopted == ADOPT_ONE[0]
    assert repaired.startswith("repair loops/two/session-state.json: empty, ")
    assert state.get_loop("one")["note"] == "by hand"  # type: ignore[typeddict-item]


def test_damage_that_is_gone_at_the_second_look_was_a_glimpse_of_somebody_s_write(
    state: State, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, revision = path_of(state).read_bytes(), state.revision()
    path_of(state).write_bytes(good[:40])
    monkeypatch.setattr(clock, "sleep", lambda seconds: path_of(state).write_bytes(good))
    state.init()
    assert (state.revision(), path_of(state).read_bytes()) == (revision, good)
    assert not (state.base_dir / ".git" / "gitstate" / "quarantine").exists()


def test_with_auto_repair_off_damage_is_an_error_that_names_everything(state: State) -> None:
    last, good = last_of(state, "one"), path_of(state).read_bytes()
    path_of(state).write_bytes(good[:-30])
    with gitstate.open(state.project_root, auto_repair=False) as strict:
        revision = strict.revision()
        with pytest.raises(CorruptStateError) as caught:
            strict.update_loop("two", {"status": "paused"})
        error = caught.value
        assert error.message == f"loops/one/session-state.json: truncated; {last} has it whole"
        assert (error.path, error.damage) == ("loops/one/session-state.json", "truncated")
        assert str(error.revision)[:7] == last
        assert error.hint == "gitstate repair"
        assert strict.revision() == revision
    assert path_of(state).read_bytes() == good[:-30]
    assert not (state.base_dir / ".git" / "gitstate" / "quarantine").exists()
    reconcile(state)


def test_with_auto_repair_off_the_command_that_the_error_names_repairs_it(state: State) -> None:
    good = path_of(state).read_bytes()
    path_of(state).write_bytes(b"{")
    with gitstate.open(state.project_root, auto_repair=False) as strict:
        (finding,) = strict.repair()
        assert (finding.code, finding.path) == ("file_damaged", "loops/one/session-state.json")
        assert "restored from" in (finding.action or "")
        strict.update_loop("two", {"status": "paused"})
    assert path_of(state).read_bytes() == good


@pytest.mark.parametrize("raw", [b"", b"\0" * 100])
def test_with_auto_repair_off_what_a_power_cut_explains_is_repaired_all_the_same(
    state: State, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = path_of(state).read_bytes()
    path_of(state).write_bytes(raw)
    monkeypatch.setattr(gitstate.process, "boot_id", lambda: "another-boot")
    with gitstate.open(state.project_root, auto_repair=False) as strict, pytest.warns(DamageWarning):
        strict.update_loop("two", {"status": "paused"})
    assert path_of(state).read_bytes() == good


def test_with_auto_repair_off_what_no_power_cut_explains_is_an_error_after_one_too(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_of(state).write_bytes(b'{"status": ')
    monkeypatch.setattr(gitstate.process, "boot_id", lambda: "another-boot")
    with gitstate.open(state.project_root, auto_repair=False) as strict, pytest.raises(CorruptStateError):
        strict.update_loop("two", {"status": "paused"})
    reconcile(state)


def test_what_is_invalid_when_the_directory_is_adopted_is_committed_as_found_and_repaired_in_the_next(
    project: Path,
) -> None:
    original = Original(project)
    original.base.mkdir(parents=True)
    with gitstate.open(project) as state:
        state.registry_path.write_bytes(stringify(state.load_registry()))
        original.create_loop("good")
        original.create_loop("bad")
        original.state_path("bad").write_bytes(b'{"status": "ru')
        with pytest.warns(DamageWarning):
            state.init()
        assert subprocess_bytes(state.base_dir, "show", "HEAD~1:loops/bad/session-state.json") == b'{"status": "ru'
        assert [entry["loop_id"] for entry in state.list_active_loops()] == ["good"]
        newest = next(state.log())
        assert newest.summary == "repair loops/bad/session-state.json: truncated, nothing to restore it from"
        assert "dropped, no session state: bad" in body(state)


# --- missing ---------------------------------------------------------------------------------------------------------


def test_a_missing_session_state_is_restored_without_a_commit(state: State) -> None:
    good, revision = path_of(state).read_bytes(), state.revision()
    path_of(state).unlink()
    state.init()
    assert (path_of(state).read_bytes(), state.revision()) == (good, revision)


def test_a_deleted_registry_is_restored_and_never_recreated_empty(state: State) -> None:
    good, revision = state.registry_path.read_bytes(), state.revision()
    state.registry_path.unlink()
    with pytest.warns(DamageWarning, match="^registry.json: missing"):
        assert len(state.list_active_loops()) == 2
    state.create_loop("Three", "it is done", loop_id="three", pid=None)
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two", "three"]
    assert state.load_registry()["total_completed"] == 1
    assert subprocess_bytes(state.base_dir, "show", "HEAD~1:registry.json") == good
    assert state.revision("one") != state.revision() != revision


def test_the_empty_registry_that_the_original_makes_of_a_deleted_one_takes_nothing_away(
    state: State, original: Original
) -> None:
    state.set_max_concurrent_loops(6)
    state.registry_path.unlink()
    empty = {"version": "2.0.0", "max_concurrent_loops": 4, "updated_at": original.now, "active_loops": []}
    original.replace(state.registry_path, {**empty, "total_active": 0, "total_completed": 0, "total_aborted": 0})
    reconcile(state)
    registry = state.load_registry()
    assert {entry["loop_id"] for entry in registry["active_loops"]} == {"one", "two"}
    assert registry["active_loops"][0]["owner"] == "user:alice"
    assert registry["total_completed"] == 1


@pytest.mark.parametrize("name", ["loops/one", "loops", "archive/old", "archive"])
def test_a_missing_directory_is_restored(state: State, name: str) -> None:
    revision = state.revision()
    shutil.rmtree(state.base_dir / name)
    state.init()
    assert state.revision() == revision
    assert state.get_loop("one")["objective"] == "One"
    assert state.get_loop("old")["objective"] == "Zero"
    assert (state.base_dir / name).is_dir()
    if name.startswith("loops"):
        assert sorted(path.name for path in (state.loops_dir / "one").iterdir() if path.is_dir()) == [
            "analysis",
            "checkpoints",
            "iterations",
            "outputs",
            "prompts",
        ]
    assert git(state.base_dir, "status", "--porcelain").stdout == ""


def test_a_missing_directory_that_holds_nothing_of_ours_is_back_with_the_next_change(state: State) -> None:
    shutil.rmtree(state.shared_dir)
    state.update_loop("one", {"note": "x"})
    assert state.shared_dir.is_dir()


def test_everything_missing_at_once_is_restored(state: State) -> None:
    revision = state.revision()
    for path in state.base_dir.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    state.init()
    assert state.revision() == revision
    assert len(state.list_active_loops()) == 2
    assert state.get_loop("old")["status"] == "completed"


# --- loops that others make, move and name ---------------------------------------------------------------------------


def test_a_loop_that_the_original_made_is_adopted_as_a_loop(state: State, original: Original) -> None:
    made = original.create_loop("made-elsewhere", priority="high", tags=["x"])
    before = original.state_path("made-elsewhere").read_bytes()
    assert reconcile(state) == ["adopt loops/made-elsewhere/session-state.json, registry.json: edited outside gitstate"]
    assert body(state) == ["new outside gitstate: made-elsewhere"]
    assert state.get_loop("made-elsewhere") == made
    assert original.state_path("made-elsewhere").read_bytes() == before
    entry = state.list_active_loops()[-1]
    assert (entry["loop_id"], entry["owner"], entry["priority"], entry["tags"]) == (
        "made-elsewhere",
        "user:dana",
        "high",
        ["x"],
    )
    assert state.load_registry()["total_active"] == 3
    assert "made-elsewhere" in next(state.log()).loop_ids


def test_a_loop_whose_maker_did_not_get_to_the_registry_gets_an_entry(state: State, original: Original) -> None:
    before = state.registry_path.read_bytes()
    original.create_loop("half-made")
    state.registry_path.write_bytes(before)
    reconcile(state)
    entry = state.list_active_loops()[-1]
    assert (entry["loop_id"], entry["owner"], entry["task_summary"]) == (
        "half-made",
        "user:alice",
        "Made by the original",
    )
    assert entry["pid"] == os.getpid()


def test_a_loop_that_the_original_made_is_updated_archived_and_restored_like_any_other(
    state: State, original: Original
) -> None:
    original.create_loop("made-elsewhere")
    state.update_loop("made-elsewhere", {"status": "completing"})
    state.archive_loop("made-elsewhere")
    assert state.load_registry()["total_completed"] == 2
    assert state.restore_loop("made-elsewhere")["objective"] == "Made by the original"


def test_a_directory_without_a_session_state_is_no_loop(state: State) -> None:
    (state.loops_dir / "scratch" / "outputs").mkdir(parents=True)
    (state.loops_dir / "scratch" / "outputs" / "x.log").write_text("x")
    revision = state.revision()
    state.init()
    assert state.revision() == revision
    assert (state.loops_dir / "scratch" / "outputs" / "x.log").read_text() == "x"
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]


def test_a_new_loop_with_an_invalid_session_state_goes_to_quarantine(state: State, original: Original) -> None:
    original.create_loop("broken")
    original.state_path("broken").write_bytes(b'{"status"')
    adopted, repaired = reconcile(state)
    assert adopted == ADOPT_REGISTRY[0]
    assert repaired == "repair loops/broken/session-state.json: truncated, nothing to restore it from"
    (kept,) = (state.base_dir / ".git" / "gitstate" / "quarantine").iterdir()
    assert kept.read_bytes() == b'{"status"'
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]


def test_a_loop_that_the_original_archived_is_recorded_counted_and_tagged(state: State, original: Original) -> None:
    (state.loops_dir / "one" / "outputs" / "001-stdout.log").write_text("kept")
    original.update_loop("one", status="completed")
    original.archive_loop("one")
    before = (state.archive_dir / "one" / "session-state.json").read_bytes()
    assert reconcile(state) == ["adopt archive/one/session-state.json, registry.json: edited outside gitstate"]
    assert body(state) == ["archived outside gitstate: one"]
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (1, 2, 0)
    assert [loop.tag for loop in state.list_archived_loops() if loop.loop_id == "one"] == ["archive/one"]
    assert git(state.base_dir, "rev-parse", "archive/one^{}").stdout.strip() == state.revision()
    assert (state.archive_dir / "one" / "session-state.json").read_bytes() == before
    assert (state.archive_dir / "one" / "outputs" / "001-stdout.log").read_text() == "kept"


def test_a_directory_that_was_only_moved_is_archived_byte_for_byte(state: State) -> None:
    before = path_of(state).read_bytes()
    (state.loops_dir / "one").rename(state.archive_dir / "one")
    assert reconcile(state) == ["adopt archive/one/session-state.json: edited outside gitstate"]
    assert in_head(state, "archive/one/session-state.json") == before
    assert state.load_registry()["total_aborted"] == 1
    assert git(state.base_dir, "tag").stdout.split() == ["archive/old", "archive/one"]


def test_what_the_original_archived_can_be_restored_with_its_entry(state: State, original: Original) -> None:
    state.update_entry("one", owner="agent:reviewer", priority="high")
    original.archive_loop("one")
    state.restore_loop("one")
    entry = next(entry for entry in state.list_active_loops() if entry["loop_id"] == "one")
    assert (entry["owner"], entry["priority"]) == ("agent:reviewer", "high")


def test_an_archived_loop_that_was_moved_back_by_hand_is_moved_to_the_archive_again(state: State) -> None:
    (state.archive_dir / "old" / "outputs" / "x.log").write_text("x")
    (state.archive_dir / "old").rename(state.loops_dir / "old")
    revision = state.revision()
    reconcile(state)
    assert state.revision() == revision
    assert (state.archive_dir / "old" / "outputs" / "x.log").read_text() == "x"
    assert not (state.loops_dir / "old").exists()


def test_an_interrupted_move_is_rolled_forward_as_a_move(state: State) -> None:
    for name in ("a.log", "b.log"):
        (state.loops_dir / "one" / "outputs" / name).write_text(name)
    state.archive_loop("one")
    (state.loops_dir / "one" / "outputs").mkdir(parents=True)
    (state.archive_dir / "one" / "outputs" / "b.log").rename(state.loops_dir / "one" / "outputs" / "b.log")
    (state.archive_dir / "one" / "session-state.json").rename(path_of(state))
    reconcile(state)
    assert not (state.loops_dir / "one").exists()
    assert {path.name for path in (state.archive_dir / "one" / "outputs").iterdir()} == {"a.log", "b.log"}


def test_a_move_into_a_directory_that_is_there_overwrites_nothing(state: State) -> None:
    (state.loops_dir / "one" / "outputs" / "x.log").write_text("of the loop")
    (state.archive_dir / "one" / "outputs").mkdir(parents=True)
    (state.archive_dir / "one" / "outputs" / "x.log").write_text("was there")
    state.archive_loop("one")
    found = {path.read_text() for path in state.base_dir.rglob("x.log")}
    assert found == {"of the loop", "was there"}
    assert (state.archive_dir / "one" / "outputs" / "x.log").read_text() == "was there"
    assert state.get_loop("one")["objective"] == "One"


@pytest.mark.parametrize("loop_id", ["CamelCase", "with_underscore", "v1.2.3", "Ünïcode", "a,b", "x" * 120, "a+b=c"])
def test_a_foreign_id_is_kept_and_served(state: State, original: Original, loop_id: str) -> None:
    original.create_loop(loop_id)
    state.update_loop(loop_id, {"status": "paused"})
    assert state.get_loop(loop_id)["status"] == "paused"
    state.checkpoint(loop_id, "here")
    state.archive_loop(loop_id)
    assert next(loop.tag for loop in state.list_archived_loops()) == f"archive/{loop_id}"
    assert state.restore_loop(loop_id)["loopId"] == loop_id
    assert [checkpoint.loop_id for checkpoint in state.list_checkpoints(loop_id)] == [loop_id]
    assert state.resolve_loop_id(loop_id) == loop_id


@pytest.mark.parametrize(
    "name", [".hidden", "-rf", "a b", "a..b", "x.lock", "ends.", "back\\slash", "new\nline", "tab\t", "@"]
)
def test_a_name_that_cannot_be_kept_is_left_alone_and_reported(state: State, original: Original, name: str) -> None:
    before = state.registry_path.read_bytes()
    original.create_loop(name)
    state.registry_path.write_bytes(before)
    kept = listing(state.loops_dir / name)
    revision = state.revision()
    state.init()
    state.update_loop("one", {"note": "x"})
    assert state.show("HEAD~1").revision == revision
    assert listing(state.loops_dir / name) == kept
    (finding,) = state.check()
    assert (finding.code, finding.severity, finding.path) == ("name_unusable", "note", f"loops/{name}")
    assert git(state.base_dir, "ls-files").stdout.count("session-state.json") == 3
    shutil.rmtree(state.loops_dir / name)


def test_an_entry_that_names_another_place_is_no_way_out_of_the_directory(state: State, tmp_path: Path) -> None:
    (tmp_path / "session-state.json").write_bytes(b'{"status": "running"}')
    away = os.path.relpath(tmp_path, state.loops_dir)
    edit(state.registry_path, lambda found: found["active_loops"].append({"loop_id": away, "status": "running"}))
    reconcile(state)
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]
    with pytest.raises(gitstate.InvalidLoopIdError):
        state.get_loop(away)


# --- other hands on git ----------------------------------------------------------------------------------------------


def test_a_foreign_commit_with_a_damaged_file_is_repaired_from_the_last_good_version(state: State) -> None:
    good, last = path_of(state).read_bytes(), last_of(state, "one")
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    (subject,) = reconcile(state)
    assert subject.startswith("repair loops/one/session-state.json: not JSON: ")
    assert subject.endswith(f", restored from {last}")
    assert path_of(state).read_bytes() == good == in_head(state, "loops/one/session-state.json")


def test_damage_in_the_head_itself_keeps_no_edit_from_being_adopted(state: State) -> None:
    path_of(state, "one").write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    edit(path_of(state, "two"), lambda found: found.update(note="by hand"))
    with pytest.warns(DamageWarning, match="^loops/one"):
        assert state.get_loop("two")["note"] == "by hand"  # type: ignore[typeddict-item]
    adopted, repaired = reconcile(state)
    assert adopted == "adopt loops/two/session-state.json: edited outside gitstate"
    assert repaired.startswith("repair loops/one/session-state.json: not JSON")
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one", "two"]


def test_a_damaged_registry_in_the_head_keeps_no_edit_from_being_adopted(state: State) -> None:
    state.registry_path.write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    edit(path_of(state, "two"), lambda found: found.update(status="paused"))
    adopted, repaired = reconcile(state)
    assert adopted == "adopt loops/two/session-state.json: edited outside gitstate"
    assert repaired.startswith("repair registry.json: not JSON")
    assert [entry["status"] for entry in state.list_active_loops()] == ["paused", "paused"]
    assert state.load_registry()["total_completed"] == 1


def test_a_hand_s_own_repair_of_damage_in_the_head_is_an_edit(state: State) -> None:
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    path_of(state).write_bytes(b'{"loopId": "one", "status": "waiting"}')
    reconcile(state)
    assert state.get_loop("one") == {"loopId": "one", "status": "waiting"}


def test_damage_in_the_head_and_other_damage_of_the_same_file_is_one_repair(state: State) -> None:
    good = path_of(state).read_bytes()
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    path_of(state).write_bytes(b"")
    (subject,) = reconcile(state)
    assert subject.startswith("repair loops/one/session-state.json: empty, restored from")
    assert path_of(state).read_bytes() == good


def test_a_loop_that_was_moved_while_the_head_s_own_version_is_damaged_is_repaired(state: State) -> None:
    good = path_of(state).read_bytes()
    path_of(state).write_bytes(b"oops")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-am", "Oops")
    (state.loops_dir / "one").rename(state.archive_dir / "one")
    reconcile(state)
    assert path_of(state).read_bytes() == good
    assert not (state.archive_dir / "one").exists()


def test_a_foreign_commit_that_removed_a_loop_takes_its_entry_along(state: State) -> None:
    git(state.base_dir, "rm", "-rq", "loops/two")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "Away with it")
    assert reconcile(state) == ["repair registry.json: brought in line with the session states"]
    assert [entry["loop_id"] for entry in state.list_active_loops()] == ["one"]


def test_a_foreign_commit_that_archives_a_loop_is_tagged_and_counted(state: State) -> None:
    git(state.base_dir, "mv", "loops/two", "archive/two")
    git(state.base_dir, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-q", "-m", "Put away")
    reconcile(state)
    assert next(loop.tag for loop in state.list_archived_loops() if loop.loop_id == "two") == "archive/two"
    registry = state.load_registry()
    assert (registry["total_active"], registry["total_completed"], registry["total_aborted"]) == (1, 1, 1)


# --- what reads make of it -------------------------------------------------------------------------------------------


def hand_edit(state: State) -> None:
    edit(path_of(state), lambda found: found.update(status="failed"))


def merged_edit(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)
    edit(path_of(state), lambda found: found.update(note="by hand"))


def registry_edit(state: State) -> None:
    edit(state.registry_path, lambda found: found["active_loops"][0].update(priority="high", status="failed"))


def old_version(state: State) -> None:
    older = path_of(state).read_bytes()
    state.update_loop("one", {"currentIteration": 5})
    path_of(state).write_bytes(older)


def archived_by_the_original(state: State) -> None:
    Original(state.project_root).archive_loop("one")


def made_by_the_original(state: State) -> None:
    Original(state.project_root).create_loop("made-elsewhere")


def ghost(state: State) -> None:
    edit(state.registry_path, lambda found: found["active_loops"].append({"loop_id": "ghost", "status": "running"}))


def invalid(state: State) -> None:
    path_of(state).write_bytes(b"{")


def invalid_registry(state: State) -> None:
    state.registry_path.write_bytes(b"")


def missing(state: State) -> None:
    path_of(state).unlink()


def missing_registry(state: State) -> None:
    state.registry_path.unlink()


def missing_directories(state: State) -> None:
    shutil.rmtree(state.loops_dir)
    shutil.rmtree(state.archive_dir)


def not_a_file(state: State) -> None:
    path_of(state).unlink()
    path_of(state).mkdir()


def edit_beside_damage(state: State) -> None:
    hand_edit(state)
    path_of(state, "two").write_bytes(b"")


def new_loop_beside_damage(state: State) -> None:
    made_by_the_original(state)
    path_of(state, "two").write_bytes(b"")


QUIET = [
    hand_edit,
    merged_edit,
    registry_edit,
    old_version,
    archived_by_the_original,
    made_by_the_original,
    ghost,
]  # fmt: skip
LOUD = {
    invalid: ["loops/one/session-state.json: truncated, served from"],
    invalid_registry: ["registry.json: empty, served from"],
    missing: ["loops/one/session-state.json: missing, served from"],
    missing_registry: ["registry.json: missing, served from"],
    missing_directories: [f"{name}/session-state.json: missing" for name in ("archive/old", "loops/one", "loops/two")],
    not_a_file: ["loops/one/session-state.json: a directory, not a file, served from"],
    edit_beside_damage: ["loops/two/session-state.json: empty, served from"],
    new_loop_beside_damage: ["loops/two/session-state.json: empty, served from"],
}


def everything(state: State) -> dict[str, object]:
    """All that a reader can see, but the times that an adoption would set."""
    registry: Any = state.load_registry()
    loops = sorted({entry["loop_id"] for entry in registry["active_loops"]} | {"one", "two", "old"})
    seen = {loop_id: {**state.get_loop(loop_id), "lastUpdate": None} for loop_id in loops}
    archived = [(loop.loop_id, loop.status, loop.objective) for loop in state.list_archived_loops()]
    places = {loop_id: state.report(loop_id).entry for loop_id in loops}
    return {**seen, "": {**registry, "updated_at": None}, "archived": sorted(archived), "entries": places}


@pytest.mark.parametrize("meddle", [*QUIET, *LOUD], ids=lambda function: function.__name__)
def test_reads_serve_what_the_next_mutation_will_make_of_it(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        read = everything(state)
        state.init()
    assert read == everything(state)


@pytest.mark.parametrize("meddle", [*QUIET, *LOUD], ids=lambda function: function.__name__)
def test_reads_write_nothing(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    before = listing(state.base_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        everything(state)
        state.status()
        state.check()
        state.repair(dry_run=True)
        list(state.log(fields=True))
    assert listing(state.base_dir) == before
    reconcile(state)


@pytest.mark.parametrize("meddle", QUIET, ids=lambda function: function.__name__)
def test_reads_do_not_warn_of_edits_and_old_versions(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(state)
    reconcile(state)


@pytest.mark.parametrize("meddle", LOUD, ids=lambda function: function.__name__)
def test_reads_warn_of_what_is_missing_unreadable_or_invalid(state: State, meddle: Callable[[State], None]) -> None:
    meddle(state)
    with pytest.warns(DamageWarning) as caught:
        state.load_registry()
    words = [str(warning.message) for warning in caught]
    assert len(words) == len(LOUD[meddle])
    assert all(word.startswith(wanted) for word, wanted in zip(words, LOUD[meddle], strict=True)), words
    reconcile(state)
