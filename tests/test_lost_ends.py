"""Lost ends: whatever of a repository is deleted or emptied, history is never begun anew beside what is left of it.

What was lost is recovered from what is left, by the next mutation or by ``repair``, and it is said. Only when all of
``.git`` is gone is there a new beginning, from the files, and that is said as well.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import harm
import pytest
from conftest import assert_sound, git
from harm import ACTIVE, ARCHIVED, base_of, opened, present
from templates import loosen

import gitstate
from gitstate import CorruptStateError, Finding, StateRepository

pytestmark = pytest.mark.usefixtures("quick_disk")

Loss = Callable[[Path], None]


# --- what gets lost --------------------------------------------------------------------------------------------------


def deleted(*names: str) -> Loss:
    def lose(base: Path) -> None:
        for name in names:
            path = base / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return lose


def emptied(*names: str) -> Loss:
    def lose(base: Path) -> None:
        for name in names:
            path = base / name
            if path.is_dir():
                for inner in path.iterdir():
                    shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
            else:
                path.write_bytes(b"")

    return lose


def without_packed_branch(lose: Loss) -> Loss:
    """As when nothing was ever packed: then a lost branch has no older self to fall back to."""

    def lose_both(base: Path) -> None:
        path = base / ".git/packed-refs"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "refs/heads/main" not in line))
        lose(base)

    return lose_both


def work_tree_deleted(base: Path) -> None:
    for path in base.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def work_tree_emptied(base: Path) -> None:
    for path in base.rglob("*.json"):
        path.write_bytes(b"")


class Case(NamedTuple):
    lose: Loss
    stops: bool = False  # whether mutations are refused until somebody repairs


STATE = "loops/fix-tests/session-state.json"
TAG = ".git/refs/tags/checkpoint/fix-tests/late"
CASES = {
    "the branch deleted": Case(deleted(".git/refs/heads/main"), stops=True),
    "the branch emptied": Case(emptied(".git/refs/heads/main"), stops=True),
    "the branch deleted, never packed": Case(without_packed_branch(deleted(".git/refs/heads/main")), stops=True),
    "all branches deleted": Case(deleted(".git/refs/heads"), stops=True),
    "all refs emptied": Case(emptied(".git/refs"), stops=True),
    "HEAD deleted": Case(deleted(".git/HEAD"), stops=True),
    "HEAD emptied": Case(emptied(".git/HEAD"), stops=True),
    "packed refs deleted": Case(deleted(".git/packed-refs")),
    "packed refs emptied": Case(emptied(".git/packed-refs")),
    "branch and packed refs deleted": Case(deleted(".git/refs/heads/main", ".git/packed-refs"), stops=True),
    "the index deleted": Case(deleted(".git/index")),
    "the index emptied": Case(emptied(".git/index")),
    "the registry deleted": Case(deleted("registry.json")),
    "the registry emptied": Case(emptied("registry.json")),
    "a session state deleted": Case(deleted(STATE)),
    "a session state emptied": Case(emptied(STATE)),
    "an archived session state deleted": Case(deleted("archive/put-away/session-state.json")),
    "a loop directory deleted": Case(deleted("loops/fix-tests")),
    "a loop directory emptied": Case(emptied("loops/fix-tests")),
    "all loops deleted": Case(deleted("loops")),
    "the archive deleted": Case(deleted("archive")),
    "a tag deleted": Case(deleted(TAG)),
    "a tag emptied": Case(emptied(TAG)),
    "all tags deleted": Case(deleted(".git/refs/tags", ".git/packed-refs")),
    "gitstate's own files deleted": Case(deleted(".git/gitstate")),
    "gitstate's own files emptied": Case(emptied(".git/gitstate")),
    "the configuration deleted": Case(deleted(".git/config")),
    "the configuration emptied": Case(emptied(".git/config")),
    "the reflog deleted": Case(deleted(".git/logs")),
    "the whole work tree deleted": Case(work_tree_deleted),
    "the whole work tree emptied": Case(work_tree_emptied),
}
# What repair has nothing to say about: nobody depends on it, and it is there again.
UNSAID = ("the reflog deleted",)
EACH = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("lost") / "template"
    harm.build(project)
    return project


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Iterator[Path]:
    copy = harm.copied(template, tmp_path / "project")
    yield copy
    assert_sound(copy)


@pytest.fixture
def before(template: Path) -> harm.Answers:
    with opened(template) as state:
        return present(state)


def quietly(state: StateRepository, call: Callable[[StateRepository], object]) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gitstate.GitStateWarning)
        return call(state)


def repaired(project: Path) -> list[Finding]:
    with opened(project) as state:
        found = quietly(state, lambda s: s.repair())
    assert isinstance(found, list)
    return found


def roots(project: Path) -> list[str]:
    """Every commit without a parent, wherever a commit object is: a new beginning would be one."""
    names = git(base_of(project), "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)").stdout
    commits = [line.split(" ")[1] for line in names.splitlines() if line.startswith("commit ")]
    listed = git(base_of(project), "rev-list", "--no-walk", "--max-parents=0", *commits).stdout
    return sorted(listed.split())


def update(state: StateRepository) -> object:
    return state.update_loop("build-it", {"next": "works"})


# --- the tests -------------------------------------------------------------------------------------------------------


@EACH
def test_a_read_answers_as_before_or_refuses(project: Path, before: harm.Answers, case: Case) -> None:
    case.lose(base_of(project))
    with opened(project) as state:
        for loop_id in (*ACTIVE, *ARCHIVED):
            answer = harm.ask(lambda i=loop_id: state.get_loop(i))  # type: ignore[misc]
            assert isinstance(answer, harm.Refusal) or harm.undated(answer) == before[loop_id]
        answer = harm.ask(state.load_registry)
        assert isinstance(answer, harm.Refusal) or harm.undated(answer) == before["registry"]
    repaired(project)


@EACH
def test_a_mutation_never_begins_a_new_history(project: Path, template: Path, case: Case) -> None:
    head = git(base_of(template), "rev-parse", "main").stdout.strip()
    case.lose(base_of(project))
    with opened(project) as state:
        for mutate in (StateRepository.init, update):
            if case.stops:
                with pytest.raises(CorruptStateError) as caught:
                    quietly(state, mutate)
                assert caught.value.hint == "gitstate repair"
            else:
                quietly(state, mutate)
    repaired(project)  # git itself cannot look before that
    assert roots(project) == roots(template)
    git(base_of(project), "merge-base", "--is-ancestor", head, "main")


@EACH
def test_repair_brings_it_back_and_says_so(
    project: Path, template: Path, before: harm.Answers, case: Case, request: pytest.FixtureRequest
) -> None:
    head = git(base_of(template), "rev-parse", "main").stdout.strip()
    case.lose(base_of(project))
    told = repaired(project)
    assert told or request.node.callspec.id in UNSAID
    assert all(finding.action for finding in told)
    with opened(project) as state:
        assert present(state) == before
        assert state.check(full=True) == []
        assert [c.revision for c in state.log()][-3:] == [c.revision for c in opened(template).log()][-3:]
        assert state.list_checkpoints("fix-tests") == opened(template).list_checkpoints("fix-tests")
    git(base_of(project), "merge-base", "--is-ancestor", head, "main")
    assert git(base_of(project), "status", "--porcelain").stdout == ""


@EACH
def test_the_next_mutation_after_that_goes_on_from_there(project: Path, before: harm.Answers, case: Case) -> None:
    case.lose(base_of(project))
    repaired(project)
    with opened(project) as state, warnings.catch_warnings():
        warnings.simplefilter("error", gitstate.GitStateWarning)
        update(state)
        after = present(state)
    assert after["fix-tests"] == before["fix-tests"]
    assert after["registry"] == before["registry"]


@EACH
def test_a_repair_that_is_only_planned_changes_nothing(project: Path, case: Case) -> None:
    case.lose(base_of(project))
    base = base_of(project)
    listed = subprocess.run(
        ["find", ".", "-printf", "%p %T@ %s %y\n"], cwd=base, capture_output=True, check=True
    ).stdout
    with opened(project) as state:
        state.repair(dry_run=True)
    again = subprocess.run(["find", ".", "-printf", "%p %T@ %s %y\n"], cwd=base, capture_output=True, check=True).stdout
    assert listed == again
    repaired(project)


@pytest.mark.parametrize("lose", [deleted(".git"), emptied(".git")], ids=["deleted", "emptied"])
def test_without_any_repository_the_files_are_adopted_anew_and_that_is_said(
    project: Path, before: harm.Answers, lose: Loss
) -> None:
    lose(base_of(project))
    with opened(project) as state:
        assert present(state) == before
        assert [finding.code for finding in state.check(full=True)] == ["not_adopted"]
        assert [(finding.code, finding.hint) for finding in state.repair()] == [("not_adopted", "gitstate init")]
        change = state.init()
        assert change is not None
        assert change.summary == "init: adopt 5 files as they were found"
        assert present(state) == before
        assert state.check(full=True) == []
        update(state)


def test_without_a_single_object_repair_names_the_way_out_and_it_works(project: Path, before: harm.Answers) -> None:
    base = base_of(project)
    deleted(".git/objects")(base)
    deleted(".git/gitstate/journal")(base)
    (finding,) = [finding for finding in repaired(project) if finding.code == "head_unreadable"]
    assert finding.action is None
    assert finding.hint == "move .git away and run gitstate init: the files are adopted anew"
    (base / ".git").rename(project / "git-as-it-was")
    with opened(project) as state:
        state.init()
        assert present(state) == before


def test_what_stands_in_the_files_alone_is_never_lost_with_the_branch(project: Path, before: harm.Answers) -> None:
    """The newest commit is gone for good; what it wrote stands in the files, and is taken from there."""
    base = base_of(project)
    head = git(base, "rev-parse", "main").stdout.strip()
    loosen(base)
    deleted(f".git/objects/{head[:2]}/{head[2:]}")(base)
    told = repaired(project)
    (finding,) = [finding for finding in told if finding.code == "head_unreadable"]
    assert finding.action is not None
    assert f"lost from history: {head[:7]}" in finding.action
    with opened(project) as state:
        assert present(state) == before
