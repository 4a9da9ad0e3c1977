"""One run of the command line: the options that hold everywhere, the project, the loop that is meant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gitstate.cli.page import Page
from gitstate.errors import AmbiguousLoopError, InvalidLoopIdError, LoopNotFoundError, RefusedError, StorageError
from gitstate.layout import STATE_DIRECTORY

if TYPE_CHECKING:
    from gitstate.archival import Archival
    from gitstate.opened import Opened
    from gitstate.questions import Questions
    from gitstate.repository import StateRepository
    from gitstate.results import Change

T = TypeVar("T")

# Read in this order, and taken exactly: a script that exports an id means that loop and no other.
LOOP_VARIABLES: Final = ("GITSTATE_LOOP", "RALPH_LOOP_ID")
ACTOR_VARIABLE: Final = "GITSTATE_ACTOR"


class Invocation:
    """What was asked for around the command itself. ``given`` holds what stood before it: name and spelling."""

    directory: Path | None = None
    as_json: bool = False
    lock_timeout: float | None = None
    actor: str | None = None
    reason: str | None = None
    quiet: bool = False
    yes: bool = False
    dry_run: bool = False

    def __init__(self, arguments: tuple[str, ...] = ()) -> None:
        self.arguments = arguments
        self.environment: Mapping[str, str] = os.environ
        self.given: dict[str, str] = {}

    @cached_property
    def state(self) -> StateRepository:
        """The repository of the project, opened when first needed."""
        from gitstate.repository import StateRepository

        if self.lock_timeout is None:
            return StateRepository(self._project, actor=self._actor)
        return StateRepository(self._project, actor=self._actor, lock_timeout=self.lock_timeout)

    @cached_property
    def files(self) -> Opened:
        """The same, for commands that only read what is there: it is imported in half the time."""
        from gitstate.opened import Opened

        return Opened(self._project, actor=self._actor)

    @cached_property
    def asked(self) -> Questions:
        """The same, for commands that only ask."""
        from gitstate.questions import Questions

        return Questions(self._project, actor=self._actor)

    @property
    def _actor(self) -> str | None:
        return self.actor if self.actor is not None else self.environment.get(ACTOR_VARIABLE) or None

    @cached_property
    def _project(self) -> Path:
        return self.directory if self.directory is not None else find_project(_current_directory())

    # --- the loop ----------------------------------------------------------------------------------------------------

    def find_loop(self, text: str | None) -> str:
        """The id of the loop that *text* names; without one that of the environment, else the only active loop."""
        if text is not None:
            return self.files.resolve_loop_id(text)
        for variable in LOOP_VARIABLES:
            if self.environment.get(variable):
                return self._loop_of(variable)
        active = [entry["loop_id"] for entry in self.files.list_active_loops()]
        if len(active) == 1:
            return active[0]
        if not active:
            raise LoopNotFoundError("no loop is active, so one has to be named", hint="gitstate list --archived")
        raise AmbiguousLoopError(
            f"{len(active)} loops are active, say which one is meant:\n"
            + "\n".join(f"  {loop_id}" for loop_id in active),
            hint="gitstate list, then name it as the first argument or in GITSTATE_LOOP",
            candidates=active,
        )

    def _loop_of(self, variable: str) -> str:
        wanted = self.environment[variable]
        try:
            self.files.get_loop(wanted)
        except (LoopNotFoundError, InvalidLoopIdError):
            raise LoopNotFoundError(
                f"the environment variable {variable} names no loop: {wanted!r:.140}",
                hint=f"gitstate list, or unset {variable}",
                loop_id=wanted,
                variable=variable,
            ) from None
        return wanted

    # --- changing something ------------------------------------------------------------------------------------------

    def perform(self, mutate: Callable[[Archival], T]) -> tuple[T, list[Change]]:
        """What *mutate* returns and the change it made, if any; with ``--dry-run`` those it would have."""
        if not self.dry_run:
            result = mutate(self.state)
            change = self.state.last_change
            return result, [change] if change is not None else []
        results: list[T] = []
        plan = self.state.plan(lambda tx: results.append(mutate(tx)))
        return results[0], plan

    def confirm(self, question: str, plan: Callable[[Page], Iterable[str]], facts: object) -> None:
        """Go on only if somebody said yes: with ``--yes``, or on a terminal when asked.

        Raises:
            RefusedError: nobody did. The plan has been shown on stderr, or is among the facts with ``--json``.
        """
        if self.yes:
            return
        terminal = sys.stdin.isatty() and sys.stderr.isatty()
        if terminal or not self.as_json:
            for line in plan(Page.of(sys.stderr, self.environment)):
                print(line, file=sys.stderr)
        if not terminal:
            raise RefusedError(
                "nothing was changed: where nobody can be asked, this wants --yes", hint=self.repeated(), plan=facts
            )
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise RefusedError("nothing was changed: nobody said yes", plan=facts)

    def options(self) -> tuple[str, ...]:
        """The arguments among which options can be."""
        return self.arguments[: self.arguments.index("--")] if "--" in self.arguments else self.arguments

    def repeated(self) -> str:
        """The command line that was given, with ``--yes``."""
        import shlex  # few need it

        where = len(self.options())
        return shlex.join(["gitstate", *self.arguments[:where], "--yes", *self.arguments[where:]])


def find_project(start: Path) -> Path:
    """The nearest directory upwards with a state directory, else with ``.git`` (maybe a file), else *start*."""
    for mark in (os.path.join(*STATE_DIRECTORY), ".git"):
        for directory in (start, *start.parents):
            if os.path.exists(directory / mark):
                return directory
    return start


def _current_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise StorageError(f"the current directory is gone: {error.strerror}", hint="gitstate -C DIR …") from None
