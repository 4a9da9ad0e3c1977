"""``gitstate status``: what is going on, on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from gitstate.cli import render
from gitstate.cli.page import Page, cells
from gitstate.records import RegistryEntry
from gitstate.text import one_line, size

if TYPE_CHECKING:
    from gitstate.results import LoopReport, Overview

# Verdict, its sign, its colour.
_SIGNS: Final = {
    "alive": ("●", "*", "green"),
    "dead": ("✗", "x", "red"),
    "foreign": ("◌", "?", "yellow"),
    "none": ("○", "o", None),
}


def overview(found: Overview) -> render.Lines:
    """All active loops, then slots, archive, lease and findings."""

    def lines(page: Page) -> Iterator[str]:
        rows = [_row(page, report) for report in found.loops]
        for report, row in zip(found.loops, page.columns(rows), strict=True):
            yield _title(page, report)
            yield f"  {row}"
            yield from page.wrapped(str(report.state.get("objective", "")), indent="  ", lines=2)
            if report.liveness.verdict != "none":
                yield from page.wrapped(_process(report), indent="  ", lines=2)
            yield ""
        yield from render.table_of(page, _rest(page, found))
        if found.findings:
            yield ""
            yield from render.findings(found.findings)(page)

    return lines


def _rest(page: Page, found: Overview) -> dict[str, str]:
    used, limit = found.slots_used, found.slots_max
    slots = page.paint(f"{used} of {limit} in use", "red" if used > limit else None)
    worst = sum(item.severity != "note" for item in found.findings)
    return {
        "slots": f"{page.bar(used, limit, limit)} {slots}" if 0 < limit <= 20 else slots,
        "archived": str(found.archived),
        "history": size(found.size_bytes),
        "lease": f"held by {render.lease_line(found.lease)}" if found.lease else "free",
        "check": page.paint(f"{worst} to look at", "yellow") if worst else page.paint("ok", "green"),
    }


def _title(page: Page, report: LoopReport) -> str:
    fancy, plain, colour = _SIGNS[report.liveness.verdict]
    return f"{page.paint(page.sign(fancy, plain), colour)} {page.paint(one_line(report.state['loopId']), bold=True)}"


def _row(page: Page, report: LoopReport) -> list[str]:
    state = report.state
    current, most = state.get("currentIteration", 0), state.get("maxIterations", 0)
    counted = f"{current} of {most}"
    bar = page.bar(current, most) if isinstance(most, int) and isinstance(current, int) else ""
    owner = report.entry.get("owner", "") if report.entry else ""
    return [
        render.status(page, state.get("status")),
        bar,
        counted,
        page.paint(one_line(str(owner)), "blue"),
        _changed(page, report),
    ]


def _changed(page: Page, report: LoopReport) -> str:
    if report.last_change is not None:
        return page.when(report.last_change.time)
    return page.recorded(report.state.get("lastUpdate"))


def _process(report: LoopReport) -> str:
    liveness = report.liveness
    return f"{liveness.verdict}: {liveness.reason}" if liveness.verdict != "none" else liveness.reason


def loop_report(report: LoopReport) -> render.Lines:
    """One loop, from all sides."""

    def lines(page: Page) -> Iterator[str]:
        yield _title(page, report)
        yield ""
        facts = {name: text for name, text in _facts(page, report).items() if text}
        width = max(map(cells, facts)) + 4
        for name, text in facts.items():
            colour = render.STATUS_COLOURS.get(text) if name == "status" else None
            label = f"  {page.paint(name, dim=True)}{' ' * (width - 2 - cells(name))}"
            for line in page.wrapped(text, indent=" " * width):
                yield label + page.paint(line[width:], colour)
                label = " " * width

    return lines


def _facts(page: Page, report: LoopReport) -> dict[str, str]:
    state, last = report.state, report.last_change
    config = state.get("config") or {}
    budget, timeout = config.get("budgetPerIteration", "?"), config.get("timeoutMinutes", "?")
    return {
        "objective": str(state.get("objective", "")),
        "until": str(state.get("completionCriteria", "")),
        "status": str(state.get("status")),
        "process": _process(report),
        "iteration": f"{state.get('currentIteration', 0)} of {state.get('maxIterations', '?')}",
        **_entry_facts(report.entry),
        "model": f"{config.get('model', '?')}, at most {budget} USD and {timeout} minutes for an iteration",
        "directory": str(config.get("workingDir", "")),
        "files": f"{len(state.get('filesModified') or [])} modified",
        "started": page.recorded(state.get("startTime"), exact=True),
        "updated": page.recorded(state.get("lastUpdate"), exact=True),
        "last change": f"{render.short(last.revision)} by {last.actor}: {last.summary}" if last else "",
    }


def _entry_facts(entry: RegistryEntry | None) -> dict[str, str]:
    if entry is None:
        return {"place": "archived"}
    tags = ", ".join(map(str, entry.get("tags") or []))
    return {"owner": str(entry.get("owner", "")), "priority": str(entry.get("priority", "")), "tags": tags}
