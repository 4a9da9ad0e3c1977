"""Every state in which a power cut may leave the files of a recorded run, in three models of a file system.

* ``kill``: all that was asked for is there; only the process ended.
* ``ordered``: names are in the order in which they were made and unmade, cut off anywhere after the last fsync of
  anything; of files whose bytes were not synced, the bytes may be gone (empty, half, NULs).
* ``posix``: any one name made or unmade and not covered by an fsync of its directory may be as if it had not been, or
  all of them; and then unsynced bytes may be gone, too.

It is a lower bound: two omissions at once, but for all, and torn writes of synced files are not tried.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from faults.recording import Call, Place, Recording

_NEVER = 1 << 60


@dataclass
class Inode:
    """A file, directory or symlink. ``versions`` are (time, bytes), ``syncs`` times."""

    kind: str
    target: str = ""
    number: int = -1  # of a file that is opened
    given_up: int = 0  # how many versions a failed fsync gave up
    medium: dict[int, bytes] = field(default_factory=dict)  # what a sync wrote, where one before it had failed
    mode: int = 0o600
    versions: list[tuple[int, bytes]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)
    entries: dict[str, Inode] = field(default_factory=dict)  # as the running process sees them
    base: dict[str, Inode] = field(default_factory=dict)  # as they were at the beginning

    def bytes_at(self, time: int) -> bytes:
        return next((raw for when, raw in reversed(self.versions) if when <= time), b"")

    def synced_at(self, time: int) -> bytes:
        """What is sure to be on the medium: the bytes as of the last sync."""
        last = max((when for when in self.syncs if when <= time), default=-1)
        return self.medium.get(last, self.bytes_at(last))

    def sync(self, time: int) -> None:
        """Write out what was written since the last sync, one that failed included: of that nothing is written again."""
        raw = self.bytes_at(time)
        if self.given_up:
            lost, synced = self.versions[self.given_up - 1][1], self.synced_at(time)
            if len(self.versions) == self.given_up:
                raw = synced
            else:
                kept = bytes(old if new == gone else new for new, gone, old in zip(raw, lost, synced, strict=False))
                raw = kept + raw[len(kept) :]
            self.medium[time] = raw
        self.syncs.append(time)

    def shortest_at(self, time: int) -> int:
        """The size below which the file did not go since the last sync."""
        last = max((when for when in self.syncs if when <= time), default=-1)
        return min((len(raw) for when, raw in self.versions if last < when <= time), default=len(self.synced_at(time)))


@dataclass(frozen=True, eq=False)
class Entry:
    """A name made (``inode``) or unmade (``None``) in a directory by the call at *time*."""

    time: int
    directory: Inode
    name: str
    inode: Inode | None
    text: str


class State(NamedTuple):
    """One legal crash state: after the call at *time*, without the entries *omitted*, with *losses* of unsynced bytes."""

    model: str
    time: int
    acknowledged: int
    omitted: frozenset[Entry] = frozenset()
    losses: tuple[tuple[int, str], ...] = ()  # (number of the file, empty | half | nuls)
    words: str = ""


@dataclass
class _Open:
    inode: Inode
    position: int = 0
    appends: bool = False
    sync: bool = False


class Explorer:
    """The legal crash states of a recording that began with the files below *start*."""

    def __init__(self, start: Path, recording: Recording) -> None:
        self.root = _scanned(start)
        self.calls = recording.calls
        self.entries: list[Entry] = []
        self.files: list[Inode] = []
        self.acknowledged = [0] * (len(self.calls) + 1)  # after so many calls
        self._handles: dict[int, _Open] = {}
        self._covered: dict[Entry, int] = {}
        self._written = 0
        self._barriers: list[int] = []  # times of syncs of anything
        self._moments: list[int] = []  # times after which something is different
        self._digests: dict[tuple[int, int, str | None], bytes] = {}
        for time, call in enumerate(self.calls, 1):
            self.acknowledged[time] = self.acknowledged[time - 1]
            before = len(self.entries), len(self._barriers), self._written
            getattr(self, f"_{call.name}")(time, call)
            if call.name == "acknowledge" or before != (len(self.entries), len(self._barriers), self._written):
                self._moments.append(time)
        self._touched = self._above_what_changes()

    def _above_what_changes(self) -> set[int]:
        """The directories that change, or hold something that does."""
        changing = {id(entry.directory) for entry in self.entries} | {id(inode) for inode in self.files}

        def mark(inode: Inode) -> bool:
            inside = [mark(inner) for inner in inode.base.values()]
            if any(inside):
                changing.add(id(inode))
            return id(inode) in changing

        mark(self.root)
        return changing

    # --- what the calls did ---

    def _open(self, time: int, call: Call) -> None:
        above, name = self._parent(call.place)
        inode = above.entries.get(name) if name else above
        if inode is not None and inode.kind == "symlink":
            raise AssertionError(f"through a symlink: {call.text}")
        if inode is None:
            if "O_CREAT" not in call.flags:
                raise AssertionError(f"what was opened is not there: {call.text}")
            inode = Inode("file", versions=[(time, b"")])
            self._enter(time, above, name, inode, call)
        elif "O_TRUNC" in call.flags:
            self._set(time, inode, b"")
        if inode.kind == "file" and inode.number < 0:
            inode.number = len(self.files)
            self.files.append(inode)
        self._handles[call.handle] = _Open(
            inode, appends="O_APPEND" in call.flags, sync=bool(call.flags & {"O_SYNC", "O_DSYNC"})
        )

    def _write(self, time: int, call: Call) -> None:
        opened = self._handles[call.handle]
        raw = opened.inode.bytes_at(time)
        at = len(raw) if opened.appends else opened.position if call.number < 0 else call.number
        raw = raw.ljust(at, b"\0")
        self._set(time, opened.inode, raw[:at] + call.data + raw[at + len(call.data) :])
        if call.number < 0:
            opened.position = at + len(call.data)
        if opened.sync:
            opened.inode.sync(time)
            self._barriers.append(time)

    def _seek(self, time: int, call: Call) -> None:
        self._handles[call.handle].position = call.number

    def _truncate(self, time: int, call: Call) -> None:
        inode = self._handles[call.handle].inode
        self._set(time, inode, inode.bytes_at(time)[: call.number].ljust(call.number, b"\0"))

    def _grow(self, time: int, call: Call) -> None:
        inode = self._handles[call.handle].inode
        self._set(time, inode, inode.bytes_at(time).ljust(call.number, b"\0"))

    def _set(self, time: int, inode: Inode, raw: bytes) -> None:
        inode.versions.append((time, raw))
        self._written += 1

    def _fail_to_sync(self, time: int, call: Call) -> None:
        """After a failed fsync the pages count as clean: a later one has nothing to write and succeeds."""
        inode = self._handles[call.handle].inode
        inode.given_up = len(inode.versions)
        for entry in self.entries:
            if entry.directory is inode:
                self._covered.setdefault(entry, _NEVER)

    def _sync(self, time: int, call: Call) -> None:
        inode = self._handles[call.handle].inode
        inode.sync(time)
        self._barriers.append(time)
        for entry in self.entries:
            if entry.directory is inode:
                self._covered.setdefault(entry, time)

    def _sync_all(self, time: int, call: Call) -> None:
        for inode in self.files:
            inode.sync(time)
        for entry in self.entries:
            self._covered.setdefault(entry, time)
        self._barriers.append(time)

    def _rename(self, time: int, call: Call) -> None:
        (above, name), (other, new) = self._parent(call.place), self._parent(call.target)
        inode = above.entries[name]
        if other.entries.get(new) is inode:
            return  # two names of one file: rename(2) does nothing
        self._enter(time, other, new, inode, call)
        self._enter(time, above, name, None, call)

    def _exchange(self, time: int, call: Call) -> None:
        (above, name), (other, new) = self._parent(call.place), self._parent(call.target)
        one, two = above.entries[name], other.entries[new]
        self._enter(time, other, new, one, call)
        self._enter(time, above, name, two, call)

    def _link(self, time: int, call: Call) -> None:
        (above, name), (other, new) = self._parent(call.place), self._parent(call.target)
        self._enter(time, other, new, above.entries[name], call)

    def _unlink(self, time: int, call: Call) -> None:
        self._enter(time, *self._parent(call.place), None, call)

    _rmdir = _unlink

    def _mkdir(self, time: int, call: Call) -> None:
        self._enter(time, *self._parent(call.place), Inode("directory"), call)

    def _symlink(self, time: int, call: Call) -> None:
        self._enter(time, *self._parent(call.place), Inode("symlink", os.fsdecode(call.data)), call)

    def _acknowledge(self, time: int, call: Call) -> None:
        self.acknowledged[time] = call.number

    def _enter(self, time: int, above: Inode, name: str, inode: Inode | None, call: Call) -> None:
        if inode is None:
            del above.entries[name]
        else:
            above.entries[name] = inode
        self.entries.append(Entry(time, above, name, inode, call.text))

    def _parent(self, place: Place) -> tuple[Inode, str]:
        here = self.root if place.directory is None else self._handles[place.directory].inode
        *parts, last = place.path.split("/")
        for part in parts:
            here = here.entries[part] if part not in ("", ".") else here
        return here, "" if last == "." else last

    # --- which states are legal ---

    def states(self) -> Iterator[State]:
        """All of them; many are the same files."""
        for time in [0, *self._moments]:
            done = self.acknowledged[time]
            yield State("kill", time, done)
            losses = list(self._losses(time))
            for lost, words in losses:
                yield State("ordered", time, done, losses=lost, words=words)
            yield from self._cut_off(time, done)
            pending = [entry for entry in self.entries if entry.time <= time < self._covered.get(entry, _NEVER)]
            empty = [(lost, words) for lost, words in losses[:1]]
            for omitted in self._omissions(pending):
                words = "; ".join(sorted({f"without {entry.text}" for entry in omitted}))[:300]
                yield State("posix", time, done, omitted, words=words)
                for lost, more in empty:
                    yield State("posix", time, done, omitted, lost, f"{words}; {more}")

    def _cut_off(self, time: int, done: int) -> Iterator[State]:
        """Names as of an earlier moment, where more had been acknowledged since."""
        barrier = max((when for when in self._barriers if when <= time), default=0)
        for earlier in range(barrier, time):
            if self.acknowledged[earlier] < done:
                omitted = frozenset(entry for entry in self.entries if earlier < entry.time <= time)
                yield State("ordered", time, done, omitted, words=f"names as of call {earlier}")

    def _omissions(self, pending: list[Entry]) -> Iterator[frozenset[Entry]]:
        if pending:
            yield frozenset(pending)
        calls: dict[int, list[Entry]] = {}
        for entry in pending:
            calls.setdefault(entry.time, []).append(entry)
        for together in calls.values():
            yield frozenset(together)
            if len({id(entry.directory) for entry in together}) > 1:
                yield from (frozenset([entry]) for entry in together)

    def _losses(self, time: int) -> Iterator[tuple[tuple[tuple[int, str], ...], str]]:
        unsynced = [number for number, inode in enumerate(self.files) if inode.bytes_at(time) != inode.synced_at(time)]
        if not unsynced:
            return
        for how in ("empty", "half", "nuls"):
            yield tuple((number, how) for number in unsynced), f"unsynced bytes: {how}"
        if len(unsynced) > 1:
            for number in unsynced:
                for how in ("empty", "half", "nuls"):
                    yield ((number, how),), f"unsynced bytes of one file: {how}"

    def tears_a_directory(self, state: State) -> bool:
        """Whether a directory that was moved lost the new name and not the old one's removal: nothing can be done then.

        A directory cannot have two names, so no order of calls spares a file system that takes half of a rename.
        """
        return any(
            entry.inode is not None
            and entry.inode.kind == "directory"
            and any(other.time == entry.time and other not in state.omitted for other in self.entries)
            for entry in state.omitted
        )

    # --- the files of a state ---

    def tree(self, state: State) -> Inode:
        """The files of a state, as directories with their entries."""
        self._lost = dict(state.losses)
        self._now: dict[int, dict[str, Inode]] = {}
        for entry in self.entries:
            if entry.time > state.time:
                break
            if entry in state.omitted:
                continue
            here = self._now.setdefault(id(entry.directory), dict(entry.directory.base))
            if entry.inode is None:
                here.pop(entry.name, None)
            else:
                here[entry.name] = entry.inode
        return self.root

    def digest(self, state: State) -> bytes:
        """The same for states whose files and acknowledgements are the same."""
        return b"%d" % state.acknowledged + self._digest(self.tree(state), state.time)

    def _digest(self, inode: Inode, time: int) -> bytes:
        if inode.kind == "symlink":
            return inode.target.encode("utf-8", "surrogateescape")
        if inode.kind == "file":
            return self._digest_of_file(inode, time)
        if id(inode) not in self._touched and (id(inode), 0, None) in self._digests:
            return self._digests[id(inode), 0, None]
        digest = hashlib.sha256()
        for name, inner in sorted(self._now.get(id(inode), inode.base).items()):
            digest.update(f"{name}\0{inner.kind}\0".encode("utf-8", "surrogateescape") + self._digest(inner, time))
        if id(inode) not in self._touched:
            self._digests[id(inode), 0, None] = digest.digest()
        return digest.digest()

    def _digest_of_file(self, inode: Inode, time: int) -> bytes:
        how = self._lost.get(inode.number)
        version = sum(when <= time for when, _ in inode.versions)
        synced = 0 if how is None else max((when for when in inode.syncs if when <= time), default=0)
        key = (id(inode), version * 1_000_000 + synced, how)
        if key not in self._digests:
            self._digests[key] = hashlib.sha256(self._bytes(inode, time)).digest()
        return self._digests[key]

    def contents(self, state: State) -> set[bytes]:
        """The digests of all files that have a name in a state."""
        walked = self._walk(self.tree(state), "")
        return {self._digest_of_file(inode, state.time) for _, inode in walked if inode.kind == "file"}

    def materialise(self, state: State, target: Path) -> None:
        """Write the files of a state below *target*, which is made."""
        made: dict[int, Path] = {}
        target.mkdir()
        for path, inode in self._walk(self.tree(state), ""):
            here = target / path
            if inode.kind == "directory":
                here.mkdir(0o700)
            elif inode.kind == "symlink":
                here.symlink_to(inode.target)
            elif id(inode) in made:
                here.hardlink_to(made[id(inode)])
            else:
                made[id(inode)] = here
                descriptor = os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL, inode.mode)
                os.write(descriptor, self._bytes(inode, state.time))
                os.close(descriptor)

    def _walk(self, directory: Inode, above: str) -> Iterator[tuple[str, Inode]]:
        entries = self._now.get(id(directory), directory.base)
        for name in sorted(entries):
            inode = entries[name]
            yield f"{above}{name}", inode
            if inode.kind == "directory":
                yield from self._walk(inode, f"{above}{name}/")

    def _bytes(self, inode: Inode, time: int) -> bytes:
        raw = inode.bytes_at(time)
        how = self._lost.get(inode.number)
        return raw if how is None else _lost(raw, inode.synced_at(time), how, inode.shortest_at(time))


def _lost(raw: bytes, synced: bytes, how: str, shortest: int) -> bytes:
    """Bytes of which only *synced* is sure: where they differ they are gone, half there, or NULs.

    Where the file was never cut short, what it held stays until it is written over.
    """
    pairs = zip(raw, synced, strict=False)
    same = next((position for position, (one, other) in enumerate(pairs) if one != other), min(len(raw), len(synced)))
    middle = same + (len(raw) - same) // 2
    if shortest >= len(synced):
        return {"empty": synced, "half": raw[:middle] + synced[middle:], "nuls": synced.ljust(len(raw), b"\0")}[how]
    if how == "empty":
        return b""
    if how == "half":
        return raw[:middle]
    return raw[:same].ljust(len(raw), b"\0")


def _scanned(path: Path) -> Inode:
    """The files below *path*, all of them durable."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return Inode("symlink", os.readlink(path))
    if not stat.S_ISDIR(found.st_mode):
        return Inode("file", mode=stat.S_IMODE(found.st_mode), versions=[(0, path.read_bytes())], syncs=[0])
    inode = Inode("directory")
    inode.base = {inner.name: _scanned(inner) for inner in path.iterdir()}
    inode.entries = dict(inode.base)
    return inode
