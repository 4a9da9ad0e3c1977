"""An index of history: for each commit of the branch its loops and its time, in the order of the branch.

It is derived: nothing here is needed to read history, and whoever does not
find the end of it in his history, or finds it damaged, walks the commits.
It is only added to, so that a mutation costs the same at any length of it,
and never synced: what a power cut takes is walked, and noted again.
A question reads the pages that lead to its answer, and no others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from typing import NamedTuple

from gitstate.durable import Directory
from gitstate.errors import StorageError
from gitstate.layout import CHANGES
from gitstate.store.pages import LATEST, NO_KEY, PAGE, IndexDamagedError, Page, Pages, Pen, open_page

_ANY_LOOP, _BEHIND = 0xFEFEFEFE, 0xFFFFFFFF


class Noted(NamedTuple):
    """A commit as it is noted: ``loop_ids`` is ``None`` where only a look at its files could tell; ``time`` the author's."""

    revision: str
    loop_ids: tuple[str, ...] | None
    time: int


class Position(NamedTuple):
    """The place of a record; what comes later in history has a greater one."""

    page: int
    slot: int


def _key(loop_id: str) -> int:
    """Two loops may have the same one: then the commits themselves decide."""
    digest = hashlib.sha1(loop_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "big")


class Index:
    """What the file says. Whatever is asked of it may raise :class:`IndexDamagedError`."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._last = Position(pages.last.number, pages.last.count - 1)

    @property
    def first(self) -> str:
        """The oldest commit that is noted."""
        return self._pages[0].commit(0)

    @property
    def is_whole(self) -> bool:
        """Whether every page is what was written."""
        try:
            return all(self._pages[number].number == number for number in range(self._last.page))
        except IndexDamagedError:
            return False

    def end(self, revision: str) -> Position | None:
        """The last record, if it is of that commit."""
        return self._last if self._pages.last.commit(self._last.slot) == revision else None

    def position(self, revision: str, times: Iterable[int]) -> Position | None:
        """The last record of a commit that is noted under one of *times*; everything up to it is its past."""
        wanted = bytes.fromhex(revision)
        for time in dict.fromkeys(times):
            before: Page | None = self._pages.last
            if self._pages.last.time >= time:  # most are asked for soon after they were made
                before = self._pages.newest_where(lambda page, time=time: page.time < time, self._last.page)  # type: ignore[misc]
            found = None
            for number in range(before.number if before is not None else 0, self._last.page + 1):
                page = self._pages[number]
                slot = page.slot_of(wanted) if page.time <= time else None
                if page.time > time or (slot is None and found is not None):
                    break
                found = found if slot is None else Position(number, slot)
            if found is not None:
                return found
        return None

    def of_loop(self, loop_id: str, position: Position) -> Iterator[str]:
        """The commits up to *position* that may concern a loop, newest first."""
        return (self._pages[page].commit(slot) for page, slot in self._with((_key(loop_id), _ANY_LOOP), position))

    def _with(self, keys: tuple[int, ...], position: Position) -> Iterator[Position]:
        number: int | None = position.page
        slots = position.slot + 1
        while number is not None:
            page = self._pages[number]
            yield from (Position(number, slot) for slot in reversed(range(slots)) if page.keys[slot] in keys)
            before = [self._pages.newest_with(key, page) for key in keys]
            number = max((found for found in before if found is not None), default=None)
            slots = 0 if number is None else self._pages[number].count

    def not_after(self, time: int, position: Position) -> Iterator[str]:
        """The commits up to *position* of which the first that is not after *time* is the newest such."""
        page = self._pages.newest_where(lambda page: page.time <= time, position.page)
        newest = None if page is None else self._newest(page, time, position)
        # Where the clock was set back a commit may be older than one before it.
        for behind in self._with((_BEHIND,), position):
            if newest is not None and behind < newest:
                break
            yield self._pages[behind.page].commit(behind.slot)
        if newest is not None:
            yield self._pages[newest.page].commit(newest.slot)

    def _newest(self, page: Page, time: int, position: Position) -> Position | None:
        """The newest record up to *position*, on a page or before it, that is not after *time*."""
        slots = page.not_after(time, position.slot + 1 if page.number == position.page else page.count)
        while not slots and page.number:
            page = self._pages[page.number - 1]
            slots = page.not_after(time, page.count)
        return Position(page.number, slots - 1) if slots else None

    def earlier(self, position: Position, steps: int) -> str | None:
        """The commit so many *steps* before the one at *position*, if it is noted."""
        wanted = self._pages[position.page].number_at(position.slot) - steps
        page = self._pages.newest_where(lambda page: page.first <= wanted, position.page)
        while page is not None and not page.count:
            page = self._pages[page.number - 1]
        return None if page is None else page.commit_of_number(wanted)


@contextmanager
def opened_index(directory: Directory) -> Iterator[Index | None]:
    """The index, for the length of the block; ``None`` without one whose end is what was written."""
    try:
        file = directory.opened(CHANGES)
    except StorageError:
        yield None
        return
    with file:
        yield _index_in(file)


def _index_in(file: FileIO) -> Index | None:
    descriptor = file.fileno()
    number, length = divmod(os.fstat(descriptor).st_size, PAGE)

    def read(page: int, size: int = PAGE) -> bytes:
        try:
            return os.pread(descriptor, size, page * PAGE)
        except OSError:
            raise IndexDamagedError from None

    try:
        return Index(Pages(open_page(number, read(number, length)), read))
    except IndexDamagedError:
        return None


class Ending(NamedTuple):
    """The last page of the index, and the commit that it ends with."""

    page: Page
    revision: str


def ending_of(directory: Directory) -> Ending | None:
    """The end of the index; ``None`` where it is not what was written."""
    size, raw = directory.tail(CHANGES, PAGE)
    number, length = divmod(size, PAGE)
    try:
        page = open_page(number, raw[len(raw) - length :])
    except IndexDamagedError:
        return None
    return Ending(page, page.commit(page.count - 1))


def note(directory: Directory, commits: Iterable[Noted], ending: Ending | None) -> None:
    """Add commits, the oldest first, behind the *ending* of the index, or begin it anew with them where there is none.

    Raises:
        IndexDamagedError: an older page, on which this builds, is not what was written.
        StorageError: the file system refused.
    """
    pen = Pen(None if ending is None else ending.page, os.urandom(4), lambda number: _page(directory, number))
    for commit in commits:
        time = min(max(commit.time, 0), LATEST)
        loops = commit.loop_ids
        keys = [_ANY_LOOP] if loops is None else list(dict.fromkeys(map(_key, loops))) or [NO_KEY]
        keys += [_BEHIND] if commit.time < max(time, pen.time) else []
        pen.add(bytes.fromhex(commit.revision), keys, time)
    if ending is None:
        directory.write(CHANGES, pen.written, durable=False)
    else:
        directory.append(CHANGES, pen.written)


def _page(directory: Directory, number: int) -> bytes:
    try:
        with directory.opened(CHANGES) as file:
            return os.pread(file.fileno(), PAGE, number * PAGE)
    except (StorageError, OSError):
        raise IndexDamagedError from None
