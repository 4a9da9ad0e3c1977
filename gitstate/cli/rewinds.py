"""Going back, which is a change like any other."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from gitstate.cli import render
from gitstate.cli.answer import Outcome
from gitstate.cli.arguments import revision
from gitstate.cli.command import Loop, command
from gitstate.cli.invocation import Invocation
from gitstate.cli.outcomes import told

if TYPE_CHECKING:
    from gitstate.results import Change


@command("rollback", changes=True, dry_run=True)
@click.argument("loop", cls=Loop, absent="none", metavar="LOOP|--registry|--all")
@click.option(
    "--registry",
    is_flag=True,
    help="Instead of a loop: what only the registry knows (limit, owners, priorities, tags).",
)
@click.option("--all", "everything", is_flag=True, help="Instead of a loop: every active loop, and the registry.")
@click.option("--to", type=revision, metavar="REV", help="Back to there: a revision, a tag, or a time.")
@click.option("--steps", type=int, metavar="N", help="Back by so many of the changes that gitstate log LOOP lists.")
@click.option("--force", is_flag=True, help="Also while a live process drives the loop.")
def rollback(
    call: Invocation,
    *,
    loop: str | None,
    registry: bool,
    everything: bool,
    to: str | datetime | None,
    steps: int | None,
    force: bool,
) -> Outcome:
    """Put fields back to what they were, as a new change; asks."""
    if (loop is not None) + registry + everything != 1:
        raise click.UsageError("one of LOOP, --registry and --all is wanted, spelled out")
    if (to is None) == (steps is None):
        raise click.UsageError("one of --to REV and --steps N is wanted")

    def go(*, dry_run: bool) -> Change:
        if loop is not None:
            return call.state.rollback(loop, to=to, steps=steps, dry_run=dry_run, force=force, reason=call.reason)
        if registry:
            return call.state.rollback_registry(to=to, steps=steps, dry_run=dry_run, reason=call.reason)
        if to is None:
            raise click.UsageError("--all wants --to REV")
        return call.state.rollback_all(to=to, dry_run=dry_run, force=force, reason=call.reason)

    if not (call.dry_run or call.yes):
        plan = go(dry_run=True)
        if plan.fields:
            call.confirm("Roll back?", render.outcome([plan], planned=True), plan)
    return rewound(call, go(dry_run=call.dry_run))


def rewound(call: Invocation, change: Change) -> Outcome:
    """The outcome of going back: *change*, if it has anything to change."""
    return told(call, [change] if change.fields else [], change, fields=True)


@command("undo", changes=True, dry_run=True)
@click.argument("loop", cls=Loop)
@click.option(
    "--change", "change", type=revision, metavar="REV", help="The change to undo; without it the newest of the loop."
)
@click.option("--force", is_flag=True, help="Also while a live process drives the loop.")
def undo(call: Invocation, *, loop: str, change: str | datetime | None, force: bool) -> Outcome:
    """Undo one change, as a new change; undoing an undo is the redo."""
    return rewound(call, call.state.undo(loop, revision=change, dry_run=call.dry_run, force=force, reason=call.reason))
