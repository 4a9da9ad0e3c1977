"""What can still be got out of a pack that is damaged, or has lost its index."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing

from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.objects import RawObjectID
from dulwich.pack import Pack, PackData, write_pack_index
from dulwich.pack import PackIndex as AnyIndex

from gitstate.durable import Directory
from gitstate.medium import UnreadableError
from gitstate.store.packs import PACKS, loaded_index


def _data(directory: Directory, name: str) -> PackData:
    with directory.reading(f"{PACKS}/{name}.pack") as file:
        return PackData(name, DEFAULT_OBJECT_FORMAT, file=io.BytesIO(file.read()))


def _index(directory: Directory, name: str) -> AnyIndex:
    with directory.reading(f"{PACKS}/{name}.idx") as file:
        return loaded_index(name, file.read())


def rebuilt_index(directory: Directory, name: str) -> bytes | None:
    """The index of a pack that is whole itself; ``None`` when it is not."""
    try:
        with closing(_data(directory, name)) as data:
            data.check()
            return _indexed(data)
    except UnreadableError:
        raise
    except Exception:  # dulwich meets damage with a dozen types
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
    except UnreadableError:
        raise
    except Exception:  # as above
        return
    with closing(data):
        index = _index_that_checks(directory, name) or loaded_index(name, _indexed(data))
        with closing(Pack.from_lazy_objects(lambda: data, lambda: index)) as pack:
            for object_id in list(pack.index):
                try:
                    yield pack.get_raw(RawObjectID(bytes.fromhex(object_id.decode())))
                except Exception:  # as above
                    continue


def _index_that_checks(directory: Directory, name: str) -> AnyIndex | None:
    try:
        index = _index(directory, name)
    except UnreadableError:
        raise
    except Exception:  # as above
        return None
    try:
        index.check()
    except Exception:  # as above
        index.close()
        return None
    return index
