"""Loops: make them, look at them, find their files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

import click

from gitstate.cli import render
from gitstate.cli.answer import Answer, Outcome
from gitstate.cli.arguments import RECORD_FILE, read_record, revision
from gitstate.cli.command import Loop, command
from gitstate.cli.invocation import Invocation
from gitstate.cli.outcomes import changed, told
from gitstate.encoding import encode
from gitstate.records import PRIORITIES, Priority


@command("init", changes=True, reason=False)
@click.option("--max-loops", type=int, metavar="N", help="How many loops may be active at once.")
def init(call: Invocation, *, max_loops: int | None) -> Outcome:
    """Create the state directory, or adopt or complete it."""
    change = call.state.init(max_concurrent_loops=max_loops)
    changes = [change] if change is not None else []
    return told(call, changes, change, otherwise="the repository is complete; there was nothing to commit")


class NewLoop(TypedDict):
    """What ``create`` hands on as it was given."""

    objective: str
    completion_criteria: str
    loop_id: str | None
    max_iterations: int
    model: str
    budget_per_iteration: float
    timeout_minutes: float
    owner: str | None
    priority: Priority
    tags: Sequence[str]
    pid: int | None
    force: bool


@command("create", changes=True)
@click.argument("objective")
@click.option(
    "--completion", "completion_criteria", required=True, metavar="CRITERIA", help="What has to hold in the end."
)
@click.option("--loop-id", metavar="ID", help="The id; without it one is made of the objective.")
@click.option("--max-iterations", type=int, default=10, show_default=True, metavar="N", help="When to give up.")
@click.option("--model", default="opus", show_default=True, metavar="M", help="The model to use.")
@click.option(
    "--budget",
    "budget_per_iteration",
    type=float,
    default=2,
    show_default=True,
    metavar="USD",
    help="For one iteration.",
)
@click.option(
    "--iteration-timeout",
    "timeout_minutes",
    type=float,
    default=60,
    show_default=True,
    metavar="MINUTES",
    help="For one iteration.",
)
@click.option("--mcp-config", type=RECORD_FILE, metavar="FILE", help="The MCP servers, as a JSON object.")
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the agent works; without it the project.",
)
@click.option("--owner", metavar="O", help="Who owns the loop; without it the actor.")
@click.option(
    "--priority", type=click.Choice(PRIORITIES), default="medium", show_default=True, help="How urgent it is."
)
@click.option("--tag", "tags", multiple=True, metavar="T", help="A tag; may be repeated.")
@click.option("--pid", type=int, metavar="PID", help="The process that drives the loop; without it none does.")
@click.option("--force", is_flag=True, help="Go over the limit of active loops.")
def create(call: Invocation, *, mcp_config: str | None, working_dir: Path | None, **wanted: Unpack[NewLoop]) -> Outcome:
    """Create a loop that is to achieve OBJECTIVE."""
    servers = read_record(mcp_config) if mcp_config else None
    where = str(working_dir.absolute()) if working_dir else None
    return changed(
        call,
        lambda state: state.create_loop(**wanted, mcp_config=servers, working_dir=where, reason=call.reason),
        quiet=lambda state: [state["loopId"]],
    )


@command("list")
@click.option("--archived", is_flag=True, help="The archived loops instead, newest first.")
def list_loops(call: Invocation, *, archived: bool) -> Answer:
    """List the active loops."""
    if archived:
        put_away = call.asked.list_archived_loops()
        return Answer(data=put_away, lines=render.archived(put_away), quiet=lambda: [loop.loop_id for loop in put_away])
    active = call.files.list_active_loops()
    return Answer(data=active, lines=render.entries(active), quiet=lambda: [entry["loop_id"] for entry in active])


@command("status")
@click.argument("loop", cls=Loop, absent="none")
def status(call: Invocation, *, loop: str | None) -> Answer:
    """Show what is going on: everywhere, or in one loop."""
    from gitstate.cli import overview

    if loop is not None:
        report = call.asked.report(loop)
        return Answer(data=report, lines=overview.loop_report(report), quiet=lambda: [loop])
    found = call.asked.status()
    return Answer(
        data=found, lines=overview.overview(found), quiet=lambda: [item.state["loopId"] for item in found.loops]
    )


@command("cat")
@click.argument("loop", cls=Loop)
@click.option("--at", type=revision, metavar="REV", help="As it was then: a revision, or a time.")
def cat(call: Invocation, *, loop: str, at: str | datetime | None) -> Answer:
    """Print a loop's session state."""
    state = call.files.get_loop(loop, at=at)
    return Answer(data=state, lines=lambda _: encode(state).decode().splitlines(), quiet=lambda: [loop])


@command("path")
@click.argument("loop", cls=Loop)
@click.option("--iteration", type=int, metavar="N", help="The directory of an iteration.")
@click.option("--prompt", type=int, metavar="N", help="The prompt of an iteration.")
@click.option("--stdout", type=int, metavar="N", help="The output of an iteration.")
@click.option("--stderr", type=int, metavar="N", help="The error output of an iteration.")
def path(
    call: Invocation, *, loop: str, iteration: int | None, prompt: int | None, stdout: int | None, stderr: int | None
) -> Answer:
    """Print the path of a loop's directory, or of a file in it."""
    if sum(number is not None for number in (iteration, prompt, stdout, stderr)) > 1:
        raise click.UsageError("only one of --iteration, --prompt, --stdout and --stderr")
    if iteration is not None:
        found = call.asked.get_iteration_dir(loop, iteration)
    elif prompt is not None:
        found = call.asked.get_prompt_path(loop, prompt)
    elif stdout is not None:
        found = call.asked.get_output_paths(loop, stdout).stdout
    elif stderr is not None:
        found = call.asked.get_output_paths(loop, stderr).stderr
    else:
        found = call.asked.get_loop_dir(loop)
    return Answer(data=str(found), lines=lambda _: [str(found)], quiet=lambda: [str(found)])


@command("limit", changes=True)
@click.argument("number", metavar="[N]", type=int, required=False)
def limit(call: Invocation, *, number: int | None) -> Outcome:
    """Show how many loops may be active at once, or set it."""
    if number is not None:
        return changed(
            call,
            lambda state: state.set_max_concurrent_loops(number, reason=call.reason),
            data=lambda registry: registry["max_concurrent_loops"],
        )
    most = call.files.load_registry()["max_concurrent_loops"]
    return Outcome(data=most, change=None, lines=lambda _: [str(most)], quiet=lambda: [str(most)])
