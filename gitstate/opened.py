"""A state directory as it is opened: its place, its actor, and what can be read of it without a step in history."""

from __future__ import annotations

import os
import re
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gitstate import layout
from gitstate.clock import Clock, SystemClock
from gitstate.durable import Directory
from gitstate.encoding import Record
from gitstate.errors import InvalidInputError, shown
from gitstate.layout import ARCHIVE, LOOPS
from gitstate.reading import Reader, Reads
from gitstate.snapshot import Snapshot

if TYPE_CHECKING:
    from gitstate.store.revisions import Revisions

Moment = str | datetime
_ACTOR = r"\A[^\x00-\x1f\x7f<>]{1,200}\Z"


class Opened(Reads):
    """Where the state directory of one project is, and who acts."""

    def __init__(
        self, project_root: str | os.PathLike[str], *, actor: str | None = None, clock: Clock | None = None
    ) -> None:
        self._project_root = _checked_root(project_root)
        self._base = self._project_root.joinpath(*layout.STATE_DIRECTORY)
        self._given_actor = None if actor is None else _checked_actor(actor)
        self._clock = SystemClock() if clock is None else clock
        self._directory = Directory(self._base, layout.ASIDE)
        self._reader = Reader(self._directory, self._clock, lambda: self.actor)

    # --- itself ---

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"StateRepository({str(self._project_root)!r}, actor={self.actor!r})"

    def close(self) -> None:
        """Let go of open files. Optional; may be called again."""
        if "revisions" in vars(self._reader):  # otherwise there was nothing to open yet
            self._revisions.objects.close()

    @cached_property
    def _default_actor(self) -> str:
        from gitstate import process  # what only reads files need not know of

        return _checked_actor(f"user:{process.login_name()}")

    @property
    def actor(self) -> str:
        """Who mutates."""
        return self._default_actor if self._given_actor is None else self._given_actor

    @property
    def project_root(self) -> Path:
        """The project."""
        return self._project_root

    @property
    def base_dir(self) -> Path:
        """The state directory."""
        return self._base

    @property
    def loops_dir(self) -> Path:
        """Where active loops lie."""
        return self.base_dir / LOOPS

    @property
    def archive_dir(self) -> Path:
        """Where archived loops lie."""
        return self.base_dir / ARCHIVE

    @property
    def shared_dir(self) -> Path:
        """A directory for the loops' own use; never versioned."""
        return self.base_dir / layout.SHARED

    @property
    def registry_path(self) -> Path:
        """The registry."""
        return self.base_dir / layout.REGISTRY

    @property
    def lock_path(self) -> Path:
        """The lease record."""
        return self.base_dir / layout.LEASE_RECORD

    # --- what the faces stand on ---

    @property
    def _revisions(self) -> Revisions:
        return self._reader.revisions

    def _is_begun(self) -> bool:
        return self._reader.is_begun()

    def _view(self) -> Snapshot:
        return self._reader.view()

    def _state_at_a_glance(self, loop_id: str) -> Record | None:
        return self._reader.state(loop_id)

    def _registry_at_a_glance(self) -> Record | None:
        return self._reader.registry()

    def _view_at(self, at: Moment | None) -> Snapshot:
        if at is None:
            return self._view()
        from gitstate import history  # what only reads the present need not know of the past

        return history.snapshot_at(self._revisions, self._resolve(at))

    def _resolve(self, name: Moment) -> str:
        if not self._is_begun():
            from gitstate import history

            raise history.no_history(name)
        from gitstate.store.naming import resolve

        return resolve(self._revisions, name)

    def _from_tag(self, loop_id: str) -> Record | None:
        if not self._is_begun():
            return None
        from gitstate import history

        archiving = history.pruned(self._revisions, self._view(), loop_id)
        return None if archiving is None else archiving.state

    def _tagged_ids(self) -> list[str]:
        return self._reader.refs.archived_ids() if self._is_begun() else []


def _checked_root(root: str | os.PathLike[str]) -> Path:
    try:
        path = os.path.abspath(os.fspath(root))
        if isinstance(path, str) and b"\0" not in os.fsencode(path):
            return Path(path)
    except (TypeError, UnicodeEncodeError):
        pass
    raise InvalidInputError(f"project_root: a path is wanted, not {shown(root)}")


def _checked_actor(actor: object) -> str:
    if not isinstance(actor, str) or not re.match(_ACTOR, actor) or not actor.strip():
        raise InvalidInputError(
            f"actor: one line of at most 200 characters without < and > is wanted, not {shown(actor)}"
        )
    return actor
