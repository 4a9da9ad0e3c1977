"""A repository that appears whole, and the judgement of one that is there."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from gitstate import layout, process
from gitstate.durable import Directory, NotAFileError, kind_of
from gitstate.errors import CorruptStateError, StorageError, UnsafeRepositoryError
from gitstate.operation import Operation
from gitstate.store.objects import Objects
from gitstate.store.refs import Refs
from gitstate.store.revisions import Revisions

FORMAT = 1
_CONFIG = f"""\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
\tautocrlf = false
[gitstate]
\tformat = {FORMAT}
"""
CONFIG = ".git/config"
EXCLUDE = ".git/info/exclude"
_CONFIG_LIMIT = 1024 * 1024  # bytes
_SECTION = re.compile(rb"[ \t]*\[([A-Za-z0-9.-]+)(?:[ \t]+\"(?:[^\"\\\0]|\\.)*\")?\][ \t]*(?:[#;].*)?\Z")
_SETTING = re.compile(rb"[ \t]*([A-Za-z][A-Za-z0-9-]*)[ \t]*(?:=[ \t]*([^\0]*?))?[ \t]*\Z")
# Without these values git does not see what gitstate wrote.
_NEEDED = {b"core.repositoryformatversion": b"0", b"core.bare": b"false"}

# What would make git, or dulwich, take objects, history or settings from somewhere else.
_FOREIGN = ("commondir", "objects/info/alternates", "objects/info/http-alternates", "info/grafts", "shallow")
_SKELETON = ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "gitstate")

# What is a file, and what is a directory; anything else there is in the way.
_FILES = (
    "HEAD", "config", "index", "packed-refs", "info/exclude", "logs/refs/heads/main", "gitstate/guard", "gitstate/turn",
    "gitstate/generation", "gitstate/projected",
)  # fmt: skip
_DIRECTORIES = (
    "gitstate/quarantine", "gitstate/aside", "info", "logs", "logs/refs", "logs/refs/heads", "objects/info",
    "objects/pack", "refs/tags", "refs/tags/archive", "refs/tags/checkpoint",
)  # fmt: skip


def inspect(directory: Directory) -> str:
    """What stands at ``.git``: ``none``, ``clone`` (of ours, not completed), ``unmarked`` (ours, but its configuration
    is damaged) or ``ready``.

    Raises:
        UnsafeRepositoryError: a repository that gitstate did not make, or with insides that point elsewhere.
    """
    found = directory.status(layout.GIT)
    if found is None:
        return "none"
    if not stat.S_ISDIR(found.st_mode):
        raise unsafe("it is not a directory")
    if found.st_uid != os.geteuid():
        raise unsafe(f"it belongs to user id {found.st_uid}, not to you ({os.geteuid()})")
    names = directory.names(layout.GIT)
    if not names:
        return "none"
    for name in (".git/objects", ".git/refs", ".git/refs/heads", ".git/gitstate"):
        inner = directory.status(name)
        if inner is not None and not stat.S_ISDIR(inner.st_mode):
            raise unsafe(f"{name} is {kind_of(inner.st_mode)}")
    for name in _FOREIGN:
        if directory.status(f".git/{name}") is not None:
            raise unsafe(f".git/{name} makes it take objects or history from elsewhere")
    return _judged(directory, _settings(_config(directory))[0].get(b"gitstate.format"))


def _judged(directory: Directory, mark: bytes | None) -> str:
    """What a repository is by the *mark* in its configuration."""
    if mark is None:
        # A clone never has our own directory, so with it the mark is merely lost.
        if directory.is_directory(layout.PRIVATE):
            return "unmarked"
        if not _is_known(directory):
            raise unsafe("no commit of gitstate's can be found in it")
        return "clone"
    if mark != b"%d" % FORMAT:
        raise unsafe(
            f"its format is {mark.decode(errors='replace'):.20}; this gitstate knows {FORMAT}",
            hint=f"use a newer gitstate; if that line of {directory.path / CONFIG} is damaged, write {FORMAT} there",
        )
    return "ready"


def _is_known(directory: Directory) -> bool:
    """Whether history holds a commit of gitstate's. Whoever completes a clone looks at all of it."""
    revisions = Revisions(Objects(directory), Refs(directory, _NoWait()))
    try:
        return revisions.newest_generation(revisions.head()) > 0
    except CorruptStateError:
        return False
    finally:
        revisions.objects.close()


def _config(directory: Directory) -> bytes:
    """The configuration; nothing where none can be read. It is never followed anywhere, so that does no harm."""
    found = directory.status(CONFIG)
    if found is not None and stat.S_ISREG(found.st_mode) and found.st_size > _CONFIG_LIMIT:
        raise unsafe(f"its configuration has {found.st_size} bytes, more than the {_CONFIG_LIMIT} that are read")
    try:
        return directory.read(CONFIG, _CONFIG_LIMIT) or b""
    except NotAFileError:
        return b""


def _settings(config: bytes) -> tuple[dict[bytes, bytes], list[int]]:
    """The settings outside subsections (git-config(1)), the last of a name counts; and the lines that are none."""
    found: dict[bytes, bytes] = {}
    wrong = []
    section, continued = b"", False
    for number, line in enumerate(config.split(b"\n"), 1):
        header, setting = _SECTION.match(line), _SETTING.match(line)
        if continued or not line.strip(b" \t") or line.lstrip(b" \t")[:1] in (b"#", b";"):
            pass
        elif header:
            section = b"" if b'"' in line else header[1].lower()
        elif setting:
            found[section + b"." + setting[1].lower()] = b"true" if setting[2] is None else setting[2]
        else:
            wrong.append(number)
        continued = line.endswith(b"\\")
    return found, wrong


def damage_of_config(directory: Directory) -> str | None:
    """Why git could not use the configuration, ``None`` if it can. gitstate itself needs only the mark in it."""
    settings, wrong = _settings(_config(directory))
    if wrong:
        return f"line {wrong[0]} is no setting"
    for name, value in _NEEDED.items():
        if name not in settings and b"gitstate.format" in settings and directory.is_directory(layout.PRIVATE):
            return f"{name.decode()} is missing"
        if settings.get(name, value).lower() != value:
            return f"{name.decode()} is not {value.decode()}"
    lost = b"gitstate.format" not in settings and directory.is_directory(layout.PRIVATE)
    return "gitstate's mark is missing" if lost else None


def in_the_way(directory: Directory) -> Iterator[tuple[str, int]]:
    """What stands where a file or directory of the repository belongs, and is something else: its path and mode."""
    fans = [f"objects/{name}" for name in directory.names(".git/objects") if len(name) == 2]
    for names, wanted in ((_DIRECTORIES, stat.S_ISDIR), (fans, stat.S_ISDIR), (_FILES, stat.S_ISREG)):
        for name in names:
            found = directory.status(f".git/{name}")
            if found is not None and not wanted(found.st_mode):
                yield f".git/{name}", found.st_mode


def unsafe(why: str, hint: str | None = None) -> UnsafeRepositoryError:
    """The refusal of a repository, and *why*."""
    return UnsafeRepositoryError(
        f"the repository in the state directory is not used: {why}",
        hint=hint or "git -C .aiwg/ralph-external log; move .git away if it is not wanted, then gitstate init",
        path=layout.GIT,
    )


def create(directory: Directory, contents: Mapping[str, bytes], operation: Operation, now: datetime) -> bool:
    """Build a repository with its first commit in a private directory, durably, and rename it into place.

    Returns whether ours is the one that stands there: whoever finds another one throws his own away.
    """
    started = process.identity(os.getpid())["startTime"]
    private = f"{layout.GIT_ASIDE}{os.getpid()}-{started or 0}-{secrets.token_hex(4)}"
    directory.make(private)
    inner = Directory(directory.path / private, layout.ASIDE)
    try:
        _build(inner, contents, operation, now)
        return _put_in_place(directory, private)
    finally:
        directory.remove_tree(private)


def _build(inner: Directory, contents: Mapping[str, bytes], operation: Operation, now: datetime) -> None:
    for name in _SKELETON:
        inner.make(f"{layout.GIT}/{name}")
    revisions = Revisions(Objects(inner), Refs(inner, _NoWait()))
    first, objects = revisions.build(None, contents, operation, now)
    inner.write(f".git/{layout.BRANCH}", f"{first.id}\n".encode())
    inner.write(".git/HEAD", f"ref: {layout.BRANCH}\n".encode())
    inner.write(".git/config", _CONFIG.encode())
    inner.write(".git/info/exclude", layout.EXCLUDE.encode())
    inner.write(layout.GUARD, b"")
    inner.write(layout.GENERATION, f"{operation.generation}\n".encode())
    revisions.objects.write(objects)
    for name in (*_SKELETON, "objects", "refs", ""):
        inner.sync(f"{layout.GIT}/{name}".rstrip("/"))


def _put_in_place(directory: Directory, private: str) -> bool:
    try:
        directory.move(f"{private}/{layout.GIT}", layout.GIT, durable=True)
    except StorageError:
        if directory.status(layout.GIT) is not None:
            return False
        raise
    return True


class _NoWait:
    """A clock for a repository that nobody else can see yet."""

    def now(self) -> datetime:
        raise NotImplementedError

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        return None


def complete(directory: Directory) -> list[str]:
    """Give a clone, or a repository that lost them, what only gitstate's own have; what was added."""
    added = []
    for name in _SKELETON:
        if not directory.is_directory(f".git/{name}"):
            directory.make(f".git/{name}", durable=True)
            added.append(f".git/{name}/")
    if directory.read(EXCLUDE) != layout.EXCLUDE.encode():
        directory.write(EXCLUDE, layout.EXCLUDE.encode())
        added.append(EXCLUDE)
    if directory.status(layout.GUARD) is None:
        directory.write_new(layout.GUARD, b"")
        added.append(layout.GUARD)
    config = _config(directory)
    if not config.strip() or damage_of_config(directory) is not None:
        directory.write(CONFIG, _CONFIG.encode() + _own_sections(config))
        added.append(CONFIG)
    elif b"gitstate.format" not in _settings(config)[0]:  # a clone's, with what the user set there
        directory.write(CONFIG, config.rstrip(b"\n") + f"\n[gitstate]\n\tformat = {FORMAT}\n".encode())
        added.append(CONFIG)
    return added


def _own_sections(config: bytes) -> bytes:
    """What the user set: the lines that can be read, of sections that gitstate does not write."""
    kept: list[bytes] = []
    foreign = False
    for line in config.split(b"\n"):
        header = _SECTION.match(line)
        if header:
            foreign = header[1].lower() not in (b"core", b"gitstate")
        if foreign and (header or _SETTING.match(line)):
            kept.append(line)
    return b"".join(line + b"\n" for line in kept)


def sweep(directory: Directory) -> None:
    """Remove the private directories of builders that are gone."""
    for name in directory.names(""):
        match = re.fullmatch(re.escape(layout.GIT_ASIDE) + r"([0-9]+)-([0-9]+)-[0-9a-f]+", name)
        if match is None:
            continue
        builder = process.identity(int(match[1]))
        if process.liveness(int(match[1]), None).verdict == "dead" or builder["startTime"] not in (None, int(match[2])):
            directory.remove_tree(name)


def state_directory(project_root: Path) -> Path:
    """Where the state of a project lies."""
    return project_root.joinpath(*layout.STATE_DIRECTORY)
