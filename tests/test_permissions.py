"""Permissions: where nothing may be written reads go on, without one call that would write; and writes fail clearly.

Root may write everywhere, so under root a child becomes somebody else before it tries.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import assert_sound
from faults import strace

import gitstate
from gitstate import StateRepository

NOBODY = 65534
LOOP = "fix-tests"


def build(project: Path) -> None:
    with gitstate.open(project, actor="user:alice") as state:
        state.create_loop("fix the tests", "npm test", loop_id=LOOP, pid=None)
        state.create_loop("long done", "npm test", loop_id="put-away", pid=None)
        state.archive_loop("put-away")
        state.checkpoint(LOOP, "early")
        everything_read(state)  # what is imported late is imported now: a child may not be able to


@pytest.fixture
def project() -> Iterator[Path]:
    """A project of somebody's, in a place that anybody can reach."""
    with tempfile.TemporaryDirectory(prefix="gitstate-permissions-") as place:
        Path(place).chmod(0o755)
        root = Path(place) / "project"
        root.mkdir()
        build(root)
        if os.geteuid() == 0:
            for path in [root, *root.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        yield root
        for path in [root, *root.rglob("*")]:
            if not path.is_symlink():
                os.chown(path, os.geteuid(), os.getegid())
                path.chmod(0o700 if path.is_dir() else 0o600)
        assert_sound(root)


@pytest.fixture
def base(project: Path) -> Path:
    return project / ".aiwg" / "ralph-external"


def forbid(*paths: Path, everything_below: bool = True) -> None:
    for path in paths:
        for inner in [*(path.rglob("*") if everything_below and path.is_dir() else ()), path]:
            if not inner.is_symlink():
                inner.chmod(0o555 if inner.is_dir() else 0o444)


def as_somebody(project: Path, call: Callable[[StateRepository], object]) -> dict[str, object]:
    """What a process that is not root says: ``answer`` or ``error``, ``warnings`` and the ``seconds`` that it took."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setegid(NOBODY)
                os.seteuid(NOBODY)
            os.write(writing, json.dumps(_said(project, call)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said: dict[str, object] = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return said


def _said(project: Path, call: Callable[[StateRepository], object]) -> dict[str, object]:
    began = time.monotonic()
    said: dict[str, object] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said["answer"] = call(gitstate.open(project, actor="user:alice", lock_timeout=5))
        except gitstate.GitStateError as error:
            said |= {"error": error.code, "exit_code": error.exit_code, "message": error.message, "hint": error.hint}
        except BaseException as error:
            said["undocumented"] = repr(error)
    return {**said, "warnings": [str(item.message) for item in caught], "seconds": time.monotonic() - began}


def everything_read(state: StateRepository) -> list[object]:
    return [
        state.get_loop(LOOP), state.get_loop("put-away"), state.load_registry(), state.get_loop(LOOP, at="HEAD~1"),
        [change.to_dict() for change in state.log(fields=True)], [loop.to_dict() for loop in state.list_archived_loops()],
        [point.to_dict() for point in state.list_checkpoints()], state.revision(), state.lease_info(),
        [change.to_dict() for change in state.diff("HEAD~2")], [finding.to_dict() for finding in state.check(full=True)],
        state.liveness(LOOP).to_dict(), state.rollback(LOOP, steps=1, dry_run=True).operation,
    ]  # fmt: skip


def stands(project: Path) -> dict[str, object]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in project.rglob("*")
    }


# --- reading ---------------------------------------------------------------------------------------------------------


def test_where_nothing_may_be_written_all_reads_answer_the_same(project: Path, base: Path) -> None:
    before = as_somebody(project, everything_read)
    forbid(project)
    stood = stands(project)
    after = as_somebody(project, everything_read)
    assert "answer" in before
    assert (after["answer"], after["warnings"]) == (before["answer"], [])
    assert stands(project) == stood


WRITES = re.compile(
    r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND"
    r"|^(rename|link|unlink|mkdir|rmdir|symlink|mknod|chmod|fchmod|chown|fchown|truncate|ftruncate|utime|setxattr)"
    r"|^(write|pwrite|writev|fsync|fdatasync|flock|fallocate|copy_file_range|sendfile)"
)
READS = """
import gitstate
with gitstate.open({root!r}) as state:
    state.get_loop("fix-tests"); state.get_loop("put-away"); state.load_registry(); state.get_loop("fix-tests", at="HEAD~1")
    list(state.log(fields=True)); state.list_archived_loops(); state.list_checkpoints(); state.revision()
    state.lease_info(); state.diff("HEAD~2"); state.check(full=True); state.liveness("fix-tests"); state.status()
    state.rollback("fix-tests", steps=1, dry_run=True); state.repair(dry_run=True)
"""


@pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")
@pytest.mark.parametrize("out_of_line", [False, True], ids=["in line", "out of line"])
def test_a_read_makes_no_call_that_writes(tmp_path: Path, out_of_line: bool) -> None:
    project = tmp_path / "project"
    project.mkdir()
    build(project)
    base = project / ".aiwg" / "ralph-external"
    if out_of_line:  # a file that is damaged, one that is missing, one that was edited
        (base / "registry.json").write_text("{")
        (base / "archive/put-away/session-state.json").unlink()
        state = base / "loops" / LOOP / "session-state.json"
        state.write_text(state.read_text().replace("fix the tests", "fix all the tests"))
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-o",
        str(log),
        sys.executable,
        "-W",
        "ignore",
        "-c",
        READS.format(root=str(project)),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = [line.split(None, 1)[1] for line in log.read_text(errors="replace").splitlines()]
    assert any(f'"{name}"' in call for name in ("registry.json",) for call in calls)
    writing = [call for call in calls if WRITES.search(call) and "/dev/" not in call and "pipe:" not in call]
    assert writing == []
    if out_of_line:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gitstate.open(project).repair()
    assert_sound(project)


def test_a_file_that_may_not_be_read_is_seen_through(project: Path, base: Path) -> None:
    before = as_somebody(project, lambda state: state.load_registry())
    (base / "registry.json").chmod(0)
    after = as_somebody(project, lambda state: state.load_registry())
    assert after["answer"] == before["answer"]
    (words,) = after["warnings"]  # type: ignore[misc]
    assert words.startswith("registry.json: permission denied, served from ")


def test_a_repository_that_may_not_be_read_is_a_documented_error(project: Path, base: Path) -> None:
    (base / ".git/refs/heads/main").chmod(0)
    said = as_somebody(project, lambda state: state.load_registry())
    assert (said["error"], "permission denied" in str(said["message"])) == ("corrupt_state", True)


# --- writing ---------------------------------------------------------------------------------------------------------

MUTATIONS: dict[str, Callable[[StateRepository], object]] = {
    "update": lambda state: state.update_loop(LOOP, {"note": "mine"}),
    "create": lambda state: state.create_loop("x", "y", loop_id="another", pid=None),
    "iterate": lambda state: state.record_iteration(LOOP, {"number": 1}),
    "archive": lambda state: state.archive_loop(LOOP).operation,
    "restore": lambda state: state.restore_loop("put-away"),
    "checkpoint": lambda state: state.checkpoint(LOOP, "late").operation,
    "rollback": lambda state: state.rollback(LOOP, steps=1).operation,
    "limit": lambda state: state.set_max_concurrent_loops(7),
    "break": lambda state: state.break_lease(force=True).to_dict(),
}
FORBIDDEN = (".", ".git", ".git/objects", ".git/refs/heads", ".git/gitstate", ".git/gitstate/aside")


@pytest.mark.parametrize("name", MUTATIONS)
def test_where_nothing_may_be_written_every_mutation_fails_clearly_and_at_once(project: Path, name: str) -> None:
    forbid(project)
    before = stands(project)
    said = as_somebody(project, MUTATIONS[name])
    assert stands(project) == before
    if name == "break":  # nobody holds it: that needs no writing to be said
        assert said["error"] in ("refused", "storage")
        return
    assert (said["error"], said["exit_code"]) == ("storage", 9)
    assert "permission denied" in str(said["message"])
    assert said["hint"] == "look at the owner and mode of the state directory"
    assert float(str(said["seconds"])) < 4


@pytest.mark.parametrize("place", FORBIDDEN)
def test_a_directory_that_may_not_be_written_leaves_the_state_as_it_was(project: Path, base: Path, place: str) -> None:
    before = as_somebody(project, lambda state: [state.get_loop(LOOP), state.revision()])["answer"]
    if not (base / place).exists():
        (base / place).mkdir()
    forbid(base / place, everything_below=place != ".")
    said = as_somebody(project, MUTATIONS["update"])
    assert (said.get("error"), said.get("exit_code")) == ("storage", 9), said
    after = as_somebody(project, lambda state: [state.get_loop(LOOP), state.revision()])["answer"]
    assert after == before


@pytest.mark.parametrize("place", ["loops/fix-tests", ".git/logs/refs/heads"])
def test_what_cannot_be_written_after_the_commit_point_is_a_warning(project: Path, base: Path, place: str) -> None:
    forbid(base / place)
    said = as_somebody(project, MUTATIONS["update"])
    assert "answer" in said, said
    assert any("is committed, but" in words for words in said["warnings"])  # type: ignore[attr-defined]
    seen = as_somebody(project, lambda state: state.get_loop(LOOP)["note"])  # type: ignore[typeddict-item]
    assert seen["answer"] == "mine"
    (base / place).chmod(0o755)
    assert "error" not in as_somebody(project, lambda state: state.set_max_concurrent_loops(6))


def test_doctor_says_that_nothing_can_be_written(project: Path) -> None:
    forbid(project)
    said = as_somebody(project, lambda state: [(item.code, item.message) for item in state.diagnose()])
    ((code, message),) = said["answer"]  # type: ignore[misc]
    assert (code, "permission denied" in message) == ("file_system", True)


def test_a_file_system_that_is_mounted_read_only(project: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs the right to mount")
    for path in [project, *project.rglob("*")]:
        os.chown(path, 0, 0, follow_symlinks=False)
    program = (
        "import sys, gitstate\n"
        f"state = gitstate.open({str(project)!r})\n"
        "assert state.get_loop('fix-tests')['loopId'] == 'fix-tests'\n"
        "try:\n    state.update_loop('fix-tests', {'note': 1})\n"
        "except gitstate.StorageError as error:\n    print(error.code, error.hint)\n"
    )
    mounted = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; exec "$2" -c "$3"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "-m", "sh", "-c", mounted, "sh", str(project), sys.executable, program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("needs the right to mount")
    assert done.stdout == "storage the file system is mounted read-only\n", done.stderr
