"""Getting rid of what history does not hold: the directory of a pruned loop, the artifacts of an archived one.

What goes is first renamed to the aside directory, durably and whole, so that nobody meets half of it; then it is
removed, at leisure. A directory that goes together with a commit is asked for before it, in a note of its own: whoever
comes after a kill or a power cut finishes exactly that, and nothing that merely looks like it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from gitstate import layout, process
from gitstate.durable import Directory
from gitstate.encoding import decode, encode
from gitstate.errors import StorageError
from gitstate.layout import ARCHIVE, STATE_FILE, Place
from gitstate.medium import NotAFileError
from gitstate.snapshot import Tree

_FOR_GOOD = (errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY)  # trying again leads nowhere


@dataclass(eq=False, repr=False)
class Disposal:
    """What is to go from one state directory."""

    directory: Directory
    _put_aside: list[str] = field(default_factory=list)

    # --- with a commit ---

    def ask(self, loop_id: str) -> None:
        """Note, durably, that the directory of an archived loop goes once the head no longer has that loop.

        For the holder of the lease, before the commit: the next projection finishes it, or drops a note that no commit
        followed.
        """
        self.directory.discard(layout.NOTE)  # whoever trusts it does not look for what is asked for here
        self.directory.write(layout.PRUNING, encode({"loop": loop_id}))

    def finish(self, after: Tree) -> Iterator[str]:
        """Under the guard, once the files are as *after* says: put aside what was asked for; what failed, in words."""
        place = self._asked()
        if place is not None and self._is_gone(after, place):
            if self.directory.status(place.path) is not None:
                return  # not removed yet, or edited meanwhile: then it is adopted, and the note is dropped
            try:
                self.put_aside([place.directory])
            except StorageError as error:
                if error.facts.get("errno") not in _FOR_GOOD:
                    raise
                yield f"{place.directory} stays, remove it by hand: {error.message}"
        self.directory.discard(layout.PRUNING)

    def _asked(self) -> Place | None:
        try:
            note = decode(self.directory.read(layout.PRUNING, 4096) or b"")
        except NotAFileError as error:
            if error.facts.get("errno") not in (None, errno.ELOOP):
                raise  # it cannot be read now; later it can
            return None
        except ValueError:
            return None
        loop_id = note.get("loop") if isinstance(note, dict) else None
        place = layout.place_of(f"{ARCHIVE}/{loop_id}/{STATE_FILE}")
        return place if place is not None and self.directory.is_directory(place.directory) else None

    def _is_gone(self, after: Tree, place: Place) -> bool:
        return after.read(place.path) is None and after.read(place.other.path) is None

    # --- aside, and gone ---

    def put_aside(self, names: Iterable[str]) -> None:
        """Take files and directories, whatever they hold, out of everybody's way. Durable; then :meth:`free` them."""
        self.directory.make(layout.ASIDE)
        for name in names:
            self._put_aside.append(self._moved_aside(name, durable=True))

    def _moved_aside(self, name: str, *, durable: bool = False) -> str:
        target = self.directory.new_name()
        if self.directory.is_directory(name):
            self.directory.open_up(name)  # to move it is to change it, too
        self.directory.move(name, target, durable=durable)
        return target

    def free(self) -> Iterator[str]:
        """Remove what was put aside; what could not be removed, in words. It may take long, so nothing is held."""
        while self._put_aside:
            name = self._put_aside.pop()
            try:
                self._remove(name)
            except StorageError as error:
                yield f"{name} could not be removed whole, remove it by hand: {error.message}"

    def sweep(self) -> None:
        """Remove what processes that are gone left in the aside directory. Under the guard."""
        for name in self.directory.names(layout.ASIDE):
            if self._is_ownerless(name):
                with suppress(StorageError):  # somebody else's file among artifacts; ``check`` names it
                    self._remove(f"{layout.ASIDE}/{name}")

    def _is_ownerless(self, name: str) -> bool:
        owner = name.partition("-")[0]
        if owner == str(os.getpid()):  # in a container every run of an agent may have the same pid
            return not self.directory.is_of_this_run(name)
        return not owner.isdigit() or process.liveness(int(owner), None).verdict == "dead"

    def _remove(self, name: str) -> None:
        """Remove whatever has that name in the aside directory; symlinks are removed, never followed.

        Directories inside are moved up beside it first, so that no depth is too much, and what a kill leaves is swept.
        """
        remaining = [name]
        while remaining:
            here = remaining.pop()
            if not self.directory.is_directory(here):
                self.directory.discard(here)
                continue
            self.directory.open_up(here)
            for inner in (f"{here}/{entry}" for entry in self.directory.names(here)):
                if self.directory.is_directory(inner):
                    remaining.append(self._moved_aside(inner))
                else:
                    self.directory.discard(inner)
            if not self.directory.remove_empty(here) and self.directory.is_directory(here):
                raise StorageError(f"{here}: somebody still writes there", path=here)
