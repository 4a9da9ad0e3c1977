"""A project worth damaging, what can be done to its files, and what it answers afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from clocks import FakeClock

import gitstate
from gitstate import StateRepository

ACTIVE = ("build-it", "fix-tests")
ARCHIVED = ("put-away", "long-gone")
LOOPS = (*ACTIVE, *ARCHIVED)

Answers = dict[str, object]


def base_of(project: Path) -> Path:
    return project / ".aiwg" / "ralph-external"


def opened(project: Path) -> StateRepository:
    """The state under a clock of its own, so that no wait takes time."""
    return StateRepository(project, actor="user:alice", clock=FakeClock())


def build(project: Path) -> None:
    """History in a pack and loose, refs packed and loose, tags, archives, a checkpoint, an index, no left-overs."""
    project.mkdir(parents=True)
    with opened(project) as state:
        for loop_id in LOOPS:
            state.create_loop(f"reach the end of {loop_id}", "npm test", loop_id=loop_id, pid=None)
        for number in (1, 2, 3):
            state.record_iteration("fix-tests", {"number": number, "status": "done", "learnings": f"lesson {number}"})
        state.checkpoint("fix-tests", "early")
        state.archive_loop("long-gone", status="completed")
    base = base_of(project)
    subprocess.run(["git", "gc", "-q", "--prune=now"], cwd=base, check=True, capture_output=True)
    with opened(project) as state:
        state.update_loop("build-it", {"status": "paused", "note": "an unknown key"})
        state.record_iteration("fix-tests", {"learnings": "lesson 4", "filesModified": ["a.py"]})
        state.archive_loop("put-away", status="failed")
        state.checkpoint("fix-tests", "late")
        state.update_entry("build-it", owner="team", priority="high", tags=["nightly"])
        state.record_iteration("build-it", {"learnings": ["the first", "of many"]})


def files_of(base: Path) -> list[str]:
    """Every file below, symlinks among them, by its relative name."""
    found = [Path(above) / name for above, _, names in os.walk(base) for name in names]
    return sorted(str(path.relative_to(base)) for path in found)


# --- ways to damage a file -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One file, and one thing done to it."""

    file: str
    way: str
    at: int = 0
    mask: int = 1

    def __str__(self) -> str:
        return f"{self.file}: {self.way}" + (f" byte {self.at} by {self.mask:#04x}" if self.way == "flip" else "")

    def apply(self, base: Path, outside: Path) -> None:
        """Do it. *outside* is a directory that a symlink may point into."""
        path = base / self.file
        raw = path.read_bytes() if path.is_file() else b""
        if self.way == "flip":
            changed = bytearray(raw)
            changed[self.at] ^= self.mask
            _overwrite(path, bytes(changed))
        elif self.way.startswith("truncate"):
            _overwrite(path, raw[: {"0": 0, "1": 1, "half": len(raw) // 2, "last": len(raw) - 1}[self.way.split()[1]]])
        elif self.way == "zero":
            _overwrite(path, b"\0" * len(raw))
        else:
            path.chmod(0o600)
            path.unlink()
            if self.way == "directory":
                (path / "inside").mkdir(parents=True)
            elif self.way == "fifo":
                os.mkfifo(path)
            elif self.way == "dangling":
                path.symlink_to(outside / "nothing")
            elif self.way == "symlink":  # to what was there: nobody could tell by the bytes that it was followed
                (outside / "copy").write_bytes(raw)
                path.symlink_to(outside / "copy")


def _overwrite(path: Path, raw: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(raw)


TRUNCATIONS = ("truncate 0", "truncate 1", "truncate half", "truncate last")
REPLACEMENTS = ("delete", "directory", "symlink", "dangling", "fifo")


def plain_cases(base: Path) -> list[Case]:
    """Everything but flips, for every file."""
    cases = []
    for file in files_of(base):
        size = (base / file).stat().st_size
        cases += [Case(file, way) for way in (*TRUNCATIONS, "zero") if size > (way == "truncate 1")]
        cases += [Case(file, way) for way in REPLACEMENTS]
    return cases


_SAMPLE = (
    1000  # places that are tried in what is written of a preallocated file, and as many as a tenth of that behind it
)


def places_in(path: Path, random: random.Random) -> Iterable[int]:
    """Where the bytes of a file are to be flipped: everywhere, in the journal at some places."""
    size = path.stat().st_size
    if path.name != "journal":
        return range(size)
    written = len(path.read_bytes().rstrip(b"\0"))
    return [*random.sample(range(written), min(written, _SAMPLE)), *random.sample(range(written, size), _SAMPLE // 10)]


def flips(base: Path, count: int, random: random.Random) -> list[Case]:
    """*count* flips, files taken in turn so that the small ones are not forgotten."""
    sizes = {file: (base / file).stat().st_size for file in files_of(base)}
    names = [file for file, size in sizes.items() if size]
    cases = []
    for number in range(count):
        file = names[number % len(names)]
        mask = random.choice([1 << random.randrange(8), random.randrange(1, 256)])
        cases.append(Case(file, "flip", random.randrange(sizes[file]), mask))
    return cases


# --- what it answers -------------------------------------------------------------------------------------------------


class Hang(BaseException):
    """Something took longer than it may; no handler of errors catches this."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises Hang when the block takes longer."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Refusal:
    """A documented error, as an answer."""

    error: gitstate.GitStateError


def ask(question: Callable[[], object]) -> object:
    """An answer, or the documented error; any other exception is a failure and passes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gitstate.GitStateWarning)
        try:
            return question()
        except gitstate.GitStateError as error:
            return Refusal(error)


def answers(state: StateRepository, revisions: list[str]) -> Answers:
    """What all reads answer; *revisions* are moments to look back at."""
    questions: dict[str, Callable[[], object]] = {
        **{f"get_loop {loop_id}": lambda i=loop_id: state.get_loop(i) for loop_id in LOOPS},
        "load_registry": state.load_registry,
        "list_active_loops": state.list_active_loops,
        **{f"fix-tests at {at[:7]}": lambda r=at: state.get_loop("fix-tests", at=r) for at in revisions},
        **{f"registry at {at[:7]}": lambda r=at: state.load_registry(at=r) for at in revisions},
        "log": lambda: list(state.log()),
        "list_archived_loops": lambda: [loop.loop_id for loop in state.list_archived_loops()],
        "list_checkpoints": lambda: [(point.loop_id, point.tag, point.revision) for point in state.list_checkpoints()],
        "revision": state.revision,
    }
    return {name: ask(question) for name, question in questions.items()}


def present(state: StateRepository) -> Answers:
    """The present alone, without what only says when or how often something was written."""
    return {
        **{loop_id: undated(state.get_loop(loop_id)) for loop_id in LOOPS},
        "registry": undated(state.load_registry()),
    }


def undated(value: object) -> object:
    """A record without stamps and dates of writing."""
    if isinstance(value, dict):
        return {k: undated(v) for k, v in value.items() if k not in ("gitstate", "lastUpdate", "updated_at")}
    return [undated(item) for item in value] if isinstance(value, list) else value


def copied(source: Path, target: Path) -> Path:
    """A copy of a project, with its symlinks and times."""
    shutil.copytree(source, target, symlinks=True)
    return target
