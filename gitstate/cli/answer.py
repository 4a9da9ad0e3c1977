"""What a command answers: its result for programs, and how to say it to people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from gitstate.cli.page import Page

if TYPE_CHECKING:
    from gitstate.results import Change


class Answer:
    """A result: ``data`` for ``--json``, ``lines`` for people, ``quiet`` for ``-q`` (ids or revisions).

    An examination also says what was ``looked_at``, and how many of it (``None``: it is not counted).
    """

    def __init__(
        self,
        *,
        data: object,
        lines: Callable[[Page], Iterable[str]],
        quiet: Callable[[], Iterable[str]],
        exit_code: int = 0,
        looked_at: Mapping[str, int | None] | None = None,
    ) -> None:
        self.data, self.lines, self.quiet = data, lines, quiet
        self.exit_code, self.looked_at = exit_code, looked_at


class Outcome(Answer):
    """The answer of a command that changes something; ``change`` is ``None`` when nothing had to change."""

    def __init__(
        self,
        *,
        data: object,
        change: Change | None,
        lines: Callable[[Page], Iterable[str]],
        quiet: Callable[[], Iterable[str]],
        exit_code: int = 0,
        looked_at: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__(data=data, lines=lines, quiet=quiet, exit_code=exit_code, looked_at=looked_at)
        self.change = change


class Answered(Exception):  # noqa: N818  # not an error
    """An answer that is there before the command line is read to its end: ``--help``, ``--version``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
