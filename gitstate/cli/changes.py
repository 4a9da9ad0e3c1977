"""Changes of one loop's state and entry."""

from __future__ import annotations

from datetime import datetime

import click

from gitstate.cli.answer import Outcome
from gitstate.cli.arguments import RECORD_FILE, Edits, read_record, revision, whole_tags
from gitstate.cli.command import Loop, command
from gitstate.cli.invocation import Invocation
from gitstate.cli.outcomes import changed, told
from gitstate.records import PRIORITIES, Priority


@command("update", changes=True)
@click.argument("loop", cls=Loop)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a field; a VALUE that is JSON is taken as JSON. A dot in KEY goes into an object.",
)
@click.option(
    "--set-string", "texts", multiple=True, metavar="KEY=TEXT", help="Set a field to a text, whatever it looks like."
)
@click.option("--unset", multiple=True, metavar="KEY", help="Remove a field.")
@click.option(
    "--from",
    "source",
    type=RECORD_FILE,
    metavar="FILE|-",
    help="Set the fields of a JSON object; a whole session state can be passed back.",
)
@click.option("--owner", metavar="O", help="Set who owns the loop.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Set how urgent it is.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="Replace the tags; may be repeated, '' clears them.")
@click.option("--if-revision", type=revision, metavar="REV", help="Only if the loop is as it was then.")
def update(
    call: Invocation,
    *,
    loop: str,
    values: tuple[str, ...],
    texts: tuple[str, ...],
    unset: tuple[str, ...],
    source: str | None,
    owner: str | None,
    priority: Priority | None,
    tags: tuple[str, ...],
    if_revision: str | datetime | None,
) -> Outcome:
    """Set or remove fields of a loop, all in one commit."""
    edits = Edits(values, texts, unset, read_record(source) if source else None)
    new_tags = whole_tags(tags)
    of_entry = owner is not None or priority is not None or new_tags is not None
    if not (edits or of_entry or if_revision):
        raise click.UsageError("nothing to update: see --set, --unset, --from, --owner, --priority and --tag")
    with call.state.transaction(call.reason) as tx:
        if edits or if_revision:
            changes, remove = edits.over(tx.get_loop(loop))
            tx.update_loop(loop, changes, remove=remove, if_revision=if_revision)
        if of_entry:
            tx.update_entry(loop, owner=owner, priority=priority, tags=new_tags)
        state = tx.get_loop(loop)
    return told(call, [tx.change] if tx.change is not None else [], state)


@command("iterate", changes=True)
@click.argument("loop", cls=Loop)
@click.argument("record", type=RECORD_FILE, metavar="FILE|-")
def iterate(call: Invocation, *, loop: str, record: str) -> Outcome:
    """Record an iteration: the JSON object in FILE."""
    given = read_record(record)
    return changed(call, lambda state: state.record_iteration(loop, given, reason=call.reason))


@command("amend", changes=True)
@click.argument("loop", cls=Loop)
@click.argument("number", metavar="N", type=int)
@click.argument("record", type=RECORD_FILE, metavar="FILE|-")
def amend(call: Invocation, *, loop: str, number: int, record: str) -> Outcome:
    """Replace fields of iteration N by those in FILE."""
    given = read_record(record)
    return changed(call, lambda state: state.amend_iteration(loop, number, given, reason=call.reason))


def pid_or_none(text: str) -> int | str:
    """PID: a process id, or ``none``."""
    return text if text == "none" else int(text)


@command("pid", changes=True)
@click.argument("loop", cls=Loop)
@click.argument("pid", metavar="PID|none", type=pid_or_none)
def pid(call: Invocation, *, loop: str, pid: int | str) -> Outcome:
    """Record which process drives a loop."""
    driver = pid if isinstance(pid, int) else None
    return changed(call, lambda state: state.update_loop_pid(loop, driver, reason=call.reason))


@command("pause", changes=True)
@click.argument("loop", cls=Loop)
def pause(call: Invocation, *, loop: str) -> Outcome:
    """Set a loop's status to paused."""
    return changed(call, lambda state: state.update_loop(loop, {"status": "paused"}, reason=call.reason))


@command("resume", changes=True)
@click.argument("loop", cls=Loop)
@click.option(
    "--pid", type=int, metavar="PID", help="The process that drives the loop from now on; without it none does."
)
@click.option("--max-iterations", type=int, metavar="N", help="Another number of iterations at most.")
@click.option("--force", is_flag=True, help="Also when it has ended, or belongs to another host.")
def resume(call: Invocation, *, loop: str, pid: int | None, max_iterations: int | None, force: bool) -> Outcome:
    """Take a loop over: running again, by the process given."""
    return changed(
        call,
        lambda state: state.resume_loop(loop, pid=pid, max_iterations=max_iterations, force=force, reason=call.reason),
    )


@command("checkpoint", changes=True)
@click.argument("loop", cls=Loop)
@click.argument("name")
def checkpoint(call: Invocation, *, loop: str, name: str) -> Outcome:
    """Tag a loop as it is now as checkpoint/LOOP/NAME."""
    return changed(call, lambda state: state.checkpoint(loop, name, reason=call.reason))
