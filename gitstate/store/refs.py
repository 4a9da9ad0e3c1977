"""Refs: the branch, which moves in one function only, and tags, which never move.

A ref is locked as git does it, by ``<ref>.lock`` (gitrepository-layout(5)),
so that ordinary git and gitstate keep each other out. The lock file appears
whole, by a hard link, and already holds the new value: one that is left over
says by its content who made it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from gitstate.clock import Clock
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, StorageError
from gitstate.layout import ARCHIVE_TAGS, BRANCH, CHECKPOINT_TAGS
from gitstate.medium import NotAFileError
from gitstate.spares import recycle, refill

_ID = re.compile(rb"\A[0-9a-f]{40}\n?\Z")
ZERO = "0" * 40
PACKED_REFS = ".git/packed-refs"
_TAGS = ".git/refs/tags"  # which is there from the beginning
_FOREIGN_LOCK = 1.0  # seconds that somebody else's ref lock is waited for
_LONGEST_LOG = 1024 * 1024  # bytes of a reflog, some 5,000 moves
_LIMIT = 64 * 1024 * 1024  # bytes of packed-refs


_Packed = list[tuple[str, str, str | None]]


class Move(NamedTuple):
    """A line of the reflog: the branch went from *old* to *new*, and *why*."""

    old: str
    new: str
    why: str


class RefDamagedError(CorruptStateError):
    """A ref, or the file of packed refs, cannot be read. Facts: ``path``, ``damage``."""


class Refs:
    """The refs of one repository."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self._parsed: tuple[bytes, _Packed, dict[str, str]] = (b"", [], {})  # the file of packed refs, and what it says

    # --- reading ---

    def read(self, ref: str) -> str | None:
        """The id that a ref names, ``None`` if there is no such ref.

        Raises:
            RefDamagedError: it does not hold an id.
        """
        found = self.loose(ref)
        return self._read_packed()[1].get(ref) if found is None else found

    def loose(self, ref: str) -> str | None:
        """The id that a ref's own file holds, ``None`` if it has none.

        Raises:
            RefDamagedError: it does not hold an id.
        """
        try:
            raw = self.directory.read(f".git/{ref}", 4096)
        except NotAFileError as error:
            raise _damaged(ref, _why(error)) from None
        if raw is None:
            return None
        if not _ID.match(raw):
            raise _damaged(ref, "empty" if not raw.strip(b"\0 \n") else "not an id")
        return raw[:40].decode()

    def is_folder(self, name: str) -> bool:
        """Whether refs lie below *name*, so that it is none itself."""
        return name != BRANCH and self.directory.is_directory(f".git/{name}")

    def packed(self) -> dict[str, str]:
        """The packed refs.

        Raises:
            RefDamagedError: the file is not one of packed refs.
        """
        return dict(self._read_packed()[1])

    def peeled(self) -> dict[str, str]:
        """What packed annotated tags lead to, as the file of packed refs says."""
        return {name: target for name, _, target in self.packed_lines() if target is not None}

    def packed_lines(self) -> _Packed:
        """The packed refs, each with what it leads to, as the file says.

        Raises:
            RefDamagedError: as :meth:`packed`.
        """
        return list(self._read_packed()[0])

    def _read_packed(self) -> tuple[_Packed, dict[str, str]]:
        """The file is read each time, and taken apart where it is another than before."""
        try:
            raw = self.directory.read(PACKED_REFS, _LIMIT)
        except NotAFileError as error:
            raise _damaged("packed-refs", _why(error)) from None
        if raw is None:
            return [], {}
        parsed = self._parsed
        if raw and raw == parsed[0]:
            return parsed[1:]
        if not raw.strip(b"\0"):  # even without refs git writes a first line
            raise _damaged("packed-refs", "nothing but NULs" if raw else "empty")
        if not raw.endswith(b"\n"):
            raise _damaged("packed-refs", "truncated")
        found, wrong = parse_packed(raw)
        if wrong:
            raise _damaged("packed-refs", f"line {wrong[0]} is neither a ref nor what one leads to")
        values = {name: value for name, value, _ in found}
        self._parsed = raw, found, values
        return found, values

    def below(self, prefix: str) -> dict[str, str]:
        """The refs whose names begin with *prefix*, with their ids."""
        names = [name for name in self.loose_names(prefix.rpartition("/")[0]) if name.startswith(prefix)]
        loose = {name: self.read(name) for name in names}
        # Read last: what is being packed meanwhile is in here before its own file goes.
        found = {name: value for name, value in self.packed().items() if name.startswith(prefix)}
        found |= {name: value for name, value in loose.items() if value is not None}
        return dict(sorted(found.items()))

    def loose_names(self, directory: str) -> list[str]:
        """The refs below *directory* that have a file of their own, whatever it holds."""
        found: list[str] = []
        for name in self.directory.names(f".git/{directory}"):
            inner = f"{directory}/{name}"
            if self.directory.is_directory(f".git/{inner}"):
                found += self.loose_names(inner)
            elif not name.endswith(".lock"):
                found.append(inner)
        return found

    def tags(self, loop_id: str) -> list[str]:
        """The archive and checkpoint refs of one loop."""
        exact = f"{ARCHIVE_TAGS}{loop_id}"
        archives = [ref for ref in self.below(exact) if re.fullmatch(r"(?:\.[0-9]+)?", ref[len(exact) :])]
        return [*archives, *self.below(f"{CHECKPOINT_TAGS}{loop_id}/")]

    def archived_ids(self) -> list[str]:
        """The loops that were ever archived, by their tags."""
        refs = {*self.packed(), *self.loose_names(ARCHIVE_TAGS.rstrip("/"))}
        names = (ref.removeprefix(ARCHIVE_TAGS) for ref in refs if ref.startswith(ARCHIVE_TAGS))
        return sorted({re.sub(r"\.[0-9]+\Z", "", name) for name in names})

    def symbolic_head(self) -> str | None:
        """The ref that ``HEAD`` names, ``None`` when it is detached.

        Raises:
            RefDamagedError: ``HEAD`` is missing or unreadable.
        """
        try:
            raw = self.directory.read(".git/HEAD", 4096)
        except NotAFileError as error:
            raise _damaged("HEAD", _why(error)) from None
        match = re.match(rb"\Aref: (refs/[!-~]+)\n?\Z", raw or b"")
        if match:
            return match[1].decode()
        if raw is not None and _ID.match(raw):
            return None
        raise _damaged("HEAD", "missing" if raw is None else "neither a ref nor an id")

    # --- moving ---

    def advance(self, old: str, new: str, *, durable: bool = True, keep: bool = False) -> None:
        """Move the branch from *old* to *new*: the only function that moves it, and the commit point.

        Whoever does not want it *durable* at once makes it so before it is acknowledged. *keep* its file to be written
        over, unless a move to *old* was made durable in it: a power cut must find that.

        Raises:
            BranchMovedError: the branch is not at *old*.
            StorageError: it could not be moved; or, with code ``outcome_unknown``, it moved and that may not be durable.
        """
        self._exchange(BRANCH, lambda: self.expect(old), new, durable=durable, keep=keep)

    def expect(self, old: str) -> None:
        """Make sure that the branch is at *old*.

        Raises:
            BranchMovedError: it is not.
        """
        current = self.read(BRANCH)
        if current != old:
            raise BranchMovedError(
                f"main is at {current and current[:7]}, not at {old[:7]}", path=BRANCH, actual=current
            )

    def create_tag(self, ref: str, object_id: str) -> bool:
        """A tag made durable, if there is none of that name; whether there was none."""
        if self.read(ref) is not None:
            return False
        parent = f".git/{ref}".rpartition("/")[0]
        self.directory.make(parent)
        self.directory.sync_way(parent, below=_TAGS)  # whoever made it may have been killed before that
        return self.directory.write_new(f".git/{ref}", f"{object_id}\n".encode())

    def make_tag_durable(self, ref: str) -> None:
        """Make a tag survive a power cut: whoever made it may have been killed before that."""
        path = f".git/{ref}"
        if self.directory.status(path) is not None:
            self.directory.sync_file(path)
            self.directory.sync_way(path.rpartition("/")[0], below=_TAGS)

    def reinstate(self, new: str) -> None:
        """Give back a branch that was lost or damaged. Only for repair: whatever the ref holds is overwritten.

        Raises:
            StorageError: it could not be written.
        """
        self._exchange(BRANCH, lambda: None, new, durable=True)

    def _exchange(self, ref: str, proviso: Callable[[], None], new: str, *, durable: bool, keep: bool = False) -> None:
        path, lock, raw = f".git/{ref}", f".git/{ref}.lock", f"{new}\n".encode()
        prepared = self.directory.prepare(raw) if durable else refill(self.directory, "branch", raw)
        is_exchanged = False
        try:
            self._take_lock(prepared, lock)
            try:
                proviso()
                # Of the two names of the new file the prepared one is exchanged: the lock goes on saying whose it is.
                if durable or not self.directory.exchange(prepared, path):
                    self.directory.move(lock, path)
                else:
                    self.directory.drop(lock)
                    is_exchanged = True
            except BaseException:
                self.directory.drop(lock)
                raise
        finally:
            if keep and is_exchanged:
                recycle(self.directory, prepared, "branch")
            else:
                self.directory.drop(prepared)
        if durable:
            try:
                self.directory.sync(path.rpartition("/")[0])
            except StorageError as error:
                raise self.unknown(new, error) from None

    @staticmethod
    def unknown(new: str, error: StorageError) -> StorageError:
        """The error about a branch that moved to *new*, where *error* came before that was durable."""
        return StorageError(
            f"main moved to {new[:7]}, but that may not survive a power cut: {error.message}",
            hint=f"gitstate show {new[:7]}",
            code="outcome_unknown",
            path=f".git/{BRANCH}",
            revision=new,
        )

    def _take_lock(self, prepared: str, lock: str) -> None:
        deadline = self.clock.monotonic() + _FOREIGN_LOCK
        while not self.directory.link(prepared, lock):
            if self.clock.monotonic() >= deadline:
                raise StorageError(
                    f"{lock} stands: another git program holds the branch, or died holding it",
                    hint="if no git command is running: gitstate repair",
                    path=lock,
                )
            self.clock.sleep(0.01)

    def make_durable(self) -> None:
        """Make the branch as it stands survive a power cut: whoever moved it may have been killed before that."""
        path = f".git/{BRANCH}"
        self.directory.sync_file(path if self.directory.status(path) is not None else PACKED_REFS)

    def left_over(self, is_ours: Callable[[str], bool]) -> bool:
        """Remove a lock of the branch that gitstate itself left; whether there was one. Under the guard.

        Ours holds, whole, the id of a commit for which *is_ours*; git's own is empty or holds a commit of git's.
        """
        lock = f".git/{BRANCH}.lock"
        try:
            raw = self.directory.read(lock, 64)
        except NotAFileError:
            return False
        if raw is None or not _ID.match(raw) or not is_ours(raw[:40].decode()):
            return False
        return self.directory.discard(lock)

    def drop_lost_lock(self, is_there: Callable[[str], bool]) -> None:
        """After a power cut, remove a lock of the branch that it spoiled, if it stands unchanged for a second.

        It does not hold the id of a commit that *is_there*: its bytes were lost, or the objects of whoever made it. Git
        writes objects before it takes the lock, and needs less than a second to write that.
        """
        lock = f".git/{BRANCH}.lock"
        deadline = self.clock.monotonic() + _FOREIGN_LOCK
        before: bytes | None = None
        while True:
            try:
                raw = self.directory.read(lock, 64)
            except NotAFileError:
                return
            if raw is None or before not in (None, raw) or (_ID.match(raw) and is_there(raw[:40].decode())):
                return
            if self.clock.monotonic() >= deadline:
                self.directory.discard(lock)
                return
            before = raw
            self.clock.sleep(0.01)

    def note_move(self, old: str, new: str, who: bytes, when: int, why: str) -> None:
        """A line in the branch's reflog: evidence, after the fact, that *new* was published."""
        line = b"%s %s %s %d +0000\t%s\n" % (old.encode(), new.encode(), who, when, why.encode())
        log = f".git/logs/{BRANCH}"
        try:
            self.directory.append(log, line)
        except StorageError as error:
            if error.facts.get("errno") != errno.ENOENT:
                raise
            self.directory.make(log.rpartition("/")[0])
            self.directory.append(log, line)

    def reflog(self) -> list[Move]:
        """The moves of the branch, oldest first; lines that cannot be read are passed over."""
        try:
            raw = self.directory.read(f".git/logs/{BRANCH}") or b""
        except NotAFileError:
            return []
        matches = (re.match(_MOVE, line) for line in raw.split(b"\n"))
        return [Move(m[1].decode(), m[2].decode(), m[3].decode("utf-8", "replace")) for m in matches if m]

    def forget_moves(self, log: str, is_there: Callable[[str], bool]) -> bool:
        """Take out of a reflog the lines that name lost commits: git calls them errors. Whether there were any."""
        try:
            raw = self.directory.read(log) or b""
        except NotAFileError:
            return False
        lines = raw.splitlines(keepends=True)
        kept = [
            line
            for line in lines
            if (match := re.match(_MOVE, line.rstrip(b"\n"))) is None
            or all(name == ZERO or is_there(name) for name in (match[1].decode(), match[2].decode()))
        ]
        if len(kept) == len(lines):
            return False
        self.directory.write(log, b"".join(kept))
        return True

    def shorten_log(self) -> None:
        """Keep only the newer part of a large reflog of the branch: it is evidence of what was published last. Under the guard.

        Raises:
            StorageError: the file system refused.
        """
        log = f".git/logs/{BRANCH}"
        with suppress(NotAFileError), self.directory.reading(log) as file:
            size = file.seek(0, os.SEEK_END)
            if size > _LONGEST_LOG:
                file.seek(size - _LONGEST_LOG // 4)
                self.directory.write(log, file.read().partition(b"\n")[2], durable=False)

    def last_in_reflog(self) -> str | None:
        """The id that the last readable line of the branch's reflog names; only the end of it is read."""
        try:
            with self.directory.reading(f".git/logs/{BRANCH}") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read(8192).split(b"\n")
        except NotAFileError:
            return None
        matches = (re.match(_MOVE, line) for line in reversed(lines))
        return next((match[2].decode() for match in matches if match), None)


class BranchMovedError(StorageError):
    """The branch is not where it was expected. Facts: ``actual``."""


_MOVE = rb"([0-9a-f]{40}) ([0-9a-f]{40}) [^\t]*(?:\t(.*))?\Z"
_PACKED = rb"([0-9a-f]{40}) (refs/[!-~]+)\Z"
_HEADER = rb"# pack-refs with:(?: [a-z-]+)* ?\Z"  # nothing more: with its end lost it would hide a ref
_PEELED = rb"\^([0-9a-f]{40})\Z"


def parse_packed(raw: bytes) -> tuple[_Packed, list[int]]:
    """The refs in a file of packed refs (git-pack-refs(1)): name, id, and the id it leads to; the lines that are none."""
    found: _Packed = []
    wrong = []
    *lines, rest = raw.split(b"\n")
    for number, line in enumerate(lines, 1):
        ref, peeled = re.match(_PACKED, line), re.match(_PEELED, line)
        if ref:
            found.append((ref[2].decode(), ref[1].decode(), None))
        elif peeled and found and found[-1][2] is None:
            found[-1] = (*found[-1][:2], peeled[1].decode())
        elif number > 1 or not re.match(_HEADER, line):  # git takes no other line, not even a comment
            wrong.append(number)
    if rest or not raw:
        wrong.append(len(lines) + 1)  # cut short: what looks like a name may be the beginning of one
    return found, wrong


def format_packed(refs: Iterable[tuple[str, str, str | None]]) -> bytes:
    """A file of packed refs that holds *refs*."""
    lines = ["# pack-refs with: peeled fully-peeled sorted"]
    for name, value, target in sorted(refs):
        lines += [f"{value} {name}", *([f"^{target}"] if target is not None else [])]
    return "".join(f"{line}\n" for line in lines).encode()


def _why(error: NotAFileError) -> str:
    return error.message.partition(": ")[2] or error.message


def _damaged(ref: str, damage: str) -> RefDamagedError:
    return RefDamagedError(f"{ref}: {damage}", hint="gitstate repair", path=f".git/{ref}", damage=damage, revision=None)
