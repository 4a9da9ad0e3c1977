"""The project's own repository, if the state directory lies in one: it must neither see nor track our files."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from dulwich.index import read_index_dict

from gitstate.durable import Directory
from gitstate.errors import RefusedError, StorageError
from gitstate.medium import NotAFileError


class Surroundings(NamedTuple):
    """The work tree around the state directory, its git directory, and the state directory's path within it."""

    top: Path
    git: Path
    inside: str


def find_surroundings(state_directory: Path) -> Surroundings | None:
    """The repository around the state directory; ``None`` when there is none."""
    # git looks upwards from where a directory really is, not from the symlink that led there.
    place = state_directory.resolve()
    for top in place.parents:
        git = top / ".git"
        if os.path.lexists(git / "HEAD") and (git / "refs").is_dir():  # anything else git passes over, too
            return Surroundings(top, git, place.relative_to(top).as_posix())
        if git.is_file():
            found = _pointed_at(git)
            return None if found is None else Surroundings(top, found, place.relative_to(top).as_posix())
    return None


def _pointed_at(file: Path) -> Path | None:
    """The git directory that a ``.git`` file names (gitrepository-layout(5)): a submodule's or a linked work tree's."""
    try:
        match = re.match(r"gitdir: (.+)", file.read_text("utf-8", "surrogateescape"))
        if match is None:
            return None
        git = (file.parent / match[1].strip()).resolve()
        return git if git.is_dir() else None
    except OSError:
        return None


def _common(git: Path) -> Path:
    """Where a linked work tree keeps what it shares; ``info/exclude`` is shared."""
    try:
        return (git / (git / "commondir").read_text().strip()).resolve()
    except OSError:
        return git


def refuse_if_tracked(around: Surroundings) -> None:
    """Raises RefusedError when the project tracks files of the state directory."""
    try:
        with open(around.git / "index", "rb") as file:
            tracked = sorted(os.fsdecode(name) for name in read_index_dict(file))
    except FileNotFoundError:
        return
    except Exception:  # an index of a newer kind is git's own affair; dulwich meets it with many types
        return
    ours = [name for name in tracked if name == around.inside or name.startswith(around.inside + "/")]
    if ours:
        raise RefusedError(
            f"the project's repository tracks {len(ours)} files of the state directory ({ours[0]} is one)",
            hint=f"git -C {shlex.quote(str(around.top))} rm -r --cached {shlex.quote(around.inside)}, then commit",
            path=str(around.top),
            tracked=tuple(ours[:20]),
        )


def _pattern(around: Surroundings) -> bytes:
    """The line of gitignore(5) that means the state directory and nothing else."""
    escaped = re.sub(rb"([\\*?\[])", rb"\\\1", os.fsencode(around.inside))
    return b"/" + escaped.replace(b"\n", b"?") + b"/"  # a line break cannot be written; "?" is any one character


def exclude_file(around: Surroundings) -> Path:
    """The project's own exclude file."""
    return _common(around.git) / "info" / "exclude"


def exclude_from(around: Surroundings) -> bool:
    """Add the state directory to the project's own exclude file; whether it was not there yet."""
    line = _pattern(around)
    info = Directory(_common(around.git), "info")
    try:
        present = info.read("info/exclude") or b""
    except NotAFileError as error:
        raise StorageError(f"the project's exclude file: {error.message}", path=str(exclude_file(around))) from None
    if line in present.split(b"\n"):
        return False
    info.make("info")
    separator = b"" if not present or present.endswith(b"\n") else b"\n"
    info.write("info/exclude", present + separator + line + b"\n")
    return True


def is_excluded(around: Surroundings) -> bool:
    """Whether the project's exclude file names the state directory."""
    try:
        present = Directory(_common(around.git), "info").read("info/exclude") or b""
    except NotAFileError:
        return False
    return _pattern(around) in present.split(b"\n")
