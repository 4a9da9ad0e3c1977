"""Health: what is wrong, and putting it right."""

from __future__ import annotations

import click

from gitstate.cli import render
from gitstate.cli.answer import Answer, Outcome
from gitstate.cli.command import Family, command
from gitstate.cli.invocation import Invocation
from gitstate.results import LeaseInfo


@command("check")
def check(call: Invocation) -> Answer:
    """Say what is wrong with the repository, and change nothing."""
    found = call.state.check()
    return Answer(
        data=found,
        lines=render.findings(found),
        quiet=lambda: [item.code for item in found],
        exit_code=1 if any(item.severity != "note" for item in found) else 0,
    )


@command("repair", changes=True, dry_run=True, reason=False)
def repair(call: Invocation) -> Outcome:
    """Put right what is wrong, from what history holds."""
    found = call.state.repair(dry_run=call.dry_run)
    remains = any(item.severity != "note" and item.action is None for item in found)
    return Outcome(
        data=found,
        change=None if call.dry_run else call.state.last_change,
        lines=render.findings(found, planned=call.dry_run),
        quiet=lambda: [item.code for item in found],
        exit_code=1 if remains and not call.dry_run else 0,
    )


@click.group("lock", cls=Family)
def lock() -> None:
    """Look at the lease, or break it."""


@command("show")
def show(call: Invocation) -> Answer:
    """Show who holds the lease."""
    info = call.state.lease_info()
    return Answer(data=info, lines=render.lease(info), quiet=lambda: _holder(info))


@command("break", changes=True, reason=False)
@click.option("--force", is_flag=True, help="Also while the holder is alive and its lease has not expired.")
def break_lock(call: Invocation, *, force: bool) -> Outcome:
    """Take the lease away from whoever holds it; asks."""
    info = call.state.lease_info()
    if info is not None:
        call.confirm("Break this lease?", render.lease(info), info)
        info = call.state.break_lease(force=force)
    return Outcome(data=info, change=None, lines=render.lease(info, broken=True), quiet=lambda: _holder(info))


def _holder(info: LeaseInfo | None) -> list[str]:
    return [info.holder or "-"] if info is not None else []


lock.add_command(show)
lock.add_command(break_lock)
