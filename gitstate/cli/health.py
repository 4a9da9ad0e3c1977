"""Health: what is wrong, and putting it right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gitstate.cli import render
from gitstate.cli.answer import Answer, Outcome
from gitstate.cli.command import Family, command
from gitstate.cli.invocation import Invocation
from gitstate.cli.watch import Watch

if TYPE_CHECKING:
    from gitstate.results import Finding, LeaseInfo


@command("check")
@click.option("--full", is_flag=True, help="Also every object, pack and ref, and every file of every commit.")
def check(call: Invocation, *, full: bool) -> Answer:
    """Say what is wrong with the repository, and change nothing."""
    with Watch.of(call) as watch:
        found = call.state.check(full=full, progress=watch)
    return _examined(found, watch)


@command("doctor")
def doctor(call: Invocation) -> Answer:
    """Look at what surrounds it: file system, project, loops, lease, clock, size."""
    with Watch.of(call) as watch:
        found = call.state.diagnose(progress=watch)
    return _examined(found, watch)


def _examined(found: list[Finding], watch: Watch) -> Answer:
    return Answer(
        data=found,
        lines=render.examination(found, watch.looked_at, render.tally),
        quiet=lambda: [item.code for item in found],
        exit_code=1 if any(item.severity != "note" for item in found) else 0,
        looked_at=watch.looked_at,
    )


@command("repair", changes=True, dry_run=True, reason=False)
def repair(call: Invocation) -> Outcome:
    """Put right what is wrong, from what history holds."""
    with Watch.of(call) as watch:
        found = call.state.repair(dry_run=call.dry_run, progress=watch)
    remains = any(item.severity != "note" and item.action is None for item in found)
    return Outcome(
        data=found,
        change=None if call.dry_run else call.state.last_change,
        lines=render.examination(found, watch.looked_at, render.planned if call.dry_run else render.mended),
        quiet=lambda: [item.code for item in found],
        exit_code=1 if remains and not call.dry_run else 0,
        looked_at=watch.looked_at,
    )


@command("gc", changes=True, dry_run=True, reason=False)
def collect(call: Invocation) -> Outcome:
    """Put all objects into a few packs; nobody should need it, and nothing is thrown away."""
    with Watch.of(call) as watch:
        report = call.state.collect_garbage(dry_run=call.dry_run, progress=watch)
    return Outcome(data=report, change=None, lines=render.garbage(report, planned=call.dry_run), quiet=list)


@click.group("lock", cls=Family)
def lock() -> None:
    """Look at the lease, or break it."""


@command("show")
def show(call: Invocation) -> Answer:
    """Show who holds the lease."""
    info = call.asked.lease_info()
    return Answer(data=info, lines=render.lease(info), quiet=lambda: _holder(info))


@command("break", changes=True, reason=False)
@click.option("--force", is_flag=True, help="Also while the holder is alive and its lease has not expired.")
def break_lock(call: Invocation, *, force: bool) -> Outcome:
    """Take the lease away from whoever holds it; asks."""
    found = call.asked.lease_info()
    if found is not None:  # else there is nothing to ask about, and it is refused
        call.confirm("Break this lease?", render.lease(found), found)
    info = call.state.break_lease(force=force)
    return Outcome(data=info, change=None, lines=render.broken_lease(info), quiet=lambda: _holder(info))


def _holder(info: LeaseInfo | None) -> list[str]:
    return [info.holder or "-"] if info is not None else []


lock.add_command(show)
lock.add_command(break_lock)
