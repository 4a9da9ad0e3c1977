"""Bringing projection and head together: what to do next, decided from one survey of the files.

Every step is at most one commit, made by the transaction like any other; then
the files are surveyed again, until nothing is left to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from gitstate import layout
from gitstate.archives import archived_between, next_archive_tag
from gitstate.encoding import Record
from gitstate.errors import CorruptStateError
from gitstate.fields import entries_of
from gitstate.ids import is_servable
from gitstate.layout import ARCHIVE, LOOPS, REGISTRY, Place
from gitstate.loops import describe
from gitstate.operation import Operation
from gitstate.projection import Found
from gitstate.records import describe_damage, read_record, valid_record
from gitstate.settling import settle
from gitstate.snapshot import Nothing, Snapshot
from gitstate.store.naming import resolve
from gitstate.store.objects import Stored
from gitstate.store.revisions import Revisions
from gitstate.store.trees import CommitTree
from gitstate.verdicts import Unreadable, Verdict, is_held, judge


class FileHistory:
    """The versions of one file, newest first; the :class:`~gitstate.verdicts.Past` that the store offers.

    With *elsewhere*, those of a session state at its loop's other place count as well: a directory that was moved to
    where the head has it, by a mutation that was interrupted before it wrote the state, holds one of them.
    """

    def __init__(self, revisions: Revisions, path: str, head: str, *, elsewhere: bool = False) -> None:
        self._revisions, self._path, self._head = revisions, path, head
        place = layout.place_of(path)
        self._paths = [path, place.other.path] if elsewhere and place is not None else [path]

    def __iter__(self) -> Iterator[bytes]:
        for _, blob in self.versions():
            with suppress(CorruptStateError):  # a version that is lost is none that history holds
                yield self._revisions.objects.read(blob, b"blob").raw

    def versions(self) -> Iterator[tuple[str, str]]:
        """Each version's revision and blob id, as far back as history can be read."""
        with suppress(CorruptStateError):
            yield from self._revisions.versions(self._paths, self._head)

    def may_hold(self, raw: bytes) -> bool:
        return self._revisions.objects.has(Stored(b"blob", raw).id)

    def last_good(self) -> tuple[str, bytes] | None:
        """The newest valid version: its revision and bytes."""
        for revision, blob in self.versions():
            try:
                raw = self._revisions.objects.read(blob, b"blob").raw
                valid_record(self._path, raw)
            except CorruptStateError:
                continue
            return revision, raw
        return None


class Damage(NamedTuple):
    """A damaged file: what was found, and the version that takes its place (``None``: there never was a good one)."""

    path: str
    damage: str
    found: Found
    revision: str | None
    good: bytes | None

    def describe(self) -> str:
        back = f"restored from {self.revision[:7]}" if self.revision else "nothing to restore it from"
        return f"{self.path}: {self.damage}, {back}"


class Step(NamedTuple):
    """What to do next. Without an *operation* nothing is committed: *paths* are only written out as the head says."""

    snapshot: Snapshot
    seen: Mapping[str, Found]
    paths: frozenset[str]
    operation: Operation | None = None
    damages: tuple[Damage, ...] = ()
    left_alone: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    noticed: tuple[Damage, ...] = ()  # all damage there is; *damages* is what this step repairs

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do, only something to tell."""
        return self.operation is None and not self.paths


class _Survey:
    """The files sorted by what is to become of them."""

    def __init__(self) -> None:
        self.edits: dict[str, Verdict] = {}
        self.moved: dict[str, Place] = {}  # loop id → where the original put it
        self.new: list[Place] = []
        self.damages: list[Damage] = []
        self.rolled: set[str] = set()
        self.left_alone: list[str] = []
        self.missing: list[str] = []


def next_step(revisions: Revisions, head: str, seen: Mapping[str, Found], *, owner: str, now: datetime) -> Step | None:
    """The next thing to do so that files and head agree; ``None`` when they do."""
    tree = revisions.tree(head)
    survey = _sort(revisions, head, tree, seen)
    snapshot = Snapshot(tree)
    alone, missing = tuple(survey.left_alone), tuple(survey.missing)
    known = {damage.path for damage in survey.damages}
    in_head = (damage for damage in _damaged_in_head(revisions, head, tree, seen) if damage.path not in known)
    damages = (*survey.damages, *in_head)
    if survey.edits or survey.moved or survey.new:
        noticed = tuple(damage for damage in damages if damage.path not in survey.edits)
        return _adoption(snapshot, survey, seen)._replace(left_alone=alone, missing=missing, noticed=noticed)
    if damages:
        return _repair(snapshot, damages, seen)._replace(left_alone=alone, missing=missing, noticed=damages)
    settled = settle(snapshot, now, owner=owner, whole=True)
    if settled.edits:
        return _agreement(snapshot, settled, seen)._replace(missing=missing)
    if survey.rolled or alone:
        return Step(snapshot, seen, frozenset(survey.rolled), left_alone=alone, missing=missing)
    return None


def _sort(revisions: Revisions, head: str, tree: CommitTree, seen: Mapping[str, Found]) -> _Survey:
    survey = _Survey()
    places = {place for place in map(layout.place_of, seen) if place is not None}
    places |= {Place(area, loop_id) for area in (LOOPS, ARCHIVE) for loop_id in tree.loops(area)}
    _file(survey, revisions, head, tree, REGISTRY, seen)
    for loop_id in sorted({place.loop_id for place in places}):
        _loop(survey, revisions, head, tree, loop_id, seen)
    return survey


def _file(
    survey: _Survey, revisions: Revisions, head: str, tree: CommitTree, path: str, seen: Mapping[str, Found]
) -> None:
    """One file that the head has, or the registry, where it should be."""
    raw = tree.read(path)
    found = seen.get(path)
    verdict = judge(path, found, raw, FileHistory(revisions, path, head, elsewhere=True))
    if verdict.kind == "edit":
        survey.edits[path] = verdict
    elif verdict.kind == "damaged":
        survey.damages.append(_damage(revisions, head, path, verdict.damage, found))
    elif verdict.kind in ("stale", "missing"):
        survey.rolled.add(path)
        survey.missing += [path] if verdict.kind == "missing" else []


def _loop(
    survey: _Survey, revisions: Revisions, head: str, tree: CommitTree, loop_id: str, seen: Mapping[str, Found]
) -> None:
    active, archived = Place(LOOPS, loop_id), Place(ARCHIVE, loop_id)
    home = next((place for place in (active, archived) if tree.blob_id(place.path) is not None), None)
    if home is None:
        here = [place for place in (active, archived) if place.path in seen]
        _stranger(survey, revisions, head, here, seen)
        return
    away = home.other
    if away.path not in seen:
        _file(survey, revisions, head, tree, home.path, seen)
        return
    found = seen[away.path]
    verdict = judge(away.path, found, tree.read(home.path), FileHistory(revisions, away.path, head))
    if home.path in seen:
        # At both places: what is not at home is a left-over of an interrupted move, or somebody else's affair.
        _file(survey, revisions, head, tree, home.path, seen)
        if verdict.kind == "stale" or (verdict.kind == "same" and found == seen[home.path]):
            survey.rolled |= {home.path, away.path}
        else:
            survey.left_alone.append(away.path)
    elif _was_held(revisions, head, away.path, found):
        survey.rolled |= {home.path, away.path}
    elif verdict.kind == "damaged":
        survey.damages.append(_damage(revisions, head, home.path, verdict.damage, None))
    elif home == active and _is_valid(tree, home.path):
        survey.moved[loop_id] = away
        if verdict.kind == "edit":
            survey.edits[away.path] = verdict
    elif verdict.kind == "edit":
        survey.edits[home.path] = verdict
    else:
        survey.rolled |= {home.path, away.path}


def _is_valid(tree: CommitTree, path: str) -> bool:
    return read_record(tree.read(path) or b"", registry=False)[0] is not None


def _was_held(revisions: Revisions, head: str, path: str, found: Found) -> bool:
    past = FileHistory(revisions, path, head)
    return isinstance(found, bytes) and past.may_hold(found) and any(version == found for version in past)


def _stranger(survey: _Survey, revisions: Revisions, head: str, here: list[Place], seen: Mapping[str, Found]) -> None:
    """A loop that the head does not know: one that the original made, or one that was pruned."""
    place = here[0]
    found = seen[place.path]
    record, damage = (
        (None, found.damage) if isinstance(found, Unreadable) else read_record(found or b"", registry=False)
    )
    if not is_servable(place.loop_id):
        survey.left_alone.append(place.path)
    elif isinstance(found, bytes) and is_held(found, FileHistory(revisions, place.path, head, elsewhere=True)):
        survey.rolled.add(place.path)
    elif record is None:  # what history has of it was pruned: it is not what belongs there
        survey.damages.append(Damage(place.path, damage or "", found, None, None))
    else:
        survey.new.append(place)


def _damage(revisions: Revisions, head: str, path: str, damage: str, found: Found) -> Damage:
    good = FileHistory(revisions, path, head).last_good()
    return Damage(path, damage, found, *(good or (None, None)))


def _damaged_in_head(revisions: Revisions, head: str, tree: CommitTree, seen: Mapping[str, Found]) -> Iterator[Damage]:
    """Files that are invalid in the head itself: taken over as they were found, or committed by other hands."""
    paths = [REGISTRY] if tree.blob_id(REGISTRY) is not None else []
    paths += [Place(area, loop_id).path for area in (LOOPS, ARCHIVE) for loop_id in tree.loops(area)]
    for path in paths:
        raw = tree.read(path) or b""
        try:
            valid_record(path, raw)
        except CorruptStateError:
            _, damage = read_record(raw, registry=path == REGISTRY)
            yield _damage(revisions, head, path, damage or describe_damage(raw), seen.get(path))


# --- the commits -----------------------------------------------------------------------------------------------------


def _adoption(snapshot: Snapshot, survey: _Survey, seen: Mapping[str, Found]) -> Step:
    after, names, loops = snapshot, [], []
    replaced: list[str] = []
    for loop_id, place in survey.moved.items():
        record = snapshot.record(place.other.path)
        after = after.with_record(place.other.path, None).with_record(place.path, record)
        names.append(place.path)
        loops.append(loop_id)
    for path, verdict in sorted(survey.edits.items(), key=lambda item: item[0] != REGISTRY):
        after = after.with_bytes(path, verdict.raw or b"") if verdict.verbatim else _merged(after, path, verdict)
        home = layout.place_of(path)
        names.append(path)
        loops += [home.loop_id] if home is not None else []
        replaced += [f"{home.loop_id if home else path}/{key}" for key in verdict.replaced]
    for place in survey.new:
        found = seen[place.path]
        after = after.with_bytes(place.path, found if isinstance(found, bytes) else b"")
        names.append(place.path)
        loops.append(place.loop_id)
    body = [f"archived outside gitstate: {loop_id}" for loop_id, place in survey.moved.items() if place.area == ARCHIVE]
    body += [f"new outside gitstate: {place.loop_id}" for place in survey.new]
    body += [f"replaced what gitstate had: {key}" for key in replaced]
    body += [f"dropped, no session state: {loop_id}" for loop_id in ghosts(after)]
    for loop_id in archived_between(snapshot, after):
        after = after.with_tag(next_archive_tag(after, loop_id))
    operation = Operation(
        "adopt",
        f"adopt {', '.join(sorted(set(names)))}: edited outside gitstate",
        tuple(dict.fromkeys(loops)),
        body=tuple(body),
        tags=after.new_tags,
    )
    return Step(after, seen, frozenset(after.edits) | {REGISTRY}, operation)


def _merged(after: Snapshot, path: str, verdict: Verdict) -> Snapshot:
    """A merged edit; its stamp is set where the snapshot is settled, so here it is the head's."""
    record, _ = read_record(verdict.raw or b"", registry=path == REGISTRY)
    return after if record is None else after.with_record(path, record)


def ghosts(snapshot: Snapshot) -> list[str]:
    """Entries of the registry without any session state, active or archived."""
    try:
        registry: Record = snapshot.registry
    except CorruptStateError:
        return []
    known = {*snapshot.loops(), *snapshot.loops(ARCHIVE)}
    return [loop_id for loop_id in entries_of(registry) if loop_id not in known]


def _repair(snapshot: Snapshot, damages: Sequence[Damage], seen: Mapping[str, Found]) -> Step:
    after = snapshot
    loops = []
    for damage in damages:
        place = layout.place_of(damage.path)
        loops += [place.loop_id] if place is not None else []
        raw = snapshot.tree.read(damage.path)
        if damage.good is not None and raw != damage.good:
            after = after.with_bytes(damage.path, damage.good)
        elif damage.good is None and raw is not None:
            after = after.with_record(damage.path, None)
    body = tuple(damage.describe() for damage in damages)
    body += tuple(f"dropped, no session state: {loop_id}" for loop_id in ghosts(after))
    subject = (
        f"repair {body[0]}"
        if len(damages) == 1
        else f"repair {len(damages)} files: " + ", ".join(d.path for d in damages)
    )
    operation = Operation("repair", subject, tuple(dict.fromkeys(loops)), body=body if len(body) > 1 else ())
    paths = frozenset(after.edits) | {damage.path for damage in damages} | {REGISTRY}
    return Step(after, seen, paths, operation, damages=tuple(damages))


def _agreement(snapshot: Snapshot, settled: Snapshot, seen: Mapping[str, Found]) -> Step:
    """Registry and session states brought in line, where the original left them apart."""
    words, touched = [], []
    before, after = snapshot.entries, settled.entries
    for loop_id, entry in after.items():
        if loop_id not in before:
            words.append(f"{loop_id} added")
            touched.append(loop_id)
        elif entry != before[loop_id]:
            words.append(f"{loop_id} {describe(before[loop_id], entry)}")
            touched.append(loop_id)
    archived = set(snapshot.loops(ARCHIVE))
    words += [
        f"{loop_id} dropped, it {'is archived' if loop_id in archived else 'has no session state'}"
        for loop_id in before
        if loop_id not in after
    ]
    operation = Operation(
        "repair", "repair registry.json: brought in line with the session states", tuple(touched), body=tuple(words)
    )
    # The snapshot as it was: it is settled when it is committed, and what was never counted is counted only once.
    return Step(snapshot, seen, frozenset({REGISTRY}), operation)


_CHECKPOINT = r"checkpoint (\S+): (\S+), iteration "  # the subject that a checkpoint has


# Most commits are of these kinds, which neither archive nor name a moment.
_NEVER_TAGGED = ("create", "update", "iterate", "amend", "pid", "resume", "restore", "reap", "rollback", "prune")


def missing_tags(revisions: Revisions, head: str) -> list[str]:
    """The tags that the head's own operation asks for and that do not exist: it was interrupted half-way."""
    revision = revisions.read(head)
    operation = revision.operation
    if operation is not None and operation.kind in _NEVER_TAGGED:
        return []
    after = Snapshot(revisions.tree(head))
    before = Snapshot(Nothing() if revision.parent is None else revisions.tree(revision.parent))
    wanted = []
    for loop_id in archived_between(before, after):
        mine = [ref for ref in after.tags(loop_id) if ref.startswith(layout.ARCHIVE_TAGS)]
        if head not in [resolve(revisions, ref) for ref in mine]:
            wanted.append(next_archive_tag(after, loop_id))
    for line in (operation.subject, *operation.body) if operation is not None else ():
        match = re.match(_CHECKPOINT, line)
        if match is not None and layout.checkpoint_tag(match[1], match[2]) not in after.tags(match[1]):
            wanted.append(layout.checkpoint_tag(match[1], match[2]))
    return wanted


def tags_at(revisions: Revisions, head: str) -> list[str]:
    """The archive and checkpoint tags that the head's own operation made."""
    operation = revisions.read(head).operation
    if operation is None or operation.kind in _NEVER_TAGGED:
        return []
    refs = [ref for loop_id in operation.loop_ids for ref in revisions.refs.tags(loop_id)]
    return [ref for ref in refs if resolve(revisions, ref) == head]
