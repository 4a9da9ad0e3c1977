"""The pages of the index of changes: every question is answered as a look at all commits would, or not at all."""

from __future__ import annotations

import hashlib
import random
from itertools import accumulate
from pathlib import Path

import pytest

import gitstate
from gitstate import StateRepository
from gitstate.durable import Directory
from gitstate.layout import ASIDE, CHANGES
from gitstate.store import changes, pages
from gitstate.store.changes import Index, Noted, ending_of, note, opened_index
from gitstate.store.pages import IndexDamagedError
from gitstate.store.revisions import Revision, Revisions

HISTORIES = {  # loops, commits, and how many are noted at once at most
    "one loop": (1, 500, 3),
    "a few loops": (5, 1500, 5),
    "many loops": (600, 3000, 4),
    "a loop each": (1500, 1500, 1),
    "all at once": (200, 3000, 3000),
}
CUT = 33  # bytes of a record


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    (tmp_path / ASIDE).mkdir(parents=True)
    return Directory(tmp_path, ASIDE)


class History:
    """Commits as they might have been, and what is known of them without any index."""

    def __init__(self, loops: int, count: int, draw: random.Random) -> None:
        self.names = [f"ralph-{number}" for number in range(loops)]
        self.commits: list[Noted] = []
        time = 1000
        for number in range(count):
            time += draw.choice([0, 0, 0, 1, 5])
            busy = self.names[number * loops // count :][:4]
            several = tuple(draw.sample(self.names, min(loops, draw.choice([2, 3, 20]))))
            loop_ids = draw.choices([(draw.choice(busy),), several, (), None], [94, 4, 1, 1])[0]
            set_back = draw.randrange(500) if draw.random() < 0.01 else 0
            revision = hashlib.sha1(b"%d of %d %d" % (number, count, loops)).hexdigest()
            self.commits.append(Noted(revision, loop_ids, time - set_back))
        self.newest = list(accumulate((commit.time for commit in self.commits), max))

    def of_loop(self, loop_id: str, at: int) -> list[str]:
        past = self.commits[at::-1]
        return [each.revision for each in past if each.loop_ids is None or loop_id in each.loop_ids]

    def not_after(self, time: int, at: int) -> str | None:
        return next((each.revision for each in self.commits[at::-1] if each.time <= time), None)


def noted(directory: Directory, history: History, at_once: int, draw: random.Random) -> None:
    done = 0
    while done < len(history.commits):
        count = draw.randint(1, at_once)
        note(directory, history.commits[done : done + count], ending_of(directory))
        done += count


def agree(index: Index, history: History, draw: random.Random, questions: int) -> None:
    """Ask questions; each answer is the one that the commits give."""
    times = {commit.revision: commit.time for commit in history.commits}
    for _ in range(questions):
        at = draw.randrange(len(history.commits))
        position = index.position(history.commits[at].revision, (history.commits[at].time, history.newest[at]))
        assert position is not None
        loop_id = draw.choice(history.names)
        assert list(dict.fromkeys(index.of_loop(loop_id, position))) == history.of_loop(loop_id, at)
        steps = draw.randrange(len(history.commits))
        assert index.earlier(position, steps) == (history.commits[at - steps].revision if steps <= at else None)
        time = draw.randrange(400, history.newest[-1] + 50)
        found = (each for each in index.not_after(time, position) if times[each] <= time)
        assert next(found, None) == history.not_after(time, at)


@pytest.mark.parametrize("size", [512, 4096])
@pytest.mark.parametrize("name", HISTORIES)
def test_every_question_is_answered_as_the_commits_would(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    in_pages_of(size, monkeypatch)
    draw = random.Random(f"{name} {size}")
    loops, count, at_once = HISTORIES[name]
    history = History(loops, count, draw)
    noted(directory, history, at_once, draw)
    with opened_index(directory) as index:
        assert index is not None
        assert index.first == history.commits[0].revision
        assert index.end(history.commits[-1].revision) is not None
        assert index.position("0" * 40, (1500, 0)) is None
        assert index.is_whole
        agree(index, history, draw, 40)


def in_pages_of(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE", size)
    monkeypatch.setattr(changes, "PAGE", size)
    monkeypatch.setattr(pages._Planting, "room_beyond", (size - pages._HEAD.size - pages._END) // 8)


@pytest.fixture
def long(directory: Directory) -> History:
    draw = random.Random(1)
    history = History(40, 1500, draw)
    noted(directory, history, 7, draw)
    return history


@pytest.mark.parametrize("number", range(60))
def test_what_is_damaged_is_noticed_by_whoever_needs_it(directory: Directory, long: History, number: int) -> None:
    draw = random.Random(number)
    file = directory.path / CHANGES
    raw = bytearray(file.read_bytes())
    at = draw.randrange(len(raw))
    begin = at // 512 * 512
    if number % 2 or not any(raw[begin : begin + 512]):
        raw[at] ^= 1 << draw.randrange(8)
    else:
        raw[begin : begin + 512] = bytes(len(raw[begin : begin + 512]))
    file.write_bytes(raw)
    with opened_index(directory) as index:
        noticed = index is None or not index.is_whole
        for _ in range(30 if index is not None else 0):
            try:
                agree(index, long, draw, 1)  # type: ignore[arg-type]
            except IndexDamagedError:
                noticed = True
    assert noticed


def test_an_append_that_was_cut_short_between_two_records_is_no_end(directory: Directory) -> None:
    note(directory, [Noted("1" * 40, ("one",), 1), Noted("2" * 40, ("one", "two"), 2)], None)
    file = directory.path / CHANGES
    file.write_bytes(file.read_bytes()[:-CUT])
    assert ending_of(directory) is None
    with opened_index(directory) as index:
        assert index is None


def test_what_a_writer_adds_who_came_too_late_is_no_end(directory: Directory) -> None:
    note(directory, [Noted("1" * 40, ("one",), 1)], None)
    late = ending_of(directory)
    note(directory, [Noted("2" * 40, ("one",), 2)], ending_of(directory))
    assert ending_of(directory) is not None
    note(directory, [Noted("3" * 40, ("one",), 2)], late)
    assert ending_of(directory) is None


def test_a_page_of_another_index_of_the_same_history_is_noticed(directory: Directory, long: History) -> None:
    file = directory.path / CHANGES
    before = file.read_bytes()
    file.unlink()
    noted(directory, long, 7, random.Random(2))
    after = file.read_bytes()
    assert len(after) == len(before)
    file.write_bytes(before[:4096] + after[4096:])
    with opened_index(directory) as index:
        assert index is not None
        assert not index.is_whole


def test_a_page_in_the_place_of_another_is_noticed(directory: Directory, long: History) -> None:
    file = directory.path / CHANGES
    raw = file.read_bytes()
    file.write_bytes(raw[:4096] * 2 + raw[8192:])
    with opened_index(directory) as index:
        assert index is not None
        assert not index.is_whole


def test_a_tree_that_needs_more_room_than_its_page_has_goes_on_in_the_next(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops whose hashes begin alike lie deep in the tree."""
    alike = {"one": 0xABCDEF00, "two": 0xABCDEF01}
    monkeypatch.setattr(changes, "_key", alike.__getitem__)
    commits = [Noted(f"{number:040x}", ("one" if number % 3 else "two",), number) for number in range(1, 601)]
    for commit in commits:
        note(directory, [commit], ending_of(directory))
    with opened_index(directory) as index:
        assert index is not None
        end = index.end(commits[-1].revision)
        assert end is not None
        assert any(index._pages[number].count == 0 for number in range(end.page))
        for loop_id in alike:
            found = [each.revision for each in commits[::-1] if each.loop_ids == (loop_id,)]
            assert list(index.of_loop(loop_id, end)) == found
        assert [index.earlier(end, steps) for steps in range(600)] == [each.revision for each in commits[::-1]]
        assert [next(index.not_after(time, end)) for time in range(1, 601)] == [each.revision for each in commits]


def test_a_question_reads_the_pages_that_lead_to_its_answer(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(directory, History(500, 20_000, random.Random(3)), 20_000, random.Random(3))
    read: list[int] = []
    full = pages._full_page
    monkeypatch.setattr(pages, "_full_page", lambda number, raw: (read.append(number), full(number, raw))[1])
    for ask in (
        lambda index, end: next(index.of_loop("ralph-7", end)),
        lambda index, end: next(index.not_after(2000, end)),
        lambda index, end: index.earlier(end, 12_345),
    ):
        read.clear()
        with opened_index(directory) as index:
            assert index is not None
            assert index._last.page > 200
            ask(index, index._last)
        assert len(read) < 40


# --- in a repository -------------------------------------------------------------------------------------------------


@pytest.fixture
def paged(state: StateRepository, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index of a repository, of several small pages."""
    in_pages_of(512, monkeypatch)
    for loop in ("one", "two"):
        state.create_loop("Fix the tests", "all tests pass", loop_id=loop, pid=None)
    for number in range(70):
        state.update_loop("one" if number % 5 else "two", {"note": number})
    file = state.base_dir / CHANGES
    assert file.stat().st_size > 3 * 512
    return file


def told(root: Path) -> list[object]:
    with gitstate.open(root) as state:
        moment = list(state.log(limit=60))[-1].time
        return [
            *([change.revision for change in state.log(loop)] for loop in ("one", "two")),
            state.show(moment).revision,
            state.show("HEAD~66").revision,
            state.show("HEAD~1~66").revision,
        ]


@pytest.mark.parametrize("page", [0, 1, 2, 3])
def test_a_damaged_page_changes_no_answer(state: StateRepository, paged: Path, page: int) -> None:
    expected = told(state.project_root)
    raw = bytearray(paged.read_bytes())
    raw[page * 512 + 60] ^= 1
    paged.write_bytes(raw)
    assert told(state.project_root) == expected


def test_init_makes_a_damaged_index_whole(state: StateRepository, paged: Path) -> None:
    raw = bytearray(paged.read_bytes())
    raw[60] ^= 1
    paged.write_bytes(raw)
    state.init()
    with opened_index(Directory(state.base_dir, ASIDE)) as index:
        assert index is not None
        assert index.is_whole
        assert index.first == list(state.log())[-1].revision


def test_whoever_cannot_build_on_an_older_page_begins_anew(state: StateRepository, paged: Path) -> None:
    raw = bytearray(paged.read_bytes())
    for page in range(len(raw) // 512):
        raw[page * 512 + 60] ^= 1
    paged.write_bytes(raw)
    for number in range(20):
        state.update_loop("one", {"note": f"again {number}"})
    with opened_index(Directory(state.base_dir, ASIDE)) as index:
        assert index is not None
        assert index.is_whole


def test_an_index_of_an_older_gitstate_is_made_anew_by_the_next_mutations(state: StateRepository, paged: Path) -> None:
    expected = told(state.project_root)
    paged.write_bytes(bytes(44 * 50))
    assert told(state.project_root) == expected
    ending = None
    for number in range(8):  # they are noted together
        newest = state.update_loop("one", {"note": f"newer {number}"}) and state.revision()
        ending = ending or ending_of(Directory(state.base_dir, ASIDE))
        assert ending is None or told(state.project_root)[0][0] == newest
    assert ending is not None


def test_a_question_from_a_commit_that_is_not_noted_walks_no_further_than_to_one_that_is(
    state: StateRepository, paged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    while (ending := ending_of(Directory(state.base_dir, ASIDE))) is None or ending.revision == state.revision():
        state.update_loop("one", {"note": f"at {state.revision()}"})
    read: set[str] = set()
    reading = Revisions.read

    def counted(revisions: Revisions, revision: str) -> Revision:
        read.add(revision)
        return reading(revisions, revision)

    monkeypatch.setattr(Revisions, "read", counted)
    with gitstate.open(state.project_root) as another:
        expected = list(another.log("two"))
        assert len(expected) < len(read) < 40, "there are more than seventy"
        read.clear()
        another.show("HEAD~66")
        assert len(read) < 20
