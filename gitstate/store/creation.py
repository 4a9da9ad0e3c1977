"""A repository that appears whole, and one that is completed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from datetime import datetime

from gitstate import layout, process
from gitstate.durable import Directory
from gitstate.errors import StorageError
from gitstate.operation import Operation
from gitstate.store.inspection import CONFIG, FORMAT, SECTION, SETTING, configuration, damage_of_config, settings_in
from gitstate.store.journal import SIZE
from gitstate.store.objects import Objects
from gitstate.store.refs import Refs
from gitstate.store.revisions import Revisions

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
EXCLUDE = ".git/info/exclude"
_SKELETON = ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "gitstate")


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
    first, made = revisions.build(None, contents, operation, now)
    inner.write(f".git/{layout.BRANCH}", f"{first.id}\n".encode())
    inner.write(".git/HEAD", f"ref: {layout.BRANCH}\n".encode())
    inner.write(".git/config", _CONFIG.encode())
    inner.write(".git/info/exclude", layout.EXCLUDE.encode())
    inner.write(layout.GUARD, b"")
    inner.write(layout.JOURNAL, bytes(SIZE))
    inner.write(layout.GENERATION, f"{operation.generation}\n".encode())
    revisions.objects.write(made.objects.values())
    for name in (*_SKELETON, "objects", "refs", ""):
        inner.sync(f"{layout.GIT}/{name}".rstrip("/"))


def _put_in_place(directory: Directory, private: str) -> bool:
    try:
        directory.move(f"{private}/{layout.GIT}", layout.GIT, durable=True)
    except StorageError:
        # With ours still here it is somebody else's that stands there; otherwise ours does, and may not stay.
        if directory.status(layout.GIT) is not None and directory.status(f"{private}/{layout.GIT}") is not None:
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
    config = configuration(directory)
    if not config.strip() or damage_of_config(directory) is not None:
        directory.write(CONFIG, _CONFIG.encode() + _own_sections(config))
        added.append(CONFIG)
    elif b"gitstate.format" not in settings_in(config)[0]:  # a clone's, with what the user set there
        directory.write(CONFIG, config.rstrip(b"\n") + f"\n[gitstate]\n\tformat = {FORMAT}\n".encode())
        added.append(CONFIG)
    return added


def _own_sections(config: bytes) -> bytes:
    """What the user set: the lines that can be read, of sections that gitstate does not write."""
    kept: list[bytes] = []
    foreign = False
    for line in config.split(b"\n"):
        header = SECTION.match(line)
        if header:
            foreign = header[1].lower() not in (b"core", b"gitstate")
        if foreign and (header or SETTING.match(line)):
            kept.append(line)
    return b"".join(line + b"\n" for line in kept)


def sweep(directory: Directory) -> None:
    """Remove the private directories of builders that are gone."""
    for name in directory.names(""):
        match = (
            None
            if not name.startswith(layout.GIT_ASIDE)
            else re.fullmatch(re.escape(layout.GIT_ASIDE) + r"([0-9]+)-([0-9]+)-[0-9a-f]+", name)
        )
        if match is None:
            continue
        builder = process.identity(int(match[1]))
        if process.liveness(int(match[1]), None).verdict == "dead" or builder["startTime"] not in (None, int(match[2])):
            directory.remove_tree(name)
