"""History: what was changed, when and by whom."""

from __future__ import annotations

from datetime import datetime

import click

from gitstate.cli import render
from gitstate.cli.answer import Answer
from gitstate.cli.arguments import beginning, revision
from gitstate.cli.command import Loop, command, complete_loops
from gitstate.cli.fields import field_lines
from gitstate.cli.invocation import Invocation


@command("log")
@click.argument("loop", cls=Loop, absent="none")
@click.option("-n", "limit", type=click.IntRange(min=0), metavar="N", help="At most so many changes.")
@click.option("--since", "begin", type=beginning, metavar="REV", help="Not before a time, or after a revision.")
@click.option("--until", "end", type=revision, metavar="REV", help="Not after a time or a revision.")
@click.option("-p", "fields", is_flag=True, help="Show the fields that changed.")
def log(
    call: Invocation,
    *,
    loop: str | None,
    limit: int | None,
    begin: str | datetime | None,
    end: str | datetime | None,
    fields: bool,
) -> Answer:
    """List the changes, newest first: of everything, or of one loop."""
    changes = call.asked.log(loop, limit=limit, since=begin, until=end, fields=fields)
    return Answer(
        data=changes,
        lines=render.log(changes, fields=fields),
        quiet=lambda: (change.revision or "" for change in changes),
    )


@command("show")
@click.argument("at", metavar="[REV]", type=revision, default="HEAD")
def show(call: Invocation, *, at: str | datetime) -> Answer:
    """Show one change field by field; the newest without REV."""
    change = call.asked.show(at)
    return Answer(data=change, lines=render.change(change), quiet=lambda: [change.revision or ""])


@command("diff")
@click.argument("a", metavar="A", type=revision)
@click.argument("b", metavar="[B]", type=revision, default="HEAD")
@click.option("--loop", metavar="LOOP", shell_complete=complete_loops, help="Only what concerns this loop.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
def diff(call: Invocation, *, a: str | datetime, b: str | datetime, loop: str | None, exit_code: bool) -> Answer:
    """Show which fields differ between revisions A and B (HEAD)."""
    changes = call.asked.diff(a, b, loop_id=call.find_loop(loop) if loop is not None else None)
    return Answer(
        data=changes,
        lines=lambda page: field_lines(page, changes),
        quiet=lambda: dict.fromkeys(change.loop_id or "registry" for change in changes),
        exit_code=1 if exit_code and changes else 0,
    )


@command("checkpoints")
@click.argument("loop", cls=Loop, absent="none")
def checkpoints(call: Invocation, *, loop: str | None) -> Answer:
    """List the checkpoints: of everything, or of one loop."""
    found = call.asked.list_checkpoints(loop)
    return Answer(data=found, lines=render.checkpoints(found), quiet=lambda: [item.tag for item in found])
