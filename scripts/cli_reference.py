"""Write docs/reference/cli.md from the commands themselves; with --check only say whether it is stale."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gitstate.cli import EXIT_CODES, SECTIONS, root
from gitstate.cli.command import EVERYWHERE, SOMEWHERE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"

HEAD = """\
# The command line

<!-- Written by scripts/cli_reference.py from the commands themselves; change those, then run it. -->

`gitstate COMMAND`, or `python -m gitstate COMMAND`.
What a word means here stands in the glossary of the design; what the JSON records hold, in the interface.

## What is typed

**LOOP** is an id, or a unique beginning (4 characters at least) of the id, of the id without `ralph-`,
or of its last eight hexadecimal digits; active loops first, archived ones when none fits.
It comes first and may be left out where it stands in brackets:
then it is `GITSTATE_LOOP`, else `RALPH_LOOP_ID` (an exact id), else the only active loop.
In `status`, `log` and `checkpoints`, no LOOP means all loops.

**REV** is a commit id or a unique beginning of it (4 characters at least), `HEAD`, a tag or a branch, with `~N` or `^`;
or a time, which means the newest change not after it.
A time is ISO 8601 (local where it names no zone; a day alone is its end, with `--since` its beginning), `yesterday`,
or so long ago: `45s`, `10min`, `2h`, `3d`, `1w`.

**VALUE** is JSON if it parses as JSON, else the text itself. A dot in **KEY** goes into an object: `config.model`.

**FILE** may be `-`, the standard input.
"""

JSON = """\
## JSON

With `--json`, stdout carries exactly one document, also for errors of usage; everything else goes to stderr.

```
{"schema_version": 1, "data": …, "change": …, "warnings": [{"code", "message"}]}
{"schema_version": 1, "error": {"code", "message", "hint", "details"}, "warnings": […]}
```

`change` is there for every command that changes something: the Change, or null when nothing had to change.

## Shell completion

`eval "$(_GITSTATE_COMPLETE=bash_source gitstate)"` in `~/.bashrc`; with `zsh_source` in `~/.zshrc`;
`_GITSTATE_COMPLETE=fish_source gitstate | source` in `~/.config/fish/config.fish`.
"""


def reference() -> str:
    """The page."""
    return "\n".join([*page_lines()]).rstrip() + "\n"


def page_lines() -> Iterator[str]:
    """The page in pieces."""
    context = click.Context(root, info_name="gitstate")
    yield HEAD
    yield "## Options of every command, before or after it\n"
    yield from options(list(EVERYWHERE), context)
    yield "\n## Options of commands that change something\n"
    yield from options(list(SOMEWHERE), context)
    yield "\nWhich of them a command takes stands with it.\n"
    for section, names in SECTIONS.items():
        yield f"## {section}\n"
        for name in names:
            command = root.get_command(context, name)
            assert command is not None
            yield from command_lines(command, click.Context(command, info_name=name, parent=context))
    yield "## Exit codes\n"
    yield "| code | meaning |\n|---|---|"
    yield from (f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    yield ""
    yield JSON


def command_lines(command: click.Command, context: click.Context) -> Iterator[str]:
    """What there is to say about one command, or about each of a group."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from command_lines(inner, click.Context(inner, info_name=name, parent=context))
        return
    path = context.command_path
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### {path}\n"
    yield f"`{path} {usage}`\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    own = [item for item in command.params if isinstance(item, click.Option) and item not in EVERYWHERE]
    if own:
        yield from options(own, context)
        yield ""


def options(listed: list[click.Option], context: click.Context) -> Iterator[str]:
    """A table of options."""
    yield "| option | meaning |\n|---|---|"
    for option in listed:
        record = option.get_help_record(context)
        if record is not None:
            names, meaning = (cell.replace("|", "\\|") for cell in record)
            yield f"| `{names}` | {' '.join(meaning.split())} |"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = reference()
    if arguments == ["--check"]:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not fresh:
            print(f"{PAGE.name} is stale: run python scripts/cli_reference.py", file=sys.stderr)
        return 0 if fresh else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
