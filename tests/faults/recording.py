"""What a run asked of the file system, call by call, as strace(1) saw it.

Paths are relative to the project, so that a recording can be replayed anywhere; what lies outside it is left out.
Only calls that succeeded are kept, and fsyncs that failed: what they were to sync, no later one will.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from faults import strace
from faults.workloads import ACKNOWLEDGED
from faults.zygote import Ended, Zygote

_TRACED = (*strace.CHANGING, "close", "dup", "dup2", "dup3", "fcntl", "lseek", "access", "faccessat", "faccessat2",
           "chdir", "fchdir", "sync")  # fmt: skip


class Place(NamedTuple):
    """A path, from an open directory or (``None``) from the project itself."""

    directory: int | None
    path: str


ROOT = Place(None, "")


@dataclass(frozen=True)
class Call:
    """One call. ``handle`` is an open file, numbered anew for each opening."""

    name: str  # open write truncate rename exchange link unlink mkdir rmdir symlink sync fail_to_sync sync_all acknowledge
    handle: int = -1
    place: Place = ROOT
    target: Place = ROOT
    data: bytes = b""
    number: int = 0  # an offset (-1: where the file stands), a size, or which acknowledgement
    flags: frozenset[str] = frozenset()
    text: str = ""  # as strace wrote it


@dataclass
class Recording:
    """The calls of one run, and how it ended."""

    calls: list[Call]
    ended: Ended | None = None

    def __add__(self, later: Recording) -> Recording:
        """This run, then a later one on what it left; open files do not outlive their process."""
        most = max((call.handle for call in self.calls), default=0) + 1
        moved = [
            Call(
                call.name,
                call.handle + most if call.handle >= 0 else -1,
                _moved(call.place, most),
                _moved(call.target, most),
                call.data,
                call.number,
                call.flags,
                call.text,
            )
            for call in later.calls
        ]
        return Recording([*self.calls, *moved], later.ended)


def _moved(place: Place, by: int) -> Place:
    return place if place.directory is None else Place(place.directory + by, place.path)


def record(
    zygote: Zygote, function: str, arguments: dict[str, object], root: Path, log: Path, *options: str
) -> Recording:
    """Call a function in a child of *zygote* and record what it does below *root*."""
    wanted = ",".join("?" + name for name in _TRACED)
    ended = strace.traced(
        zygote, function, arguments, "-f", "-o", str(log), "-xx", "-s", "33554432", "-e", f"trace={wanted}",
        "-e", "signal=none", *options,
    )  # fmt: skip
    return Recording(list(_Reader(root, log.parent).read(log)), ended)


@dataclass
class _Reader:
    """Reads a log; knows which number of an open file means what."""

    root: Path
    working: Path
    _open: dict[int, int | None] = field(default_factory=dict)  # descriptor → handle; None: outside
    _handles: int = 0

    def read(self, log: Path) -> Iterator[Call]:
        """The calls, in the order of their ends."""
        for line in _whole_lines(log):
            match = re.match(r"(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)", line)
            if match is None:
                continue
            name, result = match[1], int(match[3], 0)
            if result < 0 and name in ("fsync", "fdatasync"):
                name = "failed_sync"
            elif result < 0 and name not in ("access", "faccessat", "faccessat2"):
                continue
            handler: Callable[[list[str], int, str], Call | None] | None = getattr(
                self, f"_{_ALIKE.get(name, name)}", None
            )
            if handler is None:
                continue
            call = handler(_arguments(match[2]), result, _plain(line))
            if call is not None:
                yield call

    # --- open files ---

    def _openat(self, words: list[str], result: int, text: str) -> Call | None:
        return self._opened(self._place(words[0], words[1]), words[2], result, text)

    def _open_(self, words: list[str], result: int, text: str) -> Call | None:
        return self._opened(self._place("AT_FDCWD", words[0]), words[1], result, text)

    def _opened(self, place: Place | None, flags: str, result: int, text: str) -> Call | None:
        self._open[result] = None
        if place is None:
            return None
        self._open[result] = self._handles
        self._handles += 1
        return Call("open", self._handles - 1, place, flags=frozenset(flags.split("|")), text=text)

    def _close(self, words: list[str], result: int, text: str) -> None:
        self._open.pop(int(words[0]), None)

    def _dup(self, words: list[str], result: int, text: str) -> None:
        self._open[result] = self._open.get(int(words[0]))

    def _fcntl(self, words: list[str], result: int, text: str) -> None:
        if words[1].startswith("F_DUPFD"):
            self._dup(words, result, text)

    def _on_handle(self, name: str, words: list[str], text: str, data: bytes = b"", number: int = 0) -> Call | None:
        handle = self._open.get(int(words[0]))
        return None if handle is None else Call(name, handle, data=data, number=number, text=text)

    def _write(self, words: list[str], result: int, text: str) -> Call | None:
        return self._on_handle("write", words, text, _bytes(words[1])[:result], -1)

    def _pwrite64(self, words: list[str], result: int, text: str) -> Call | None:
        return self._on_handle("write", words, text, _bytes(words[1])[:result], int(words[3]))

    def _writev(self, words: list[str], result: int, text: str) -> Call | None:
        data = b"".join(_bytes(part) for part in re.findall(r'iov_base=("[^"]*")', words[1]))[:result]
        return self._on_handle("write", words, text, data, int(words[3]) if len(words) > 3 else -1)

    def _lseek(self, words: list[str], result: int, text: str) -> Call | None:
        return self._on_handle("seek", words, text, number=result)

    def _ftruncate(self, words: list[str], result: int, text: str) -> Call | None:
        return self._on_handle("truncate", words, text, number=int(words[1]))

    def _fallocate(self, words: list[str], result: int, text: str) -> Call | None:
        size = -1 if "KEEP_SIZE" in words[1] else int(words[2]) + int(words[3])
        return self._on_handle("grow", words, text, number=size)

    def _fsync(self, words: list[str], result: int, text: str) -> Call | None:
        return self._on_handle("sync", words, text)

    def _failed_sync(self, words: list[str], result: int, text: str) -> Call | None:
        return self._on_handle("fail_to_sync", words, text)

    def _syncfs(self, words: list[str], result: int, text: str) -> Call:
        return Call("sync_all", text=text)

    # --- names ---

    def _renameat(self, words: list[str], result: int, text: str) -> Call | None:
        flags = words[4] if len(words) > 4 else "0"
        if flags not in ("0", "RENAME_EXCHANGE"):
            raise AssertionError(f"not modelled: {text}")
        name = "rename" if flags == "0" else "exchange"
        return self._two(name, self._place(words[0], words[1]), self._place(words[2], words[3]), text)

    def _rename(self, words: list[str], result: int, text: str) -> Call | None:
        return self._two("rename", self._place("AT_FDCWD", words[0]), self._place("AT_FDCWD", words[1]), text)

    def _linkat(self, words: list[str], result: int, text: str) -> Call | None:
        return self._two("link", self._place(words[0], words[1]), self._place(words[2], words[3]), text)

    def _link(self, words: list[str], result: int, text: str) -> Call | None:
        return self._two("link", self._place("AT_FDCWD", words[0]), self._place("AT_FDCWD", words[1]), text)

    def _two(self, name: str, place: Place | None, target: Place | None, text: str) -> Call | None:
        if place is None and target is None:
            return None
        if place is None or target is None:
            raise AssertionError(f"between the project and elsewhere: {text}")
        return Call(name, place=place, target=target, text=text)

    def _one(self, name: str, place: Place | None, text: str, data: bytes = b"") -> Call | None:
        return None if place is None else Call(name, place=place, text=text, data=data)

    def _unlinkat(self, words: list[str], result: int, text: str) -> Call | None:
        name = "rmdir" if "AT_REMOVEDIR" in words[2] else "unlink"
        return self._one(name, self._place(words[0], words[1]), text)

    def _unlink(self, words: list[str], result: int, text: str) -> Call | None:
        return self._one("unlink", self._place("AT_FDCWD", words[0]), text)

    def _rmdir(self, words: list[str], result: int, text: str) -> Call | None:
        return self._one("rmdir", self._place("AT_FDCWD", words[0]), text)

    def _mkdirat(self, words: list[str], result: int, text: str) -> Call | None:
        return self._one("mkdir", self._place(words[0], words[1]), text)

    def _mkdir(self, words: list[str], result: int, text: str) -> Call | None:
        return self._one("mkdir", self._place("AT_FDCWD", words[0]), text)

    def _symlinkat(self, words: list[str], result: int, text: str) -> Call | None:
        return self._one("symlink", self._place(words[1], words[2]), text, _bytes(words[0]))

    def _symlink(self, words: list[str], result: int, text: str) -> Call | None:
        return self._one("symlink", self._place("AT_FDCWD", words[1]), text, _bytes(words[0]))

    def _access(self, words: list[str], result: int, text: str) -> Call | None:
        path = next(os.fsdecode(_bytes(word)) for word in words if word.startswith('"'))
        if not path.startswith(ACKNOWLEDGED):
            return None
        return Call("acknowledge", number=int(path.removeprefix(ACKNOWLEDGED)), text=text)

    def _unknown(self, words: list[str], result: int, text: str) -> None:
        """A call that changes files in a way that is not modelled: better to stop than to miss it."""
        if words[0].isdigit() and self._open.get(int(words[0])) is None:
            return
        raise AssertionError(f"not modelled: {text}")

    def _place(self, directory: str, path: str) -> Place | None:
        name = os.fsdecode(_bytes(path))
        if not os.path.isabs(name) and directory != "AT_FDCWD":
            handle = self._open.get(int(directory))
            return None if handle is None else Place(handle, name)
        name = os.path.normpath(self.working / name)
        inside = os.path.relpath(name, self.root)
        return None if inside.startswith("..") else Place(None, "" if inside == "." else inside)


_ALIKE = {
    "open": "open_", "fdatasync": "fsync", "pwritev": "writev", "renameat2": "renameat", "dup2": "dup", "dup3": "dup",
    "faccessat": "access", "faccessat2": "access", "sync": "syncfs", "creat": "unknown", "truncate": "unknown",
    "copy_file_range": "unknown", "sendfile": "unknown", "msync": "unknown",
}  # fmt: skip


def _whole_lines(log: Path) -> Iterator[str]:
    """Lines without their pids; what was interrupted by another thread put together again, where it ended."""
    begun: dict[str, str] = {}
    for line in log.read_text("latin-1").splitlines():
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        match = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
        yield begun.pop(pid, "") + match[1] if match else rest


def _plain(line: str) -> str:
    """A line as people read it."""
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda match: repr(_bytes(f'"{match[0]}"'))[2:-1], line[:800])[:200]


def _arguments(text: str) -> list[str]:
    """A call's arguments; strings are in hexadecimal, so that no comma is in them."""
    words, depth, begin = [], 0, 0
    for position, letter in enumerate(text):
        if letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            words.append(text[begin:position].strip())
            begin = position + 1
    words.append(text[begin:].strip())
    return words


def _bytes(word: str) -> bytes:
    match = re.match(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?', word)
    if match is None or match[2]:
        raise AssertionError(f"not a whole string: {word[:80]}")
    return bytes.fromhex(match[1].replace("\\x", ""))
