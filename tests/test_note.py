"""The note: what the next mutation does not look at again, and what it notices all the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import git

import gitstate
import gitstate.process
from gitstate.noting import SAMPLE
from gitstate.projection import Projection
from gitstate.store import index

State = gitstate.StateRepository


pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture
def busy(state: State) -> State:
    """An active loop, and an archive of more loops than one mutation looks at."""
    for number in range(2 * SAMPLE + 3):
        path = state.archive_dir / f"old-{number:03d}" / "session-state.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"loopId": path.parent.name, "status": "completed", "note": "a"}, indent=2) + "\n")
    state.create_loop("Fix the tests", "all pass", loop_id="fix", pid=None)
    return state


@pytest.fixture
def surveys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each look at everything."""
    found: list[str] = []
    survey = Projection.survey

    def counted(projection: Projection) -> object:
        found.append("survey")
        return survey(projection)

    monkeypatch.setattr(Projection, "survey", counted)
    return found


def state_of(state: State, loop_id: str = "fix") -> Path:
    area = state.loops_dir if (state.loops_dir / loop_id).exists() else state.archive_dir
    return area / loop_id / "session-state.json"


def subjects(state: State) -> list[str]:
    return [change.summary for change in state.log()]


def settled(state: State) -> None:
    """Let the files lie still for longer than a step of the file system's clock."""
    for path in state.base_dir.rglob("*.json"):
        if not path.is_symlink():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    probe = state.base_dir.parent / "probe"
    while True:  # ctime cannot be set
        probe.write_text("x")
        if probe.stat().st_ctime_ns > max(path.lstat().st_ctime_ns for path in state.base_dir.rglob("*.json")):
            return


# --- the registry and active loops -----------------------------------------------------------------------------------


def test_what_lies_still_is_not_read_again(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    for loop_id in ("one", "two"):
        state.create_loop("Fix the tests", "all pass", loop_id=loop_id, pid=None)
    settled(state)
    state.update_loop("one", {"note": "this looks at two, and finds it as it was"})
    looked: list[str] = []
    look = Projection.look
    monkeypatch.setattr(Projection, "look", lambda self, path: looked.append(path) or look(self, path))
    state.update_loop("one", {"note": "again"})
    assert "loops/two/session-state.json" not in looked


@pytest.mark.parametrize("name", ["registry.json", "loops/fix/session-state.json"])
def test_an_edit_of_the_same_size_in_the_same_step_of_time_is_noticed(
    state: State, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system's clock stands still: no mark changes but by what is written."""
    state.create_loop("Fix the tests", "all pass", loop_id="fix", pid=None, priority="high")
    still(monkeypatch)
    state.update_loop("fix", {"note": "aaaa"})
    path = state.base_dir / name
    raw = path.read_bytes()
    edited = raw.replace(b'"high"', b'"slow"') if name == "registry.json" else raw.replace(b"aaaa", b"bbbb")
    assert edited != raw
    with path.open("r+b") as file:
        file.write(edited)
    state.update_loop("fix", {"status": "paused"})
    assert subjects(state)[1] == f"adopt {name}: edited outside gitstate"


def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are as old as one another, whenever they were written."""
    real_stat, real_fstat = os.stat, os.fstat

    def frozen(found: os.stat_result) -> os.stat_result:
        moment = 1_700_000_000
        times = {f"st_{kind}time_ns": moment * 10**9 for kind in "amc"}
        times |= {f"st_{kind}time": float(moment) for kind in "amc"}
        return os.stat_result([*found[:7], moment, moment, moment], times)

    monkeypatch.setattr(os, "stat", lambda *words, **options: frozen(real_stat(*words, **options)))
    monkeypatch.setattr(os, "fstat", lambda descriptor: frozen(real_fstat(descriptor)))


@pytest.mark.parametrize(
    "harm",
    [
        lambda state: (state.archive_dir / "new").mkdir(),
        lambda state: (state.loops_dir / "new").mkdir(),
        lambda state: (state.archive_dir / "old-007").rename(state.archive_dir / "old-700"),
        lambda state: (state.archive_dir / "old-007").rename(state.loops_dir / "old-007"),
    ],
)
def test_a_directory_that_comes_or_goes_has_everything_looked_at(
    busy: State, harm: Callable[[State], object], surveys: list[str]
) -> None:
    busy.update_loop("fix", {"note": "a"})
    surveys.clear()
    busy.update_loop("fix", {"note": "b"})
    assert surveys == []
    harm(busy)
    busy.update_loop("fix", {"note": "c"})
    assert surveys != []


@pytest.mark.parametrize("area", ["loops", "archive"])
def test_a_state_that_appears_where_there_was_an_empty_directory_is_noticed(state: State, area: str) -> None:
    """The original makes the directory first."""
    state.create_loop("Fix the tests", "all pass", loop_id="fix", pid=None)
    (state.base_dir / area / "other").mkdir()
    state.update_loop("fix", {"note": "a"})
    state.update_loop("fix", {"note": "b"})
    (state.base_dir / area / "other" / "session-state.json").write_text('{"loopId": "other", "status": "completed"}\n')
    state.update_loop("fix", {"note": "c"})
    assert state.get_loop("other")["status"] == "completed"
    assert subjects(state)[1].startswith("adopt ")


def test_after_another_boot_no_mark_counts(busy: State, surveys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may leave inode, size and times of a file, and take its bytes."""
    settled(busy)
    busy.update_loop("fix", {"note": "a"})
    boot = gitstate.process.boot_id()
    looked: list[str] = []
    look = Projection.look
    monkeypatch.setattr(Projection, "look", lambda self, path: looked.append(path) or look(self, path))
    monkeypatch.setattr(gitstate.process, "boot_id", lambda: f"not {boot}")
    surveys.clear()
    busy.update_loop("fix", {"note": "b"})
    assert surveys != []
    assert len(looked) > 2 * SAMPLE


def test_a_torn_note_is_none(busy: State, surveys: list[str]) -> None:
    busy.update_loop("fix", {"note": "a"})
    note = busy.base_dir / ".git/gitstate/projected"
    raw = note.read_bytes()
    surveys.clear()
    for at in range(0, len(raw), 7):
        note.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert busy._writer.notes.read() is None
    note.write_bytes(raw[: len(raw) // 2])
    busy.update_loop("fix", {"note": "b"})
    assert surveys != []


# --- the archive -----------------------------------------------------------------------------------------------------


def test_a_mutation_looks_at_few_archived_states_however_many_there_are(
    busy: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(busy)
    busy.init()
    busy.update_loop("fix", {"note": "a"})
    looked: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda name, **options: looked.append(str(name)) or real(name, **options))
    busy.update_loop("fix", {"note": "b"})
    assert len([name for name in looked if name.startswith("old-")]) == SAMPLE
    assert len(looked) < 100


def edit(state: State, loop_id: str) -> None:
    path = state_of(state, loop_id)
    path.write_text(path.read_text().replace('"a"', '"edited"'))


@pytest.mark.parametrize("loop_id", ["old-000", "old-017", "old-034"])
def test_an_edit_of_an_archived_state_is_adopted_within_one_mutation_for_each_sample_and_one(
    busy: State, loop_id: str
) -> None:
    busy.update_loop("fix", {"note": "a"})
    edit(busy, loop_id)
    for number in range((2 * SAMPLE + 3) // SAMPLE + 2):
        busy.update_loop("fix", {"note": f"number {number}"})
    adopted = [line for line in subjects(busy) if line.startswith("adopt ")]
    assert adopted == [f"adopt archive/{loop_id}/session-state.json: edited outside gitstate"]


def test_an_edit_in_the_very_step_of_time_of_the_archiving_is_noticed_when_its_turn_comes(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.create_loop("Fix the tests", "all pass", loop_id="fix", pid=None)
    state.create_loop("Fix the tests", "all pass", loop_id="old", pid=None)
    state.update_loop("old", {"note": "aaaa"})
    still(monkeypatch)
    state.archive_loop("old", status="completed")
    with state_of(state, "old").open("r+b") as file:
        raw = file.read()
        file.seek(0)
        file.write(raw.replace(b"aaaa", b"bbbb"))
    for number in range(3):
        state.update_loop("fix", {"note": f"number {number}"})
    assert "adopt archive/old/session-state.json: edited outside gitstate" in subjects(state)


def test_a_read_of_an_edited_archived_loop_serves_the_edit_at_once(busy: State) -> None:
    busy.update_loop("fix", {"note": "a"})
    edit(busy, "old-034")
    assert busy.get_loop("old-034")["note"] == "edited"  # type: ignore[typeddict-item]
    assert [finding.code for finding in busy.check() if finding.path is None] == ["outside_edit"]


@pytest.mark.parametrize("look", [lambda state: state.init(), lambda state: state.repair()])
def test_init_and_repair_adopt_an_edit_of_an_archived_state_at_once(
    busy: State, look: Callable[[State], object]
) -> None:
    busy.update_loop("fix", {"note": "a"})
    edit(busy, "old-034")
    look(busy)
    assert subjects(busy)[0] == "adopt archive/old-034/session-state.json: edited outside gitstate"


def test_restoring_an_archived_loop_that_was_edited_loses_nothing(busy: State) -> None:
    busy.update_loop("fix", {"note": "a"})
    edit(busy, "old-034")
    busy.restore_loop("old-034")
    busy.update_loop("fix", {"note": "b"})
    assert busy.get_loop("old-034")["note"] == "edited"  # type: ignore[typeddict-item]


# --- the index -------------------------------------------------------------------------------------------------------


def rewritten(state: State) -> bytes:
    """The index as it would be written from the head and the present files."""
    head = state._revisions.tree(state._revisions.head())
    directory = state._writer.directory
    before = (state.base_dir / ".git/index").read_bytes()
    index.rewrite_index(directory, head, lambda path, blob: directory.status(path))
    after = (state.base_dir / ".git/index").read_bytes()
    (state.base_dir / ".git/index").write_bytes(before)
    return after


def test_an_index_that_was_changed_in_place_is_the_one_that_would_be_written_anew(state: State) -> None:
    for loop_id in ("two", "one", "three"):
        state.create_loop("Fix the tests", "all pass", loop_id=loop_id, pid=None)
    state.update_loop("two", {"note": "a"})
    state.archive_loop("one")
    settled(state)
    state.update_loop("three", {"note": "b"})
    state.init()
    for mutate in (
        lambda: state.update_loop("two", {"note": "c"}),
        lambda: state.create_loop("Fix the tests", "all pass", loop_id="zero", pid=None),
        lambda: state.restore_loop("one"),
    ):
        mutate()
        assert (state.base_dir / ".git/index").read_bytes() == rewritten(state)
        assert git(state.base_dir, "diff-files").stdout == ""
    raw = (state.base_dir / ".git/index").read_bytes()
    assert hashlib.sha1(raw[:-20]).digest() == raw[-20:]


def test_git_status_tells_of_an_edit_of_an_archived_state_that_was_not_looked_at_yet(busy: State) -> None:
    busy.update_loop("fix", {"note": "a"})
    edit(busy, "old-034")
    busy.update_loop("fix", {"note": "b"})
    assert git(busy.base_dir, "status", "--porcelain").stdout == " M archive/old-034/session-state.json\n"


def test_after_git_wrote_the_index_no_file_is_read_for_it(busy: State, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(busy)
    busy.update_loop("fix", {"note": "a"})
    git(busy.base_dir, "update-index", "--refresh")
    git(busy.base_dir, "update-index", "--force-remove", "loops/fix/session-state.json")
    looked: list[str] = []
    look = Projection.look
    monkeypatch.setattr(Projection, "look", lambda self, path: looked.append(path) or look(self, path))
    busy.update_loop("fix", {"note": "b"})
    assert not [path for path in looked if path.startswith("archive/")]
    assert git(busy.base_dir, "status", "--porcelain").stdout == ""


def test_a_damaged_index_is_written_anew(busy: State) -> None:
    busy.update_loop("fix", {"note": "a"})
    path = busy.base_dir / ".git/index"
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1  # its checksum stays
    path.write_bytes(raw)
    busy.update_loop("fix", {"note": "b"})
    raw = bytearray(path.read_bytes())
    assert hashlib.sha1(raw[:-20]).digest() == raw[-20:]
    assert [finding for finding in busy.check() if finding.severity != "note"] == []


def test_while_git_is_at_the_index_mutations_still_need_not_look_at_everything(busy: State, surveys: list[str]) -> None:
    busy.update_loop("fix", {"note": "a"})
    lock = busy.base_dir / ".git/index.lock"
    lock.touch()
    surveys.clear()
    for number in range(3):
        busy.update_loop("fix", {"note": f"number {number}"})
    assert surveys == []
    lock.unlink()
    busy.update_loop("fix", {"note": "b"})
    assert surveys == []
    assert git(busy.base_dir, "status", "--porcelain").stdout == ""
