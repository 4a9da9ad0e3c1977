"""Loops on their way out of the active set, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from gitstate.cli import render
from gitstate.cli.answer import Outcome
from gitstate.cli.arguments import span
from gitstate.cli.command import Loop, command
from gitstate.cli.invocation import Invocation
from gitstate.cli.outcomes import changed, told
from gitstate.records import STATUSES

if TYPE_CHECKING:
    from gitstate.archival import Archival
    from gitstate.results import Change


@command("archive", changes=True, dry_run=True)
@click.argument("loop", cls=Loop)
@click.option(
    "--status", type=click.Choice(STATUSES), metavar="S", help="How it ended; without it the status that it has."
)
@click.option("--force", is_flag=True, help="Also while a live process drives it.")
def archive(call: Invocation, *, loop: str, status: str | None, force: bool) -> Outcome:
    """Move a loop out of the active ones, and tag it."""
    return changed(call, lambda state: state.archive_loop(loop, status=status, force=force, reason=call.reason))


@command("restore", changes=True, dry_run=True)
@click.argument("loop", cls=Loop, absent="required")
@click.option("--force", is_flag=True, help="Go over the limit of active loops.")
def restore(call: Invocation, *, loop: str, force: bool) -> Outcome:
    """Put an archived loop back among the active ones, paused."""
    return changed(call, lambda state: state.restore_loop(loop, force=force, reason=call.reason))


@command("reap", changes=True, dry_run=True)
@click.option("--archive", is_flag=True, help="Archive them as well.")
@click.option("--foreign", is_flag=True, help="Also loops whose process is recorded on another host.")
def reap(call: Invocation, *, archive: bool, foreign: bool) -> Outcome:
    """Mark running loops whose process is dead as crashed."""
    return changed(call, lambda state: state.reap_crashed_loops(archive=archive, foreign=foreign, reason=call.reason))


@command("migrate", changes=True, dry_run=True)
def migrate(call: Invocation) -> Outcome:
    """Make a loop of what the older single-loop manager left."""

    def take_over(state: Archival) -> str | None:
        return state.migrate_legacy_state(reason=call.reason)

    def quiet(loop_id: str | None) -> list[str]:
        return [] if loop_id is None else [loop_id]

    return changed(call, take_over, quiet=quiet)


@command("prune", changes=True, dry_run=True)
@click.option(
    "--older-than", type=span, required=True, metavar="AGE", help="Only what was archived so long ago: 90d, 12h, 2w."
)
@click.option("--artifacts-only", is_flag=True, help="Leave the loops in the archive; delete what is not versioned.")
def prune(call: Invocation, *, older_than: timedelta, artifacts_only: bool) -> Outcome:
    """Delete archived loops with their artifacts; history keeps the loops, nothing keeps the artifacts; asks."""
    asked = datetime.now(UTC)

    def go(age: timedelta, *, dry_run: bool) -> list[Change]:
        return call.state.prune_archives(
            older_than=age, artifacts_only=artifacts_only, dry_run=dry_run, reason=call.reason
        )

    if not (call.dry_run or call.yes):
        plan = go(older_than, dry_run=True)
        if plan:
            call.confirm("Prune?", render.pruned(plan, planned=True), plan)
            older_than += datetime.now(UTC) - asked  # what came of age while somebody thought about it was not named
    found = go(older_than, dry_run=call.dry_run)
    quiet = [loop_id for change in found for loop_id in change.loop_ids] if artifacts_only else None
    return told(call, found, found, quiet=quiet, lines=render.pruned(found, planned=call.dry_run))
