"""One file and everything that can happen to it, in every order: six steps of sixteen kinds, all of them.

The model holds what history, the work tree and the original's memory hold, as bytes; what becomes of the file is asked
of the pure rule that reads, writes and ``check`` share. After every step the next reconcile must keep

- every acknowledged change, unless somebody set that same key from outside, which the commit then names, and
- every outside edit that is in the file, unless a later one of the same number (``gitstate.revision``) has that key otherwise.

One promise is weaker than one would wish. Edits that are adopted byte for byte share one number, so that an edit may
take back an *adopted outside edit* without the commit naming it: nobody can tell whether its writer saw that one
(``_went_unnumbered``, decision 7). Both are in history. What gitstate changed is never taken back like that.

Values are tokens that are used once (``M…`` of gitstate, ``W…`` of the original, ``T…`` times), and worlds that differ
only in the numbers of their tokens are one, so that all sequences are covered without going through each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import pytest
from original import stringify

from gitstate.encoding import encode, parse
from gitstate.layout import REGISTRY, state_path
from gitstate.records import revision_of, stamped
from gitstate.verdicts import Past, Verdict, judge

DEPTH = 6
KEYS = ("ours", "shared", "theirs")
Record = dict[str, object]


class Versions(Past):
    """A history that is a list, oldest first."""

    def __init__(self, versions: tuple[bytes, ...]) -> None:
        self.versions = versions

    def __iter__(self) -> Iterator[bytes]:
        return reversed(self.versions)

    def may_hold(self, raw: bytes) -> bool:
        return raw in self.versions


@dataclass(frozen=True)
class World:
    """``earlier``: what a power cut may bring back, newest first. ``saw``: for each of the original's tokens, what stood
    in its key when the original read. ``cut``: the file came back from the power cut like this.
    """

    path: str
    history: tuple[bytes, ...]
    file: bytes
    earlier: tuple[bytes, ...] = ()
    read: bytes | None = None
    saw: tuple[tuple[str, str], ...] = ()
    cut: bool = False

    @property
    def head(self) -> bytes:
        return self.history[-1]

    @cached_property
    def token(self) -> int:
        """A number that no token has yet."""
        texts = [
            *self.history,
            self.file,
            *self.earlier,
            self.read or b"",
            *(" ".join(pair).encode() for pair in self.saw),
        ]
        numbers = re.findall(rb"[MWT](\d+)", b" ".join(texts))
        return 1 + max(map(int, numbers), default=0)

    def with_file(self, file: bytes) -> World:
        return replace(self, file=file, earlier=(self.file, *self.earlier), cut=False)

    def canonical(self) -> World:
        """The same with its tokens numbered in the order of their appearance, and only what can still matter."""
        parts = [*self.history, self.file, *self.earlier, b"-" if self.read is None else self.read]
        saw, found = dict(self.saw), re.findall(r"W\d+", b" ".join(parts).decode())
        lines = {value: before for token in found for value, before in _line_of(token, saw)}
        parts.append(" ".join(f"{value}<{lines[value]}" for value in sorted(lines)).encode())
        names: dict[bytes, bytes] = {}

        def renamed(match: re.Match[bytes]) -> bytes:
            return match[1] + names.setdefault(match[2], b"%d" % len(names))

        *texts, read, kept = re.sub(rb"\b([MWT])(\d+)\b", renamed, b"\0".join(parts)).split(b"\0")
        count = len(self.history)
        return replace(
            self,
            history=tuple(texts[:count]),
            file=texts[count],
            earlier=tuple(texts[count + 1 :]),
            read=None if self.read is None else read,
            saw=tuple(
                sorted((value, before) for value, _, before in (pair.partition("<") for pair in kept.decode().split()))
            ),
        )


def _line_of(value: str, saw: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A token and what its writer saw in its place, then the same of that, and so on."""
    while value in saw:
        yield value, saw[value]
        value = saw[value]


# Worlds have most of their files, and of what becomes of these, in common; each is looked at once.


@cache
def record_of(raw: bytes) -> Record:
    found = parse(raw)
    assert isinstance(found, dict)
    return found


@cache
def known_in(history: tuple[bytes, ...]) -> set[str]:
    return {str(record_of(version).get(key)) for version in history for key in KEYS}


@cache
def verdict_on(path: str, file: bytes, history: tuple[bytes, ...]) -> Verdict:
    return judge(path, file, history[-1], Versions(history))


# --- what can happen -------------------------------------------------------------------------------------------------


def reconciled(world: World, *, killed: bool = False) -> World:
    """What the rule makes of the file; *killed*: after the commit, before the file is written."""
    verdict = verdict_on(world.path, world.file, world.history)
    after = world
    if verdict.kind == "edit":
        assert verdict.raw is not None
        _hold_to_the_promises(world, verdict.raw, verdict.replaced)
        # An edit is made durable before it is adopted: what stood there before it cannot come back.
        after = replace(world, history=(*world.history, verdict.raw), earlier=())
    else:
        _hold_to_the_promises(world, world.head, ())
    if killed or after.file == after.head:
        return after
    # And what is written over anything but the head's own version is durable as well.
    return replace(after, file=after.head, earlier=(), cut=False)


def _hold_to_the_promises(world: World, after: bytes, replaced: tuple[str, ...]) -> None:
    old, new, saw = record_of(world.head), record_of(after), dict(world.saw)
    file = record_of(world.file) if world.file else {}
    known = known_in(world.history)
    for key in KEYS:
        before, value = str(old.get(key)), str(file.get(key))
        if value.startswith("W") and value not in known:
            assert new[key] == value, f"the edit {value} of {key} is lost in {world}"
            if before not in (value, *(seen for _, seen in _line_of(value, saw))):
                assert key in replaced or _went_unnumbered(world, key, before), (
                    f"{before} of {key} was replaced by {value}, and not named, in {world}"
                )
        elif new.get(key) != before:
            assert not world.cut, f"the power cut took back {before} of {key} in {world}"
            # Either the original carried along an edit that it had read, or it read before one was adopted.
            carried = value.startswith("W") and key in replaced
            assert carried or _went_unnumbered(world, key, before), f"{before} of {key} is taken back in {world}"
    if after not in (world.head, world.file):
        assert revision_of(new) == (revision_of(old) or 0) + 1


def _went_unnumbered(world: World, key: str, value: str) -> bool:
    """Whether *value* is an outside edit that was adopted byte for byte, under the number that the file has too.

    Who read before that cannot be told from who read after it (decision 7): the later edit counts. It never happens
    to what gitstate set, for that gets a number of its own.
    """
    number = revision_of(record_of(world.file))
    same_number = (record_of(version) for version in world.history if revision_of(record_of(version)) == number)
    return value.startswith("W") and value in [record.get(key) for record in same_number]


def published(world: World, key: str) -> World:
    head = record_of(world.head)
    changed = {**head, key: f"M{world.token}", "lastUpdate": f"T{world.token}"}
    return replace(world, history=(*world.history, encode(stamped(changed, head))))  # type: ignore[arg-type]


def mutated(key: str) -> Callable[[World], World]:
    def happen(world: World) -> World:
        after = published(reconciled(world), key)
        return after.with_file(after.head)

    return happen


def killed_after_publishing(key: str) -> Callable[[World], World]:
    return lambda world: published(reconciled(world), key)


def read_by_the_original(world: World) -> World | None:
    return replace(world, read=world.file) if world.file else None  # it throws, and will not write


def written_by_the_original(key: str) -> Callable[[World], World | None]:
    def happen(world: World) -> World | None:
        if world.read is None:
            return None
        found, value = record_of(world.read), f"W{world.token}"
        edit = {**found, key: value, "lastUpdate": f"T{world.token}"}
        return replace(world.with_file(stringify(edit)), read=None, saw=(*world.saw, (value, str(found.get(key)))))

    return happen


def written_in_the_middle(world: World) -> World | None:
    """By the original, when a mutation has surveyed the files and not yet written them: then its file stays."""
    between = reconciled(world)
    edited = written_by_the_original("theirs")(between)
    return None if edited is None else published(edited, "ours")


def lost_in_a_power_cut(world: World) -> World:
    return replace(world, file=b"", earlier=())


def brought_back_by_a_power_cut(world: World) -> World | None:
    return replace(world, file=world.earlier[0], earlier=world.earlier[1:], cut=True) if world.earlier else None


def brought_back_from_long_ago(world: World) -> World | None:
    return replace(world, file=world.earlier[-1], earlier=(), cut=True) if len(world.earlier) > 1 else None


def staged(world: World) -> World:
    """``git add``: the index decides nothing."""
    return world


def checked_out(version: int) -> Callable[[World], World | None]:
    def happen(world: World) -> World | None:
        return world.with_file(world.history[version]) if len(world.history) >= abs(version) else None

    return happen


STEPS: dict[str, Callable[[World], World | None]] = {
    "mutate": mutated("ours"),
    "mutate what the original changes too": mutated("shared"),
    "mutate, killed after publishing": killed_after_publishing("ours"),
    "mutate what the original changes too, killed after publishing": killed_after_publishing("shared"),
    "power cut, the file is empty": lost_in_a_power_cut,
    "power cut, the file is as it was before": brought_back_by_a_power_cut,
    "power cut, the file is as it was long ago": brought_back_from_long_ago,
    "the original reads": read_by_the_original,
    "the original writes what it read, changed": written_by_the_original("theirs"),
    "the original writes what it read, changed where gitstate changes too": written_by_the_original("shared"),
    "the original writes in the middle of a mutation": written_in_the_middle,
    "git add": staged,
    "git checkout the version before": checked_out(-2),
    "git checkout the first version": checked_out(0),
    "reconcile": reconciled,
    "reconcile, killed after its commit": lambda world: reconciled(world, killed=True),
}


# --- all of it -------------------------------------------------------------------------------------------------------


def begun(path: str, *, ours: bool) -> World:
    """A file that gitstate made, or one that the original did: that carries no stamp."""
    record: Record = {"active_loops": []} if path == REGISTRY else {"status": "running"}
    record |= {**dict.fromkeys(KEYS, "before"), "lastUpdate": "T0"}
    raw = encode(stamped(record, None)) if ours else stringify(record)  # type: ignore[arg-type]
    return World(path, (raw,), raw)


@pytest.mark.parametrize("ours", [True, False], ids=["gitstate's file", "the original's file"])
@pytest.mark.parametrize("path", [state_path("a-loop"), REGISTRY], ids=["a session state", "the registry"])
def test_no_sequence_of_six_steps_loses_an_acknowledged_change_or_an_outside_edit(
    path: str, ours: bool, record_property: Callable[[str, object], None]
) -> None:
    worlds = {begun(path, ours=ours)}
    seen, ways = set(worlds), 0
    for _ in range(DEPTH - 1):
        reached = [after for world in worlds for after in all_after(world)]
        worlds = {world.canonical() for world in reached} - seen
        seen |= worlds
        ways += len(reached)
    for world in worlds:
        for after in all_after(world):  # and whatever the last step was, the next reconcile keeps all
            assert reconciled(after).file
            ways += 1
    assert (len(seen) > 5_000, ways > 50_000) == (True, True), (len(seen), ways)
    record_property("figures", f"merging {path}: {ways} steps from {len(seen)} different worlds, 0 lost")


def all_after(world: World) -> Iterator[World]:
    return (after for step in STEPS.values() if (after := step(world)) is not None)


def test_the_model_follows_the_original_to_the_byte() -> None:
    world = begun(state_path("a-loop"), ours=False)
    assert json.loads(world.file)["shared"] == "before"
    read = read_by_the_original(world)
    assert read is not None
    written = written_by_the_original("shared")(read)
    assert written is not None
    assert b'"shared": "W1"' in written.file
    assert not written.file.endswith(b"\n")
