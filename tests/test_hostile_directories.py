"""Hostile directories: nothing outside the state directory is read as state or written, and no program is run.

A symlink or a second hard link stands in every place, from the beginning or swapped in during an operation; and a
repository is made to point elsewhere in every way that git knows. What users do to a repository is another matter
(``ordinary_git/``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from clocks import FakeClock
from conftest import assert_sound, git
from faults import strace
from faults.bench import draw, times
from templates import copy, loosen, template

import gitstate
from gitstate import StateRepository, UnsafeRepositoryError
from gitstate.durable import Directory

pytestmark = pytest.mark.usefixtures("quick_disk")

SECRET = "what only the other file says"
OBJECTIVE = "reach the end"


def build(state: StateRepository, clock: FakeClock) -> None:
    state.create_loop(OBJECTIVE, "npm test", loop_id="fix-tests", pid=None)
    state.create_loop(OBJECTIVE, "npm test", loop_id="put-away", pid=None)
    state.archive_loop("put-away")
    state.checkpoint("fix-tests", "early")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("hostile") / "project", build)


@pytest.fixture
def state(original: Path, tmp_path: Path) -> Iterator[StateRepository]:
    repository, _ = copy(original, tmp_path / "project")
    with repository:
        yield repository


def stands(outside: Path) -> dict[str, object]:
    """Everything that lies outside: kinds, modes, sizes, times of writing, bytes."""
    found: dict[str, object] = {}
    for path in [outside, *sorted(outside.rglob("*"))]:
        seen = path.lstat()
        raw = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(outside))] = (seen.st_mode, seen.st_mtime_ns, seen.st_size, raw)
    return found


def everything(state: StateRepository) -> list[str]:
    """What every read and then every kind of mutation says; documented errors and warnings are answers."""
    said: list[str] = []
    calls: list[Callable[[], object]] = [
        lambda: state.get_loop("fix-tests"),
        lambda: state.get_loop("put-away"),
        state.load_registry,
        state.list_archived_loops,
        state.list_checkpoints,
        lambda: list(state.log()),
        state.status,
        lambda: state.check(full=True),
        state.diagnose,
        state.lease_info,
        state.init,
        lambda: state.update_loop("fix-tests", {"note": "mine"}),
        lambda: state.create_loop("another", "done", loop_id="another", pid=None),
        lambda: state.record_iteration("another", {"number": 1}),
        lambda: state.archive_loop("another"),
        lambda: state.checkpoint("fix-tests", "late"),
        lambda: state.restore_loop("put-away"),
        lambda: state.rollback("fix-tests", steps=1),
        lambda: state.break_lease(force=True),
        state.repair,
        lambda: state.get_loop("fix-tests"),
    ]
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for call in calls:
            try:
                said.append(repr(call()))
            except gitstate.GitStateError as error:
                said.append(f"{error.code}: {error.message}")
    return said


# --- links that are there from the beginning -------------------------------------------------------------------------

RECORDS = ("registry.json", "loops/fix-tests/session-state.json", "archive/put-away/session-state.json")
FILES = (
    *RECORDS, "registry.json.lock", "session-state.json", ".git/HEAD", ".git/config", ".git/index", ".git/packed-refs",
    ".git/info/exclude", ".git/refs/heads/main", ".git/refs/tags/archive/put-away", ".git/logs/refs/heads/main",
    ".git/gitstate/guard", ".git/gitstate/turn", ".git/gitstate/generation", ".git/gitstate/projected",
    ".git/gitstate/journal", ".git/refs/heads/main.lock", ".git/index.lock", "OBJECT",
)  # fmt: skip
DIRECTORIES = (
    "loops", "archive", "shared", "loops/fix-tests", "loops/fix-tests/iterations", "archive/put-away", ".git",
    ".git/objects", ".git/objects/pack", ".git/objects/info", "FAN", ".git/refs", ".git/refs/heads", ".git/refs/tags",
    ".git/refs/tags/archive", ".git/refs/tags/checkpoint", ".git/logs", ".git/logs/refs", ".git/logs/refs/heads",
    ".git/gitstate", ".git/gitstate/aside", ".git/gitstate/quarantine", ".git/info",
)  # fmt: skip


def place_of(state: StateRepository, name: str) -> Path:
    """The path of a place; of the newest commit, or its directory, where those are meant."""
    if name in ("OBJECT", "FAN"):
        loosen(state.base_dir)
    newest = git(state.base_dir, "rev-parse", "HEAD").stdout.strip()
    fan = state.base_dir / ".git/objects" / newest[:2]
    return {"OBJECT": fan / newest[2:], "FAN": fan}.get(name, state.base_dir / name)


def moved_out(path: Path, outside: Path) -> Path:
    """What stands at *path*, moved outside, with another objective in every record; something else if nothing stands there."""
    outside.mkdir(exist_ok=True)
    target = outside / "there"
    if path.is_symlink():
        path.unlink()
    if path.exists():
        shutil.move(path, target)
    elif path.suffix == ".lock" or path.name in ("packed-refs", "turn", "session-state.json"):
        target.write_text(f'{{"status": "running", "objective": "{SECRET}", "pid": 1}}')
    else:
        target.mkdir()
        (target / "kept").write_text(SECRET)
    for file in [target, *target.rglob("*.json")]:
        if file.suffix == ".json" or path.suffix == ".json":
            file.write_text(file.read_text().replace(OBJECTIVE, SECRET))
    return target


@pytest.mark.parametrize("name", FILES + DIRECTORIES)
def test_where_a_symlink_leads_is_neither_read_as_state_nor_written(
    state: StateRepository, tmp_path: Path, name: str
) -> None:
    path = place_of(state, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = moved_out(path, tmp_path / "outside")
    path.symlink_to(target)
    before = stands(tmp_path / "outside")
    said = everything(state)
    assert stands(tmp_path / "outside") == before
    assert [words for words in said if SECRET in words] == []


@pytest.mark.parametrize("name", FILES)
def test_where_a_symlink_dangles_nothing_is_made(state: StateRepository, tmp_path: Path, name: str) -> None:
    path = place_of(state, name)
    with suppress(FileNotFoundError):
        path.unlink()
    path.symlink_to(tmp_path / "outside")
    everything(state)
    assert not os.path.lexists(tmp_path / "outside")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_a_second_name_outside_keeps_its_bytes_there(
    state: StateRepository, tmp_path: Path, name: str
) -> None:
    path = place_of(state, name)
    if path.is_symlink() or not path.exists():
        path.unlink(missing_ok=True)
        path.write_text("{}")
    (tmp_path / "outside").mkdir()
    os.link(path, tmp_path / "outside/there")
    raw = path.read_bytes()
    everything(state)
    assert (tmp_path / "outside/there").read_bytes() == raw


@pytest.mark.parametrize("where", [".git/gitstate/aside", "."])
def test_a_temporary_name_that_is_taken_is_not_written_through(
    state: StateRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count=16: "00" * count)
    victim = tmp_path / "victim"
    victim.write_text(SECRET)
    (state.base_dir / where).mkdir(exist_ok=True)
    for name in (f"{os.getpid()}-{'00' * 6}", f"{os.getpid()}-{'00' * 4}", "registry.json.tmp"):
        (state.base_dir / where / name).symlink_to(victim)
    said = everything(state)
    assert victim.read_text() == SECRET
    assert [words for words in said if SECRET in words] == []


# --- links that are swapped in meanwhile -----------------------------------------------------------------------------

SWAPPED = (
    "registry.json", "registry.json.lock", "loops/fix-tests/session-state.json", "loops/fix-tests", "loops", "archive",
    ".git", ".git/objects", "FAN", ".git/refs/heads", ".git/refs/heads/main", ".git/gitstate", ".git/gitstate/aside",
    ".git/gitstate/guard", ".git/logs/refs/heads",
)  # fmt: skip
OPERATIONS: dict[str, Callable[[StateRepository], object]] = {
    "update": lambda state: state.update_loop("fix-tests", {"note": "mine"}),
    "archive": lambda state: state.archive_loop("fix-tests"),
    "restore": lambda state: state.restore_loop("put-away"),
    "repair": lambda state: state.repair(),
    "read": lambda state: state.get_loop("fix-tests"),
}


@contextmanager
def before_each_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> Iterator[list[int]]:
    """Calls *act* with its number before each use of a directory; how many there were."""
    taken = [0]

    def counting(function: FunctionType) -> FunctionType:
        @wraps(function)
        def called(*words: Any, **options: Any) -> Any:
            taken[0] += 1
            act(taken[0])
            return function(*words, **options)

        return called  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        for name in ("_open", "descriptor"):
            patch.setattr(Directory, name, counting(vars(Directory)[name]))
        yield taken


@pytest.mark.parametrize("name", SWAPPED)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_symlink_swapped_in_during_an_operation_leads_nowhere(
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    name: str,
    full: bool,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    counted, _ = copy(original, tmp_path / "counted")
    with counted, before_each_look(monkeypatch, lambda number: None) as taken:
        OPERATIONS[operation](counted)
    looks = list(range(1, taken[0] + 1))
    wrong = []
    chosen = looks if full else draw(looks, times(1), seed)
    for look in chosen:
        project, outside = tmp_path / f"project-{look}", tmp_path / f"outside-{look}"
        (tmp_path / f"hidden-{look}").mkdir()
        state, _ = copy(original, project)
        path = place_of(state, name)
        hidden = tmp_path / f"hidden-{look}" / path.name
        before: dict[str, object] = {}

        def swap(
            number: int, look: int = look, path: Path = path, outside: Path = outside, hidden: Path = hidden
        ) -> None:
            if number == look and (os.path.lexists(path) or name.endswith(".lock")):
                with suppress(OSError):
                    # What was open stays open, and is no less the state directory's for having been moved away.
                    shutil.copytree(path, hidden, symlinks=True) if path.is_dir() else shutil.copy(path, hidden)
                    target = moved_out(hidden, outside)
                    path.rename(tmp_path / f"away-{look}")
                    path.symlink_to(target)
                    before.update(stands(outside))  # noqa: B023  # called in this very turn

        said = ""
        with state, before_each_look(monkeypatch, swap), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                said = repr(OPERATIONS[operation](state))
            except gitstate.GitStateError as error:
                said = error.message
        if before and stands(outside) != before:
            wrong.append(f"look {look}: outside is written")
        if SECRET in said:
            wrong.append(f"look {look}: read as state")
        shutil.rmtree(project)
    record_property(
        "figures", f"swapped in, {operation}, {name}: {len(chosen)} of {len(looks)} looks, {len(wrong)} wrong"
    )
    assert wrong == []


# --- repositories that lead elsewhere --------------------------------------------------------------------------------


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


REFUSED: dict[str, Callable[[Path, Path], object]] = {
    "alternates": lambda base, other: write(base / ".git/objects/info/alternates", f"{other}/.git/objects\n"),
    "alternates by http": lambda base, other: write(base / ".git/objects/info/http-alternates", "http://localhost/\n"),
    "grafts": lambda base, other: write(base / ".git/info/grafts", git(base, "rev-parse", "HEAD").stdout),
    "shallow": lambda base, other: write(base / ".git/shallow", git(base, "rev-parse", "HEAD").stdout),
    "a common directory": lambda base, other: write(base / ".git/commondir", f"{other}/.git\n"),
    "a file that names another": lambda base, other: (
        shutil.move(base / ".git", other / "moved"), write(base / ".git", f"gitdir: {other}/moved\n"),
    ),
    "a configuration of 10 MB": lambda base, other: write(base / ".git/config", "# x\n" * 2_500_000),
    "another format": lambda base, other: git(base, "config", "gitstate.format", "2"),
    "none of ours": lambda base, other: (shutil.rmtree(base / ".git"), shutil.copytree(other / ".git", base / ".git")),
    "none of ours, and empty": lambda base, other: (shutil.rmtree(base / ".git"), git(base, "init", "-q")),
    "a bare one": lambda base, other: (shutil.rmtree(base / ".git"), git(base, "init", "-q", "--bare", ".git")),
}  # fmt: skip


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A repository of somebody else's."""
    directory = tmp_path / "other"
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main")
    (directory / "registry.json").write_text(f'{{"active_loops": [], "note": "{SECRET}"}}')
    git(directory, "add", ".")
    git(directory, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "theirs")
    return directory


def assert_refused(state: StateRepository) -> None:
    for call in (
        lambda: state.get_loop("fix-tests"),
        state.load_registry,
        lambda: list(state.log()),
        state.check,
        state.init,
        lambda: state.update_loop("fix-tests", {"note": "mine"}),
        state.repair,
    ):
        with pytest.raises(UnsafeRepositoryError) as caught:
            call()
        assert caught.value.hint


@pytest.mark.parametrize("way", REFUSED)
def test_a_repository_that_cannot_be_vouched_for_is_refused_with_a_hint(
    state: StateRepository, other: Path, way: str
) -> None:
    REFUSED[way](state.base_dir, other)
    before = stands(state.base_dir), stands(other)
    assert_refused(state)
    assert (stands(state.base_dir), stands(other)) == before


def test_a_repository_of_another_user_is_refused_with_a_hint(
    state: StateRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert_refused(state)


def test_replace_refs_change_no_answer_and_are_found(state: StateRepository) -> None:
    before = [change.revision for change in state.log()], state.get_loop("fix-tests", at="HEAD")
    git(state.base_dir, "replace", "HEAD", "HEAD~2")
    assert ([change.revision for change in state.log()], state.get_loop("fix-tests", at="HEAD")) == before
    assert "history_replaced" in [finding.code for finding in state.check(full=True)]
    git(state.base_dir, "replace", "-d", git(state.base_dir, "replace", "-l").stdout.strip())


# --- programs --------------------------------------------------------------------------------------------------------

HOOKS = (
    "pre-commit", "commit-msg", "prepare-commit-msg", "post-commit", "pre-push", "post-checkout", "post-merge",
    "reference-transaction", "post-index-change", "pre-auto-gc", "fsmonitor-watchman",
)  # fmt: skip


def config_of(trap: Path, home: Path) -> str:
    """Every setting by which git runs a program or reads elsewhere."""
    return f"""
[core]
\thooksPath = {trap.parent}
\tfsmonitor = {trap}
\tsshCommand = {trap}
\tpager = {trap}
\teditor = {trap}
\taskPass = {trap}
\tworktree = {home}
\tattributesFile = {home}/attributes
\texcludesFile = {home}/ignore
[include]
\tpath = {home}/included
[includeIf "gitdir:/"]
\tpath = {home}/included
[filter "trap"]
\tclean = {trap}
\tsmudge = {trap}
\tprocess = {trap}
\trequired = true
[diff]
\texternal = {trap}
[diff "trap"]
\ttextconv = {trap}
\tcommand = {trap}
[merge "trap"]
\tdriver = {trap}
[commit]
\tgpgSign = true
[tag]
\tgpgSign = true
[gpg]
\tprogram = {trap}
\tformat = ssh
[gpg "ssh"]
\tprogram = {trap}
\tdefaultKeyCommand = {trap}
[credential]
\thelper = {trap}
[gc]
\tauto = 1
[alias]
\tlog = !{trap}
[extensions]
\tpartialClone = origin
[remote "origin"]
\turl = ext::{trap}
\tpromisor = true
\tuploadpack = {trap}
"""


SCRIPT = """
import warnings
import gitstate
warnings.simplefilter("ignore")
with gitstate.open({root!r}, actor="user:alice") as state:
    state.update_loop("fix-tests", {{"note": "mine"}})
    state.record_iteration("fix-tests", {{"number": 1}})
    state.create_loop("another", "done", loop_id="another", pid=None)
    state.archive_loop("another")
    state.restore_loop("another")
    state.checkpoint("fix-tests", "late")
    state.rollback("fix-tests", steps=1)
    state.status(); state.check(full=True); state.diagnose(); list(state.log(fields=True))
    state.repair()
    print(state.get_loop("fix-tests")["note"])
"""
WRITES = re.compile(
    r"(?:O_WRONLY|O_RDWR|O_CREAT|O_TRUNC)|^(?:rename|link|unlink|mkdir|rmdir|symlink|chmod|fchmod|truncate)"
)


@pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")
@pytest.mark.parametrize("around", [False, True], ids=["alone", "in a repository"])
def test_no_program_is_run_and_nothing_outside_is_written(state: StateRepository, tmp_path: Path, around: bool) -> None:
    base, home, log = state.base_dir, tmp_path / "home", tmp_path / "log"
    trap = tmp_path / "traps/trap"
    write(trap, f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n", 0o700)
    for hook in HOOKS:
        shutil.copy(trap, trap.parent / hook)
        (base / ".git/hooks").mkdir(exist_ok=True)
        shutil.copy(trap, base / ".git/hooks" / hook)
    hostile = config_of(trap, home)
    write(home / ".gitconfig", hostile)
    write(home / "included", f"[core]\n\tfsmonitor = {trap}\n")
    config = base / ".git/config"
    config.write_text(config.read_text() + hostile)
    for attributes in (base / ".gitattributes", base / ".git/info/attributes", home / "attributes"):
        write(attributes, "* filter=trap diff=trap merge=trap\n")
    if around:
        git(state.project_root, "init", "-q")
        shutil.copy(trap, state.project_root / ".git/hooks/post-index-change")
    environment = {
        **os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_SSH_COMMAND": str(trap), "GIT_EXTERNAL_DIFF": str(trap), "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": str(trap), "GIT_DIR": str(home),
    }  # fmt: skip
    command = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-s",
        "4096",
        "-o",
        str(log),
        "-e",
        "trace=%file,execve,execveat,fchmod,ftruncate",
    ]
    script = SCRIPT.format(root=str(state.project_root))
    done = subprocess.run([*command, sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
    assert not (tmp_path / "sprung").exists()
    calls = [line.split(None, 1)[1] for line in log.read_text(errors="replace").splitlines()]
    assert len([call for call in calls if re.match(r"execve(at)?\(.* = 0$", call)]) == 1
    allowed = {str(base)} | ({str(state.project_root / ".git/info")} if around else set())
    changing = [call for call in calls if WRITES.search(call) and not re.search(r" = -1 E\w+", call)]
    assert len(changing) > 100
    strangers = [call for call in changing if not any(place in call for place in allowed) and "/dev/" not in call]
    assert strangers == []
    assert [call for call in calls if str(home) in call and "O_RDONLY" in call] == []
    config.write_text(re.sub(r"\n\[core\]\n\thooksPath.*", "\n", config.read_text(), flags=re.DOTALL))
    (base / ".git/info/attributes").unlink()
    (base / ".gitattributes").unlink()
    assert_sound(state.project_root)


# --- what users do is not hostile ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "remote add origin ssh://host/path", "gc -q --prune=now", "pack-refs --all", "tag v1", "tag -a -m x v2",
        "config user.name Alice", "config core.editor vim", "branch mine", "config --add remote.origin.fetch x",
    ],
)  # fmt: skip
def test_what_users_do_is_not_hostile(state: StateRepository, words: str) -> None:
    git(state.base_dir, "-c", "user.name=x", "-c", "user.email=x@x", *words.split())
    assert state.get_loop("fix-tests")["objective"] == OBJECTIVE
    state.update_loop("fix-tests", {"note": "mine"})
    state.archive_loop("fix-tests")
    assert_sound(state.project_root)
