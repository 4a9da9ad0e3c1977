"""What a command answers: its result for programs, and how to say it to people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gitstate.cli.page import Page

if TYPE_CHECKING:
    from gitstate.results import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A result: ``data`` for ``--json``, ``lines`` for people, ``quiet`` for ``-q`` (ids or revisions).

    An examination also says what was ``looked_at``, and how many of it (``None``: it is not counted).
    """

    data: object
    lines: Callable[[Page], Iterable[str]]
    quiet: Callable[[], Iterable[str]]
    exit_code: int = 0
    looked_at: Mapping[str, int | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Answer):
    """The answer of a command that changes something; ``change`` is ``None`` when nothing had to change."""

    change: Change | None


class Answered(Exception):  # noqa: N818  # not an error
    """An answer that is there before the command line is read to its end: ``--help``, ``--version``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
