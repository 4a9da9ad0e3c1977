"""Loops on their way out of the active set, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gitstate.cli.answer import Outcome
from gitstate.cli.command import Loop, command
from gitstate.cli.invocation import Invocation
from gitstate.cli.outcomes import changed
from gitstate.records import STATUSES

if TYPE_CHECKING:
    from gitstate.archival import Archival


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
