"""A mutation as a command: performed or only planned, and told in the same way everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from gitstate.cli import render
from gitstate.cli.answer import Outcome
from gitstate.cli.invocation import Invocation

if TYPE_CHECKING:
    from gitstate.archival import Archival
    from gitstate.results import Change

T = TypeVar("T")


def changed(
    call: Invocation,
    mutate: Callable[[Archival], T],
    *,
    data: Callable[[T], object] | None = None,
    quiet: Callable[[T], list[str]] | None = None,
) -> Outcome:
    """Perform *mutate*, or with ``--dry-run`` plan it, and tell what came of it.

    The data is what it returns, or what *data* makes of that; a plan's Changes stand in for those it would return.
    """
    from gitstate.results import Change  # what only lists needs none

    result, changes = call.perform(mutate)
    answer: object = result if data is None else data(result)
    if isinstance(result, Change) and call.dry_run:
        answer = changes[-1] if changes else None
    elif isinstance(result, list):  # of Changes, several commits
        answer = changes = changes if call.dry_run else result
    return told(call, changes, answer, quiet=None if quiet is None else quiet(result))


def told(
    call: Invocation,
    changes: Sequence[Change],
    data: object,
    *,
    quiet: list[str] | None = None,
    fields: bool = False,
    otherwise: str = "nothing to change",
    lines: render.Lines | None = None,
) -> Outcome:
    """The outcome that *changes* are, or would be; *lines* where they are not told as others are.

    ``-q`` prints *quiet*, or the revision at which things are as they were asked for: also when they were before.
    """

    def found() -> Iterable[str]:
        if quiet is not None:
            return quiet
        revisions = [change.revision for change in changes] or [call.state.revision()]
        return [revision for revision in revisions if revision is not None]

    return Outcome(
        data=data,
        change=changes[-1] if changes else None,
        lines=lines or render.outcome(changes, planned=call.dry_run, fields=fields, otherwise=otherwise),
        quiet=found,
    )
