"""The beginning: a repository where there is none yet, and a clone completed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gitstate import layout, process
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, RefusedError, StorageError
from gitstate.medium import sync_directory
from gitstate.operation import Operation
from gitstate.projection import Projection
from gitstate.settling import settle
from gitstate.snapshot import Nothing, Snapshot
from gitstate.store import creation, inspection, surroundings
from gitstate.store.revisions import Revisions


@dataclass(frozen=True)
class Beginning:
    """What must stand before the first step of a mutation, and whoever makes it stand."""

    base: Path
    clock: Clock
    actor: str
    directory: Directory
    projection: Projection
    revisions: Revisions

    def prepare(self, *, complete: bool = False) -> bool:
        """Make sure that there is a repository, adopting what lies there; whether it was made now.

        Raises:
            RefusedError: the project tracks files of the state directory; or, without *complete*, this is a clone.
        """
        state = inspection.inspect(self.directory)
        if state == "clone":
            if not complete:
                raise RefusedError(
                    "the state directory is a clone: it lacks what only gitstate's own repository has",
                    hint="gitstate init",
                    path=str(self.base),
                )
            self._vouch_for()
        if state != "none":
            if complete:
                self._settle_in()
            if complete or state == "unmarked" or self.directory.status(layout.GUARD) is None:
                creation.complete(self.directory)
            if state == "clone":
                self.projection.make_artifacts(self.revisions.tree(self.revisions.head()))
            return False
        self._make_state_directory()
        return self._create()

    def _make_state_directory(self) -> None:
        try:
            for above in (self.base.parent, self.base):
                above.mkdir(0o700, exist_ok=True)  # another one may begin here at the same moment
        except OSError as error:
            raise StorageError(
                f"{self.base}: {(error.strerror or str(error)).lower()}", path=str(self.base), errno=error.errno
            ) from None

    def _vouch_for(self) -> None:
        """Take a clone for ours only if its whole history can be read and ends in our first commit."""
        try:
            *_, oldest = self.revisions.walk(self.revisions.head())
        except CorruptStateError as error:
            raise inspection.unsafe(f"its history cannot be read: {error.message}") from None
        if oldest.operation is None or oldest.operation.kind != "init":
            raise inspection.unsafe("its history does not begin with gitstate's first commit")

    def _settle_in(self) -> None:
        """Make sure that the project's repository, if there is one, neither tracks nor shows the state directory."""
        around = surroundings.find_surroundings(self.base)
        if around is not None:
            surroundings.refuse_if_tracked(around)
            surroundings.exclude_from(around)

    def _create(self) -> bool:
        self._settle_in()
        creation.sweep(self.directory)
        for above in (self.base.parent.parent, self.base.parent):  # whoever made these may have been killed right after
            sync_directory(above)
        seen = self.projection.survey()
        contents = {path: raw for path, raw in seen.items() if isinstance(raw, bytes)}
        states = [place for place in map(layout.place_of, contents) if place is not None]
        subject = f"init: adopt {len(contents)} files as they were found" if contents else "init: a new state directory"
        operation = Operation(
            "init",
            subject,
            tuple(dict.fromkeys(place.loop_id for place in states)),
            generation=1,
            actor=self.actor,
            host=process.hostname(),
            pid=os.getpid(),
        )
        self.projection.make_durable(contents)
        now = self.clock.now()
        if not contents:
            contents = {
                path: raw for path, raw in settle(Snapshot(Nothing()), now).contents().items() if raw is not None
            }
        return creation.create(self.directory, contents, operation, now)
