"""Results for people: each kind of result as lines on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from gitstate.cli.page import Page
from gitstate.records import RegistryEntry
from gitstate.text import one_line, size

if TYPE_CHECKING:
    from gitstate.reports import ArchivedLoop, Checkpoint, GarbageReport
    from gitstate.results import Change, FieldChange, Finding, LeaseInfo

Lines = Callable[[Page], Iterable[str]]

STATUS_COLOURS: Final = {
    "running": "green",
    "completing": "green",
    "completed": "green",
    "paused": "yellow",
    "waiting": "yellow",
    "interrupted": "yellow",
    "limit_reached": "yellow",
    "failed": "red",
    "aborted": "red",
    "crashed": "red",
}
SEVERITY_COLOURS: Final = {"note": "blue", "warning": "yellow", "error": "red"}
SHORT: Final = 7
_BATCH: Final = 50  # changes whose columns are lined up together, so that a long log starts at once


def short(revision: str | None) -> str:
    """A revision as people see it."""
    return revision[:SHORT] if revision else "-"


def status(page: Page, name: object) -> str:
    """A loop's status in its colour."""
    text = one_line(str(name))
    return page.paint(text, STATUS_COLOURS.get(text))


# --- loops -----------------------------------------------------------------------------------------------------------


def entries(loops: Sequence[RegistryEntry]) -> Lines:
    """The active loops, a line each."""

    def lines(page: Page) -> Iterator[str]:
        if not loops:
            yield "no active loops"
            return
        rows = [
            [
                page.paint(one_line(loop["loop_id"]), bold=True),
                status(page, loop.get("status")),
                f"{loop.get('iteration', '?')}/{loop.get('max_iterations', '?')}",
                page.paint(one_line(str(loop.get("owner", ""))), "blue"),
                page.recorded(loop.get("started_at")),
                one_line(str(loop.get("task_summary", ""))),
            ]
            for loop in loops
        ]
        yield from page.columns(
            [heading(page, "LOOP", "STATUS", "ITERATION", "OWNER", "STARTED", "TASK"), *rows], fit=True
        )

    return lines


def archived(loops: Sequence[ArchivedLoop]) -> Lines:
    """The archived loops, a line each."""

    def lines(page: Page) -> Iterator[str]:
        if not loops:
            yield "no archived loops"
            return
        rows = [
            [
                page.paint(one_line(loop.loop_id), bold=True),
                status(page, loop.status),
                f"{loop.iteration}/{loop.max_iterations}",
                page.when(loop.archived_at) if loop.archived_at else "unknown",
                size(loop.bytes),
                one_line(loop.objective),
            ]
            for loop in loops
        ]
        yield from page.columns(
            [heading(page, "LOOP", "STATUS", "ITERATION", "ARCHIVED", "SIZE", "TASK"), *rows], fit=True
        )

    return lines


def heading(page: Page, *names: str) -> list[str]:
    """The first row of a table."""
    return [page.paint(name, dim=True) for name in names]


# --- changes ---------------------------------------------------------------------------------------------------------


def field_lines(page: Page, changes: Iterable[FieldChange], *, indent: str = "") -> Iterator[str]:
    """What changed, field by field."""
    from gitstate.cli import fields  # what shows none does without

    return fields.field_lines(page, changes, indent=indent)


def log(changes: Iterable[Change], *, fields: bool) -> Lines:
    """Changes, a line each; with *fields* what they changed below it."""

    def lines(page: Page) -> Iterator[str]:
        remaining = iter(changes)
        while batch := list(islice(remaining, _BATCH)):
            rows = [
                [
                    page.paint(short(change.revision), "yellow"),
                    page.paint(page.when(change.time), dim=True),
                    page.paint(one_line(change.actor), "blue"),
                    one_line(change.summary),
                ]
                for change in batch
            ]
            for change, line in zip(batch, page.columns(rows), strict=True):
                yield line
                if fields:
                    yield from field_lines(page, change.fields, indent="    ")
                    yield ""

    return lines


def change(shown: Change) -> Lines:
    """One change, in full."""

    def lines(page: Page) -> Iterator[str]:
        made_by = [f"process {shown.pid}"] if shown.pid is not None else []
        made_by += [f"on {one_line(shown.host)}"] if shown.host else []
        made_by += [f"generation {shown.generation}"] if shown.generation is not None else ["not made by gitstate"]
        facts = {
            "revision": page.paint(shown.revision or "none yet", "yellow"),
            "parent": shown.parent or "none",
            "time": page.exactly(shown.time),
            "actor": page.paint(one_line(shown.actor), "blue"),
            "made by": ", ".join(made_by),
            "operation": shown.operation,
            "loops": ", ".join(map(one_line, shown.loop_ids)),
            "reason": one_line(shown.reason or ""),
        }
        yield from table_of(page, {name: text for name, text in facts.items() if text})
        yield ""
        yield f"    {page.paint(one_line(shown.summary), bold=True)}"
        if shown.fields:
            yield ""
            yield from field_lines(page, shown.fields)

    return lines


def outcome(
    changes: Sequence[Change], *, planned: bool = False, fields: bool = False, otherwise: str = "nothing to change"
) -> Lines:
    """What a command changed, or would: a line per change, with *fields* what changes below it; *otherwise* for none."""

    def lines(page: Page) -> Iterator[str]:
        if not changes:
            yield otherwise
        for made in changes:
            mark = page.paint("would", "cyan") if planned else page.paint(short(made.revision), "yellow")
            yield f"{mark} {one_line(made.summary)}"
            if planned or fields:
                yield from field_lines(page, made.fields, indent="  ")

    return lines


def pruned(changes: Sequence[Change], *, planned: bool) -> Lines:
    """What pruning freed, or would: a line per loop, and the sum."""

    def lines(page: Page) -> Iterator[str]:
        if not changes:
            yield "nothing to prune"
            return
        for made in changes:
            mark = page.paint("would", "cyan") if planned else page.paint(short(made.revision), "yellow")
            yield f"{mark} {one_line(made.summary)}"
        freed = sum(made.bytes or 0 for made in changes)
        loops = _counted(len(changes), "archived loops")
        yield f"{loops}, {freed} bytes{f' ({size(freed)})' if freed >= 1000 else ''} {'to free' if planned else 'freed'}"

    return lines


def checkpoints(found: Sequence[Checkpoint]) -> Lines:
    """Checkpoints, a line each; the tag is what to give as REV."""

    def lines(page: Page) -> Iterator[str]:
        if not found:
            yield "no checkpoints"
            return
        rows = [
            [
                page.paint(short(item.revision), "yellow"),
                page.paint(page.when(item.time), dim=True),
                page.paint(one_line(item.actor), "blue"),
                one_line(item.tag),
                one_line(item.reason or ""),
            ]
            for item in found
        ]
        yield from page.columns(rows)

    return lines


# --- health ----------------------------------------------------------------------------------------------------------


def findings(found: Sequence[Finding]) -> Lines:
    """Findings, the worst first, each with what to do about it, or what was done."""

    def lines(page: Page) -> Iterator[str]:
        for item in sorted(found, key=lambda item: -list(SEVERITY_COLOURS).index(item.severity)):
            where = item.path or item.loop_id
            severity = page.paint(item.severity, SEVERITY_COLOURS[item.severity])
            yield f"{severity} {item.code}" + (f" in {one_line(where)}" if where else "")
            yield from page.wrapped(item.message, indent="    ")
            if item.revision:
                yield f"    last good revision: {page.paint(short(item.revision), 'yellow')}"
            if item.action:
                yield from page.wrapped(f"done: {item.action}", indent="    ")
            elif item.hint:
                yield f"    {page.sign('→', '->')} {page.paint(one_line(item.hint), 'cyan')}"

    return lines


def examination(
    found: Sequence[Finding], looked_at: Mapping[str, int | None], conclusion: Callable[[Sequence[Finding]], str]
) -> Lines:
    """Findings; then what was looked at, and what it came to."""

    def lines(page: Page) -> Iterator[str]:
        yield from findings(found)(page)
        things = listed([_counted(number, name) for name, number in looked_at.items()])
        if any(item.code == "head_unreadable" and item.action is None for item in found):
            things = f"{things if looked_at else 'the branch'}, could not look at commits and files"
        yield f"looked at {things}: {conclusion(found) if found else page.paint('no findings', 'green')}"

    return lines


def tally(found: Sequence[Finding]) -> str:
    """How many there are of each severity, the worst first."""
    severities = [item.severity for item in found]
    return listed(
        [_counted(severities.count(name), f"{name}s") for name in ("error", "warning", "note") if name in severities]
    )


def mended(found: Sequence[Finding]) -> str:
    """What a repair came to: what was found, what was done, what remains."""
    done = sum(item.action is not None for item in found)
    left = [item for item in found if item.action is None]
    return f"{tally(found)}; {done} put right, {tally(left) + ' remain' + 's' * (len(left) == 1) if left else 'nothing remains'}"


def planned(found: Sequence[Finding]) -> str:
    """As :func:`mended`, of a repair that was not carried out."""
    return f"{tally(found)}; nothing was done"


def garbage(report: GarbageReport, *, planned: bool = False) -> Lines:
    """What a collection of garbage came to, or would."""

    def lines(page: Page) -> Iterator[str]:
        packs = f"{report.packs_before} -> {_counted(report.packs_after, 'packs')}"
        sizes = f"{size(report.bytes_before)} -> {'about ' if planned else ''}{size(report.bytes_after)}"
        mark = page.paint("would ", "cyan") if planned else ""
        yield f"{mark}{_counted(report.objects, 'objects')}, {packs}, {sizes}" + (
            "" if planned else f" in {report.seconds:.1f} s"
        )

    return lines


def _counted(number: int | None, name: str) -> str:
    """*number* things called *name*, in the plural; ``None`` where there is nothing to count."""
    return f"{number} {name.removesuffix('s') if number == 1 else name}" if number else name


def listed(words: Sequence[str]) -> str:
    """Words in a row: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "nothing"


def lease(info: LeaseInfo | None) -> Lines:
    """Who holds the lease."""
    return lambda page: ["the lease is free"] if info is None else table_of(page, _lease_facts(page, "held by", info))


def broken_lease(info: LeaseInfo) -> Lines:
    """Who held the lease until it was broken, and what becomes of that process."""

    def lines(page: Page) -> Iterator[str]:
        yield from table_of(page, _lease_facts(page, "broken, held by", info))
        if info.alive is False:
            yield "nothing that it acknowledged is lost"
        elif info.pid is not None:
            who = f"process {info.pid} still lives" if info.alive else f"if process {info.pid} still lives"
            known = "it publishes nothing any more, and is told so (exit code 5)"
            if info.generation is None:
                known = (
                    "it does not notice, for it is not gitstate: what it goes on to write is merged as an outside edit"
                )
            yield f"{who}{':' if info.alive else ','} {known}"

    return lines


def _lease_facts(page: Page, title: str, info: LeaseInfo) -> dict[str, str]:
    alive = {True: "alive", False: "dead", None: "unknown"}[info.alive]
    expires = page.exactly(info.expires) if info.expires else "unknown"
    return {
        title: lease_line(info),
        "process": f"{alive}: {one_line(info.reason)}",
        "since": page.exactly(info.since) if info.since else "unknown",
        "expires": f"{expires}, expired" if info.expired else expires,
        "generation": str(info.generation) if info.generation is not None else "none: the holder is not gitstate",
    }


def lease_line(info: LeaseInfo) -> str:
    """The holder of the lease in a few words."""
    where = f"process {info.pid}" if info.pid is not None else "no known process"
    return f"{one_line(info.holder or 'nobody named')} ({where}{f' on {one_line(info.host)}' if info.host else ''})"


def table_of(page: Page, facts: dict[str, str]) -> Iterator[str]:
    """Names and what they stand for, under each other."""
    return page.columns([[page.paint(name, dim=True), text] for name, text in facts.items()])
