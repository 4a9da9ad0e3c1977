"""Packs: opened as regular files and nothing else, checked, and saved from as far as they can be read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing

from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.objects import RawObjectID
from dulwich.pack import Pack, PackData, PackIndex, load_pack_index_file, write_pack_index

from gitstate.durable import Directory

PACKS = ".git/objects/pack"
# What is mapped into memory kills the process (SIGBUS) when its file is cut short or its sector is bad. So files are
# read, unless they are so large that reading them would be felt.
_READ_WHOLE = 16 * 1024 * 1024


def pack_names(directory: Directory) -> list[str]:
    """The packs, each by its name without an ending; one of which only the index is left is among them."""
    found = directory.names(PACKS)
    return sorted(
        {name.rpartition(".")[0] for name in found if name.startswith("pack-") and name.endswith((".pack", ".idx"))}
    )


def open_pack(directory: Directory, name: str) -> Pack:
    """A pack whose index could be opened; its data are opened when they are needed. Whatever is raised is damage."""
    return Pack.from_lazy_objects(lambda: _data(directory, name), lambda: _index(directory, name))


def _data(directory: Directory, name: str) -> PackData:
    with directory.opened(f"{PACKS}/{name}.pack") as file:
        return PackData(name, DEFAULT_OBJECT_FORMAT, file=_contents(file))


def _index(directory: Directory, name: str) -> PackIndex:
    with directory.opened(f"{PACKS}/{name}.idx") as file:
        return _loaded(name, _contents(file))


def _loaded(name: str, contents: io.BufferedReader | io.BytesIO) -> PackIndex:
    try:
        return load_pack_index_file(name, contents, DEFAULT_OBJECT_FORMAT)
    except BaseException:
        contents.close()  # dulwich leaves a half-made index behind, which complains when it is collected
        raise


def _contents(file: io.BufferedReader) -> io.BufferedReader | io.BytesIO:
    return io.BytesIO(file.read()) if os.fstat(file.fileno()).st_size <= _READ_WHOLE else file


def damage_of_pack(directory: Directory, name: str) -> str | None:
    """What is wrong with a pack as a whole, by its own checksums; ``None`` when they hold."""
    for ending, words in ((".pack", "the pack is missing, only its index is left"), (".idx", "its index is missing")):
        if directory.status(f"{PACKS}/{name}{ending}") is None:
            return words
    where = "its index"
    try:
        with closing(open_pack(directory, name)) as pack:
            pack.index.check()
            where = "the pack"
            pack.data.check()
            where = "the index, which belongs to another pack,"
            pack.check_length_and_checksum()
    except Exception as error:  # dulwich meets damage with a dozen types
        return f"{where} does not check ({type(error).__name__})"
    return None


def ids_in(pack: Pack) -> list[str]:
    """The ids that a pack's index names."""
    return [bytes(name).decode() for name in pack.index]


def ids_of(directory: Directory, name: str) -> set[str] | None:
    """The ids in a pack that is whole; ``None`` when it is not."""
    if damage_of_pack(directory, name) is not None:
        return None
    with closing(open_pack(directory, name)) as pack:
        return set(ids_in(pack))


def rebuilt_index(directory: Directory, name: str) -> bytes | None:
    """The index of a pack that is whole itself; ``None`` when it is not."""
    try:
        with closing(_data(directory, name)) as data:
            data.check()
            return _indexed(data)
    except Exception:  # as above
        return None


def _indexed(data: PackData) -> bytes:
    entries = []
    try:
        for entry in data.iterentries():
            entries.append(entry)  # noqa: PERF402  # what comes before the damage is kept
    except Exception:  # as above
        pass
    raw = io.BytesIO()
    write_pack_index(raw, sorted(entries), data.calculate_checksum())
    return raw.getvalue()


def readable(directory: Directory, name: str) -> Iterator[tuple[int, bytes]]:
    """Type number and bytes of every object that can still be got out of a damaged pack, right or wrong."""
    try:
        data = _data(directory, name)
    except Exception:  # as above
        return
    with closing(data):
        index = _index_that_checks(directory, name) or _loaded(name, io.BytesIO(_indexed(data)))
        with closing(Pack.from_lazy_objects(lambda: data, lambda: index)) as pack:
            for object_id in ids_in(pack):
                try:
                    yield pack.get_raw(RawObjectID(bytes.fromhex(object_id)))
                except Exception:  # as above
                    continue


def _index_that_checks(directory: Directory, name: str) -> PackIndex | None:
    try:
        index = _index(directory, name)
    except Exception:  # as above
        return None
    try:
        index.check()
    except Exception:  # as above
        index.close()
        return None
    return index
