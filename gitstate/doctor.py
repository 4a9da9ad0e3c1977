"""The doctor: what surrounds the store. File system, project, loops, lease, clock, size; ``check`` judges the store itself."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from gitstate import layout
from gitstate.audit import Progress
from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, GitStateError, RefusedError, StorageError
from gitstate.guard import Guard
from gitstate.marks import size_of
from gitstate.results import Finding, LeaseInfo, Liveness
from gitstate.store import surroundings
from gitstate.store.revisions import Revisions

_AHEAD = 60  # seconds that history may be ahead of the clock before that is worth a word
_LARGE = 500 * 1024 * 1024  # bytes of .git
_PROGRAMS = f"{os.defpath}:/usr/local/bin:/opt/homebrew/bin"  # the library does not read the environment


@dataclass
class Doctor:
    """One look at the surroundings of one state directory. *loops* holds each active loop's status and liveness.

    *progress* hears what is looked at, before it is.
    """

    directory: Directory
    revisions: Revisions
    clock: Clock
    loops: dict[str, tuple[str, Liveness]]
    lease: LeaseInfo | None
    progress: Progress | None = None

    def findings(self) -> Iterator[Finding]:
        """What is worth knowing; the file system is tried out with small files in ``.git/gitstate``."""
        yield from self._file_system()
        yield from self._project()
        yield from self._loops()
        yield from self._lease()
        yield from self._clock()
        yield from self._size()
        yield from self._git()

    def _say(self, what: str, count: int = 0) -> None:
        if self.progress is not None:
            self.progress(what, count, count)

    # --- file system ---

    def _file_system(self) -> Iterator[Finding]:
        if not self.directory.is_directory(layout.PRIVATE):
            return
        self._say("the file system")
        try:
            self.directory.drop(self.directory.prepare(b"1"))
        except StorageError as error:
            yield Finding(
                "file_system",
                "error",
                f"nothing can be written, so the file system could not be tried out: {error.message}",
                path=str(self.directory.path),
                hint=f"ls -ld {self._quoted()}; df {self._quoted()}",
            )
            return
        for word, trial in (
            ("exclusive creation", self._try_create),
            ("hard links", self._try_link),
            ("rename over a file", self._try_rename),
            ("fsync of a directory", self._try_sync),
            ("flock", self._try_lock),
        ):
            try:
                works = trial()
            except GitStateError as error:
                works, why = False, error.message
            else:
                why = "it did something else"
            if not works:
                yield Finding(
                    "file_system",
                    "error",
                    f"this file system does not do {word}: {why}",
                    path=str(self.directory.path),
                    hint="keep the project on a local file system",
                )

    def _try_create(self) -> bool:
        name = self._name()
        try:
            return self.directory.write_new(name, b"1") and not self.directory.write_new(name, b"2")
        finally:
            self.directory.discard(name)

    def _try_link(self) -> bool:
        first, second = self._name(), self._name()
        self.directory.write(first, b"1")
        try:
            return self.directory.link(first, second) and not self.directory.link(first, second)
        finally:
            self.directory.discard(first)
            self.directory.discard(second)

    def _try_rename(self) -> bool:
        first, second = self._name(), self._name()
        self.directory.write(first, b"1")
        self.directory.write(second, b"2")
        try:
            self.directory.move(first, second)
            return self.directory.read(second) == b"1" and self.directory.status(first) is None
        finally:
            self.directory.discard(first)
            self.directory.discard(second)

    def _try_sync(self) -> bool:
        self.directory.sync(layout.PRIVATE)
        return True

    def _try_lock(self) -> bool:
        name = self._name()
        self.directory.write(name, b"")
        try:
            guard = Guard(self.directory, name)
            with guard.hold(1.0):
                return not Guard(self.directory, name).is_free()
        finally:
            self.directory.discard(name)

    def _name(self) -> str:
        return f"{layout.PRIVATE}/trial-{os.getpid()}-{secrets.token_hex(4)}"

    # --- surroundings ---

    def _project(self) -> Iterator[Finding]:
        around = surroundings.find_surroundings(self.directory.path)
        if around is None:
            return
        self._say("the project around it")
        try:
            surroundings.refuse_if_tracked(around)
        except RefusedError as error:
            yield Finding("project_tracks", "error", error.message, path=str(around.top), hint=error.hint)
        if not surroundings.is_excluded(around):
            yield Finding(
                "project_shows",
                "warning",
                "the project's repository does not exclude the state directory: `git add -A` there would record it as a link, "
                "`git clean -ffd` would delete it",
                path=str(surroundings.exclude_file(around)),
                hint="gitstate init",
            )
        yield Finding(
            "project_clean",
            "note",
            "`git clean -ffdx` in the project deletes the state directory and its history; `git clean -fdx` does not",
            path=str(around.top),
            hint=f"git -C {shlex.quote(str(around.top))} clean -ffdxn",
        )

    def _loops(self) -> Iterator[Finding]:
        self._say("loops", len(self.loops))
        for loop_id, (status, seen) in self.loops.items():
            if status == "running" and seen.verdict == "dead":
                yield Finding(
                    "loop_dead",
                    "warning",
                    f"{loop_id} is running, but {seen.reason}",
                    loop_id=loop_id,
                    hint="gitstate reap",
                )
            elif status == "running" and seen.verdict == "foreign":
                yield Finding(
                    "loop_foreign",
                    "note",
                    f"{loop_id}: {seen.reason}",
                    loop_id=loop_id,
                    hint=f"gitstate resume {loop_id} --force",
                )

    def _lease(self) -> Iterator[Finding]:
        self._say("the lease")
        if self.lease is None:
            return
        who = f"{self.lease.holder or 'an unreadable record'} (pid {self.lease.pid})"
        if self.lease.alive is False or self.lease.expired:
            yield Finding(
                "lease_stale",
                "warning",
                f"the lease of {who} is stale: {self.lease.reason}; the next mutation takes it over",
                path=layout.LEASE_RECORD,
                hint="gitstate lock break --yes",
            )
        else:
            yield Finding(
                "lease_held",
                "note",
                f"{who} holds the lease: {self.lease.reason}",
                path=layout.LEASE_RECORD,
                hint="gitstate lock show",
            )

    def _clock(self) -> Iterator[Finding]:
        self._say("the clock")
        with contextlib.suppress(CorruptStateError):
            newest = self.revisions.read(self.revisions.head())
            ahead = newest.committed - self.clock.now().timestamp()
            if ahead > _AHEAD:
                yield Finding(
                    "clock_behind",
                    "warning",
                    f"the newest commit is {ahead:.0f} s ahead of this machine's clock",
                    revision=newest.id,
                    hint="look at the clock: date -u",
                )

    def _size(self) -> Iterator[Finding]:
        self._say("the size of history")
        size = size_of(self.directory.path / layout.GIT)
        if size > _LARGE:
            yield Finding(
                "large",
                "note",
                f"history takes {size / 1024 / 1024:.0f} MB",
                path=layout.GIT,
                hint=f"git -C {self._quoted()} gc",
            )
        kept = self.directory.names(layout.QUARANTINE)
        if kept:
            yield Finding(
                "quarantine",
                "note",
                f"{len(kept)} damaged files are kept, {size_of(self.directory.path / layout.QUARANTINE)} bytes",
                path=layout.QUARANTINE,
                hint=f"ls -l {self._quoted(layout.QUARANTINE)}",
            )

    def _git(self) -> Iterator[Finding]:
        self._say("git's presence")
        if shutil.which("git", path=_PROGRAMS) is None:
            yield Finding(
                "git_missing", "note", "there is no git program in the usual places; gitstate needs none, people do"
            )

    def _quoted(self, name: str = "") -> str:
        return shlex.quote(str(self.directory.path / name))
