"""The projection: what the head says, written out as files.

It needs no fsync, since history recovers it; but what history learned from a
file, and what replaces a file that history did not expect, is made durable.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from gitstate import layout
from gitstate.digest import sha1
from gitstate.durable import Directory
from gitstate.errors import GitStateError, StorageError
from gitstate.ids import is_servable
from gitstate.layout import ARCHIVE, ARTIFACTS, LOOPS, REGISTRY, Place
from gitstate.marks import Mark, mark_of
from gitstate.medium import NotAFileError, UnreadableError
from gitstate.snapshot import Snapshot, Tree
from gitstate.verdicts import Unreadable

if TYPE_CHECKING:
    from gitstate.disposal import Disposal

Found = bytes | Unreadable | None

GLIMPSE = 0.05  # seconds between two readings that must agree before a file is taken for damaged


class Survey(dict[str, Found]):
    """What stands at each versioned path.

    ``statuses`` has what the file system said of each file just before it was read, ``areas`` what it said of ``loops/``
    and ``archive/``, and then the names in them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[str, os.stat_result] = {}
        self.areas: dict[str, tuple[os.stat_result, list[str]]] = {}


class Projection:
    """The files of one state directory."""

    def __init__(self, directory: Directory, *, decides: bool = True) -> None:
        self.directory = directory
        # Who only looks on takes what the disk cannot read now for unreadable; who decides by it must not.
        self.decides = decides

    @cached_property
    def disposal(self) -> Disposal:
        """What is to go."""
        from gitstate.disposal import Disposal  # whoever only reads gets rid of nothing

        return Disposal(self.directory)

    # --- looking ---

    def found(self, path: str) -> Found:
        """What stands at a versioned path."""
        return self.look(path)[0]

    def look(self, path: str) -> tuple[Found, os.stat_result | None]:
        """As :meth:`found`, with what the file system said of a file just before it was read."""
        try:
            return self.directory.look(path) or (None, None)
        except (NotAFileError, UnreadableError) as error:
            if self.decides and isinstance(error, UnreadableError):
                raise
            return Unreadable(error.message.partition(": ")[2] or error.message), None

    def survey(self) -> Survey:
        """Every versioned path that something stands at: the registry and each loop's session state."""
        seen = Survey()
        for area in (LOOPS, ARCHIVE):
            found = self.directory.status(area)
            if found is not None:
                seen.areas[area] = found, self.directory.names(area)
        places = [Place(area, name) for area, (_, names) in seen.areas.items() for name in names if is_servable(name)]
        for path in (REGISTRY, *(place.path for place in places)):
            state, status = self.look(path)
            if state is not None:
                seen[path] = state
            if status is not None:
                seen.statuses[path] = status
        return seen

    def places(self, *areas: str) -> Iterator[Place]:
        """The loop directories in *areas* whose names can be kept."""
        for area in areas:
            yield from (Place(area, name) for name in self.directory.names(area) if is_servable(name))

    def unservable(self) -> list[str]:
        """Loop directories whose names can be neither a path component of ours nor a ref; they are left alone."""
        return [
            f"{area}/{name}"
            for area in (LOOPS, ARCHIVE)
            for name in self.directory.names(area)
            if not is_servable(name) and self.directory.is_directory(f"{area}/{name}")
        ]

    # --- quarantine ---

    def quarantine(self, path: str, found: Found) -> str:
        """Keep damaged bytes, durably, before they are replaced; where they are now."""
        name = self._name_in_quarantine(path)
        if isinstance(found, bytes):
            self.directory.write(name, found)
        else:
            self.directory.move(self._obstacle(path), name, durable=True)
        return name

    def _name_in_quarantine(self, path: str) -> str:
        self.directory.make(layout.QUARANTINE, durable=True)
        return f"{layout.QUARANTINE}/{path.replace('/', '_')}-{os.urandom(4).hex()}"

    def _obstacle(self, path: str) -> str:
        """The highest component of *path* that is not a real directory."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if not self.directory.is_directory(above):
                return above
        return path

    # --- writing out ---

    def apply(
        self,
        before: Tree,
        after: Tree,
        changed: Iterable[str],
        seen: Mapping[str, Found],
        marks: Mapping[str, Mark],
    ) -> tuple[list[str], set[str]]:
        """Make the files say what *after* says: moves, session states, the registry last.

        A file that is neither what was *seen* nor, where nothing was noted, what *before* says, was edited meanwhile
        and stays. One that has its *marks* still is as *before* says. Nothing is raised: what failed comes back as words, with the paths that are not as they should be.
        """
        problems: list[str] = []
        unlike: set[str] = set()
        paths = sorted(set(changed), key=lambda path: (path == REGISTRY, path))
        try:
            # With marks, loops/ and archive/ stood there a moment ago.
            self._make_directories((layout.SHARED,) if marks else layout.DIRECTORIES)
        except GitStateError as error:
            problems.append(error.message)
        for place in filter(None, map(layout.place_of, paths)):
            if place.path in marks:  # it stands there, and was put there to the end
                continue
            try:
                self._place_directory(after, place)
            except GitStateError as error:
                # The state stays unwritten, too: that is what has the next reconcile place the directory again.
                problems.append(error.message)
                unlike |= {place.path, place.other.path}
        for path in paths:
            if path in unlike:
                continue
            try:
                if not self._write(path, after.read(path), before, seen, marks.get(path)):
                    unlike.add(path)
            except GitStateError as error:
                problems.append(error.message)
                unlike.add(path)
        if self.directory.status(layout.PRUNING) is not None:
            try:
                problems += self.disposal.finish(after)
            except GitStateError as error:
                problems.append(error.message)
        return problems, unlike

    def _make_directories(self, names: Iterable[str]) -> None:
        for name in names:
            if not self.directory.is_directory(name):
                self.directory.make(name)

    def _place_directory(self, after: Tree, place: Place) -> None:
        """Bring the directory of a loop to where *after* has it, or make it."""
        if after.read(place.path) is None:
            return
        if self.directory.is_directory(place.other.directory) and after.read(place.other.path) is None:
            if place.area == LOOPS:  # they may have been pruned
                self._make_artifacts(place.other)
            self.move_directory(place.other.directory, place.directory)
        elif place.area == LOOPS and self.directory.status(place.path) is None:
            # The state is written after them: while it is missing, a kill may have left only some of them.
            self._make_artifacts(place)

    def _make_artifacts(self, place: Place) -> None:
        for name in ARTIFACTS:
            self.directory.make(f"{place.directory}/{name}")

    def make_artifacts(self, after: Tree) -> None:
        """The empty directories of every active loop: git does not bring them along to a clone."""
        for loop_id in after.loops(LOOPS):
            self._make_artifacts(Place(LOOPS, loop_id))

    def move_directory(self, source: str, target: str) -> None:
        """Rename a directory, or merge it into one that is there, never overwriting: what collides stays behind.

        Durable, before anything is written into it: a state that lies in the archive and is no version of the archive's
        would, after a power cut, look like a loop that the original has put away.
        """
        if not self.directory.is_directory(target):
            self.directory.make(target.rpartition("/")[0], durable=True)
            self.directory.carry(source, target)
            return
        self.directory.sync_way(target)
        self._merge(source, target)

    def _merge(self, source: str, target: str) -> None:
        for name in self.directory.names(source):
            inner, there = f"{source}/{name}", self.directory.status(f"{target}/{name}")
            if there is None:
                self.directory.carry(inner, f"{target}/{name}")
            elif stat.S_ISDIR(there.st_mode) and self.directory.is_directory(inner):
                self.directory.sync(target)
                self._merge(inner, f"{target}/{name}")
            elif self._are_alike(inner, f"{target}/{name}"):
                self.directory.sync_file(f"{target}/{name}")
                self.directory.discard(inner)
        is_gone = self.directory.remove_empty(source) or not self.directory.is_directory(source)
        if not is_gone and not self.directory.names(source):
            raise StorageError(f"{source}: empty, and cannot be removed", path=source)

    def _are_alike(self, one: str, other: str) -> bool:
        """Whether two names are those of one file, or of files that can be read and have the same bytes."""
        first, second = self.directory.status(one), self.directory.status(other)
        if first is not None and second is not None and os.path.samestat(first, second):
            return True
        found = self.found(one)
        return isinstance(found, bytes) and found == self.found(other)

    def _write(
        self, path: str, wanted: bytes | None, before: Tree, seen: Mapping[str, Found], mark: Mark | None
    ) -> bool:
        """Replace one file unless it was edited meanwhile; whether it is as wanted now."""
        status, known = self.directory.status(path), before.read(path)
        present = known if status is not None and mark_of(status) == mark else self.found(path)
        if present == wanted:
            return True
        place = layout.place_of(path)  # after a move, what was at the other place may be here
        held = {path: known} if place is None else {path: known, place.other.path: before.read(place.other.path)}
        if present is not None and present not in [seen.get(name, raw) for name, raw in held.items()]:
            return False
        if wanted is None:
            self.directory.discard(path)
            self._remove_if_empty(path)
            return True
        above = path.rpartition("/")[0]
        if above and not self.directory.is_directory(above):
            self.directory.make(above)
        # Anything but the head's own version is replaced for good: coming back in a power cut, after the same field was
        # changed once more, it would be taken for a fresh edit.
        durable = present is not None and present not in held.values()
        aside = self.directory.prepare_like(status, wanted, durable=durable)
        try:
            return self._replaced(path, aside, wanted, present, durable=durable)
        finally:
            self.directory.drop(aside)

    def _replaced(self, path: str, aside: str, wanted: bytes, present: Found, *, durable: bool) -> bool:
        """Put *aside*, which has what is *wanted*, in the place of what was *present* when it was compared; whether nobody
        came in between. What an exchange displaced is looked at once more, and goes back if it is something else.
        """
        if present is None:
            return self.directory.link(aside, path)
        if not self.directory.exchange(aside, path):
            if self.found(path) != present:
                return False
            self.directory.move(aside, path, durable=durable)  # and what came in between is lost
            return True
        try:
            is_as_compared = self.found(aside) == present
        except BaseException:
            self._put_back(aside, path, wanted)
            raise
        if not is_as_compared:
            self._put_back(aside, path, wanted)
        elif durable:
            self.directory.sync(path.rpartition("/")[0])
        return is_as_compared

    def _put_back(self, aside: str, path: str, wanted: bytes) -> None:
        """Undo an exchange by which *wanted* came to *path*."""
        self.directory.exchange(aside, path)
        if self.found(aside) != wanted:  # meanwhile a second one came, which stays
            self.directory.exchange(aside, path)
            kept = self._name_in_quarantine(path)
            self.directory.move(aside, kept, durable=True)
            raise StorageError(f"{path} was replaced twice meanwhile: one is kept in {kept}", path=path)

    def make_durable(self, paths: Iterable[str]) -> None:
        """Make files durable as they stand, so that a power cut cannot bring back what was there before them."""
        for path in sorted(paths):
            try:
                if isinstance(self.found(path), bytes):
                    self.directory.sync_file(path)
            except StorageError as error:
                if error.facts.get("errno") != errno.ENOENT:  # moved away meanwhile: somebody edits on
                    raise

    def _remove_if_empty(self, path: str) -> None:
        place = layout.place_of(path)
        if place is not None and self.directory.is_directory(place.directory):
            for name in ARTIFACTS:
                self.directory.remove_empty(f"{place.directory}/{name}")
            self.directory.remove_empty(place.directory)

    def follow_legacy(self, after: Tree) -> None:
        """The legacy symlink: to the only active loop, or none. A regular file there is only moved once it is migrated."""
        active = after.loops(LOOPS)
        target = layout.state_path(active[0]) if len(active) == 1 else None
        if target is not None and self.directory.link_target(layout.LEGACY) == target:
            return
        found = self.directory.status(layout.LEGACY)
        if found is not None and not stat.S_ISLNK(found.st_mode):
            if not self._absorb_legacy(after):
                return
            found = None
        if target is None:
            if found is not None:
                self.directory.discard(layout.LEGACY)
        else:
            self.directory.symlink(target, layout.LEGACY)

    def legacy_state(self) -> Found:
        """The older manager's own state: a regular file where the symlink would be."""
        found = self.directory.status(layout.LEGACY)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return self.found(layout.LEGACY)

    def _absorb_legacy(self, after: Tree) -> bool:
        """Move what belongs to a migrated loop to its directory; the state file, kept as it was, goes last."""
        from gitstate.migration import find_migrated, read_legacy  # once in the life of a project

        found = self.legacy_state()
        legacy = read_legacy(found)[0] if isinstance(found, bytes) else None
        snapshot = Snapshot(after)
        loop_id = None if legacy is None else find_migrated(snapshot, legacy)
        place = None if loop_id is None else snapshot.place(loop_id)
        if place is None:
            return False
        kept = f"{place.directory}/{layout.KEPT_LEGACY}"
        if self.found(kept) not in (None, found):
            return False  # migrated before, and the older manager went on writing: neither of the two is lost
        for name in ARTIFACTS:
            if self.directory.is_directory(name):
                self.move_directory(name, f"{place.directory}/{name}")
        self.directory.sync_way(kept)
        if self.found(kept) is None:
            self.directory.carry(layout.LEGACY, kept)
        else:  # brought there by somebody who was interrupted before he took it away here
            self.directory.sync_file(kept)
            self.directory.discard(layout.LEGACY)
        return True


def blob_id(found: Found) -> str | None:
    """The id that git gives these bytes as a blob (gitformat-loose(5)); ``None`` for what is not a file."""
    return sha1(b"blob %d\0%s" % (len(found), found)).hex() if isinstance(found, bytes) else None
