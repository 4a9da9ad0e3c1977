"""What every test gets: a project of its own, no git configuration but the machine's own, and a check at the end."""

from __future__ import annotations

import os
import random
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gitstate
import gitstate.medium
import gitstate.process
import gitstate.records
import gitstate.store.revisions
import gitstate.transaction
from gitstate.clock import Clock, SystemClock
from gitstate.records import valid_record

FIXTURES = Path(__file__).parent / "fixtures"
SEED = 20261122
_WAITS_FOR_FULL = re.compile(r"(full|long) form|enough for CI")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run sweeps in their full form")
    parser.addoption("--seed", type=int, help="what sweeps draw by: always the same, with --full another every time")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:  # decided once, and handed on to all workers
        config.option.seed = random.SystemRandom().randrange(1_000_000) if config.option.full else SEED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the sweeps tried, how much of it was wrong, and their seeds; and what could not be tried here, and why."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    figures = [
        words
        for report in reports
        if report.when == "call"
        for name, words in report.user_properties
        if name == "figures"
    ]
    if figures:
        terminalreporter.section(f"figures, --seed {terminalreporter.config.option.seed}")
        for words in figures:
            terminalreporter.write_line(str(words))
    # What only waits for --full is no news; what this machine has no means for is.
    skipped = [
        str(report.longrepr[2]) for report in reports if report.skipped and isinstance(report.longrepr, tuple | list)
    ]
    for reason in sorted({words.removeprefix("Skipped: ") for words in skipped if not _WAITS_FOR_FULL.search(words)}):
        count = sum(reason in words for words in skipped)
        terminalreporter.write_line(f"SKIPPED {count}: {reason}")


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What a sweep draws by: no draw is new in CI, so that none fails there for the first time."""
    return int(request.config.getoption("--seed"))


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("GIT_", "GITSTATE_", "RALPH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture(autouse=True)
def _nothing_remembered_was_changed() -> Iterator[None]:
    """A record that is remembered by its bytes is shared by all who ask for it."""
    yield
    for known in list(gitstate.records._KNOWN.values()):
        # Their texts tell 1 from 1.0 and from true, and one order of keys from another.
        assert repr(known.record) == repr(valid_record(known.path, known.raw))


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the medium, for tests that have nothing to do with power cuts."""
    monkeypatch.setattr(gitstate.medium, "fsync", lambda descriptor: None)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """An empty project; whatever state directory it has at the end is checked."""
    root = tmp_path / "project"
    root.mkdir()
    yield root
    assert_sound(root)


@pytest.fixture
def clock() -> Clock:
    """The machine's; a file whose tests own the time has another."""
    return SystemClock()


@pytest.fixture
def state(project: Path, clock: Clock) -> Iterator[gitstate.StateRepository]:
    """The state of an empty project, opened by an actor called alice."""
    with gitstate.StateRepository(project, actor="user:alice", clock=clock) as repository:
        yield repository


@pytest.fixture
def unpack(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Unpacks a directory as the original left it, and checks it at the end like any other."""
    unpacked: list[Path] = []

    def unpacked_as(name: str) -> Path:
        with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="fully_trusted")
        unpacked.append(tmp_path / name)
        return tmp_path / name

    yield unpacked_as
    for root in unpacked:
        assert_sound(root)


def assert_sound(project: Path) -> None:
    """The store passes its own check, and git's."""
    base = project / ".aiwg" / "ralph-external"
    if not (base / ".git").exists():
        return
    findings = [finding for finding in gitstate.open(project).check(full=True) if finding.severity != "note"]
    assert findings == []
    fsck = git(base, "fsck", "--strict", check=False)
    assert (fsck.returncode, fsck.stderr.replace("notice: HEAD points to an unborn branch (main)\n", "")) == (0, "")


def git(base: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ordinary git in the state directory."""
    return subprocess.run(["git", *words], cwd=base, check=check, capture_output=True, text=True)
