"""How the command line behaves among people and pipes: what it prints where, what it asks, what it costs to start."""

from __future__ import annotations

import ast
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from gitstate import StateRepository, cli
from gitstate.cli import MODULES, SECTIONS, root
from gitstate.cli.invocation import Invocation
from gitstate.questions import Questions

Run = Callable[..., Result]
LOOP = "ralph-fix-the-tests-aaaa1111"
PROGRAM = (sys.executable, "-m", "gitstate")


@pytest.fixture
def run(project: Path) -> Run:
    """Runs a command in the project."""

    def go(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(root, ["-C", str(project), *words], input=stdin)

    return go


@pytest.fixture
def loop(state: StateRepository) -> str:
    state.create_loop("Исправить все тесты", "npm test", loop_id=LOOP, pid=None)
    return LOOP


# --- what is printed -------------------------------------------------------------------------------------------------


def test_bare_gitstate_prints_its_help() -> None:
    result = CliRunner().invoke(root, [])
    assert result.exit_code == 0
    assert result.stdout == CliRunner().invoke(root, ["--help"]).stdout
    assert [f"{section}:" in result.stdout for section in SECTIONS] == [True] * len(SECTIONS)


@pytest.mark.parametrize("name", MODULES)
def test_every_command_has_a_summary_of_one_line_and_help_for_every_option(name: str) -> None:
    result = CliRunner().invoke(root, [name, "--help"])
    assert result.exit_code == 0
    (line,) = [line for line in CliRunner().invoke(root, []).stdout.splitlines() if line.startswith(f"  {name} ")]
    assert len(line) <= 80
    command = root.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_version(run: Run) -> None:
    import gitstate

    assert run("--version").stdout == f"gitstate {gitstate.__version__}\n"
    assert run("list", "--version").stdout == f"gitstate {gitstate.__version__}\n"


def test_a_change_is_told_in_one_line(run: Run, loop: str, state: StateRepository) -> None:
    result = run("pause")
    assert result.stdout == f"{(state.revision() or '')[:7]} update {LOOP}: status running → paused\n"
    assert run("pause").stdout == "nothing to change\n"


def test_an_error_is_told_on_stderr_with_a_hint(run: Run, loop: str) -> None:
    result = run("cat", "nothing-like-it")
    assert result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: gitstate ")


def test_a_warning_is_told_on_stderr_in_one_line(run: Run, loop: str, state: StateRepository) -> None:
    (state.loops_dir / LOOP / "session-state.json").write_text("{")
    result = program(state.project_root, "cat")
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith(b"warning: ")
    run("repair")


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (("list",), LOOP),
        (("status",), LOOP),
        (("status", LOOP), LOOP),
        (("cat",), LOOP),
        (("log",), "{head}\n{parent}"),
        (("log", LOOP, "-n", "1"), "{head}"),
        (("show",), "{head}"),
        (("diff", "HEAD~1"), f"{LOOP}\nregistry"),
        (("limit",), "4"),
        (("check",), ""),
        (("lock", "show"), ""),
        (("update", "--set", "status=running"), "{head}"),
        (("migrate",), ""),
    ],
)
def test_quiet_prints_only_ids_or_revisions(
    run: Run, loop: str, state: StateRepository, words: tuple[str, ...], printed: str
) -> None:
    head = state.revision() or ""
    expected = printed.format(head=head, parent=state.show(head).parent)
    assert run(*words, "-q").stdout == (f"{expected}\n" if expected else "")


def test_quiet_create_prints_the_id_and_quiet_mutations_the_revision(run: Run, state: StateRepository) -> None:
    created = run("create", "-q", "fix the tests", "--completion", "x", "--pid", str(os.getpid())).stdout.strip()
    assert state.get_loop(created)["currentPid"] == os.getpid()
    assert run("pause", "-q").stdout.strip() == state.revision()


def test_log_is_a_line_for_each_change(run: Run, loop: str, state: StateRepository) -> None:
    state.update_loop(LOOP, {"status": "paused"})
    lines = run("log").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [(change.revision or "")[:7] for change in state.log()]
    assert "user:alice" in lines[0]
    assert lines[0].endswith(f"update {LOOP}: status running → paused")


def test_log_starts_before_it_has_read_everything(run: Run, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change = next(StateRepository.log(gitstate_of(run)))
    monkeypatch.setattr(Questions, "log", lambda self, *_, **__: (change if n < 60 else 1 / 0 for n in range(100)))
    result = run("log")
    assert len(result.stdout.splitlines()) == 50
    assert result.exit_code == 9


def gitstate_of(run: Run) -> StateRepository:
    return StateRepository(run("path", "-q").stdout.split("/.aiwg")[0])


@pytest.mark.parametrize("words", [("show",), ("log", "-p"), ("diff", "HEAD~1")])
def test_changes_are_shown_field_by_field(run: Run, loop: str, state: StateRepository, words: tuple[str, ...]) -> None:
    state.update_loop(LOOP, {"status": "paused", "note": {"a": "я" * 80}})
    shown = run(*words).stdout
    assert "~ status  running → paused" in shown
    assert "+ note" in shown
    assert '"a": "' + "я" * 80 in shown


def test_status_says_what_is_going_on(run: Run, loop: str, state: StateRepository) -> None:
    state.create_loop("another", "true", loop_id="another-one", pid=2**31 - 1, owner="team")
    state.record_iteration("another-one", {"number": 3})
    shown = run("status").stdout
    for words in (LOOP, "another-one", "Исправить все тесты", "3 of 10", "team", "dead: process 2147483647", "2 of 4"):
        assert words in shown
    assert "lease" in shown
    report = run("status", "another-one").stdout
    for words in ("another-one", "3 of 10", "team", "dead: process 2147483647", "true", "iterate another-one"):
        assert words in report


def test_status_shows_the_findings_of_the_cheap_check(run: Run, loop: str, state: StateRepository) -> None:
    (state.loops_dir / LOOP / "session-state.json").write_text("{")
    assert "gitstate repair" in run("status").stdout
    run("repair")


@pytest.mark.parametrize(
    "words", [("list",), ("list", "--archived"), ("log",), ("checkpoints",), ("status",), ("check",)]
)
def test_nothing_yet_is_no_error(run: Run, project: Path, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert list(project.iterdir()) == []


def test_text_from_records_cannot_move_the_cursor(run: Run, loop: str, state: StateRepository) -> None:
    state.update_loop(LOOP, {"objective": "evil \x1b[2J", "note": "\x1b]0;title\x07\nx"})
    for words in (("list",), ("status",), ("status", LOOP), ("log", "-p"), ("show",), ("diff", "HEAD~1")):
        shown = run(*words).stdout
        assert "\x1b" not in shown
        assert "\x07" not in shown


# --- pipes and terminals ---------------------------------------------------------------------------------------------


def program(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, "-C", str(project), *words], capture_output=True, env={**os.environ, **environment}, check=False
    )


def test_a_closed_pipe_is_quiet(state: StateRepository, loop: str) -> None:
    for words in (["log"], ["log", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [*PROGRAM, "-C", str(state.project_root), *words]
        result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
        assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_an_error(state: StateRepository, loop: str) -> None:
    for words in (["log"], ["log", "--json"]):
        with open("/dev/full", "wb") as full:
            command = [*PROGRAM, "-C", str(state.project_root), *words]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert (result.returncode, result.stderr) == (9, b"error: No space left on device\n")


def test_an_encoding_without_the_characters_is_no_error(state: StateRepository, loop: str) -> None:
    result = program(state.project_root, "status", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")
    assert LOOP.encode() in result.stdout


def terminal(
    project: Path, *words: str, typed: bytes = b"", interrupt: bool = False, **environment: str
) -> tuple[int, str]:
    """Runs the program on a terminal of its own: its exit code and everything it showed."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    command = [*PROGRAM, "-C", str(project), *words]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        os.write(master, typed)
        shown = b""
        while select.select([master], [], [], 20)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if interrupt and b"[y/N]" in shown:
                process.send_signal(signal.SIGINT)
                interrupt = False
        process.kill()
    os.close(master)
    return process.returncode, shown.decode()


def test_a_terminal_gets_colour_unless_it_is_refused(state: StateRepository, loop: str) -> None:
    assert "\x1b[" in terminal(state.project_root, "status", NO_COLOR="")[1]
    assert "\x1b[" not in terminal(state.project_root, "status", NO_COLOR="1")[1]
    assert b"\x1b[" not in program(state.project_root, "status").stdout


def test_rollback_on_a_terminal_shows_the_plan_and_asks_once(state: StateRepository, loop: str) -> None:
    state.update_loop(LOOP, {"status": "paused", "note": 1})
    before = state.revision()
    code, shown = terminal(state.project_root, "rollback", LOOP, "--steps", "1", typed=b"n\n", NO_COLOR="1")
    assert (code, state.revision()) == (8, before)
    assert "- note" in shown
    assert shown.count("[y/N]") == 1
    code, shown = terminal(state.project_root, "rollback", LOOP, "--steps", "1", typed=b"y\n", NO_COLOR="1")
    assert code == 0
    assert "note" not in state.get_loop(LOOP)


@pytest.mark.parametrize("typed", [b"\n", b"\x04", b"maybe\n"])
def test_anything_but_yes_is_no(state: StateRepository, loop: str, typed: bytes) -> None:
    state.update_loop(LOOP, {"note": 1})
    assert terminal(state.project_root, "rollback", LOOP, "--steps", "1", typed=typed)[0] == 8
    assert dict(state.get_loop(LOOP))["note"] == 1


def test_an_interrupt_at_the_question_is_exit_130(state: StateRepository, loop: str) -> None:
    state.update_loop(LOOP, {"note": 1})
    code, shown = terminal(state.project_root, "rollback", LOOP, "--steps", "1", interrupt=True, NO_COLOR="1")
    assert code == 130
    assert "error: interrupted" in shown
    assert dict(state.get_loop(LOOP))["note"] == 1


# --- questions -------------------------------------------------------------------------------------------------------


def test_without_a_terminal_rollback_wants_yes(run: Run, loop: str, state: StateRepository) -> None:
    state.update_loop(LOOP, {"status": "paused", "note": 1})
    before = state.revision()
    result = run("rollback", LOOP, "--steps", "1", "--force")
    assert (result.exit_code, state.revision()) == (8, before)
    assert "- note  1" in result.stderr
    assert f"rollback {LOOP} --steps 1 --force --yes" in result.stderr.splitlines()[-1]


def test_prune_names_the_bytes_and_asks(run: Run, loop: str, state: StateRepository) -> None:
    (state.get_loop_dir(LOOP) / "outputs" / "001-stdout.log").write_text("x" * 5000)
    state.archive_loop(LOOP)
    before = state.revision()
    words = ("prune", "--older-than", "0s", "--artifacts-only")
    result = run(*words)
    assert (result.exit_code, state.revision()) == (8, before)
    assert "frees 5.0 kB of artifacts\n1 archived loop, 5000 bytes (5.0 kB) to free\n" in result.stderr
    assert "prune --older-than 0s --artifacts-only --yes" in result.stderr.splitlines()[-1]
    code, shown = terminal(state.project_root, *words, typed=b"n\n", NO_COLOR="1")
    assert (code, shown.count("[y/N]")) == (8, 1)
    assert (state.archive_dir / LOOP / "outputs").exists()
    code, shown = terminal(state.project_root, *words, typed=b"y\n", NO_COLOR="1")
    assert (code, os.listdir(state.archive_dir / LOOP)) == (0, ["session-state.json"])
    assert "1 archived loop, 5000 bytes (5.0 kB) freed" in shown
    assert run("prune", "--older-than", "0s", "--yes").stdout.startswith((state.revision() or "")[:7])
    assert run("prune", "--older-than", "0s").stdout == "nothing to prune\n"


def test_the_command_to_repeat_can_be_pasted(run: Run, loop: str, state: StateRepository) -> None:
    state.update_loop(LOOP, {"status": "paused", "note": 1})
    hint = run("rollback", "--steps", "1", "-m", "it's bad", "--", LOOP).stderr.splitlines()[-1]
    command = hint.removeprefix("hint: gitstate ")
    assert subprocess.run(f"{sys.executable} -m gitstate {command}", shell=True, capture_output=True).returncode == 0
    assert state.show("HEAD").reason == "it's bad"


def test_lock_break_wants_yes_too(run: Run, loop: str, state: StateRepository) -> None:
    state.lock_path.write_text(
        '{"pid": 2147483647, "loopId": "x", "timestamp": 1, "leaseExpiry": 1, "fencingToken": 1}'
    )
    result = run("lock", "break", "--force")
    assert result.exit_code == 8
    assert "2147483647" in result.stderr
    assert state.lock_path.exists()
    assert run("lock", "break", "--yes").exit_code == 0


def test_force_and_yes_are_different_things(run: Run, loop: str, state: StateRepository) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        state.update_loop_pid(LOOP, process.pid)
        state.update_loop(LOOP, {"note": 1})
        assert run("rollback", LOOP, "--steps", "1", "--yes").exit_code == 8
        assert run("rollback", LOOP, "--steps", "1", "--force").exit_code == 8
        assert run("rollback", LOOP, "--steps", "1", "--force", "--yes").exit_code == 0
        process.communicate(b"\n")


# --- completion ------------------------------------------------------------------------------------------------------


def completed(project: Path, line: str) -> list[str]:
    """What a shell is told about the last word of *line*."""
    *words, last = line.split(" ")
    shell = ShellComplete(root, {"obj": Invocation()}, "gitstate", "_GITSTATE_COMPLETE")
    return sorted(item.value for item in shell.get_completions(["-C", str(project), *words], last))


def test_the_shell_completes_commands_options_and_loops(state: StateRepository, loop: str) -> None:
    state.create_loop("x", "true", loop_id="other-loop", pid=None)
    state.create_loop("x", "true", loop_id="put-away", pid=None)
    state.archive_loop("put-away")
    project = state.project_root
    assert completed(project, "che") == ["check", "checkpoint", "checkpoints"]
    assert "--json" in completed(project, "list --js")
    assert completed(project, "cat ") == ["other-loop", LOOP]
    assert completed(project, "cat oth") == ["other-loop"]
    assert completed(project, "restore put") == ["put-away"]
    assert completed(project, "diff --loop fix") == [LOOP]
    assert completed(project, "pid other-loop ") == []
    assert completed(project, "create --priority h") == ["high"]


def test_bash_is_served(state: StateRepository, loop: str) -> None:
    result = program(state.project_root, _GITSTATE_COMPLETE="bash_complete", COMP_WORDS="gitstate limi", COMP_CWORD="1")
    assert (result.returncode, result.stdout) == (0, b"plain,limit\n")


def test_completion_of_a_damaged_store_is_empty(state: StateRepository, loop: str) -> None:
    branch = state.base_dir / ".git" / "refs" / "heads" / "main"
    whole = branch.read_bytes()
    branch.write_bytes(b"")
    assert completed(state.project_root, "cat ") == []
    branch.write_bytes(whole)


# --- starting --------------------------------------------------------------------------------------------------------


def imported(*words: str) -> set[str]:
    code = "\n".join((
        f"import sys, gitstate.cli; sys.argv = {['gitstate', *words]!r}",
        "try: gitstate.cli.main()",
        "except SystemExit: print(*sys.modules, file=sys.stderr)",
    ))  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


def test_a_command_imports_no_other_commands_module(project: Path) -> None:
    loaded = {name for name in imported("-C", str(project), "list") if name.startswith("gitstate.cli.")}
    others = {f"gitstate.cli.{module}" for module in MODULES.values()} - {"gitstate.cli.loops"}
    assert not loaded & others
    assert "gitstate.cli.loops" in loaded


def test_the_command_line_imports_nothing_from_outside_but_click() -> None:
    outside = set()
    for file in Path(cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            outside |= {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert outside == {"click", "gitstate"}


def test_the_reference_is_what_the_commands_say() -> None:
    script = Path(__file__).parent.parent / "scripts" / "cli_reference.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_python_m_gitstate_is_the_command(project: Path) -> None:
    assert program(project, "limit", "-q").stdout == b"4\n"


def test_streams_that_the_shell_closed_are_no_error(project: Path) -> None:
    command = f"{sys.executable} -m gitstate -C {project} list"
    for closed in ("<&-", ">&-", "2>&-"):
        assert subprocess.run(f"{command} {closed}", shell=True, capture_output=True, check=False).returncode == 0
