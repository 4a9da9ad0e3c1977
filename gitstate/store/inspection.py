"""Whether what stands at ``.git`` is a repository that gitstate made, and whether git could use it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache

from gitstate import layout
from gitstate.clock import SystemClock
from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, UnsafeRepositoryError
from gitstate.marks import kind_of
from gitstate.medium import NotAFileError

FORMAT = 1
CONFIG = ".git/config"
_CONFIG_LIMIT = 1024 * 1024  # bytes
SECTION = re.compile(rb"[ \t]*\[([A-Za-z0-9.-]+)(?:[ \t]+\"(?:[^\"\\\0]|\\.)*\")?\][ \t]*(?:[#;].*)?\Z")
SETTING = re.compile(rb"[ \t]*([A-Za-z][A-Za-z0-9-]*)[ \t]*(?:=[ \t]*([^\0]*?))?[ \t]*\Z")
# Without these values git does not see what gitstate wrote.
_NEEDED = {b"core.repositoryformatversion": b"0", b"core.bare": b"false"}

# What must be a directory, if it is there.
_INSIDES = ("objects", "refs", "refs/heads", "gitstate")

# What would make git, or dulwich, take objects, history or settings from somewhere else.
_FOREIGN = ("commondir", "objects/info/alternates", "objects/info/http-alternates", "info/grafts", "shallow")

# What is a file, and what is a directory; anything else there is in the way.
_FILES = (
    "HEAD", "config", "index", "packed-refs", "info/exclude", "logs/refs/heads/main", "gitstate/guard", "gitstate/turn",
    "gitstate/generation", "gitstate/projected", "gitstate/pruning", "gitstate/journal",
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
    insides = directory.statuses(layout.GIT, _INSIDES)
    if insides[0] is None and not directory.names(layout.GIT):
        return "none"
    for name in directory.existing(layout.GIT, _FOREIGN):
        raise unsafe(f".git/{name} makes it take objects or history from elsewhere")
    for name, inner in zip(_INSIDES, insides, strict=True):
        if inner is not None and not stat.S_ISDIR(inner.st_mode):
            raise unsafe(f".git/{name} is {kind_of(inner.st_mode)}")
    return _judged(directory, _mark_in(configuration(directory)))


@lru_cache(maxsize=8)
def _mark_in(config: bytes) -> bytes | None:
    return settings_in(config)[0].get(b"gitstate.format")


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
    from gitstate.store.objects import Objects  # what is marked is judged without a look at history
    from gitstate.store.refs import Refs
    from gitstate.store.revisions import Revisions

    revisions = Revisions(Objects(directory), Refs(directory, SystemClock()))
    try:
        return revisions.newest_generation(revisions.head()) > 0
    except CorruptStateError:
        return False
    finally:
        revisions.objects.close()


def configuration(directory: Directory) -> bytes:
    """The configuration; nothing where none can be read. It is never followed anywhere, so that does no harm."""
    try:
        return directory.read(CONFIG, _CONFIG_LIMIT) or b""
    except NotAFileError:
        found = directory.status(CONFIG)
        if found is not None and stat.S_ISREG(found.st_mode) and found.st_size > _CONFIG_LIMIT:
            raise unsafe(
                f"its configuration has {found.st_size} bytes, more than the {_CONFIG_LIMIT} that are read"
            ) from None
        return b""


def settings_in(config: bytes) -> tuple[dict[bytes, bytes], list[int]]:
    """The settings outside subsections (git-config(1)), the last of a name counts; and the lines that are none."""
    found: dict[bytes, bytes] = {}
    wrong = []
    section, continued = b"", False
    for number, line in enumerate(config.split(b"\n"), 1):
        header, setting = SECTION.match(line), SETTING.match(line)
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
    settings, wrong = settings_in(configuration(directory))
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
