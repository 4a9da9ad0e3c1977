"""A file that cannot be what somebody meant is kept, and restored in a repair that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from clocks import FakeClock
from conftest import git
from edits import ADOPT_ONE, body, edit, last_of, path_of, reconcile, subprocess_bytes
from original import Original, stringify

import gitstate
from gitstate import CorruptStateError, DamageWarning, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository

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
