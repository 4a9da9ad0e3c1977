"""Reading: without a lock, without writing, and by the rule that reconciling goes by.

What is served is what the next mutation would make of the files: the head
where nothing else was written, an outside edit merged as adoption would merge
it, and history's version, with a warning, of what is missing or damaged.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, cast

from gitstate import layout
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.encoding import Record, fresh
from gitstate.errors import (
    AmbiguousLoopError,
    CorruptStateError,
    InvalidLoopIdError,
    LoopNotFoundError,
    UnknownStatusWarning,
    shown,
    warn,
    warn_of_damage,
)
from gitstate.ids import validate_known_id
from gitstate.layout import ARCHIVE, LOOPS, REGISTRY
from gitstate.note import Notes
from gitstate.projection import GLIMPSE, Found, Projection, blob_id
from gitstate.records import STATUSES, LoopState, Registry, RegistryEntry, process_of, valid_record
from gitstate.sight import Sight, known_of
from gitstate.snapshot import Snapshot, Tree
from gitstate.store.epoch import is_overruled
from gitstate.store.inspection import CONFIG, inspect
from gitstate.store.refs import Refs

if TYPE_CHECKING:
    from gitstate.results import Liveness
    from gitstate.store.revisions import Revisions

_TRIES = 3
_STANDING = (f".git/{layout.BRANCH}", CONFIG)  # what says which head there is, and whose


class NotedTree:
    """The files as the note says that the head has them; one that was replaced since is read from history instead."""

    def __init__(self, projection: Projection, reader: Reader, revision: str, blobs: Mapping[str, str]) -> None:
        self.projection, self.reader = projection, reader
        self.revision, self.blobs = revision, blobs
        self._judged: Tree | None = None

    def read(self, path: str) -> bytes | None:
        wanted = self.blobs.get(path)
        if wanted is None:
            place = layout.place_of(path)
            return None if place is None or place.area != ARCHIVE else self._archived(path)
        found = self.projection.found(path)
        if not isinstance(found, bytes) or blob_id(found) != wanted:
            return self.reader.revisions.objects.read(wanted, b"blob").raw
        return found

    def _archived(self, path: str) -> bytes | None:
        """Nobody compared it: where the file is another one than the head's, everything is judged."""
        raw = self.reader.revisions.tree(self.revision).read(path)
        if self._judged is None and self.projection.found(path) != raw:
            judged = self.reader.judged(self.revision)
            self._judged = self.reader.revisions.tree(self.revision) if judged is None else judged.tree
        return raw if self._judged is None else self._judged.read(path)

    def loops(self, area: str) -> Sequence[str]:
        if area == ARCHIVE:
            return self.reader.revisions.tree(self.revision).loops(area)
        places = (layout.place_of(path) for path in self.blobs)
        return sorted(place.loop_id for place in places if place is not None)

    def tags(self, loop_id: str) -> Sequence[str]:
        return self.reader.refs.tags(loop_id)


class FilesTree:
    """The files as they are, where there is no history yet."""

    revision = None

    def __init__(self, projection: Projection) -> None:
        self.projection = projection

    def read(self, path: str) -> bytes | None:
        found = self.projection.found(path)
        return found if isinstance(found, bytes) else None

    def loops(self, area: str) -> Sequence[str]:
        return [place.loop_id for place in self.projection.places(area) if self.read(place.path) is not None]

    def tags(self, loop_id: str) -> Sequence[str]:
        return ()


class Reader:
    """Whoever reads one state directory. ``owner`` says who would own what is found there without an entry."""

    def __init__(self, directory: Directory, clock: Clock, owner: Callable[[], str]) -> None:
        self.directory, self.clock, self.owner = directory, clock, owner
        self.projection = Projection(directory, decides=False)
        self.notes = Notes(self.projection)
        self.refs = Refs(directory, clock)
        self._is_clean = False
        self._seen = known_of(directory.path)

    @cached_property
    def revisions(self) -> Revisions:
        """History. Whoever finds in the files what the head says needs nothing of it."""
        from gitstate.store.objects import Objects
        from gitstate.store.revisions import Revisions

        return Revisions(Objects(self.directory), self.refs)

    def is_begun(self) -> bool:
        """Whether there is any history.

        Raises:
            UnsafeRepositoryError: there is one that gitstate did not make.
        """
        return inspect(self.directory) != "none"

    def view(self) -> Snapshot:
        """What the next mutation would find, after reconciling.

        Raises:
            CorruptStateError: the repository itself is damaged.
        """
        with self.directory.kept_open():
            return self._viewed()

    def _viewed(self) -> Snapshot:
        if not self.is_begun():
            return self.unadopted()
        for _ in range(_TRIES):
            head = self._head()
            snapshot = self._noted(head) or self.judged(head)
            if snapshot is not None and self._head() == head:
                return snapshot
        return Snapshot(self.revisions.tree(self._head()))

    def unadopted(self) -> Snapshot:
        """The files as they are, without history."""
        return Snapshot(FilesTree(Projection(self.directory)))  # there is nothing else to go on with

    def _head(self) -> str:
        return (None if self._is_overruled() else self.refs.loose(layout.BRANCH)) or self.revisions.head()

    def _is_overruled(self) -> bool:
        """Whether the machine stopped since the files were written: then the journal knows more than the branch."""
        if not self._is_clean:  # once it is, nobody writes another boot's journal
            self._is_clean = not is_overruled(self.directory)
        return not self._is_clean

    # --- one file ---

    def state(self, loop_id: str) -> Record | None:
        """The session state of an active loop, if its file is the head's; ``None``: that takes a closer look."""
        path = layout.state_path(loop_id)
        return self._untouched(path) or self._compared(path)

    def registry(self) -> Record | None:
        """The registry, if nothing that its entries depend on was touched since they were last compared."""
        return self._untouched(REGISTRY)

    def _untouched(self, path: str) -> Record | None:
        sight, names = self._seen.get(path, (None, ()))
        raw = sight.read(path) if sight is not None and sight.is_untouched(names) else None
        return None if raw is None else valid_record(path, raw)

    def _compared(self, path: str) -> Record | None:
        with self.directory.kept_open():
            return self._compared_alone(path)

    def _compared_alone(self, path: str) -> Record | None:
        """The record in a file that alone is compared with what the note says of it."""
        sight = Sight(self.directory.path, (*_STANDING, path))
        if not self.is_begun() or self._is_overruled():
            return None
        note = self.notes.read()
        if note is None or note.head != self.refs.loose(layout.BRANCH):
            return None
        found = self.projection.found(path)
        if not isinstance(found, bytes) or blob_id(found) != note.files.get(path):
            return None
        try:
            record = valid_record(path, found)
        except CorruptStateError:
            return None
        self._seen[path] = sight, _STANDING
        return record

    # --- all files ---

    def _noted(self, head: str) -> Snapshot | None:
        # Entries follow the session states of active loops, so these are watched along with the registry.
        states = [place.path for place in self.projection.places(LOOPS)]
        names = (*_STANDING, LOOPS, *states)
        sight = Sight(self.directory.path, (*names, REGISTRY))
        note = self.notes.read()
        if note is None or note.head != head or self.notes.confirmed(note, None) is None:
            return None
        self._seen[REGISTRY] = sight, names
        return Snapshot(NotedTree(self.projection, self, head, note.files))

    def judged(self, head: str) -> Snapshot | None:
        """What the next mutation would make of the files; ``None`` if they were seen in the middle of being written."""
        from gitstate import reconcile  # the writing floor, imported only where something is out of line
        from gitstate.settling import settle
        from gitstate.snapshot import Overlay

        seen = self.projection.survey()
        step = reconcile.next_step(self.revisions, head, seen, owner=self.owner(), now=self.clock.now())
        if step is None:
            return Snapshot(self.revisions.tree(head))
        odd = [*(damage.path for damage in step.noticed), *step.missing]
        if odd and self._was_a_glimpse({path: seen.get(path) for path in odd}):
            return None
        for damage in step.noticed:
            warn_of_damage(damage.describe().replace("restored from", "served from"))
        for path in step.missing:
            warn_of_damage(f"{path}: missing, served from {head[:7]}")
        return Snapshot(Overlay(settle(step.snapshot, self.clock.now(), owner=self.owner(), whole=True)))

    def _was_a_glimpse(self, found: Mapping[str, Found]) -> bool:
        """Whether somebody was only in the middle of writing: two readings must agree before anything is called damage."""
        self.clock.sleep(GLIMPSE)
        return any(self.projection.found(path) != before for path, before in found.items())


class Reads(ABC):
    """The questions that a repository and an open transaction answer alike."""

    @abstractmethod
    def _view(self) -> Snapshot:
        """What is read: the present, or the transaction's own state."""

    @abstractmethod
    def _view_at(self, at: str | datetime | None) -> Snapshot:
        """The view, or the snapshot of a revision."""

    def _state_at_a_glance(self, loop_id: str) -> Record | None:
        """The session state of an active loop, where that can be told at a glance; fresh."""
        return None

    def _registry_at_a_glance(self) -> Record | None:
        """The registry, likewise."""
        return None

    @abstractmethod
    def _from_tag(self, loop_id: str) -> Record | None:
        """The session state of a loop that was pruned, from history."""

    @abstractmethod
    def _tagged_ids(self) -> list[str]:
        """The loops that have an archive tag, pruned ones included."""

    def get_loop(self, loop_id: str, *, at: str | datetime | None = None) -> LoopState:
        """The session state of a loop, active, archived or pruned; a fresh copy.

        Args:
            loop_id: an exact id.
            at: a revision or an aware datetime; the present without one.

        Raises:
            InvalidLoopIdError: no loop can have that id.
            LoopNotFoundError: no loop has it (then).
            RevisionNotFoundError: no such revision.
            CorruptStateError: the revision holds something else than a session state there.
        """
        validate_known_id(loop_id)
        seen = self._state_at_a_glance(loop_id) if at is None else None
        if seen is not None:
            _warn_of_status(seen, loop_id)
            return cast("LoopState", seen)
        snapshot = self._view_at(at)
        try:
            record = snapshot.find(loop_id)[1]
        except LoopNotFoundError:
            pruned = self._from_tag(loop_id) if at is None else None
            if pruned is None:
                raise
            record = pruned
        _warn_of_status(record, loop_id)
        return copied(record)

    def load_registry(self, *, at: str | datetime | None = None) -> Registry:
        """The registry; an empty one where there is none yet. A fresh copy.

        Raises:
            RevisionNotFoundError: no such revision.
            CorruptStateError: the revision holds something else than a registry.
        """
        return cast("Registry", fresh(self._view_at(at).registry))

    def list_active_loops(self) -> list[RegistryEntry]:
        """The registry's entries, in its order; fresh copies."""
        seen = self._registry_at_a_glance()
        return self.load_registry()["active_loops"] if seen is None else cast("Registry", seen)["active_loops"]

    def liveness(self, loop_id: str) -> Liveness:
        """Whether the process recorded for a loop lives, and how that is known.

        Raises:
            InvalidLoopIdError: no loop can have that id.
            LoopNotFoundError: no loop has it.
        """
        validate_known_id(loop_id)
        return liveness_of(self._view().find(loop_id)[1])

    def is_loop_alive(self, loop_id: str) -> bool:
        """Whether the loop's process is known to live; ``False`` for a foreign one.

        Raises:
            InvalidLoopIdError: no loop can have that id.
            LoopNotFoundError: no loop has it.
        """
        return self.liveness(loop_id).verdict == "alive"

    def detect_crashed_loops(self) -> list[RegistryEntry]:
        """The entries of loops that are ``running`` by their session state while their process is gone.

        A loop whose process belongs to another host is not among them: nothing is known of it.
        """
        view = self._view()
        return [cast("RegistryEntry", fresh(view.entries[loop_id])) for loop_id in crashed(view)]

    def resolve_loop_id(self, text: str) -> str:
        """The id that *text* means: an exact one, or a unique beginning of at least 4 characters of an id, of an id
        without ``ralph-``, or of its last eight hex digits. Active loops first, archived ones when none fits, and then
        pruned ones.

        Raises:
            LoopNotFoundError: none fits.
            AmbiguousLoopError: several do; ``candidates`` lists them.
        """
        if not isinstance(text, str):
            raise InvalidLoopIdError(f"a text is wanted, not {shown(text)}", hint="gitstate list", loop_id=text)
        view = self._view()
        known = [view.loops(), view.loops(ARCHIVE)]
        if not any(text in ids for ids in known):
            known.append(self._tagged_ids())
        if any(text in ids for ids in known):
            return text
        for ids in known:
            fitting = [loop_id for loop_id in ids if _begins(loop_id, text)]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise AmbiguousLoopError(
                    f"{shown(text)} fits {len(fitting)} loops: {', '.join(fitting)}",
                    hint="write more of the id",
                    loop_id=text,
                    candidates=tuple(fitting),
                )
        raise view.unknown(text)


_DRAWN = r"-([0-9a-f]{8})\Z"


def _begins(loop_id: str, text: str) -> bool:
    if len(text) < 4:
        return False
    drawn = re.search(_DRAWN, loop_id)
    beginnings = (loop_id, loop_id.removeprefix("ralph-"), drawn[1] if drawn else "")
    return any(whole.startswith(text) for whole in beginnings)


def crashed(view: Snapshot) -> list[str]:
    """The running loops of *view* whose process is gone, in the registry's order."""
    found = []
    for loop_id in view.entries:
        state = view.state_or_none(loop_id)
        if state is not None and state.get("status") == "running" and liveness_of(state).verdict == "dead":
            found.append(loop_id)
    return found


def liveness_of(state: Record) -> Liveness:
    """Whether the process that a session state names lives."""
    from gitstate import process  # what only reads files need not know of

    return process.liveness(state.get("currentPid"), process_of(state))


def copied(record: Record) -> LoopState:
    """A fresh copy of a session state, with the loose types of its public face."""
    return cast("LoopState", fresh(record))


def _warn_of_status(record: Record, loop_id: str) -> None:
    if record.get("status") not in STATUSES:
        words = f"{loop_id} has the status {record.get('status')!r:.60}, which gitstate would not write"
        warn(words, UnknownStatusWarning)
