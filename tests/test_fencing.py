"""A writer stopped, or killed, at every step of what it does, while another goes on.

The victim is a forked child whose steps are counted: the methods through which everything reaches the disk, the refs,
the lease and the files are wrapped, and at the n-th call it sends itself a signal; n = 1, 2, … until it gets through.
With ``--full`` every call is a step, those that only look as well. In CI a step is a call that changes something; a
writer is stopped at all of them in the plain update, and at every third in the other scenes.

Nothing is timed: the other writer's clock runs ahead of the victim's, so that it finds the lease expired at once, and
what it waits for passes on that clock alone.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from conftest import assert_sound, git
from original import stringify
from processes import dead_pid
from steps import Steps

from gitstate import DamageWarning, LeaseTimeoutError, StateRepository
from gitstate.lease import LeaseKeeper

pytestmark = pytest.mark.usefixtures("quick_disk")

LOOP, OTHER = "the-loop", "other-loop"
LEASE = 1.0
PATIENCE = 2.0  # seconds of its own clock that the other writer waits
AT_ONCE = 0.3  # seconds of that clock: a few looks

# --- what the victim does --------------------------------------------------------------------------------------------


def update(state: StateRepository) -> None:
    state.modify_loop(LOOP, lambda found: {"currentIteration": found["currentIteration"] + 1})


def archive(state: StateRepository) -> None:
    state.archive_loop(LOOP)


def several(state: StateRepository) -> None:
    with state.transaction("several at once") as tx:
        tx.update_loop(LOOP, {"note": "victim"})
        tx.create_loop("Another one", "never", loop_id="victims-loop", pid=None, force=True)
        tx.checkpoint(LOOP, "here")


def nothing(base: Path) -> None:
    """Files and history agree."""


def edited(base: Path) -> None:
    path = base / "loops" / LOOP / "session-state.json"
    path.write_bytes(stringify({**json.loads(path.read_bytes()), "edited": "outside"}))


def truncated(base: Path) -> None:
    path = base / "loops" / LOOP / "session-state.json"
    path.write_bytes(path.read_bytes()[:40])


def obstructed(base: Path) -> None:
    """A directory with somebody's data where the session state should be: it can only be kept by moving it away."""
    path = base / "loops" / LOOP / "session-state.json"
    path.unlink()
    path.mkdir()
    (path / "data").write_text("somebody's")


def stale(base: Path) -> None:
    git(base, "checkout", "HEAD~2", "--", f"loops/{LOOP}/session-state.json")


def moved(base: Path) -> None:
    """Archived by the original."""
    (base / "loops/third-loop").rename(base / "archive/third-loop")


def untagged(base: Path) -> None:
    """The newest operation was cut short after its commit."""
    git(base, "tag", "-d", f"checkpoint/{LOOP}/last")
    (base / ".git/gitstate/projected").unlink()


def left(base: Path) -> None:
    """What a killed holder leaves: its record, a lock of the branch, a temporary file."""
    (base / "registry.json.lock").write_text(json.dumps({"pid": dead_pid(), "loopId": "x", "leaseExpiry": 2e15}))
    (base / ".git/refs/heads/main.lock").write_text(git(base, "rev-parse", "main").stdout)
    (base / f".git/gitstate/aside/{dead_pid()}-0123456789ab").write_text("left")


@dataclass(frozen=True)
class Scene:
    """How the directory is found, and what is done then."""

    arrange: Callable[[Path], None]
    work: Callable[[StateRepository], None]


SCENES = {
    "an update": Scene(nothing, update),
    "an archiving": Scene(nothing, archive),
    "a transaction": Scene(nothing, several),
    "adopting an outside edit": Scene(edited, update),
    "repairing a damaged file": Scene(truncated, update),
    "putting an obstacle away": Scene(obstructed, update),
    "rolling a stale file forward": Scene(stale, update),
    "recording what the original archived": Scene(moved, update),
    "making a missing tag": Scene(untagged, update),
    "clearing up after the dead": Scene(left, update),
}


# --- how ---------------------------------------------------------------------------------------------------------------


@dataclass
class Victim:
    """A child that stops, or dies, at one step."""

    pid: int
    pipe: int

    def await_signal(self) -> bool:
        """Whether it was stopped or killed; otherwise it got through and ended."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def outcome(self) -> str:
        """``done``, or the error it met; after it has ended."""
        with open(self.pipe, "rb") as pipe:
            return pipe.read().decode()

    def reap(self) -> None:
        assert os.waitpid(self.pid, 0)[1] == 0


def begin(project: Path, scene: Scene, number: int, action: int, *, every: bool, lease: float = LEASE) -> Victim:
    mine, out = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a later Python minds forking where there are threads, as pytest-xdist has
        pid = os.fork()
    if pid == 0:
        answer = "nothing was tried"
        try:
            warnings.simplefilter("ignore", DamageWarning)
            state = StateRepository(project, actor="user:victim", lease_seconds=lease)
            Steps(every=every).send(action, number)
            scene.work(state)
            answer = "done"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(out, answer.encode())
            os._exit(0)
    os.close(out)
    return Victim(pid, mine)


@pytest.fixture
def ground() -> Iterator[Callable[[Scene], Path]]:
    """Fresh copies of one project, each arranged for a scene; in memory where there is a place for that."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        first, made = Path(name, "first"), itertools.count()
        first.mkdir()
        with StateRepository(first, actor="user:alice", clock=FakeClock()) as state:
            state.create_loop("Be fought over", "never", loop_id=LOOP, max_iterations=10**6, pid=None)
            state.create_loop("Stand beside", "never", loop_id=OTHER, pid=None)
            state.create_loop("Be put away", "never", loop_id="third-loop", pid=None)
            state.update_loop(LOOP, {"status": "paused"})
            state.update_loop(LOOP, {"status": "running"})
            state.checkpoint(LOOP, "last")
        git(base_of(first), "gc", "-q")  # one pack is copied faster than many objects

        def fresh(scene: Scene) -> Path:
            project = Path(name, str(next(made)))
            shutil.copytree(first, project, symlinks=True)
            scene.arrange(base_of(project))
            return project

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamageWarning)
            yield fresh


def points(name: str, full: bool, *, every: int) -> range:
    """The steps to stop at; there are never as many as this. Each scene begins at another one."""
    return range(1, 100_000) if full else range(1 + list(SCENES).index(name) % every, 100_000, every)


def base_of(project: Path) -> Path:
    return project / ".aiwg" / "ralph-external"


def surface(project: Path) -> dict[str, bytes | str | None]:
    """What there is to see of the state directory: files, refs, index, notes.

    Objects that nobody published, prepared files and who was last in the guard are not.
    """
    base = base_of(project)
    aside = {str(base / ".git" / name) for name in ("objects", "gitstate/aside", "gitstate/guard", "gitstate/turn")}
    seen: dict[str, bytes | str | None] = {}
    for above, directories, files in os.walk(base):
        directories[:] = [name for name in directories if f"{above}/{name}" not in aside]
        for path in [Path(above, name) for name in [*directories, *files] if f"{above}/{name}" not in aside]:
            found = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            seen[str(path.relative_to(base))] = found
    return seen


def other(project: Path, *, ahead: float = 0.0) -> StateRepository:
    clock = FakeClock()
    clock.advance(seconds=ahead)
    return StateRepository(project, actor="user:other", clock=clock, lock_timeout=PATIENCE)


def go_on(state: StateRepository) -> float:
    """The other writer's own mutation; the seconds that it waited."""
    began = state._writer.clock.monotonic()
    state.update_loop(OTHER, {"winner": "other"})
    return state._writer.clock.monotonic() - began


def findings(project: Path) -> list[object]:
    return [found for found in StateRepository(project).check() if found.severity != "note"]


def made_by(state: StateRepository, actor: str) -> list[str]:
    return [change.operation for change in state.log() if change.actor == actor]


# --- stopped -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENES)
def test_a_writer_stopped_past_its_lease_at_any_step_cannot_harm_whoever_overtook_it(
    name: str, ground: Callable[[Scene], Path], full: bool, record_property: Callable[[str, object], None]
) -> None:
    scene, outcomes = SCENES[name], set()
    stopped = 0
    chosen = points(name, full, every=1 if name in ("an update", "an archiving") else 2)
    for number in chosen:
        project = ground(scene)
        victim = begin(project, scene, number, signal.SIGSTOP, every=full)
        if not victim.await_signal():
            assert victim.outcome() == "done"
            break
        stopped += 1
        outcomes.add(_overtake(project, victim))
        assert findings(project) == []
        shutil.rmtree(project)
    record_property("figures", f"stopped in {name}: at {stopped} steps, 0 wrong")
    # It was stopped without the lease, with it, and inside the guard.
    assert outcomes == {"done", "lost", "in the guard"} or (chosen.step > 1 and "lost" in outcomes)
    assert_sound(project)


def _overtake(project: Path, victim: Victim) -> str:
    """Let another writer by, wake the victim, and see that neither harmed the other. What became of the victim."""
    state = other(project, ahead=LEASE + 1)
    published = made_by(state, "user:victim")
    try:
        go_on(state)
    except LeaseTimeoutError as error:
        _says_who_is_inside(error, victim)
        victim.wake()
        victim.reap()
        assert victim.outcome() == "done"
        go_on(state)
        return "in the guard"
    before = surface(project)
    victim.wake()
    victim.reap()
    outcome = victim.outcome()
    if outcome.startswith("LeaseLostError: "):
        assert surface(project) == before
        assert made_by(state, "user:victim") == published  # what it had published before: adoption, repair
        assert re.search(r"the lease of generation \d+ was lost to another writer, gone since", outcome)
        return "lost"
    assert outcome == "done"
    assert state.get_loop(OTHER)["winner"] == "other"
    return "done"


def _says_who_is_inside(error: LeaseTimeoutError, victim: Victim) -> None:
    assert str(error) == (
        f"the guard was not to be had within {PATIENCE:g} s: process {victim.pid} exists, but is stopped, "
        "and it is inside"
    )
    assert error.hint == (
        f"kill -CONT {victim.pid} lets it finish; kill -9 {victim.pid} ends it, and nothing acknowledged is lost"
    )


def test_a_writer_stopped_in_the_guard_keeps_the_others_waiting_for_their_time_and_no_longer(
    ground: Callable[[Scene], Path],
) -> None:
    scene = SCENES["an update"]
    for number in range(1, 1000):
        project = ground(scene)
        victim = begin(project, scene, number, signal.SIGSTOP, every=False)
        assert victim.await_signal()
        state = other(project, ahead=LEASE + 1)
        began = state._writer.clock.monotonic()
        try:
            go_on(state)
        except LeaseTimeoutError:
            break
        finally:
            waited = state._writer.clock.monotonic() - began
            seen = state.get_loop(OTHER)["status"]  # reading takes no lock
            victim.wake()
            victim.reap()
    assert PATIENCE <= waited < PATIENCE + AT_ONCE
    assert seen == "running"


def test_a_writer_stopped_in_its_own_function_loses_its_lease_and_can_start_again(
    ground: Callable[[Scene], Path],
) -> None:
    """As a person would see it: an editor in the middle of ``modify_loop``, and Control-Z."""

    def thinking(state: StateRepository) -> None:
        def think(found: Any) -> dict[str, object]:
            os.kill(os.getpid(), signal.SIGSTOP)
            return {"currentIteration": found["currentIteration"] + 1}

        state.modify_loop(LOOP, think)

    project = ground(SCENES["an update"])
    victim = begin(project, Scene(nothing, thinking), 0, signal.SIGSTOP, every=False)
    assert victim.await_signal()
    state = other(project, ahead=LEASE + 1)
    update(state)
    victim.wake()
    victim.reap()
    assert victim.outcome().startswith("LeaseLostError: ")
    again = begin(project, Scene(nothing, update), 0, signal.SIGSTOP, every=False)
    assert not again.await_signal()
    assert again.outcome() == "done"
    assert state.get_loop(LOOP)["currentIteration"] == 2
    assert_sound(project)


def test_two_holders_that_both_take_their_lease_for_theirs_publish_one_after_the_other(
    ground: Callable[[Scene], Path],
) -> None:
    """Compare-and-swap holds even where the proof of the lease is no proof: the second finds the head moved."""
    project = ground(SCENES["an update"])

    def deluded(state: StateRepository) -> None:
        LeaseKeeper.prove = lambda self, lease: None  # type: ignore[method-assign]
        state.modify_loop(LOOP, lambda found: os.kill(os.getpid(), signal.SIGSTOP) or {"note": "deluded"})

    victim = begin(project, Scene(nothing, deluded), 0, signal.SIGSTOP, every=False)
    assert victim.await_signal()
    state = other(project, ahead=LEASE + 1)
    go_on(state)
    before = surface(project)
    victim.wake()
    victim.reap()
    assert victim.outcome().startswith("LeaseLostError: ")
    assert surface(project) == before


# --- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENES)
def test_after_a_writer_was_killed_at_any_step_the_next_one_gets_in_at_once(
    name: str, ground: Callable[[Scene], Path], full: bool, record_property: Callable[[str, object], None]
) -> None:
    """The next one has been there all the time, and looks for what others left only where a sign of theirs lies."""
    scene, outcomes = SCENES[name], set()
    killed = 0
    for number in points(name, full, every=2 if name == "an update" else 7):
        project = ground(SCENES["an update"])
        state = other(project)
        state.update_loop(LOOP, {"status": "running"})  # which it is: nothing is committed
        scene.arrange(base_of(project))
        victim = begin(project, scene, number, signal.SIGKILL, every=full, lease=30)
        if not victim.await_signal():
            break
        assert victim.outcome() == ""
        killed += 1
        assert go_on(state) < AT_ONCE
        outcomes.add(len(made_by(state, "user:victim")))
        assert findings(project) == []
        assert len(state._writer.revisions.recent.of_epoch()) <= 1
        assert list((base_of(project) / ".git/gitstate/aside").iterdir()) == []
        shutil.rmtree(project)
    record_property("figures", f"killed in {name}: at {killed} steps, 0 wrong")
    assert len(outcomes) > 1  # it was killed before its commit and after it
    assert_sound(project)


def test_a_writer_that_was_killed_and_not_yet_waited_for_is_dead(ground: Callable[[Scene], Path]) -> None:
    def hang(state: StateRepository) -> None:
        with state.transaction():
            os.kill(os.getpid(), signal.SIGKILL)

    project = ground(SCENES["an update"])
    victim = begin(project, Scene(nothing, hang), 0, signal.SIGKILL, every=False, lease=30)
    os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOWAIT)
    assert (base_of(project) / "registry.json.lock").exists()
    assert go_on(other(project)) < AT_ONCE
    os.waitpid(victim.pid, 0)
    assert_sound(project)


def test_a_waiter_that_was_killed_at_the_door_keeps_nobody_waiting(ground: Callable[[Scene], Path]) -> None:
    project = ground(SCENES["an update"])
    state = other(project)
    holding, go_away = threading.Event(), threading.Event()

    def hold() -> None:
        with StateRepository(project, clock=FakeClock()).transaction():
            holding.set()
            go_away.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    clockless = begin(project, Scene(nothing, update), 0, signal.SIGKILL, every=False)
    turn = base_of(project) / ".git/gitstate/turn"
    while not turn.exists() or turn.read_bytes()[:12].strip() != b"%d" % clockless.pid:
        os.sched_yield()  # it has not come to the door yet
    os.kill(clockless.pid, signal.SIGKILL)
    os.waitpid(clockless.pid, 0)
    go_away.set()
    thread.join(60)
    assert go_on(state) < AT_ONCE
    assert_sound(project)
