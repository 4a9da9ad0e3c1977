"""The operations under test: each prepares a project, then performs one acknowledged operation, or a few in turn.

They use the public interface only, and a clock that stands still, so that two runs from the same start end in the
same state, byte for byte.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import socket
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wrapping import git, loosen, repack

import gitstate
import gitstate.medium
import gitstate.process
from gitstate.durable import Directory
from gitstate.layout import ASIDE
from gitstate.store import consolidation, stepwise

if TYPE_CHECKING:
    from faults.zygote import Answer

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
BEGIN = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"


class StandingClock:
    """A wall clock that stands at *moment*; what is waited for, comes ten times as fast."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return time.monotonic() * 10

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 10)


def opened(root: str | Path, minute: int, *, lock_timeout: float = 5.0) -> gitstate.StateRepository:
    """The state of a project, with the clock *minute* minutes after the beginning."""
    clock = StandingClock(BEGIN + timedelta(minutes=minute))
    return gitstate.StateRepository(root, actor="user:alice", lock_timeout=lock_timeout, clock=clock)


Step = Callable[[gitstate.StateRepository], object]


@dataclass(frozen=True)
class Operation:
    """One operation: from which start, and what is done.

    ``adopts``: what lies there is taken over first, as ``init`` would. ``needs_repair``: without it nothing works.
    """

    start: Callable[[Path], None]
    perform: Step
    adopts: bool = False
    needs_repair: bool = False


# --- where they start ------------------------------------------------------------------------------------------------


def nothing(root: Path) -> None:
    """An empty project."""


def furnished(root: Path) -> None:
    """Two active loops with some history, an archived one, a checkpoint."""
    state = opened(root, 1)
    for name in ("alpha", "beta", "gamma"):
        state.create_loop(f"Work on {name}", "npm test passes", loop_id=name, pid=None, working_dir="/work")
    state = opened(root, 2)
    state.record_iteration("alpha", {"status": "failed", "learnings": ["One thing."], "filesModified": ["a.py"]})
    state.update_loop("alpha", {"currentIteration": 3, "status": "paused"})
    state.checkpoint("alpha", "first")
    state = opened(root, 3)
    (state.get_loop_dir("gamma") / "prompts" / "001-prompt.md").write_text("Do it.\n")
    (state.get_loop_dir("beta") / "outputs" / "001-stdout.log").write_text("Done.\n")
    state.archive_loop("gamma", status="completed")
    state.update_loop("alpha", {"currentIteration": 4})


def worn(root: Path) -> None:
    """With packs of git's, deltas among them, loose objects, and tags that are packed and loose."""
    furnished(root)
    state = opened(root, 4)
    git(state, "pack-refs", "--all")
    for number in range(2):
        repack(state)
        state.record_iteration("alpha", {"number": 5 + number, "status": "ok", "learnings": ["Much the same. " * 40]})
    loosen(state)
    state.checkpoint("alpha", "second")


def grown(root: Path) -> None:
    """With packs whose deltas name their bases by id, as gitstate's own do."""
    furnished(root)
    for number in range(6):
        state = opened(root, 4 + number)
        words = "".join(hashlib.sha1(b"%d %d" % (number, each)).hexdigest() for each in range(300))
        state.record_iteration("alpha", {"number": 5 + number, "status": "ok", "learnings": [words]})
        if number % 2:
            repack(state, by_offset=False)


def edited(root: Path) -> None:
    """Edited outside: a state changed, a loop of the original's added, one archived the original's way."""
    furnished(root)
    state = opened(root, 4)
    path = state.get_loop_dir("alpha") / "session-state.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "currentIteration": 9, "note": "by hand"}, indent=2))
    new = state.loops_dir / "stray"
    new.mkdir()
    (new / "session-state.json").write_text(json.dumps({**record, "loopId": "stray", "status": "running"}, indent=2))
    (state.loops_dir / "beta").rename(state.archive_dir / "beta")


def damaged(root: Path) -> None:
    """Files that a power cut or a bad disk left damaged, and a lock of the branch that a kill left."""
    furnished(root)
    base = opened(root, 4).base_dir
    path = base / "loops" / "alpha" / "session-state.json"
    path.write_bytes(path.read_bytes()[:100])
    (base / "registry.json").write_bytes(b"\0" * 300)
    (base / "loops" / "beta" / "session-state.json").unlink()
    (base / ".git" / "index").write_bytes(b"")


def headless(root: Path) -> None:
    """The branch is lost."""
    furnished(root)
    (opened(root, 4).base_dir / ".git" / "refs" / "heads" / "main").write_bytes(b"")


def abandoned(root: Path) -> None:
    """The lease of a process that is gone stands."""
    furnished(root)
    record = {
        "pid": 2**22 + 1, "loopId": "update-beta", "timestamp": 1795336800000, "leaseExpiry": 4795336830000,
        "fencingToken": 42, "host": socket.gethostname(), "bootId": gitstate.process.boot_id(), "startTime": 1,
        "monotonicExpiry": 1e12, "nonce": "0" * 32,
    }  # fmt: skip
    (opened(root, 4).base_dir / "registry.json.lock").write_text(json.dumps(record))


def _unpacked(name: str, root: Path) -> None:
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        archive.extractall(root.parent / f"{root.name}.unpacked", filter="fully_trusted")
    root.rmdir()
    (root.parent / f"{root.name}.unpacked" / name).rename(root)
    (root.parent / f"{root.name}.unpacked").rmdir()


def originals(root: Path) -> None:
    """A directory as the original leaves it, without any history."""
    _unpacked("several-loops", root)


def legacy(root: Path) -> None:
    """A directory as the older single-loop manager leaves it."""
    _unpacked("legacy-single-loop", root)


# --- what is done ----------------------------------------------------------------------------------------------------


def _transaction(state: gitstate.StateRepository) -> None:
    with state.transaction("nightly clean-up") as together:
        together.update_loop("alpha", {"status": "running"})
        together.archive_loop("beta")
        together.create_loop("Another", "done", loop_id="epsilon", pid=None, working_dir="/work")


def _join_large(state: gitstate.StateRepository) -> None:
    """Every step of a large join, as if what is here were large."""
    consolidation._LARGEST, consolidation._LARGE, consolidation._TOGETHER = 12, 2000, 3
    stepwise._ENTRIES, stepwise._ROWS = 12, 40
    directory = Directory(state.base_dir, ASIDE)
    for _ in range(30):
        stepwise.take_a_step(directory)


OPERATIONS: dict[str, Operation] = {
    "init": Operation(nothing, lambda state: state.init()),
    "create": Operation(
        furnished,
        lambda state: state.create_loop("New work", "npm test passes", loop_id="delta", pid=None, working_dir="/work"),
    ),
    "update": Operation(furnished, lambda state: state.update_loop("alpha", {"status": "running", "note": "é"})),
    "archive": Operation(furnished, lambda state: state.archive_loop("beta", status="aborted")),
    "restore": Operation(furnished, lambda state: state.restore_loop("gamma")),
    "prune": Operation(furnished, lambda state: state.prune_archives(older_than=timedelta(minutes=5))),
    "rollback": Operation(furnished, lambda state: state.rollback("alpha", steps=2)),
    "undo": Operation(furnished, lambda state: state.undo("alpha")),
    "adopt": Operation(edited, lambda state: state.init()),
    "repair": Operation(damaged, lambda state: state.repair()),
    "migrate": Operation(legacy, lambda state: state.migrate_legacy_state(), adopts=True),
    # Not on the list, and as easily hit:
    "first adoption": Operation(originals, lambda state: state.init()),
    "takeover": Operation(abandoned, lambda state: state.update_loop("alpha", {"status": "running"})),
    "repair of the branch": Operation(headless, lambda state: state.repair(), needs_repair=True),
    "iterate": Operation(
        furnished, lambda state: state.record_iteration("alpha", {"number": 5, "learnings": ["Two."], "status": "ok"})
    ),
    "checkpoint": Operation(furnished, lambda state: state.checkpoint("beta", "here")),
    "transaction": Operation(furnished, _transaction),
    "gc": Operation(worn, lambda state: state.collect_garbage()),
    "large join": Operation(grown, _join_large),
    "first update": Operation(
        originals,
        lambda state: state.update_loop(_first_loop(state), {"status": "paused", "note": "first"}),
        adopts=True,
    ),
}
LISTED = ("init", "create", "update", "archive", "restore", "rollback", "undo", "adopt", "repair", "migrate")
# What starts from the same place, so that several can be done in turn: but for those that exclude each other.
FURNISHED = tuple(name for name, operation in OPERATIONS.items() if operation.start is furnished)


_EXCLUDED = {
    ("archive", "checkpoint"), ("archive", "transaction"), ("transaction", "archive"), ("transaction", "checkpoint"),
    ("transaction", "undo"), ("restore", "prune"),
}  # fmt: skip
REPEATABLE = ("update", "iterate")  # the second time nothing has to change


def sequences(length: int) -> list[tuple[str, ...]]:
    """All sequences of so many different operations that can be done in turn."""
    return [
        names
        for names in itertools.permutations(FURNISHED, length)
        if not any(pair in _EXCLUDED for pair in itertools.combinations(names, 2))
    ]


def _first_loop(state: gitstate.StateRepository) -> str:
    return min(str(entry["loop_id"]) for entry in state.list_active_loops())


def follow(state: gitstate.StateRepository, *, needs_repair: bool) -> None:
    """The next operation, which must succeed without help."""
    if needs_repair:
        state.repair()
    state.create_loop("What comes next", "done", loop_id="next-loop", pid=None, working_dir="/work", force=True)


# --- as children of a zygote -----------------------------------------------------------------------------------------


def prepare(answer: Answer, root: str, name: str, patches: tuple[str, ...] = ()) -> None:
    """Make a project for the operation *name*."""
    _apply(patches)
    Path(root).mkdir()
    OPERATIONS[name].start(Path(root))


def perform(answer: Answer, root: str, names: list[str], patches: tuple[str, ...] = (), retry: bool = False) -> int:
    """Perform operations in turn, acknowledging each; what went wrong is told, and ends it with its exit code.

    With *retry*, an operation that failed is tried once more in the same process, which tells ``again`` how that went.
    """
    _apply(patches)
    told: dict[str, object] = {"acknowledged": 0, "error": None, "warnings": []}
    answer.say(told)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, name in enumerate(names, 1):
            failed = _attempt(name, number, root)
            told |= {"error": failed, "warnings": [str(item.message) for item in caught]}
            if failed is not None and retry:
                answer.say(told)
                told["again"] = again = _attempt(name, number, root)
                failed = again
            if failed is not None:
                answer.say(told)
                return int(str(failed["exit"]))
            told["acknowledged"] = number
            answer.say(told)
            os.access(f"{ACKNOWLEDGED}{number}", os.F_OK)  # seen by strace, and never made to fail
    return 0


def _attempt(name: str, number: int, root: str) -> dict[str, object] | None:
    """Perform one operation; what went wrong, ``None`` if nothing did."""
    try:
        OPERATIONS[name].perform(opened(root, 10 + number))
    except gitstate.GitStateError as error:
        return {"code": error.code, "exit": error.exit_code, "message": error.message,
                "revision": error.facts.get("revision")}  # fmt: skip
    except BaseException:
        return {"code": "undocumented", "exit": 70, "message": traceback.format_exc()}
    return None


ACKNOWLEDGED = "/acknowledged/"


def _apply(patches: Iterable[str]) -> None:
    """What makes this child another than others."""
    gitstate.medium._renameat2()  # looked up once in a process, and none of an operation's steps
    for patch in patches:
        words = patch.split("=")
        if words[0] == "without durability":
            gitstate.medium.fsync = gitstate.medium.datasync = lambda descriptor: None
        elif words[0] == "in another boot":  # as if the machine had been restarted since
            gitstate.process.boot_id = lambda: ANOTHER_BOOT
        elif words[0] == "boot":  # or a certain one
            gitstate.process.boot_id = partial(str, words[1])
        elif words[0] == "largest file":  # beyond it a write fails, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(words[1]), resource.RLIM_INFINITY))
        elif words[0] == "open files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(words[1]), resource.RLIM_INFINITY))
        else:
            raise ValueError(patch)
