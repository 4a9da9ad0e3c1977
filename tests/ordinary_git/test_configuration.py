"""The user's own git: configuration, environment, hooks and filters."""

from __future__ import annotations

from pathlib import Path

import pytest
from beginnings import a_repository, begin
from conftest import git

import gitstate
from gitstate import StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

State = StateRepository


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
