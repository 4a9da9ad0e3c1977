"""Write docs/reference/library.md from the docstrings of the package; with --check only say whether it is stale."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gitstate
from gitstate import StateRepository, Transaction, errors, records

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "library.md"

HEAD: Final = """\
# The library

<!-- Written by scripts/library_reference.py from the docstrings; change those, then run it. -->

`import gitstate` is the whole public interface.
The library never prints, never exits, never reads the environment and never signals a process.
Records are plain dicts with the original's keys, typed as `TypedDict`, and fresh copies: change them as you like.
A loop id is exact here; `resolve_loop_id` is for what people type.
A revision is a commit id or a unique beginning of it (4 characters at least), `HEAD`, a tag or a branch, with `~N` or
`^`; or an aware `datetime`, which means the newest change not after it.
"""

BOTH: Final = "A `StateRepository` and an open `Transaction` both have these."

# What the classes that a repository is put together from are called here; for others their own names have to do.
FACES: Final = {
    "Reads": "Reading",
    "Opened": "What was opened",
    "Questions": "Asking more",
    "Mutations": "Changing loops",
    "Archival": "Putting loops away",
    "Rollbacks": "Going back",
    "StateRepository": "The repository itself",
}

# Names of types that are public in what they stand for, not by their names.
ALIASES: Final = {
    "Moment": "str | datetime",
    "Target": "str | datetime",
    "Pid": 'int | Literal["self"] | None',
    "Progress": "Callable[[str, int, int], None]",
    "Severity": 'Literal["note", "warning", "error"]',
}


def reference() -> str:
    """The page."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(page_lines())).rstrip() + "\n"


def page_lines() -> Iterator[str]:
    """The page in pieces."""
    body = list(body_lines())
    titles = [line.removeprefix("## ").strip() for line in body if line.startswith("## ")]
    yield HEAD
    yield " · ".join(f"[{title}](#{title.lower().replace(' ', '-')})" for title in titles) + "\n"
    yield from body


def body_lines() -> Iterator[str]:
    """What is below the head of the page."""
    yield from section("Opening", [function(gitstate.open, "gitstate.open"), klass(StateRepository)])
    for item in faces(StateRepository):
        yield f"## {FACES.get(item.__name__, item.__name__)}\n"
        if issubclass(Transaction, item):
            yield f"{BOTH}\n"
        if item is not StateRepository:
            said = markdown(inspect.getdoc(item) or "")
            yield re.sub(r"`(\w+)`", lambda match: FACES.get(match[1], match[0]), said) + "\n"
        yield from methods(item)
    yield "## Transactions\n"
    yield from klass(Transaction)
    yield from methods(Transaction)
    for item in faces(Transaction):
        if item is not Transaction and not issubclass(StateRepository, item):
            yield from methods(item)
    functions = [(name, item) for name, item in public(inspect.isfunction) if name != "open"]
    yield from section("Functions", [function(item, name) for name, item in functions])
    yield from section("Results", [klass(item) for _, item in public(is_result)])
    yield from section("Records", [record(item) for _, item in public(typing.is_typeddict)])
    yield "These are inside of those, and not exported:\n"
    for item in (records.LoopConfig, records.StampRecord, records.ProcessRecord):
        yield from record(item)
    yield "## Errors\n"
    yield markdown((inspect.getdoc(errors) or "").partition("\n")[2]) + "\n"
    yield from (line for _, item in public(is_error) for line in klass(item))
    yield "## Warnings\n"
    yield "They are given with `warnings.warn`; damage is also logged to the logger `gitstate`.\n"
    yield from (line for _, item in public(is_warning) for line in klass(item))


def faces(item: type) -> list[type]:
    """The classes of ours that a class is put together from, the most general first."""
    return [base for base in reversed(item.__mro__) if base.__module__.startswith("gitstate.")]


def section(title: str, parts: Iterable[Iterable[str]]) -> Iterator[str]:
    """A heading and what is below it."""
    yield f"## {title}\n"
    for part in parts:
        yield from part


def public(fits: Callable[[object], bool]) -> list[tuple[str, type]]:
    """The public names that stand for something of a kind."""
    found = {name: getattr(gitstate, name) for name in gitstate.__all__}
    return [(name, item) for name, item in found.items() if not isinstance(item, ModuleType) and fits(item)]


def is_error(item: object) -> bool:
    """Whether *item* is an error."""
    return inspect.isclass(item) and issubclass(item, gitstate.GitStateError)


def is_warning(item: object) -> bool:
    """Whether *item* is a warning."""
    return inspect.isclass(item) and issubclass(item, gitstate.GitStateWarning)


def is_result(item: object) -> bool:
    """Whether *item* is something that the library answers with."""
    return inspect.isclass(item) and (is_dataclass(item) or hasattr(item, "_fields"))


# --- things ----------------------------------------------------------------------------------------------------------


def klass(item: type) -> Iterator[str]:
    """A class: its name, what it is, and its fields if it is a result."""
    yield f"### {item.__name__}\n"
    if issubclass(item, StateRepository):
        yield f"```python\n{signature(item, item.__name__)}\n```\n"
    if issubclass(item, gitstate.GitStateError | gitstate.GitStateWarning):
        parents = " and ".join(f"`{base.__name__}`" for base in item.__bases__)
        code = f" Exit code {item.exit_code}." if issubclass(item, gitstate.GitStateError) else ""
        yield f"Derives from {parents}.{code}\n"
    yield markdown(inspect.getdoc(item) or "") + "\n"
    if is_dataclass(item):
        yield from table((field.name, str(field.type)) for field in fields(item))
    elif hasattr(item, "_fields"):
        yield from table((name, str(kind)) for name, kind in annotations_of(item))
    if is_result(item):
        for name, value in vars(item).items():
            if isinstance(value, property) and not name.startswith("_"):
                yield f"`.{name}` ({returned(value)}): {markdown(inspect.getdoc(value) or '')}\n"


def record(item: type) -> Iterator[str]:
    """A typed dict: its keys."""
    yield f"### {item.__name__}\n"
    yield markdown(inspect.getdoc(item) or "") + "\n"
    yield from table(annotations_of(item))


def annotations_of(item: type) -> Iterator[tuple[str, str]]:
    """The annotated names of a class, as they are written in the source."""
    for name, kind in item.__annotations__.items():
        yield name, kind.__forward_arg__ if isinstance(kind, typing.ForwardRef) else str(kind)


def methods(item: type) -> Iterator[str]:
    """The public methods and properties that a class itself defines, in the order of the source."""
    plain = [(name, value) for name, value in vars(item).items() if not name.startswith("_")]
    abstract: frozenset[str] = getattr(item, "__abstractmethods__", frozenset())
    attributes = [(name, value) for name, value in plain if isinstance(value, property) and name not in abstract]
    if attributes:
        yield from table(((name, returned(value), one_line(value)) for name, value in attributes), "attribute")
    for name, value in plain:
        if inspect.isfunction(value):
            yield from function(value, name)


def function(item: Callable[..., object], name: str) -> Iterator[str]:
    """A function: its signature and what it does."""
    yield f"### {name}\n"
    yield f"```python\n{signature(item, name)}\n```\n"
    yield markdown(inspect.getdoc(item) or "") + "\n"


# --- pieces ----------------------------------------------------------------------------------------------------------


def signature(item: Callable[..., object], name: str) -> str:
    """How to call *item*, with a line for each parameter when one line is not enough."""
    found = inspect.signature(item)
    parts, starred = [], False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}".replace("'", '"')
        parts.append(f"{parameter.name}: {spelled(parameter.annotation)}{default}")
    answer = found.return_annotation
    written = spelled(answer)
    if written.startswith("Iterator[") and hasattr(item, "__wrapped__"):
        written = f"AbstractContextManager[{written.removeprefix('Iterator[')}"
    end = "" if answer is found.empty or inspect.isclass(item) else f" -> {written}"
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


def spelled(annotation: object) -> str:
    """An annotation as a reader would write it."""
    text = str(annotation).replace("'", '"')
    for alias, meaning in ALIASES.items():
        text = re.sub(rf"\b{alias}\b", meaning, text)
    return text


def returned(item: property) -> str:
    """The type of a property, as code."""
    assert item.fget is not None
    return f"`{spelled(inspect.signature(item.fget).return_annotation)}`"


def one_line(item: object) -> str:
    """The first sentence of a docstring."""
    return markdown((inspect.getdoc(item) or "").split("\n\n")[0]).replace("\n", " ")


def table(rows: Iterable[tuple[str, ...]], first: str = "field") -> Iterator[str]:
    """A table of names, types and, where there are any, meanings."""
    written = [
        (f"`{name}`", f"`{spelled(kind)}`" if not kind.startswith("`") else kind, *rest) for name, kind, *rest in rows
    ]
    titles = [first, "type", "meaning"][: len(written[0])] if written else []
    yield "| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|"
    yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in written)
    yield ""


def markdown(text: str) -> str:
    """A docstring as Markdown: code in backticks, sections of Google's kind as lists, drawn blocks fenced."""
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    lines: list[str] = []
    title = ""
    drawn = False
    for line in text.splitlines():
        heading = re.fullmatch(r"(Args|Raises|Returns):", line)
        if line.strip() == "::":
            drawn = True
            lines += ["```text"]
        elif drawn and line and not line.startswith(" "):
            drawn = False
            lines += ["```", "", line]
        elif drawn:
            lines += [line.removeprefix("    ").replace("`", "")] if line else []
        elif heading:
            title = heading[1]
            lines += [f"{title}:", ""]
        elif title and re.match(r" {4}\S", line):
            name, colon, meaning = line.strip().partition(": ")
            lines.append(f"- `{name}`: {meaning}" if colon else f"- {line.strip()}")
        elif title and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            title = title if line.strip() else ""
            lines.append(line)
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = reference()
    if arguments == ["--check"]:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not fresh:
            print(f"{PAGE.name} is stale: run python scripts/library_reference.py", file=sys.stderr)
        return 0 if fresh else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
