"""Files that appear whole and stay: written aside, fsynced, renamed or linked into place, never through a symlink.

Every path is relative to one directory and is reached component by component
with ``O_NOFOLLOW``, so nothing outside it is read or written, whatever is
swapped in meanwhile. Every ``OSError`` leaves here as a ``StorageError``.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from io import BufferedReader, BufferedWriter, FileIO
from pathlib import Path
from typing import BinaryIO

from gitstate import medium
from gitstate.errors import StorageError
from gitstate.marks import kind_of
from gitstate.medium import NotAFileError, not_read, readable, storage_error

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

LARGEST = 512 * 1024 * 1024
_KEPT = 64  # directories that are kept open at once; a process may have no more than 256 files open

# What tells the names that this process gives from those of another that has, or had, its pid.
_run = os.urandom(6).hex()
_numbers = itertools.count(1)


def _begin_anew() -> None:
    """A forked child may have the pid that another one had."""
    global _run  # noqa: PLW0603
    _run = os.urandom(6).hex()


os.register_at_fork(after_in_child=_begin_anew)


class _Local(threading.local):
    """The directories that a thread keeps open; ``None`` where it keeps none."""

    kept: dict[str, int] | None = None


class Directory:
    """One directory and what is below it. ``aside`` is where files are prepared; it must be on the same file system."""

    def __init__(self, path: Path, aside: str) -> None:
        self.path = path
        self.aside = aside
        self.is_littered = False  # whether something that was to go may lie there still
        self._local = _Local()

    @cached_property
    def reuses(self) -> bool:
        """Whether files that are no longer needed can be written over here."""
        try:
            return medium.is_local(os.stat(self.path).st_dev)
        except OSError:
            return False

    # --- looking ---

    def read(self, name: str, limit: int = LARGEST) -> bytes | None:
        """The bytes of a regular file, ``None`` if there is no such file.

        Raises:
            NotAFileError: it is not a regular file, is larger than *limit* bytes, or may not be read.
            UnreadableError: it cannot be read.
        """
        found = self.look(name, limit)
        return None if found is None else found[0]

    def look(self, name: str, limit: int = LARGEST) -> tuple[bytes, os.stat_result] | None:
        """As :meth:`read`, with what the file system said of the file just before it was read."""
        try:
            descriptor = self._descriptor(name, _READ)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise not_read(name, error) from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NotAFileError(f"{name}: {kind_of(found.st_mode)}, not a file", path=name)
            if found.st_size > limit:
                raise NotAFileError(f"{name}: {found.st_size} bytes, more than the {limit} that are read", path=name)
            raw = os.read(descriptor, found.st_size + 1)
            if len(raw) != found.st_size:  # it grows, or is longer than can be read at once
                chunks = [raw]
                while chunk := os.read(descriptor, 65536):
                    chunks.append(chunk)
                raw = b"".join(chunks)
            return raw, found
        except OSError as error:
            raise not_read(name, error) from None
        finally:
            os.close(descriptor)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """A regular file opened for reading, for the length of a block.

        Raises:
            NotAFileError: it is missing, is not a regular file, or may not be read.
            UnreadableError: it cannot be read.
        """
        with BufferedReader(self.opened(name)) as file, readable(name):
            yield file

    def opened(self, name: str) -> FileIO:
        """As :meth:`reading`, for longer. The caller closes it, and reads it where it is :func:`readable`."""
        try:
            descriptor = self._descriptor(name, _READ)
        except OSError as error:
            raise not_read(name, error) from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise NotAFileError(f"{name}: {kind_of(found.st_mode)}, not a file", path=name)
        return FileIO(descriptor)

    def tail(self, name: str, length: int) -> tuple[int, bytes]:
        """The size of a regular file, and its last *length* bytes or what there is; as if empty where there is none."""
        try:
            descriptor = self._descriptor(name, _READ)
        except OSError:
            return 0, b""
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return 0, b""
            return found.st_size, os.pread(descriptor, length, max(0, found.st_size - length))
        except OSError:
            return 0, b""
        finally:
            os.close(descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """What lies at *name* itself (a symlink is not followed), ``None`` if nothing."""
        above, _, last = name.rpartition("/")
        try:
            kept = self._local.kept
            if kept is not None and above in kept:
                return os.stat(last, dir_fd=kept[above], follow_symlinks=False)
            with self._open(above) as parent:
                return os.stat(last, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise storage_error(name, error) from None

    def statuses(self, above: str, names: Iterable[str]) -> list[os.stat_result | None]:
        """As :meth:`status` for *names* below a directory, at one go. They are not reached step by step: a symlink on the
        way is followed, so this is for comparing with what was known before.
        """
        found: list[os.stat_result | None] = []
        try:
            with self._open(above) as parent:
                for name in names:
                    try:
                        found.append(os.stat(name, dir_fd=parent, follow_symlinks=False))
                    except OSError:
                        found.append(None)
        except OSError as error:
            raise storage_error(above, error) from None
        return found

    def existing(self, above: str, names: Iterable[str]) -> list[str]:
        """Which of *names* there are below a directory. As in :meth:`statuses`, a symlink on the way is followed."""
        try:
            with self._open(above) as parent:
                # Most are not there, and to be told so by an exception takes twice as long.
                return [name for name in names if os.access(name, os.F_OK, dir_fd=parent, follow_symlinks=False)]
        except OSError as error:
            raise storage_error(above, error) from None

    def is_directory(self, name: str) -> bool:
        """Whether *name* is a real directory."""
        found = self.status(name)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def names(self, name: str) -> list[str]:
        """What a directory holds, sorted; nothing if it is not a real directory."""
        try:
            with self._open(name) as descriptor:
                return sorted(os.listdir(descriptor))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return []
            raise storage_error(name, error) from None

    def link_target(self, name: str) -> str | None:
        """Where a symlink points, ``None`` if *name* is none."""
        try:
            with self._parent(name) as (parent, last):
                return os.readlink(last, dir_fd=parent)
        except OSError:
            return None

    # --- changing ---

    def make(self, name: str, *, durable: bool = False) -> None:
        """A directory, and those above it, mode 0700; existing ones stay as they are.

        With *durable* they survive a power cut from here on, whoever made them: he may have been killed right after.
        """
        parts = [] if self.is_directory(name) else name.split("/")
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            try:
                with self._parent(here) as (parent, last):
                    os.mkdir(last, 0o700, dir_fd=parent)
            except FileExistsError:
                continue
            except OSError as error:
                raise storage_error(here, error) from None
        if durable:
            self.sync_way(name)

    def new_name(self) -> str:
        """A name in the aside directory that nothing has, beginning with the pid of whoever is to put it somewhere."""
        return f"{self.aside}/{os.getpid()}-{_run}{next(_numbers):x}"

    def is_of_this_run(self, name: str) -> bool:
        """Whether this very process may have given that name, and not one that had its pid before."""
        return name.rpartition("/")[2].startswith(f"{os.getpid()}-{_run}")

    def prepare(self, raw: bytes, *, mode: int = 0o600, durable: bool = True) -> str:
        """A file with *raw* in the aside directory; its name. Whoever prepares it puts it in place or removes it."""
        name = self.new_name()
        try:
            with self._parent(name) as (parent, last):
                descriptor = os.open(last, _CREATE, mode, dir_fd=parent)
                try:
                    written = os.write(descriptor, raw)
                    while written < len(raw):
                        written += os.write(descriptor, memoryview(raw)[written:])
                    if durable:
                        medium.fsync(descriptor)
                except OSError:
                    with suppress(OSError):
                        os.unlink(last, dir_fd=parent)
                    raise
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            if self.is_directory(self.aside):
                raise
            self.make(self.aside)
            return self.prepare(raw, mode=mode, durable=durable)
        except OSError as error:
            raise storage_error(name, error) from None
        return name

    @contextmanager
    def preparing(self, *, mode: int = 0o600) -> Iterator[tuple[str, BufferedWriter]]:
        """As :meth:`prepare`, for what is written bit by bit: its name, and the file, which is durable after the block."""
        name = self.new_name()
        self.make(self.aside)
        try:
            with self._parent(name) as (parent, last):
                descriptor = os.open(last, _CREATE, mode, dir_fd=parent)
            try:
                with open(descriptor, "wb") as file:
                    yield name, file
                    file.flush()
                    medium.fsync(descriptor)
            except BaseException:
                self.drop(name)
                raise
        except OSError as error:
            raise storage_error(name, error) from None

    def write(self, name: str, raw: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
        """A file replaced as a whole; an existing one keeps its mode. With *durable* it survives a power cut from here on."""
        present = self.status(name)
        prepared = self.prepare(raw, mode=mode_of(present, mode), durable=durable)
        try:
            if durable or present is None or not self.exchange(prepared, name):
                self.move(prepared, name, durable=durable)
                return
        except StorageError:
            self.drop(prepared)
            raise
        self.drop(prepared)

    def prepare_like(self, present: os.stat_result | None, raw: bytes, *, durable: bool = True) -> str:
        """As :meth:`prepare`, with the mode of what is *present* where the file is to go, if that is a file."""
        return self.prepare(raw, mode=mode_of(present, 0o600), durable=durable)

    def write_new(self, name: str, raw: bytes, *, mode: int = 0o600, durable: bool = True) -> bool:
        """A file that appears whole, if nothing has that name yet; whether it did."""
        prepared = self.prepare(raw, mode=mode, durable=durable)
        try:
            return self.link(prepared, name, durable=durable)
        finally:
            self.drop(prepared)

    def link(self, name: str, target: str, *, durable: bool = False) -> bool:
        """A second name for a file, if that name is free; whether it was."""
        try:
            with self._parent(name) as (parent, last), self._parent(target) as (other, new):
                os.link(last, new, src_dir_fd=parent, dst_dir_fd=other, follow_symlinks=False)
                if durable:
                    medium.fsync(other)
        except FileExistsError:
            return False
        except OSError as error:
            raise storage_error(target, error) from None
        return True

    def move(self, name: str, target: str, *, durable: bool = False) -> None:
        """A rename, over whatever file has the target's name."""
        self._let_go(name, target)
        try:
            with self._parent(name) as (parent, last), self._parent(target) as (other, new):
                os.rename(last, new, src_dir_fd=parent, dst_dir_fd=other)
                if durable:
                    medium.fsync(other)
                    if name.rpartition("/")[0] != target.rpartition("/")[0]:
                        medium.fsync(parent)
        except OSError as error:
            raise storage_error(target, error) from None

    def carry(self, name: str, target: str) -> None:
        """What lies at *name*, moved durably to where nothing is: a file has its new name before it loses the old one.

        A directory can have one name only; a file system that may lose half of a rename may lose it.
        """
        found = self.status(name)
        try:
            linked = found is not None and stat.S_ISREG(found.st_mode) and self.link(name, target)
        except StorageError:  # somebody else's file, or no hard links here
            linked = False
        if not linked:
            self.move(name, target, durable=True)
            return
        try:
            self.sync(target.rpartition("/")[0])
        except StorageError:
            self.drop(target)  # a second sync of this name would succeed without having written it
            raise
        self.discard(name)
        self.sync(name.rpartition("/")[0])

    def exchange(self, name: str, target: str) -> bool:
        """Let two files change their places; whether the system can: if not, nothing is done.

        A rename over a file has ext4 write the new one out at once (``auto_da_alloc``), and what it replaces is gone
        unseen; this leaves the first to the system, and the second to the caller.
        """
        try:
            with self._parent(name) as (parent, last), self._parent(target) as (other, new):
                return medium.exchanged(parent, last, other, new)
        except OSError as error:
            raise storage_error(target, error) from None

    def symlink(self, points_to: str, name: str) -> None:
        """A symlink put in place as a whole."""
        prepared = self.new_name()
        try:
            with self._parent(prepared) as (parent, last):
                os.symlink(points_to, last, dir_fd=parent)
        except OSError as error:
            raise storage_error(name, error) from None
        self.move(prepared, name)

    def discard(self, name: str) -> bool:
        """Remove a file or symlink; whether there was one."""
        try:
            with self._parent(name) as (parent, last):
                os.unlink(last, dir_fd=parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(name, error) from None
        return True

    def drop(self, name: str) -> None:
        """Remove what was prepared and is no longer wanted. Where that fails it is swept later: it undoes nothing."""
        try:
            self.discard(name)
        except StorageError:
            self.is_littered = True

    def remove_empty(self, name: str) -> bool:
        """Remove a directory if it is empty; whether it was."""
        self._let_go(name)
        try:
            with self._parent(name) as (parent, last):
                os.rmdir(last, dir_fd=parent)
        except OSError:
            return False
        return True

    def open_up(self, name: str) -> None:
        """Let the owner of a directory change what is in it, whatever its mode says."""
        try:
            with self._open(name) as descriptor:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                if mode & 0o700 != 0o700:
                    os.fchmod(descriptor, mode | 0o700)
        except OSError as error:
            raise storage_error(name, error) from None

    def remove_tree(self, name: str) -> None:
        """Remove whatever lies at *name*, and all below it; symlinks are removed, not followed."""
        found = self.status(name)
        if found is None:
            return
        if not stat.S_ISDIR(found.st_mode):
            self.discard(name)
            return
        for inner in self.names(name):
            self.remove_tree(f"{name}/{inner}")
        self.remove_empty(name)

    def sync(self, name: str) -> None:
        """Make the entries of a directory durable."""
        try:
            with self._open(name) as descriptor:
                medium.fsync(descriptor)
        except OSError as error:
            raise storage_error(name, error) from None

    def sync_way(self, name: str, *, below: str = "") -> None:
        """Make durable the entries of all directories on the way down to *name*; *below* is one that is known to stay."""
        parts = name.split("/")
        for depth in range(len(below.split("/")) if below else 0, len(parts)):
            self.sync("/".join(parts[:depth]))

    def sync_file(self, name: str) -> None:
        """Make a file's bytes durable, and the entry that names it."""
        try:
            with self._parent(name) as (parent, last):
                descriptor = os.open(last, _READ, dir_fd=parent)
                try:
                    medium.fsync(descriptor)
                finally:
                    os.close(descriptor)
                medium.fsync(parent)
        except OSError as error:
            raise storage_error(name, error) from None

    def jot(self, name: str, raw: bytes, *, cut: bool = True) -> None:
        """A small file written over in place, made if need be, *cut* after it. Not durable, and it may be torn: whoever
        reads it must be able to tell.
        """
        try:
            descriptor = self.descriptor(name, os.O_RDWR)
        except StorageError:  # something else stands there
            self.write(name, raw, durable=False)
            return
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # its other name may be anybody's
                self.write(name, raw, durable=False)
                return
            if os.pwrite(descriptor, raw, 0) != len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if cut and found.st_size > len(raw):
                os.ftruncate(descriptor, len(raw))
        except OSError as error:
            raise storage_error(name, error) from None
        finally:
            os.close(descriptor)

    def rewrite(self, name: str, raw: bytes, mode: int) -> bool:
        """A file written over as a whole, if it is there and nobody else has it open; whether that was done. Not durable, and
        half done where it fails.
        """
        try:
            descriptor = self._descriptor(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not medium.is_local(found.st_dev):
                return False
            if not medium.shut_out(descriptor):
                return False
            try:
                if stat.S_IMODE(found.st_mode) != mode:
                    os.fchmod(descriptor, mode)
                if found.st_size > len(raw):
                    os.ftruncate(descriptor, len(raw))
                return os.pwrite(descriptor, raw, 0) == len(raw)
            finally:
                medium.let_in(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def append(self, name: str, raw: bytes) -> None:
        """Bytes added at the end of a file, which is made if need be. Not durable by itself."""
        descriptor = self.descriptor(name, os.O_WRONLY | os.O_APPEND)
        try:
            if os.fstat(descriptor).st_nlink > 1:  # its other name may be anybody's
                self.write(name, (self.read(name) or b"") + raw, durable=False)
            else:
                os.write(descriptor, raw)
        except OSError as error:
            raise storage_error(name, error) from None
        finally:
            os.close(descriptor)

    def extend(self, name: str, raw: bytes, at: int, *, durable: bool = False, mode: int | None = None) -> None:
        """The first *at* bytes of a file, which is made if need be, and then *raw*. With *durable* they survive a power cut.

        Raises:
            StorageError: what stands there behind the first *at* bytes is not known; or it is shorter.
        """
        descriptor = self.descriptor(name, os.O_RDWR)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size < at:
                raise OSError(errno.EIO, "not as it was made")
            if found.st_size > at:
                os.ftruncate(descriptor, at)
            written = 0
            while written < len(raw):
                written += os.pwrite(descriptor, memoryview(raw)[written:], at + written)
            if mode is not None:
                os.fchmod(descriptor, mode)
            if durable:
                medium.fsync(descriptor)
        except OSError as error:
            raise storage_error(name, error) from None
        finally:
            os.close(descriptor)

    def overwrite(self, name: str, raw: bytes, offset: int, size: int, *, beginning: bytes = b"") -> None:
        """Bytes of a file changed in place, durably. The file has *size* bytes before and after, and that *beginning*.

        Raises:
            StorageError: what stands there now, or will after a power cut, is not known.
        """
        descriptor = self.descriptor(name, os.O_RDWR)
        try:
            found = os.fstat(descriptor)
            if found.st_size != size or found.st_nlink != 1:  # its other name may be anybody's
                raise OSError(errno.EIO, "not as it was made")
            if os.pread(descriptor, len(beginning), 0) != beginning:
                raise OSError(errno.EIO, "another was made in its place")
            if os.pwrite(descriptor, raw, offset) != len(raw):
                raise OSError(errno.EIO, "written in part")
            medium.datasync(descriptor)
        except OSError as error:
            raise storage_error(name, error) from None
        finally:
            os.close(descriptor)

    def descriptor(self, name: str, access: int) -> int:
        """A file opened for writing in place, made empty if need be. The caller closes it, and minds other hard links."""
        flags = access | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return self._descriptor(name, flags)
        except OSError as error:
            raise storage_error(name, error) from None

    # --- reaching ---

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Within the block, keep the directories below open that this thread comes through: one look up each, not one a file."""
        if self._local.kept is not None:
            yield
            return
        self._local.kept = {}
        try:
            yield
        finally:
            self._let_go("")
            self._local.kept = None

    def _let_go(self, *names: str) -> None:
        """Close what was kept open at or below *names*: it is moved or removed, and is reached anew."""
        kept = self._local.kept or {}
        for top in names:
            if top and top not in kept:
                continue  # what is kept below a directory was reached through it, which is then kept as well
            for name in [n for n in kept if not top or n == top or n.startswith(f"{top}/")]:
                os.close(kept.pop(name))

    def _open(self, name: str) -> _Reached:
        """The directory *name*, for the length of a block."""
        return _Reached(*self._reached(name))

    def _parent(self, name: str) -> _Parent:
        """The directory above *name*, and the name in it, for the length of a block."""
        above, _, last = name.rpartition("/")
        kept = self._local.kept
        if kept is not None and above in kept:
            return _Parent(kept[above], True, last)
        return _Parent(*self._reached(above), last)

    def _descriptor(self, name: str, flags: int) -> int:
        above, _, last = name.rpartition("/")
        kept = self._local.kept
        if kept is not None and above in kept:
            return os.open(last, flags, 0o600, dir_fd=kept[above])
        with self._open(above) as parent:
            return os.open(last, flags, 0o600, dir_fd=parent)

    def _reached(self, name: str) -> tuple[int, bool]:
        """An open directory, and whether it is kept."""
        kept = self._local.kept
        if kept is not None and name in kept:
            return kept[name], True
        # The way down to the directory itself is the caller's business and may hold symlinks; below, none is followed.
        if not name:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            above, _, last = name.rpartition("/")
            with self._open(above) as parent:
                descriptor = os.open(last, _DIRECTORY, dir_fd=parent)
        if kept is None or len(kept) >= _KEPT:
            return descriptor, False
        kept[name] = descriptor
        return descriptor, True


class _Reached:
    """An open directory, closed at the end of the block unless it is kept."""

    __slots__ = ("descriptor", "keep")

    def __init__(self, descriptor: int, keep: bool) -> None:
        self.descriptor = descriptor
        self.keep = keep

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            os.close(self.descriptor)


class _Parent:
    """The open directory above a name, and the name in it."""

    __slots__ = ("descriptor", "keep", "last")

    def __init__(self, descriptor: int, keep: bool, last: str) -> None:
        self.descriptor = descriptor
        self.keep = keep
        self.last = last

    def __enter__(self) -> tuple[int, str]:
        return self.descriptor, self.last

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            os.close(self.descriptor)


def mode_of(present: os.stat_result | None, otherwise: int) -> int:
    """The mode of what is *present*, if that is a file."""
    return otherwise if present is None or not stat.S_ISREG(present.st_mode) else stat.S_IMODE(present.st_mode)
