"""The recent pack: all objects since everything was last made durable, as git reads them and unsynced.

Each publication writes the pack anew with what it adds, moves the branch, and is acknowledged by the journal, which
holds the same entries. When the journal is full the pack is synced as it stands, and stays. After a power cut the
journal puts back whatever of this was lost. ``docs/explanation/durability.md`` says why each step is where it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from gitstate.errors import CorruptStateError, StorageError, logged
from gitstate.spares import recycle, refill
from gitstate.store.entries import Entry, Packed, base_of, relative, unpacked, whole
from gitstate.store.epoch import is_of_this_boot, is_overruled
from gitstate.store.journal import Chain, Journal, Publication, has_room, publication
from gitstate.store.objects import Objects, Stored
from gitstate.store.packs import PACKS, pack_names
from gitstate.store.refs import Refs

_DEEPEST = 8  # entries that one may build upon, each on the next: whoever reads the last one reads them all
_SHORTEST = 100  # bytes of an object of which a difference is worth looking for
_LARGEST = 8 * 1024 * 1024  # bytes of a recent pack; larger ones are not written again and again


@dataclass(eq=False, repr=False)
class Prepared:
    """A publication that is ready to be made, the first of an epoch or another, with its pack and index."""

    publication: Publication
    objects: Mapping[str, Stored]
    packed: Packed
    pack: bytes
    index: bytes
    chain: Chain  # what it follows in the journal; nothing, where it is to be the first of an epoch
    before: str | None  # the recent pack, whose objects this one holds as well


class Known(NamedTuple):
    """What was learnt of an epoch: its publications, their entries, and upon how many others each entry builds."""

    chain: Chain
    packed: Packed
    depths: Mapping[str, int]


@dataclass(eq=False, repr=False)
class Recent:
    """What is recent in one repository."""

    objects: Objects
    refs: Refs
    journal: Journal = field(init=False)
    # What is known is replaced as a whole and never changed: other threads read here, and learn, at any moment.
    _known: Known = field(default_factory=lambda: Known((), Packed(), {}), init=False)
    _is_clean: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.directory = self.objects.directory
        self.journal = Journal(self.directory)

    # --- reading ---

    def is_overruled(self) -> bool:
        """Whether the machine stopped since the journal was written: until it is replayed it says what was published."""
        if not self._is_clean:  # once it is, nobody writes another boot's
            self._is_clean = not (is_overruled(self.directory) and self.learn())
        return not self._is_clean

    def published(self) -> list[str]:
        """The heads that the journal holds, the newest last."""
        return [found.head for found in self.learn()]

    def find(self, object_id: str, *, refresh: bool) -> Stored | None:
        """An object of the epoch; *refresh* looks into the journal again."""
        if refresh:
            self.learn()
        entry = self._known.packed.entries.get(object_id)
        if entry is None:
            return None
        try:
            return unpacked(entry, self.objects.read)
        except (ValueError, CorruptStateError):
            return None

    def learn(self) -> Chain:
        """What the journal holds, the oldest first; its entries are known from here on."""
        chain = self.journal.chain(self._known.chain)
        self._follow(chain)
        return chain

    def _follow(self, chain: Chain, packed: Packed | None = None) -> Packed:
        """Know what a chain holds; its entries, which may be *packed* already."""
        known = self._known
        if not known.chain or not chain or known.chain[0].epoch != chain[0].epoch:
            known = Known((), Packed(), {})
        found = chain[len(known.chain) :]
        if found or not chain:
            entries = [entry for publication in found for entry in publication.entries]
            depths = dict(known.depths)
            for entry in entries:
                base = base_of(entry.raw)
                depths[entry.id] = 0 if base is None else depths.get(base, 0) + 1
            self._known = known = Known(chain, packed or known.packed.with_entries(entries), depths)
        return known.packed

    @property
    def packed(self) -> Packed:
        """The entries of the epoch."""
        return self._follow(self.journal.chain(self._known.chain))

    # --- publishing ---

    def prepare(self, parent: str, head: str, objects: Mapping[str, Stored], bases: Mapping[str, str]) -> Prepared:
        """Everything that can be done before a publication without being seen.

        *bases* names, for some of the *objects*, what their file or directory was before.

        Raises:
            StorageError: the file system refused.
        """
        # Whoever wrote since the lease was taken has overtaken us, so that nothing will come of this.
        known = self._known
        chain, packed = known.chain, known.packed
        if self._ends_at(chain, parent):
            made = [self._entry(*item, bases, known) for item in objects.items() if item[0] not in packed.entries]
            found = publication(chain[-1].epoch, chain[-1].number + 1, parent, head, made, os.urandom(12))
            if has_room(chain, found) and packed.size <= _LARGEST:
                return self._prepared(found, packed, objects, chain)
        # Everything so far is made durable the long way, and an epoch opened, once the lease is proved.
        self.settle()
        made = [whole(*item) for item in objects.items()]
        found = publication(os.urandom(8), 1, parent, head, made, os.urandom(12))
        return self._prepared(found, Packed(), objects, ())

    def is_known(self, head: str) -> bool:
        """Whether *head* is the newest that was learnt of the journal: nobody has published since."""
        return self._ends_at(self._known.chain, head)

    @staticmethod
    def _ends_at(chain: Chain, head: str) -> bool:
        """Whether the journal alone makes *head* durable, with all before it."""
        return bool(chain) and chain[-1].head == head and is_of_this_boot(chain[0].boot)

    def _entry(self, object_id: str, stored: Stored, bases: Mapping[str, str], known: Known) -> Entry:
        base, found = _base(bases.get(object_id, ""), known), None
        if base is not None and len(stored.raw) >= _SHORTEST:
            with suppress(CorruptStateError):
                found = relative(object_id, stored.raw, base, self.objects.read(base, stored.kind).raw)
        return found or whole(object_id, stored)

    def _prepared(
        self, publication: Publication, packed: Packed, objects: Mapping[str, Stored], chain: Chain
    ) -> Prepared:
        packed = packed.with_entries(publication.entries)
        return Prepared(publication, objects, packed, *packed.as_files(), chain, _current(chain))

    def publish(self, prepared: Prepared) -> None:
        """Move the branch, durably: the commit point. Under the guard.

        Raises:
            BranchMovedError: the branch is not at the parent.
            StorageError: it could not be moved; or, with code ``outcome_unknown``, it moved and that may not be durable.
        """
        made, name = prepared.publication, _name(prepared.publication)
        chain = prepared.chain or self._opens(made)
        try:
            # git takes a pack for one as soon as its index is there.
            for raw, ending in ((prepared.pack, "pack"), (prepared.index, "idx")):
                self._put(raw, f"{PACKS}/{name}.{ending}", ending)
            if not chain:
                self._sync([name])
            self.refs.advance(made.parent, made.head, durable=not chain, keep=made.number > 2)
        except StorageError as error:
            if error.code != "outcome_unknown":
                self.remove(name)
            raise
        is_journaled = bool(chain) and self._acknowledge(chain, prepared)
        for object_id, stored in prepared.objects.items():
            self.objects.remember(object_id, stored)
        if prepared.before is not None and is_journaled:  # without a journal nobody clears up what half of this leaves
            for ending in ("idx", "pack"):
                recycle(self.directory, f"{PACKS}/{prepared.before}.{ending}", ending)

    def _put(self, raw: bytes, name: str, spare: str) -> None:
        filled = refill(self.directory, spare, raw)
        try:
            self.directory.move(filled, name)
        except BaseException:
            self.directory.drop(filled)
            raise

    def begin(self, head: str, first: Publication | None = None) -> Chain:
        """Open an epoch at *head*, which is durable, with room for its *first* publication; empty: there is no journal.

        Under the guard.
        """
        try:
            chain = self.journal.begin(head, first)
        except StorageError as error:
            logged(f"without a journal everything is synced: {error}")
            self.journal.drop()
            chain = ()
        self._is_clean = True
        self._follow(chain)
        return chain

    def _opens(self, made: Publication) -> Chain:
        """Open the epoch of its first publication; empty where it is not to be journaled."""
        self.refs.expect(made.parent)
        return self.begin(made.parent, made)

    def _acknowledge(self, chain: Chain, prepared: Prepared) -> bool:
        """Make a publication durable, by the journal or else the long way; whether there is a journal still."""
        made = prepared.publication
        try:
            self.journal.append(chain, made)
        except StorageError as error:
            # After a sync that failed, no later sync of the journal says anything.
            logged(f"the journal failed, so everything is synced: {error}")
            try:
                self._sync([_name(made), *filter(None, [prepared.before])])  # which stays
                self.refs.make_durable()
            except StorageError as worse:
                raise self.refs.unknown(made.head, worse) from None
            finally:
                self.journal.drop()
                self._follow(())
            return False
        self._follow((*chain, made), prepared.packed)
        return True

    def remove(self, name: str) -> None:
        """Take a pack away. Where that fails it is swept later."""
        # The index goes first: a pack alone is used by nobody.
        self.directory.drop(f"{PACKS}/{name}.idx")
        self.directory.drop(f"{PACKS}/{name}.pack")

    # --- making durable ---

    def make_durable(self, head: str, guarded: Callable[[], AbstractContextManager[None]]) -> None:
        """Make *head*, which is the branch's, survive a power cut: whoever moved it may have been killed before that.

        Raises:
            StorageError: it may not.
        """
        if not self._ends_at(self.learn(), head):
            self.settle()
            return
        try:
            self.journal.sync()
        except StorageError:
            with guarded():  # so that nobody is acknowledged by a journal that goes
                self.settle()
                self.journal.drop()

    def settle(self) -> None:
        """Make everything durable the long way: the packs of the epoch, and the branch.

        Raises:
            StorageError: something could not be synced.
        """
        self._sync(self.of_epoch())
        self.refs.make_durable()

    def _sync(self, names: Sequence[str]) -> None:
        for name in names:
            for ending in (".pack", ".idx"):
                if self.directory.status(f"{PACKS}/{name}{ending}") is not None:
                    self.directory.sync_file(f"{PACKS}/{name}{ending}")
        self.directory.sync(PACKS)

    def of_epoch(self) -> list[str]:
        """The packs that were written in this epoch and are still there."""
        chain = self.learn()
        beginning = _beginning(chain[0]) if chain else ""  # without a journal, any of them may be one
        return [name for name in pack_names(self.directory) if name.startswith(beginning)]

    def keep(self) -> None:
        """All that the journal holds in a pack of its own, durable, named by what it holds.

        Raises:
            StorageError: the file system refused.
        """
        raw, index = self.packed.as_files()
        name = f"{PACKS}/pack-{raw[-20:].hex()}"
        self.directory.write(f"{name}.pack", raw)
        self.directory.write(f"{name}.idx", index)

    # --- after a kill ---

    def tidy(self, head: str) -> None:
        """Remove what a killed writer left: packs of objects that were never published. Under the guard."""
        chain = self.learn()
        if self._ends_at(chain, head):
            for name in self.of_epoch():
                if name != _current(chain):
                    self.remove(name)


def _base(object_id: str, known: Known) -> str | None:
    """What an entry builds upon that comes after *object_id*: that one, or what its chain begins with if it is long."""
    if known.depths.get(object_id, 0) >= _DEEPEST:
        while (below := base_of(known.packed.entries[object_id])) is not None:
            object_id = below
    return object_id if object_id in known.depths else None


def _current(chain: Chain) -> str | None:
    """The name of the recent pack."""
    return _name(chain[-1]) if len(chain) > 1 else None


def _name(publication: Publication) -> str:
    """The pack of an epoch as of a publication; all of one epoch begin alike."""
    return f"{_beginning(publication)}{publication.pack.hex()}"


def _beginning(publication: Publication) -> str:
    return f"pack-{publication.epoch.hex()}"
