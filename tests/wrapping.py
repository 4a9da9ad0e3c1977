"""Packs made entry by entry, also such as nobody should make, and what git says is in them."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from gitstate import StateRepository, layout
from gitstate.durable import Directory
from gitstate.store.packindex import index_of
from gitstate.store.packs import PACKS, pack_header

Made = tuple[bytes, bytes]  # an id, and its entry


def directory_of(state: StateRepository) -> Directory:
    return Directory(state.base_dir, layout.ASIDE)


def blob_id(raw: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0%s" % (len(raw), raw)).digest()


def blob(raw: bytes) -> Made:
    return blob_id(raw), _head(3, len(raw)) + zlib.compress(raw)


def delta(raw: bytes, base: bytes) -> Made:
    """The blob *raw* as a delta of the blob *base*, named by its id, that takes nothing over from it."""
    assert len(raw) < 128
    difference = bytes([len(base), len(raw), len(raw)]) + raw
    return blob_id(raw), _head(7, len(difference)) + blob_id(base) + zlib.compress(difference)


def _head(kind: int, size: int) -> bytes:
    first = kind << 4 | size & 15
    return bytes([first | 128, size >> 4]) if size > 15 else bytes([first])


def write_pack(state: StateRepository, entries: Sequence[Made], *, checksums: Sequence[int] = ()) -> str:
    """A pack of *entries*; its name. The index gives them other *checksums* than they have, where these are given."""
    position, listed = 12, []
    for number, (object_id, raw) in enumerate(entries):
        listed.append((object_id, position, checksums[number] if checksums else zlib.crc32(raw)))
        position += len(raw)
    body = pack_header(len(entries)) + b"".join(raw for _, raw in entries)
    checksum = hashlib.sha1(body).digest()
    name = f"pack-{checksum.hex()}"
    (state.base_dir / PACKS / f"{name}.pack").write_bytes(body + checksum)
    (state.base_dir / PACKS / f"{name}.idx").write_bytes(index_of(listed, checksum))
    return name


def git(state: StateRepository, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=state.base_dir, check=True, capture_output=True, text=True).stdout


def repack(state: StateRepository, *, by_offset: bool = True) -> None:
    """Let git put what it has not packed into a pack, with deltas that name their bases by offset or by id."""
    loosen(state)
    git(state, "-c", f"repack.useDeltaBaseOffset={str(by_offset).lower()}", "repack", "-d", "-q")


def loosen(state: StateRepository) -> None:
    """Let the objects of gitstate's own packs lie by themselves; the next mutation begins a pack of its own."""
    for name in packs(state):
        pack = state.base_dir / PACKS / f"{name}.pack"
        raw = pack.read_bytes()
        if name != f"pack-{raw[-20:].hex()}":  # git names a pack by its checksum
            pack.unlink()
            pack.with_suffix(".idx").unlink()
            subprocess.run(["git", "unpack-objects", "-q"], cwd=state.base_dir, input=raw, check=True)
    (state.base_dir / layout.JOURNAL).unlink(missing_ok=True)


def packs(state: StateRepository) -> list[str]:
    return sorted(path.stem for path in (state.base_dir / PACKS).glob("*.pack"))


def files(state: StateRepository) -> dict[str, bytes]:
    """Everything in the directory of packs, and what lies aside."""
    git_directory = state.base_dir / ".git"
    found = [*(git_directory / "objects" / "pack").iterdir(), *(git_directory / "gitstate" / "aside").glob("*")]
    return {str(path.relative_to(git_directory)): path.read_bytes() for path in found}


def objects(state: StateRepository) -> set[str]:
    """The ids of all objects, as git lists them."""
    listed = git(state, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered")
    return set(listed.split())


def overwrite(path: Path, raw: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(raw)
