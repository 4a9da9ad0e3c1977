"""Every byte of every file: flipped, cut short, zeroed, deleted, or replaced by something that is no file.

For each damage, by itself: a read answers what it answered before or raises a documented error, soon; ``check`` has a
finding for whatever changes history, a ref or the files; ``repair`` brings back the newest published state, says what
it did and what is lost, and keeps the damaged bytes. ``--full`` tries 20,000 of all cases, drawn by ``--seed``, and with
``EVERY_BYTE=1`` each of them: of the journal a sample, since it has a megabyte, nothing depends on it until the machine
stops, and ``test_journal.py`` damages it then.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import harm
import pytest
from faults.crew import share_out
from harm import Answers, Case, Hang, Refusal, base_of, opened, undated, within

import gitstate
from gitstate import Finding
from gitstate.records import read_record

pytestmark = pytest.mark.usefixtures("quick_disk")

FLIPS_IN_CI, PLAIN_IN_CI, CASES_IN_FULL = 90, 90, 20_000
DECIDED_WITHIN = 5.0  # seconds

# What neither history nor refs nor files depend on: derived by git or by gitstate, or evidence for a bad day.
SPARE = re.compile(
    r"\.git/(info/.*|objects/info/.*|logs/.*|gitstate/(guard|turn|generation|projected|changes|hints|journal|spare/.*|quarantine/.*)|config)\Z"
)


@dataclass(frozen=True)
class Template:
    """The project that every case is a copy of, and what it answered when it was whole."""

    project: Path
    looked_back: tuple[str, ...]
    before: Answers
    present: Answers
    objects: frozenset[str]
    refs: dict[str, str]


def make_template(directory: Path) -> Template:
    project = directory / "template"
    harm.build(project)
    with opened(project) as state:
        revisions = [str(change.revision) for change in state.log()]
        looked_back = (revisions[2], revisions[-3])  # one that is loose, one that is packed
        before, present = harm.answers(state, [*looked_back]), harm.present(state)
        assert not any(isinstance(answer, Refusal) for answer in before.values())
        assert state.check(full=True) == []
    return Template(project, looked_back, before, present, *reachable(project))


def reachable(project: Path) -> tuple[frozenset[str], dict[str, str]]:
    """The objects that refs lead to, and the refs, as git has them."""
    listed = git(project, "rev-list", "--objects", "--all").split("\n")
    refs = dict(line.split(" ")[::-1] for line in git(project, "show-ref").strip().split("\n"))
    return frozenset(line.split(" ")[0] for line in listed if line), refs


def git(project: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=base_of(project), check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: tens of thousands of copies are made there."""
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="gitstate-bytes-", dir=memory if os.access(memory, os.W_OK) else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def template(scratch: Path) -> Template:
    return make_template(scratch)


# --- one case --------------------------------------------------------------------------------------------------------


class Broken(AssertionError):
    """A promise that did not hold."""


@dataclass
class Trial:
    """One damaged copy, looked at from all sides."""

    template: Template
    case: Case
    project: Path
    damaged: bytes | None  # what a file holds now; None when none is there

    def reads(self) -> None:
        with opened(self.project) as state:
            after = harm.answers(state, [*self.template.looked_back])
        for question, answer in after.items():
            if isinstance(answer, Refusal) or self._is_right(question, answer):
                continue
            raise Broken(f"{question} silently answers otherwise: {answer!r:.300}")

    def _is_right(self, question: str, answer: object) -> bool:
        before = self.template.before[question]
        if question == "list_archived_loops":  # in order of archiving, which only history knows
            return sorted(answer) == sorted(before)  # type: ignore[call-overload,no-any-return]
        if question == "list_checkpoints":  # those that are not there cannot be missed by looking at those that are
            return set(answer) <= set(before)  # type: ignore[call-overload,no-any-return]
        return answer == before or (self.is_edit and _is_made_of(answer, before, self._edit()))

    @property
    def is_edit(self) -> bool:
        """Whether the damage cannot be told from an edit: the file is a valid record all the same."""
        return bool(self._edit())

    def _edit(self) -> object:
        if self.damaged is None or self.case.file.startswith(".git/"):
            return None
        return read_record(self.damaged, registry=self.case.file == "registry.json")[0]

    def changes_something(self) -> bool:
        """Whether history, a ref or a file of the projection is not what it was."""
        file = self.case.file
        if SPARE.match(file):
            return False
        if file.startswith(".git/objects/") and "/pack/" not in file:
            return self._inflated() != self._inflated(self.template)
        if file == ".git/packed-refs" or file.startswith(".git/refs/"):
            refs = self._refs_of_git()  # one more than there was may be anybody's
            return refs is None or not self.template.refs.items() <= refs.items()
        if file == ".git/HEAD":
            return self.damaged is None or self.damaged.strip() != b"ref: refs/heads/main"
        return True

    def _inflated(self, template: Template | None = None) -> bytes | None:
        path = base_of(template.project if template else self.project) / self.case.file
        try:
            return zlib.decompress(path.read_bytes()) if not path.is_symlink() and path.is_file() else None
        except zlib.error:
            return None

    def _refs_of_git(self) -> dict[str, str] | None:
        """The refs, read the simple way; None when that is not possible."""
        refs: dict[str, str] = {}
        git_directory = base_of(self.project) / ".git"
        try:
            for line in (git_directory / "packed-refs").read_text("latin-1").split("\n"):
                if line and not line.startswith(("#", "^")):
                    value, name = line.split(" ")
                    refs[name] = value
            for path in (git_directory / "refs").rglob("*"):
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    return None
                if path.is_file():
                    refs[str(path.relative_to(git_directory))] = path.read_text().strip()
        except (OSError, ValueError):
            return None
        return refs

    def check(self) -> list[Finding]:
        with opened(self.project) as state:
            found = state.check(full=True)
        if not found and self.changes_something():
            raise Broken("check --full has no finding")
        return found

    def repair(self) -> None:
        with opened(self.project) as state, warnings.catch_warnings():
            warnings.simplefilter("ignore", gitstate.GitStateWarning)
            told = state.repair()
        if any(
            not (finding.message and (finding.action or finding.hint or finding.severity == "note")) for finding in told
        ):
            raise Broken(f"a finding without words: {told}")
        self._is_back(told)
        self._is_kept(told)

    def _is_back(self, told: list[Finding]) -> None:
        lost = [finding for finding in told if finding.action is None and finding.severity != "note"]
        with opened(self.project) as state:
            present = harm.present(state)
            if present != self.template.present and not (
                self.is_edit and _is_made_of(present, self.template.present, self._edit())
            ):
                raise Broken(f"the present state is not back: {present!r:.300}")
            left = [finding for finding in state.check(full=True) if finding.severity != "note"]
            if {(finding.code, finding.path) for finding in left} != {(finding.code, finding.path) for finding in lost}:
                raise Broken(f"repair leaves {left}, but tells of {lost}")
            moved_back = any("lost from history" in (finding.action or "") for finding in told)
            after = harm.answers(state, [*self.template.looked_back])
            for question, answer in after.items():
                if not (lost or moved_back) and not self._is_same_or_later(question, answer):
                    raise Broken(f"after repair, {question} answers {answer!r:.300}, and nothing is said to be lost")
            with warnings.catch_warnings():
                warnings.simplefilter("error", gitstate.DamageWarning)
                state.update_loop("build-it", {"next": "works"})
            if state.get_loop("build-it").get("next") != "works":
                raise Broken("what was written after the repair is not there")

    def _is_same_or_later(self, question: str, answer: object) -> bool:
        before = self.template.before[question]
        if question in ("log", "revision"):  # the repair itself may be a commit
            return not isinstance(answer, Refusal)
        if isinstance(answer, Refusal):
            return False
        return self._is_right(question, answer) or undated(answer) == undated(before)

    def _is_kept(self, told: list[Finding]) -> None:
        """What was replaced lies in quarantine, byte for byte."""
        if self.damaged in (None, b"") or self.is_edit or not told or not self.changes_something():
            return
        if self.case.file in (".git/index",):
            return  # derived: nothing in it was ever anybody's
        standing = base_of(self.project) / self.case.file
        if standing.is_file() and standing.read_bytes() == self.damaged:
            return
        kept = [
            path.read_bytes()
            for path in (base_of(self.project) / ".git/gitstate/quarantine").glob("*")
            if path.is_file()
        ]
        if self.damaged not in kept:
            raise Broken(f"the damaged bytes are not in quarantine ({len(kept)} others are)")


def _is_made_of(answer: object, before: object, edit: object) -> bool:
    """Whether every value in an answer was there before, or stands in the file as it is now."""
    known = Counter([*_leaves(undated(before)), *_leaves(undated(edit))])
    return all(known[leaf] for leaf in _leaves(undated(answer)))


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield json.dumps(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield json.dumps(value)


def try_out(template: Template, case: Case, scratch: Path) -> str | None:
    """What did not hold for one case; ``None`` when everything did."""
    project, outside = Path(tempfile.mkdtemp(dir=scratch)), Path(tempfile.mkdtemp(dir=scratch))
    try:
        harm.copied(template.project, project / "p")
        case.apply(base_of(project / "p"), outside)
        path = base_of(project / "p") / case.file
        damaged = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        trial = Trial(template, case, project / "p", damaged)
        warnings.simplefilter("ignore", gitstate.UnknownStatusWarning)  # a status is a word like any other, edited
        try:
            with within(DECIDED_WITHIN):
                trial.reads()
            with within(DECIDED_WITHIN):
                unsafe = None
                try:
                    trial.check()
                except gitstate.UnsafeRepositoryError as error:
                    unsafe = error
            if unsafe is not None:
                return None if unsafe.hint and case.file == ".git/config" else f"{case}: refused: {unsafe}"
            with within(4 * DECIDED_WITHIN):
                trial.repair()
        except (Exception, Hang) as error:
            return f"{case}: {type(error).__name__}: {error}"
        else:
            return None
    finally:
        shutil.rmtree(project)
        shutil.rmtree(outside)


# --- the tests -------------------------------------------------------------------------------------------------------


def test_every_damage_is_noticed_and_mended(
    template: Template,
    scratch: Path,
    full: bool,
    seed: int,
    record_property: Callable[[str, object], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    draw = random.Random(seed)
    base, every = base_of(template.project), bool(os.environ.get("EVERY_BYTE"))
    plain = harm.plain_cases(base)
    if full:
        flips = [
            Case(f, "flip", at, draw.randrange(1, 256))
            for f in harm.files_of(base)
            for at in harm.places_in(base / f, draw)
        ]
        cases = [*plain, *(flips if every else draw.sample(flips, CASES_IN_FULL - len(plain)))]
        draw.shuffle(cases)
    else:
        cases = [*draw.sample(plain, PLAIN_IN_CI), *harm.flips(base, FLIPS_IN_CI, draw)]
    with capfd.disabled():  # where it is whole, it says how far it is
        failures = [words for words in _results(template, scratch, cases, parallel=full) if words is not None]
    record_property("figures", f"every byte: {len(cases)} cases, {len(failures)} wrong")
    assert failures[:20] == []


def _results(template: Template, scratch: Path, cases: list[Case], *, parallel: bool) -> Iterator[str | None]:
    if not parallel:
        yield from (try_out(template, case, scratch) for case in cases)
        return
    for number, verdict in share_out(lambda at: try_out(template, cases[at], scratch), len(cases), name="every byte"):
        died = verdict is not None and verdict.startswith("the process")
        yield f"{cases[number]}: {verdict}" if died else verdict
