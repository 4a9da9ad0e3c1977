"""The command line: the commands by section, and the one place where answers and errors leave the program."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from gitstate.cli.answer import Answer, Answered
from gitstate.cli.command import EVERYWHERE, SOMEWHERE, Family, help_of
from gitstate.cli.invocation import Invocation
from gitstate.cli.voice import Voice
from gitstate.errors import GitStateWarning

# Section, command, module: a module is imported when one of its commands is wanted, not before.
SECTIONS: Final = {
    "Loops": {
        "init": "loops",
        "create": "loops",
        "list": "loops",
        "status": "loops",
        "cat": "loops",
        "update": "changes",
        "iterate": "changes",
        "amend": "changes",
        "pid": "changes",
        "pause": "changes",
        "resume": "changes",
        "archive": "archives",
        "restore": "archives",
        "checkpoint": "changes",
        "reap": "archives",
        "migrate": "archives",
        "prune": "archives",
        "limit": "loops",
        "path": "loops",
    },
    "History": {
        "log": "history",
        "show": "history",
        "diff": "history",
        "checkpoints": "history",
        "rollback": "rewinds",
        "undo": "rewinds",
    },
    "Health": {"check": "health", "repair": "health", "doctor": "health", "lock": "health", "gc": "health"},
}
MODULES: Final = {name: module for commands in SECTIONS.values() for name, module in commands.items()}

EXIT_CODES: Final = {
    0: "done",
    1: "the answer is no: findings, something that remains, differences that were asked about",
    2: "usage, or invalid input",
    3: "not found, or ambiguous",
    4: "the lease was not obtained",
    5: "the lease was lost, or the revision is stale",
    6: "corrupt state",
    7: "the limit of active loops",
    8: "refused",
    9: "the environment: permissions, disk, an unsafe repository",
    130: "interrupted",
}


class Root(Family):
    """``gitstate`` itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, by section."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in MODULES:
            return None
        known = vars(import_module(f"gitstate.cli.{MODULES[cmd_name]}")).values()
        return next(item for item in known if isinstance(item, click.Command) and item.name == cmd_name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, and then the options."""
        widest = max(map(len, MODULES))
        for section, names in SECTIONS.items():
            commands = [(name.ljust(widest), self.get_command(ctx, name)) for name in names]
            with formatter.section(section):
                formatter.write_dl([(name, item.get_short_help_str(90)) for name, item in commands if item])
        for title, options in (
            ("Options, before or after any command", EVERYWHERE),
            ("Options of commands that change something", SOMEWHERE),
        ):
            with formatter.section(title):
                formatter.write_dl([record for item in options if (record := item.get_help_record(ctx))])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # there is no other way to run it
        **extra: object,
    ) -> NoReturn:
        """Run, say what came of it, and exit."""
        call = Invocation(tuple(sys.argv[1:] if args is None else args))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GitStateWarning)
            voice = Voice(call, caught)
            try:
                answer = self._answer(call, prog_name or "gitstate", complete_var, extra)
                code = voice.say(answer)
            except (Exception, KeyboardInterrupt) as error:
                from gitstate.cli.envelope import Failure  # what goes well needs none

                code = voice.complain(Failure.of(error))
        sys.exit(code)

    def _answer(self, call: Invocation, program: str, complete_var: str | None, extra: dict[str, object]) -> Answer:
        try:
            answer: Answer = super().main(call.arguments, program, complete_var, False, obj=call, **extra)
        except (Answered, click.UsageError) as early:
            # The command line was not read to its end, and --json may stand where nobody has looked.
            call.as_json = call.as_json or "--json" in call.options()
            if isinstance(early, click.UsageError):
                raise
            return early.answer
        return answer


@click.group("gitstate", cls=Root, invoke_without_command=True)
@click.pass_context
def root(context: click.Context) -> Answer | None:
    """Keep the state of agent loops, and every change of it, in git.

    LOOP is the id of a loop or a unique beginning of it, with or without "ralph-", or of its last eight digits.
    Left out, it is GITSTATE_LOOP, else RALPH_LOOP_ID, else the only active loop.

    REV is a commit id, a tag, HEAD, HEAD~2, or a time: 2026-01-31, yesterday, 2h, 3d.
    """
    return None if context.invoked_subcommand else help_of(context)


def main() -> NoReturn:
    """The entry point of the ``gitstate`` command."""
    root.main(prog_name="gitstate")
