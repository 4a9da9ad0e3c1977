"""The doctor: what surrounds a store, each thing it can say provoked by what it means."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from clocks import FakeClock
from conftest import git
from processes import dead_pid, live_process

import gitstate
from gitstate import StateRepository, StorageError, cli, doctor, medium
from gitstate.cli import root, watch
from gitstate.durable import Directory
from gitstate.guard import Guard
from gitstate.results import Finding

pytestmark = pytest.mark.usefixtures("quick_disk")


def said(found: list[Finding]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in found}


def one(found: list[Finding], code: str) -> Finding:
    (finding,) = [finding for finding in found if finding.code == code]
    return finding


def listing(project: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in project.rglob("*") if not path.is_dir()}


@pytest.fixture
def loop(state: StateRepository) -> str:
    state.create_loop("fix the tests", "npm test", loop_id="fix-tests", pid=None)
    return "fix-tests"


@pytest.fixture
def around(project: Path) -> Path:
    """The project is a git repository."""
    git(project, "init", "-q", "-b", "main")
    return project


def test_where_all_is_well_there_is_nothing_to_say(state: StateRepository, loop: str) -> None:
    before = listing(state.project_root)
    assert state.diagnose() == []
    after = listing(state.project_root)
    guard = str(state.base_dir / ".git/gitstate/guard")
    assert {**before, guard: 0} == {**after, guard: 0}


def test_an_empty_project_can_be_looked_at_and_stays_empty(state: StateRepository) -> None:
    assert state.diagnose() == []
    assert list(state.project_root.iterdir()) == []


# --- the file system -------------------------------------------------------------------------------------------------


@contextmanager
def lying(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, answer: object) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *_, **__: answer)
        yield


@pytest.mark.parametrize(
    ("owner", "name", "words"),
    [
        (Directory, "write_new", "exclusive creation"),
        (Directory, "link", "hard links"),
        (Directory, "move", "rename over a file"),
        (Guard, "is_free", "flock"),
    ],
)
def test_a_file_system_that_pretends_is_found_out(
    state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, words: str
) -> None:
    with lying(monkeypatch, owner, name, True):
        found = state.diagnose()
    assert {finding.code for finding in found} == {"file_system"}
    assert any(f"does not do {words}: it did something else" in finding.message for finding in found)


@pytest.mark.parametrize(("call", "words"), [("link", "hard links"), ("fsync", "fsync of a directory")])
def test_what_a_file_system_refuses_is_named(
    state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        if call == "link" or os.path.isdir(f"/proc/self/fd/{arguments[0]}"):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "link") if call == "link" else (medium, "fsync")), refuse)
        found = [finding.message for finding in state.diagnose() if finding.code == "file_system"]
    assert any(message.startswith(f"this file system does not do {words}: ") for message in found)
    assert all("not supported" in message for message in found)


def test_a_full_disk_is_not_taken_for_a_bad_file_system(
    state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Directory, *_: object, **__: object) -> str:
        raise StorageError("no space left on device", errno=errno.ENOSPC)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "prepare", full)
        finding = one(state.diagnose(), "file_system")
    assert (finding.severity, "nothing can be written" in finding.message) == ("error", True)
    assert "no space left" in finding.message


def test_nothing_is_left_of_the_trial(state: StateRepository, loop: str) -> None:
    state.diagnose()
    assert [path.name for path in (state.base_dir / ".git/gitstate").glob("**/trial-*")] == []
    assert list((state.base_dir / ".git/gitstate/aside").iterdir()) == []


# --- the project around ----------------------------------------------------------------------------------------------


def test_a_project_that_excludes_the_state_directory_hears_only_of_clean(
    around: Path, state: StateRepository, loop: str
) -> None:
    found = state.diagnose()
    assert said(found) == {"project_clean": "note"}


def test_what_is_said_of_clean_is_true(around: Path, state: StateRepository, loop: str) -> None:
    hint = one(state.diagnose(), "project_clean").hint
    assert hint is not None
    would = subprocess.run(hint, shell=True, check=True, capture_output=True, text=True).stdout
    assert "Would remove .aiwg/" in would
    git(around, "clean", "-fdx")
    assert state.get_loop(loop)["loopId"] == loop


def test_a_project_that_does_not_exclude_it_is_a_warning_that_init_mends(
    around: Path, state: StateRepository, loop: str
) -> None:
    exclude = around / ".git/info/exclude"
    exclude.write_text("")
    finding = one(state.diagnose(), "project_shows")
    assert (finding.severity, finding.path, finding.hint) == ("warning", str(exclude), "gitstate init")
    state.init()
    assert said(state.diagnose()) == {"project_clean": "note"}


def test_in_a_linked_work_tree_the_exclude_file_that_counts_is_named(around: Path, tmp_path: Path) -> None:
    git(around, *["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"])
    git(around, "worktree", "add", "-q", str(tmp_path / "linked"))
    with gitstate.open(tmp_path / "linked", actor="user:alice") as state:
        state.init()
        (around / ".git/info/exclude").write_text("")
        assert one(state.diagnose(), "project_shows").path == str(around / ".git/info/exclude")
        state.init()
        assert said(state.diagnose()) == {"project_clean": "note"}


def test_a_project_that_tracks_it_is_an_error_with_the_command(around: Path, state: StateRepository, loop: str) -> None:
    blob = (
        git(around, "hash-object", "-w", "--stdin-paths", check=False).stdout
        or git(around, "hash-object", "-w", str(state.registry_path)).stdout
    )
    git(around, "update-index", "--add", "--cacheinfo", f"100644,{blob.strip()},.aiwg/ralph-external/registry.json")
    finding = one(state.diagnose(), "project_tracks")
    assert (finding.severity, "registry.json" in finding.message) == ("error", True)
    assert finding.hint is not None
    subprocess.run(finding.hint.removesuffix(", then commit"), shell=True, check=True, capture_output=True)
    assert said(state.diagnose()) == {"project_clean": "note"}


# --- loops, lease, clock, size, git ----------------------------------------------------------------------------------


def test_a_dead_loop_is_a_warning_that_reap_mends(state: StateRepository, loop: str) -> None:
    with live_process() as pid:
        state.resume_loop(loop, pid=pid)
        assert state.diagnose() == []
    finding = one(state.diagnose(), "loop_dead")
    assert (finding.severity, finding.loop_id, finding.hint) == ("warning", loop, "gitstate reap")
    state.reap_crashed_loops()
    assert state.diagnose() == []


def test_a_paused_loop_whose_process_is_gone_is_none_of_its_business(state: StateRepository, loop: str) -> None:
    state.update_loop_pid(loop, dead_pid())
    state.update_loop(loop, {"status": "paused"})
    assert state.diagnose() == []


def test_a_loop_of_another_host_is_a_note(state: StateRepository, loop: str) -> None:
    with live_process() as pid:
        state.resume_loop(loop, pid=pid)
        path = state.loops_dir / loop / "session-state.json"
        record = json.loads(path.read_text())
        record["gitstate"]["process"]["host"] = "elsewhere"
        path.write_text(json.dumps(record))
        assert said(state.diagnose()) == {"loop_foreign": "note"}


def test_a_lease_of_somebody_alive_is_a_note(state: StateRepository, loop: str) -> None:
    with state.transaction():
        assert said(state.diagnose()) == {"lease_held": "note"}


@pytest.mark.parametrize("why", ["dead", "expired", "unreadable"])
def test_a_stale_lease_is_a_warning_that_breaking_it_mends(state: StateRepository, loop: str, why: str) -> None:
    with state.transaction():
        record = json.loads(state.lock_path.read_text())
    record |= {"pid": dead_pid()} if why == "dead" else {"monotonicExpiry": 0.0, "leaseExpiry": 0, "bootId": "other"}
    state.lock_path.write_text("{" if why == "unreadable" else json.dumps(record))
    finding = one(state.diagnose(), "lease_stale" if why != "unreadable" else "lease_held")
    assert finding.path == "registry.json.lock"
    assert (finding.severity, finding.hint) == (
        ("note", "gitstate lock show") if why == "unreadable" else ("warning", "gitstate lock break --yes")
    )
    state.break_lease(force=True)
    assert state.diagnose() == []


def test_a_clock_behind_history_is_a_warning(project: Path) -> None:
    clock = FakeClock()
    with StateRepository(project, actor="user:alice", clock=clock) as state:
        state.init()
        clock.advance(seconds=-59)
        assert state.diagnose() == []
        clock.advance(seconds=-60)
        finding = one(state.diagnose(), "clock_behind")
        assert (finding.severity, finding.revision) == ("warning", state.revision())
        assert "119 s ahead" in finding.message


def test_a_large_history_is_a_note(state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LARGE", 1000)
    assert said(state.diagnose()) == {"large": "note"}


def test_what_is_in_quarantine_is_a_note(state: StateRepository, loop: str) -> None:
    state.registry_path.write_text("broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state.repair()
    finding = one(state.diagnose(), "quarantine")
    assert (finding.severity, finding.message) == ("note", "1 damaged files are kept, 6 bytes")


def test_without_git_there_is_a_note(state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROGRAMS", "/nonexistent")
    assert said(state.diagnose()) == {"git_missing": "note"}


def test_a_damaged_store_has_surroundings_all_the_same(state: StateRepository, loop: str) -> None:
    state.resume_loop(loop, pid=dead_pid(), force=True)
    branch = state.base_dir / ".git/refs/heads/main"
    kept = branch.read_bytes()
    branch.write_bytes(b"")
    assert said(state.diagnose()) == {"loop_dead": "warning"}
    branch.write_bytes(kept)


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(project: Path) -> Callable[..., Result]:
    return lambda *words: CliRunner().invoke(root, ["-C", str(project), *words])


def test_doctor_says_what_it_looked_at_and_found(run: Callable[..., Result], state: StateRepository, loop: str) -> None:
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (
        0,
        "looked at the file system, 1 loop, the lease, the clock, the size of history and git's presence: no findings\n",
    )


def test_doctor_answers_with_its_findings(run: Callable[..., Result], state: StateRepository, loop: str) -> None:
    state.resume_loop(loop, pid=dead_pid(), force=True)
    result = run("doctor", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["data"] == [finding.to_dict() for finding in state.diagnose()]
    assert document["looked_at"]["loops"] == 1
    assert "error" not in run("doctor").stdout
    assert run("doctor").stdout.endswith("1 warning\n")
    assert run("doctor", "-q").stdout == "loop_dead\n"


def test_a_note_alone_is_no_reason_for_concern(
    run: Callable[..., Result], state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_PROGRAMS", "/nonexistent")
    result = run("doctor")
    assert (result.exit_code, result.stdout.splitlines()[-1].rpartition(": ")[2]) == (0, "1 note")


def test_check_looks_at_more_with_full(run: Callable[..., Result], state: StateRepository, loop: str) -> None:
    assert run("check").stdout == "looked at 2 commits and 2 files: no findings\n"
    assert run("check", "--full").stdout == "looked at 9 objects, 1 ref, 2 commits and 2 files: no findings\n"
    assert json.loads(run("check", "--full", "--json").stdout)["looked_at"] == {
        "objects": 9, "refs": 1, "commits": 2, "files": 2,
    }  # fmt: skip


def test_what_could_not_be_looked_at_is_said(run: Callable[..., Result], state: StateRepository, loop: str) -> None:
    branch = state.base_dir / ".git/refs/heads/main"
    whole = branch.read_bytes()
    branch.write_bytes(b"")
    assert run("check").stdout.endswith("looked at the branch, could not look at commits and files: 1 error\n")
    full = run("check", "--full").stdout
    assert full.endswith("looked at 9 objects and 1 ref, could not look at commits and files: 1 error\n")
    branch.write_bytes(whole)


def test_full_finds_what_the_present_does_not_need(
    run: Callable[..., Result], state: StateRepository, loop: str
) -> None:
    stray = state.base_dir / ".git/objects/ab" / ("0" * 38)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"nothing that can be read")
    assert run("check").exit_code == 0
    result = run("check", "--full")
    assert (result.exit_code, "error object_damaged" in result.stdout) == (1, True)
    stray.unlink()


def test_repair_says_what_was_done_and_what_remains(
    run: Callable[..., Result], state: StateRepository, loop: str
) -> None:
    state.registry_path.write_text("broken")
    assert run("repair", "--dry-run").stdout.endswith(": 1 error; nothing was done\n")
    result = run("repair")
    assert result.exit_code == 0
    assert result.stdout.endswith(" and 2 files: 1 error; 1 put right, nothing remains\n")
    (state.base_dir / ".git/index.lock").touch()
    result = run("repair")
    assert result.exit_code == 1
    assert result.stdout.endswith(" and 2 files: 1 warning; 0 put right, 1 warning remains\n")
    (state.base_dir / ".git/index.lock").unlink()


# --- progress --------------------------------------------------------------------------------------------------------


class Terminal:
    """A stream that is a terminal, and keeps what is written."""

    def __init__(self) -> None:
        self.written = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None:
        pass


def test_long_work_shows_on_a_terminal_how_far_it_is_and_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PATIENCE", 0.0)
    monkeypatch.setattr(watch, "_PAUSE", 0.0)
    terminal = Terminal()
    with watch.Watch(terminal) as seen:  # type: ignore[arg-type]
        seen("commits", 256, 0)
        seen("objects", 256, 1000)
    assert terminal.written == "\r\x1b[Kcommits: 256\r\x1b[Kobjects: 256 of 1000\r\x1b[K"
    assert seen.looked_at == {"commits": 256, "objects": 1000}


def test_short_work_shows_nothing() -> None:
    terminal = Terminal()
    with watch.Watch(terminal) as seen:  # type: ignore[arg-type]
        seen("commits", 256, 0)
    assert terminal.written == ""


@pytest.mark.parametrize("words", [("check", "--full"), ("repair",), ("doctor",)])
def test_off_a_terminal_no_progress_is_printed(
    run: Callable[..., Result], state: StateRepository, loop: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str]
) -> None:
    monkeypatch.setattr(watch, "_PATIENCE", 0.0)
    assert run(*words).stderr == ""
    assert cli.MODULES[words[0]] == "health"
