"""Every call that changes something fails once, or from then on; the disk is full: then there is room again.

Injected by strace. In CI some calls and errors are drawn, always the same unless ``--seed`` is given;
every call of every operation, each with several errors:

    pytest -n 2 tests/test_io_errors.py --full
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from faults import strace
from faults.bench import PERFORM, Bench, aimed, draw, found, judged, times
from faults.explorer import Explorer
from faults.invariants import base_of
from faults.recording import record
from faults.workloads import FURNISHED, OPERATIONS

needs_strace = pytest.mark.skipif(strace.why_not() is not None, reason=f"needs strace: {strace.why_not()}")

_ALL = ("EIO", "ENOSPC", "EDQUOT", "EROFS")
ERRORS = {
    "openat": (*_ALL, "EMFILE"), "open": (*_ALL, "EMFILE"), "write": ("EIO", "ENOSPC", "EDQUOT"), "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "pwrite64": ("EIO", "ENOSPC", "EDQUOT"), "fdatasync": ("EIO", "ENOSPC", "EDQUOT"), "flock": ("ENOLCK", "EIO"),
}  # fmt: skip
DOCUMENTED = range(2, 10)
Record = Callable[[str, object], None]


@needs_strace
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_io_error_fails_an_operation_clearly_or_is_no_more_than_a_warning(
    name: str, full: bool, seed: int, record_property: Record
) -> None:
    random_ = random.Random(seed)
    with Bench([name]) as bench:
        root = bench.fresh()
        points = strace.points(bench.victims, PERFORM, bench.arguments(root), bench.scratch / "log", every=True)
        points = aimed(points, lambda point: point.text)
        bench.drop(root)
        changing = [point for point in points if strace.changes(point)]
        looking = [point for point in points if point.name in ("openat", "read") and not strace.changes(point)]
        chosen = changing if full else draw(changing, times(3), seed)
        chosen += draw(looking, 60 if full else 1, seed)
        cases = [(point, random_.choice(_errors(point)), lasting) for point in chosen
                 for lasting in ((False, True) if full else (random_.random() < 0.3,))]  # fmt: skip
        wrong = found(line for point, error, lasting in cases for line in _fail(bench, point, error, lasting=lasting))
    record_property("figures", f"I/O errors, {name}: {len(cases)} cases, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)


def _errors(point: strace.Point) -> tuple[str, ...]:
    if not strace.changes(point):
        return ("EIO", "EMFILE") if point.name == "openat" else ("EIO",)
    return ERRORS.get(point.name, _ALL)


def _fail(bench: Bench, point: strace.Point, error: str, *, lasting: bool) -> Iterator[str]:
    where = f"{error} {'from' if lasting else 'at'} {point} {point.text}"
    root = bench.fresh()
    retry = point.nth % 2 == 0 and not lasting
    arguments = bench.arguments(root, retry=retry)
    ended = strace.failed_at(bench.victims, PERFORM, arguments, point, error, lasting=lasting)
    for words in _outcome(bench, root, ended.answer, exact=not retry, code=ended.code, hung=ended.hung):
        yield f"{where}: {words}"
    bench.drop(root)


def _outcome(bench: Bench, root: Path, told: object, *, exact: bool, code: int, hung: bool) -> Iterator[str]:
    """What is wrong with how an operation ended, and with what it left."""
    assert isinstance(told, dict), told
    failed, done = told["error"], told["acknowledged"]
    if hung:
        yield "hangs"
    if failed is not None and failed["exit"] not in DOCUMENTED:
        yield failed["message"]
    if failed is None and code != 0:
        yield f"ended with {code}: {told}"
    unknown = failed is not None and failed["code"] == "outcome_unknown"
    if "again" in told and told["again"] is not None:
        # It failed twice; that is right only where the first attempt had come to pass.
        if not unknown:
            yield f"in the way of the same process: {failed} and then {told['again']}"
        exact = False
    # An operation of one commit that failed did not happen: whoever repeats it does not do it twice.
    simple = bench.names[0] in (*FURNISHED, "takeover")
    exact = exact and failed is not None and not unknown and simple
    for words in bench.judge([root], [done], exact=exact, tolerant=not simple)[0]:
        yield f"{'acknowledged' if done else failed}: {words}"


@needs_strace
@pytest.mark.parametrize(
    "names", [["create"], ["archive"], ["adopt"], ["init"], ["repair"], ["create", "update"]], ids="+".join
)
def test_a_failed_fsync_is_never_taken_for_success(
    names: list[str], full: bool, seed: int, record_property: Record
) -> None:
    """Where an operation is acknowledged although an fsync failed, a power cut right after it takes nothing away."""
    wrong, states = [], 0
    with Bench(names, patches=["in another boot"]) as bench:
        root = bench.fresh()
        points = strace.points(bench.victims, PERFORM, bench.arguments(root), bench.scratch / "log")
        bench.drop(root)
        fsyncs = aimed((point for point in points if point.name in ("fsync", "fdatasync")), lambda point: point.text)
        for point in fsyncs if full else draw(fsyncs, 2, seed):
            root = bench.fresh()
            recording = record(
                bench.victims, PERFORM, bench.arguments(root), root, bench.scratch / "log",
                "-e", f"inject={point.name}:error=EIO:when={point.nth}",
            )  # fmt: skip
            bench.drop(root)
            explorer = Explorer(bench.start, recording)
            last = [state for state in explorer.states() if state.time == len(recording.calls)]
            last = aimed(last, lambda state: state.words)
            chosen = list({explorer.digest(state): state for state in last}.values())
            chosen = chosen if full else draw(chosen, times(4), seed)
            states += len(chosen)
            wrong += [
                f"{point}: {recording.ended}: {state.words}: {words}"
                for state, verdict in judged(bench, explorer, chosen, bench.expected, tolerant=names == ["repair"])
                for words in verdict
            ]
    record_property("figures", f"failed fsync, {' + '.join(names)}: {states} states, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_survives_a_file_that_cannot_grow(
    name: str, full: bool, seed: int, record_property: Record
) -> None:
    sizes = (0, 1, 30, 100, 300, 600, 1000, 3000)
    wrong = []
    with Bench([name]) as bench:
        bench.expected  # noqa: B018  # made while files can grow
        chosen = sizes if full else random.Random(f"{seed} {name}").sample(sizes, 1)
        for size in chosen:
            root = bench.fresh()
            arguments = bench.arguments(root) | {"patches": [f"largest file={size}"]}
            ended = bench.victims.wait(bench.victims.start(PERFORM, arguments))
            told = _outcome(bench, root, ended.answer, exact=True, code=ended.code, hung=ended.hung)
            wrong += [f"{size} bytes: {words}" for words in told]
            bench.drop(root)
    record_property("figures", f"largest file, {name}: {len(chosen)} cases, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_survives_a_full_disk(
    name: str, full: bool, seed: int, tmp_path: Path, record_property: Record
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _mount(disk):
        pytest.skip("a small tmpfs cannot be mounted here")
    wrong, ended_well = [], 0
    try:
        with Bench([name], scratch=disk) as bench:
            bench.expected  # noqa: B018  # made while there is room
            free = range(60) if full else (0, random.Random(f"{seed} {name}").randrange(1, 12))
            for pages, has_spares in product(free, (True, False)):
                root = bench.fresh()
                if not has_spares:  # else hardly anything needs room before it is committed
                    shutil.rmtree(base_of(root) / ".git/gitstate/spare", ignore_errors=True)
                filler = disk / "filler"
                _fill(filler, pages)
                ended = bench.victims.wait(bench.victims.start(PERFORM, bench.arguments(root)))
                filler.unlink()
                told = _outcome(bench, root, ended.answer, exact=True, code=ended.code, hung=ended.hung)
                wrong += [f"{pages} pages free, {has_spares=}: {words}" for words in told]
                ended_well += ended.code == 0
                bench.drop(root)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    record_property(
        "figures", f"full disk, {name}: {2 * len(free)} cases, {ended_well} with room enough, {len(wrong)} wrong"
    )
    assert wrong == [], "\n".join(wrong)
    assert ended_well < 2 * len(free), "no disk was ever too full"


def _mount(disk: Path) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(disk)], capture_output=True)
    return done.returncode == 0


def _fill(filler: Path, pages: int) -> None:
    """Take all room but so many pages."""
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        room = os.fstatvfs(descriptor)
        os.posix_fallocate(descriptor, 0, max(1, (room.f_bavail - pages)) * room.f_bsize)
    finally:
        os.close(descriptor)
