"""What makes a function a command: the options that work everywhere, LOOP, and its help.

A command is a function ``(call, **parameters) -> Answer``. The decorator
:func:`command` gives it the rest; nothing in it prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
from click.core import ParameterSource

from gitstate import __version__
from gitstate.cli.answer import Answer, Answered
from gitstate.cli.invocation import Invocation
from gitstate.errors import GitStateError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def call_of(context: click.Context) -> Invocation:
    """The run that *context* belongs to."""
    return context.ensure_object(Invocation)


# --- options that hold for the whole run -----------------------------------------------------------------------------


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # Defaults are not kept: what stood before the command must not be lost to what was left out after it.
    if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
        call = call_of(context)
        setattr(call, parameter.name, value)
        if isinstance(context.command, click.Group):
            call.given[parameter.name] = max(parameter.opts, key=len)


def _say_version(context: click.Context, _: click.Parameter, value: object) -> None:
    if value and not context.resilient_parsing:
        raise Answered(
            Answer(data=__version__, lines=lambda _: [f"gitstate {__version__}"], quiet=lambda: [__version__])
        )


def _say_help(context: click.Context, _: click.Parameter, value: object) -> None:
    if value and not context.resilient_parsing:
        raise Answered(help_of(context))


def help_of(context: click.Context) -> Answer:
    """The help of a command, as an answer."""
    text = context.get_help()
    return Answer(data=text, lines=lambda _: [text], quiet=lambda: [text])


class Kept(click.Option):
    """An option that is not the command's own, but the run's."""

    def __init__(self, names: Sequence[str], **attributes: object) -> None:
        settings = {"expose_value": False, "callback": _keep, **attributes}
        super().__init__(names, **settings)  # type: ignore[arg-type]


EVERYWHERE: Final = (
    Kept(
        ["-C", "directory"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="The project; without it the nearest directory upwards with .aiwg/ralph-external, "
        "else the top of the git work tree, else the current directory.",
    ),
    Kept(["--json", "as_json"], is_flag=True, help="Answer with one JSON document on stdout."),
    Kept(
        ["--lock-timeout"],
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait for the lease (35); 0 tries once.",
    ),
    Kept(
        ["--actor"],
        metavar="NAME",
        help="Who is acting, for history; without it GITSTATE_ACTOR, else user: and the login name.",
    ),
    Kept(["-q", "--quiet"], is_flag=True, help="Print only the id or the revision."),
    Kept(["--version"], is_flag=True, is_eager=True, callback=_say_version, help="Print the version."),
    Kept(["-h", "--help"], is_flag=True, is_eager=True, callback=_say_help, help="Print this help."),
)
REASON: Final = Kept(["-m", "--reason"], metavar="TEXT", help="Why, for history.")
YES: Final = Kept(["--yes"], is_flag=True, help="Answer every question with yes.")
DRY_RUN: Final = Kept(["--dry-run"], is_flag=True, help="Show what would change, and change nothing.")
# Not for every command; one that does not take them says so rather than ignoring what was asked.
SOMEWHERE: Final = (REASON, YES, DRY_RUN)


# --- LOOP ------------------------------------------------------------------------------------------------------------


class Loop(click.Argument):
    """LOOP, the first argument: what is left when the arguments after it have got theirs.

    ``absent`` says what it means to leave it out: ``find`` the loop that is meant, ``none``, or it is ``required``.
    The function gets an exact id, or ``None``.
    """

    def __init__(
        self, names: Sequence[str], *, absent: Literal["find", "none", "required"] = "find", metavar: str | None = None
    ) -> None:
        required = absent == "required"
        super().__init__(
            names,
            nargs=-1,
            required=required,
            metavar=metavar or ("LOOP" if required else "[LOOP]"),
            callback=_at_most_one,
        )
        self.absent = absent

    def resolve(self, context: click.Context) -> None:
        """Put the id in the place of what was typed."""
        given = context.params["loop"]
        if given is not None or self.absent == "find":
            context.params["loop"] = call_of(context).find_loop(given)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Loops while nothing is given yet, and whatever the arguments after LOOP complete to."""
        positionals = [item for item in ctx.command.params if isinstance(item, click.Argument)]
        typed = [ctx.get_parameter_source(item.name or "") is ParameterSource.COMMANDLINE for item in positionals[1:]]
        given = sum(typed) + (ctx.params.get("loop") is not None)
        found = complete_loops(ctx, self, incomplete) if given == 0 else []
        for item in positionals[1:] if given < len(positionals) else []:
            found += item.type.shell_complete(ctx, item, incomplete)
        return found


def _at_most_one(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> str | None:
    for value in values:
        if "=" in value:
            raise click.UsageError("write --set before each KEY=VALUE", context)
    if len(values) > 1:
        raise click.UsageError(f"one LOOP is wanted, not {len(values)}: {' '.join(values)}", context)
    return values[0] if values else None


def complete_loops(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids that begin with *incomplete*, with or without ``ralph-``; archived ones when no active one does."""
    from click.shell_completion import CompletionItem  # only shells need it

    state = call_of(context).asked

    def fitting(loops: Iterable[tuple[str, str]]) -> list[CompletionItem]:
        return [
            CompletionItem(loop_id, help=text)
            for loop_id, text in loops
            if loop_id.startswith(incomplete) or loop_id.removeprefix("ralph-").startswith(incomplete)
        ]

    try:
        return fitting((entry["loop_id"], entry["status"]) for entry in state.list_active_loops()) or fitting(
            (loop.loop_id, "archived") for loop in state.list_archived_loops()
        )
    except GitStateError:
        return []


# --- commands --------------------------------------------------------------------------------------------------------


class Command(click.Command):
    """A command that takes the options that work everywhere, and hands its function the loop that is meant."""

    def invoke(self, ctx: click.Context) -> Answer:
        """Run the function, with LOOP put in place and nothing ignored that was asked for."""
        call = call_of(ctx)
        taken = {parameter.name for parameter in self.params}
        for name, spelling in call.given.items():
            if name not in taken:
                raise click.UsageError(f"{ctx.info_name} takes no {spelling}", ctx)
        for parameter in self.params:
            if isinstance(parameter, Loop):
                parameter.resolve(ctx)
        answer: Answer = super().invoke(ctx)
        return answer

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, and name the others."""
        own = [item for item in self.params if isinstance(item, click.Option) and item not in EVERYWHERE]
        rows = [record for item in own if (record := item.get_help_record(ctx)) is not None]
        if rows:
            with formatter.section("Options"):
                formatter.write_dl(rows)
        names = ", ".join(max(item.opts, key=len) for item in EVERYWHERE)
        formatter.write_paragraph()
        formatter.write_text(f"Everywhere: {names} (see gitstate --help).")


class Family(click.Group):
    """A group of commands; the options that hold for the whole run may stand before the command as well."""

    def __init__(self, name: str | None = None, **attributes: object) -> None:
        settings = {"add_help_option": False, "subcommand_metavar": "COMMAND [ARGS]...", **attributes}
        super().__init__(name, **settings)  # type: ignore[arg-type]
        self.params.extend([*SOMEWHERE, *EVERYWHERE])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands."""
        self.format_commands(ctx, formatter)


def command(
    name: str, *, changes: bool = False, dry_run: bool = False, reason: bool = True
) -> Callable[[Callable[..., Answer]], Command]:
    """Make a command of a function that takes the :class:`Invocation` and its parameters.

    With *changes* it takes ``--yes`` and, unless *reason* is off, ``-m``; with *dry_run* also ``--dry-run``.
    """
    kept = [
        *([REASON] if changes and reason else []),
        *([YES] if changes else []),
        *([DRY_RUN] if dry_run else []),
        *EVERYWHERE,
    ]

    def decorate(function: Callable[..., Answer]) -> Command:
        made = click.command(name, cls=Command, add_help_option=False)(click.pass_obj(function))
        made.params.extend(kept)
        return made

    return decorate
