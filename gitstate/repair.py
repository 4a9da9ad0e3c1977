"""Repair: back to the newest state that is known to have been published, saying what was done and what was lost."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

from gitstate.audit import Progress
from gitstate.check import Checker
from gitstate.errors import DamageWarning, RefusedError
from gitstate.loops import Outcome
from gitstate.operation import Operation
from gitstate.pointers import Pointers
from gitstate.results import Finding
from gitstate.salvage import Salvage
from gitstate.store import inspection
from gitstate.store.replay import replay
from gitstate.transaction import Writer

# What is put right on the way, without a word of its own.
_SILENTLY = {
    "object_damaged": "written again from the files",
    "file_missing": "written from history",
    "journal_pending": "put back",
    "index_differs": "written anew",
    "left_behind": "removed",
    "outside_edit": "adopted",
    "projection_stale": "written",
    "registry_disagrees": "brought in line with the session states",
}


def repair(writer: Writer, *, dry_run: bool, progress: Progress | None = None) -> list[Finding]:
    """What is wrong, and what was done about each; with *dry_run* nothing is."""
    writer = replace(writer, auto_repair=True)  # whoever switched that off is asking for it now
    found = _check(writer, progress)
    if dry_run or inspection.inspect(writer.directory) not in ("ready", "unmarked"):
        return found
    done = list(_mend(writer))
    if done:  # what lay behind the damage can be seen now
        known = {(finding.code, finding.path) for finding in (*found, *done)}
        found += [finding for finding in _check(writer, progress) if (finding.code, finding.path) not in known]
    said: list[str] = []
    if not any(finding.action is None for finding in done):
        try:
            said = _reconcile(writer)
        except RefusedError as error:  # the user is in the middle of something of git's
            done.append(Finding("head_elsewhere", "warning", error.message, path=".git/HEAD", hint=error.hint))
    return _report(found, done, said, _check(writer, progress))


def _check(writer: Writer, progress: Progress | None) -> list[Finding]:
    return list(Checker(writer.projection, writer.revisions, writer.clock.now(), progress).findings(full=True))


def _mend(writer: Writer) -> Iterator[Finding]:
    """Everything below the files, from the outside in; what could not be put right has no ``action``."""
    salvage = Salvage(writer)
    pointers = Pointers(writer, salvage)
    yield from salvage.guards()
    with writer.keeper.guard.hold(writer.lock_timeout):
        replay(writer.revisions)
        yield from salvage.places()
        yield from salvage.journaled()
        yield from pointers.head()
        yield from pointers.lock()
        yield from salvage.packs()
        yield from salvage.loose()
        yield from pointers.packed()
        for finding in pointers.branch():
            yield finding
            if finding.action is None:
                return
        yield from pointers.tags()


def _reconcile(writer: Writer) -> list[str]:
    """Bring the files in line, as every mutation does first; what was said about it."""
    writer.notes.drop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamageWarning)
        writer.run("repair", lambda snapshot, now: Outcome(snapshot, Operation("repair", "repair: nothing to do")))
    return [str(item.message) for item in caught]


def _report(found: list[Finding], done: list[Finding], said: list[str], left: list[Finding]) -> list[Finding]:
    """What was found with what was done about it, what was only found on the way, and what remains."""
    remaining = {(finding.code, finding.path): finding for finding in left}
    report = []
    for finding in found:
        key = (finding.code, finding.path)
        own = next((item for item in done if (item.code, item.path) == key), None)
        if own is not None:
            done.remove(own)
        if key in remaining:
            words = f"; {own.action}" if own is not None and own.action else ""
            still = remaining.pop(key)
            if own is not None and own.action is None:
                still = own  # it knows why, and what to do now
            report.append(replace(still, message=still.message + words))
        else:
            revision = finding.revision or (None if own is None else own.revision)
            report.append(replace(finding, revision=revision, action=_action(finding, own, said)))
    return [*report, *done, *remaining.values()]


def _action(finding: Finding, own: Finding | None, said: list[str]) -> str:
    if own is not None and own.action is not None:
        return own.action
    about = [words for words in said if finding.path and words.startswith(finding.path)]
    return about[0] if about else _SILENTLY.get(finding.code, "repaired")
