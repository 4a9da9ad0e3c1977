"""Salvage: what a damaged repository is made of, put together again from what is whole, what is packed, and the files.

Nothing that can still be read is thrown away: damaged bytes go to quarantine, and what takes their place is written
durably. Every step can be killed and begun again; all of it happens under the guard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gitstate import layout
from gitstate.errors import CorruptStateError
from gitstate.marks import kind_of
from gitstate.results import Finding
from gitstate.store import creation, inspection
from gitstate.store.consolidation import is_spent
from gitstate.store.objects import KINDS, ObjectDamagedError, Stored, path_of
from gitstate.store.packs import PACKS, damage_of_pack, pack_names
from gitstate.store.salvaging import readable, rebuilt_index
from gitstate.store.trees import DIRECTORY, read_tree
from gitstate.transaction import Writer


@dataclass
class Salvage:
    """One attempt at one repository. Each finding says in ``action`` what was done."""

    writer: Writer
    _spare: dict[str, Stored] | None = field(default=None, init=False)

    # --- keeping what is damaged ---

    def keep(self, path: str, *, remove: bool = True) -> str:
        """Put what stands at *path* into quarantine, in words. With *remove* off a file stays as well."""
        found = self.writer.projection.found(path)
        if found is None:
            return ""
        kept = self.writer.projection.quarantine(path, found)
        if remove and isinstance(found, bytes):
            self.writer.directory.discard(path)
        return f"; what stood there is kept in {kept}"

    # --- places ---

    def guards(self) -> Iterator[Finding]:
        """What the guard itself needs; nobody can hold one that is not a file."""
        yield from self._clear_the_way((layout.QUARANTINE, layout.GUARD, layout.TURN))
        self.writer.directory.make(layout.PRIVATE, durable=True)
        if self.writer.directory.status(layout.GUARD) is None:
            self.writer.directory.write_new(layout.GUARD, b"")
            yield _made_anew(layout.GUARD)

    def places(self) -> Iterator[Finding]:
        """Files and directories of the repository that are something else or missing, and the configuration."""
        directory = self.writer.directory
        yield from self._clear_the_way(None)
        damage = inspection.damage_of_config(directory)
        kept = "" if damage is None else self.keep(inspection.CONFIG, remove=False)
        added = creation.complete(directory)
        yield from (_made_anew(path) for path in added if path == creation.EXCLUDE)
        if damage is not None:
            yield Finding(
                "config_damaged", "warning", f"config: {damage}", path=inspection.CONFIG, action=f"written anew{kept}"
            )
        creation.sweep(directory)

    def _clear_the_way(self, only: tuple[str, ...] | None) -> Iterator[Finding]:
        for path, mode in list(inspection.in_the_way(self.writer.directory)):
            if only is not None and path not in only:
                continue
            if path == layout.QUARANTINE:
                where = f"{path}-{kind_of(mode).replace(' ', '-')}"
                self.writer.directory.move(path, where)
                kept = f"; it is {where} now"
            else:
                kept = self.keep(path)
            yield Finding(
                "in_the_way", "warning", f"{path} was {kind_of(mode)}", path=path, action=f"moved out of the way{kept}"
            )

    # --- objects ---

    def packs(self) -> Iterator[Finding]:
        """Damaged packs: a new index, or, where the pack itself is damaged, every object that it still gives."""
        for name in pack_names(self.writer.directory):
            damage = damage_of_pack(self.writer.directory, name)
            if damage is None or is_spent(self.writer.directory, name):
                continue
            index = rebuilt_index(self.writer.directory, name)
            if index is not None:
                kept = self.keep(f"{PACKS}/{name}.idx", remove=False)
                self.writer.directory.write(f"{PACKS}/{name}.idx", index)
                action = f"its index was made anew from the pack, which is whole{kept}"
            else:
                action = self._emptied(name)
            self.writer.revisions.objects.forget()
            yield Finding("pack_damaged", "error", f"{name}: {damage}", path=f"{PACKS}/{name}.pack", action=action)

    def _emptied(self, name: str) -> str:
        """Every object that can be got out of a pack written by itself, and then the pack put away."""
        saved = 0

        def counted() -> Iterator[Stored]:
            nonlocal saved
            for number, raw in readable(self.writer.directory, name):
                saved += 1
                yield Stored(KINDS[number], raw)

        self.writer.revisions.objects.write(counted())
        # The pack goes first: an index alone is used by nobody.
        kept = [self.keep(f"{PACKS}/{name}{ending}") for ending in (".pack", ".idx", ".rev", ".bitmap")]
        return f"{saved} objects were saved out of it{next(filter(None, kept), '')}"

    def journaled(self) -> Iterator[Finding]:
        """What the journal holds and the disk does not, written again."""
        revisions = self.writer.revisions
        entries = revisions.recent.packed.entries
        disk = revisions.from_disk()
        try:
            lost = [object_id for object_id in entries if not disk.objects.has(object_id)]
        finally:
            disk.objects.close()
        if lost:
            revisions.recent.keep()
            revisions.objects.forget()
        for object_id in lost:
            yield Finding(
                "object_damaged", "error", f"the object {object_id[:12]} was lost", path=path_of(object_id),
                action="written again from the journal",
            )  # fmt: skip

    def loose(self) -> Iterator[Finding]:
        """Damaged loose files: taken away, and written again where the work tree or a pack has the object."""
        objects = self.writer.revisions.objects
        for object_id in objects.loose_ids():
            path = path_of(object_id)
            try:
                objects.verify(object_id, path)
            except ObjectDamagedError as error:
                kept = self.keep(path)
                action = "lost"
                if self._put_back(object_id):
                    action = "written again from the files"
                elif objects.has(object_id):
                    action = "taken away: a pack has it whole"
                yield Finding("object_damaged", "error", error.message, path=path, action=action + kept)

    def _put_back(self, object_id: str) -> bool:
        """Write an object that the files of the work tree make; whether they make it."""
        if self._spare is None:
            files = self.writer.projection.survey()
            self._spare = self.writer.revisions.made_of({p: f for p, f in files.items() if isinstance(f, bytes)})
        stored = self._spare.get(object_id)
        if stored is not None:
            self.writer.revisions.objects.write([stored])
        return stored is not None

    def is_whole(self, revision: str) -> bool:
        """Whether a commit and all that it holds can be read, once what the files make was put back."""
        revisions = self.writer.revisions
        try:
            waiting = [(revisions.read(revision).tree, DIRECTORY)]
            while waiting:
                object_id, mode = waiting.pop()
                if not revisions.objects.has(object_id) and not self._put_back(object_id):
                    return False
                if mode == DIRECTORY:
                    waiting += [(inner, kind) for kind, inner in read_tree(revisions.objects, object_id).values()]
        except CorruptStateError:
            return False
        return True


def _made_anew(path: str) -> Finding:
    return Finding(
        "file_missing", "warning", f"{path} was missing, or not what it should be", path=path, action="made anew"
    )
