"""The recent pack: all objects since everything was last made durable, as git reads them and unsynced.

Each publication writes the pack anew with what it adds, moves the branch, and is acknowledged by the journal, which
holds the same entries. When the journal is full the pack is synced as it stands, and stays. After a power cut the
journal puts back whatever of this was lost. ``docs/explanation/durability.md`` says why each step is where it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gitstate.errors import CorruptStateError, StorageError, logged
from gitstate.store.entries import Entry, Packed, base_of, relative, unpacked, whole
from gitstate.store.epoch import is_of_this_boot, is_overruled, this_boot
from gitstate.store.journal import Journal, Publication
from gitstate.store.objects import Objects, Stored
from gitstate.store.packs import PACKS, pack_names
from gitstate.store.refs import Refs

_DEEPEST = 16  # entries that one may build upon, each on the next
_LARGEST = 8 * 1024 * 1024  # bytes of a recent pack; larger ones are not written again and again


@dataclass
class Prepared:
    """A publication that is ready to be made: its pack and index lie aside, named *name* once they are in place."""

    publication: Publication
    name: str
    pack: str
    index: str
    is_journaled: bool
    before: str | None  # the recent pack that this one holds as well


@dataclass
class Recent:
    """What is recent in one repository."""

    objects: Objects
    refs: Refs
    journal: Journal = field(init=False)
    _packed: Packed = field(default_factory=Packed, init=False)  # the entries of the epoch
    _depths: dict[str, int] = field(default_factory=dict, init=False)
    _known: tuple[bytes, int] = field(default=(b"", 0), init=False)  # the epoch, and how many of its publications
    _is_clean: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.directory = self.objects.directory
        self.journal = Journal(self.directory)
        self.objects.recent = self.find

    # --- reading ---

    def is_overruled(self) -> bool:
        """Whether the machine stopped since the journal was written: until it is replayed it says what was published."""
        if not self._is_clean:  # once it is, nobody writes another boot's
            self._is_clean = not (is_overruled(self.directory) and self._learn())
        return not self._is_clean

    def published(self) -> list[str]:
        """The heads that the journal holds, the newest last."""
        return [publication.head for publication in self._learn()]

    def find(self, object_id: str, *, refresh: bool) -> Stored | None:
        """An object of the epoch; *refresh* looks into the journal again."""
        if refresh:
            self._learn()
        entry = self._packed.entries.get(object_id)
        if entry is None:
            return None
        try:
            return unpacked(entry, self.objects.read)
        except (ValueError, CorruptStateError):
            return None

    def _learn(self) -> list[Publication]:
        """The chain, whose entries are known from here on."""
        chain = self.journal.chain()
        epoch, count = (chain[0].epoch, len(chain)) if chain else (b"", 0)
        if epoch != self._known[0]:
            self._packed, self._depths, self._known = Packed(), {}, (epoch, 0)
        for publication in chain[self._known[1] :]:
            self._packed = self._packed.with_entries(publication.entries)
            for entry in publication.entries:
                base = base_of(entry.raw)
                self._depths[entry.id] = 0 if base is None else self._depths.get(base, 0) + 1
        self._known = (epoch, count)
        return chain

    @property
    def packed(self) -> Packed:
        """The entries of the epoch, as far as they are known."""
        self._learn()
        return self._packed

    # --- publishing ---

    def prepare(self, parent: str, head: str, objects: Mapping[str, Stored], bases: Mapping[str, str]) -> Prepared:
        """Everything that can be done before a publication without being seen.

        *bases* names, for some of the *objects*, what their file or directory was before.

        Raises:
            StorageError: the file system refused.
        """
        chain = self._learn()
        if not chain or chain[-1].head != parent or self._distrusted(chain):
            chain = self._anew(parent)
        found = self._publication(chain, parent, head, objects, bases)
        if not self.journal.has_room(found) or self._packed.size > _LARGEST:
            chain = self._anew(parent)
            found = self._publication(chain, parent, head, objects, bases)
        return self._prepared(found, is_journaled=bool(chain) and self.journal.has_room(found))

    def _distrusted(self, chain: list[Publication]) -> bool:
        return not is_of_this_boot(chain[0].boot)

    def _anew(self, head: str) -> list[Publication]:
        """Everything up to *head* made durable, and an epoch opened there."""
        self.settle()
        return self.begin(head)

    def begin(self, head: str) -> list[Publication]:
        """Open an epoch at *head*, which is durable; its chain, which is empty where there can be no journal."""
        try:
            self.journal.begin(head)
            self._is_clean = True
        except StorageError as error:
            logged(f"without a journal everything is synced: {error}")
            self.journal.drop()
        return self._learn()

    def _publication(
        self,
        chain: list[Publication],
        parent: str,
        head: str,
        objects: Mapping[str, Stored],
        bases: Mapping[str, str],
    ) -> Publication:
        """What moves the branch to *head*, with the entries that the epoch has not."""
        made = []
        for object_id, stored in objects.items():
            if object_id not in self._packed.entries:
                made.append(self._entry(object_id, stored, bases.get(object_id)))
        last = chain[-1] if chain else None
        epoch = secrets.token_bytes(8) if last is None else last.epoch
        number = 1 if last is None else last.number + 1
        return Publication(epoch, this_boot(), number, parent, head, secrets.token_bytes(12), tuple(made))

    def _entry(self, object_id: str, stored: Stored, base: str | None) -> Entry:
        found = None
        if base is not None and self._depths.get(base, _DEEPEST) < _DEEPEST:
            with suppress(CorruptStateError):
                found = relative(object_id, stored.raw, base, self.objects.read(base, stored.kind).raw)
        return found or whole(object_id, stored)

    def _prepared(self, publication: Publication, *, is_journaled: bool) -> Prepared:
        # What is not journaled is of no epoch: whoever replays the present one must not take it for a left-over.
        epoch = publication.epoch if is_journaled else secrets.token_bytes(8)
        name = _name(epoch, publication.pack)
        raw, rows = self._packed.with_entries(publication.entries).as_files()
        pack = self.directory.prepare(raw, durable=not is_journaled)
        try:
            index = self.directory.prepare(rows, durable=not is_journaled)
        except BaseException:
            self.directory.drop(pack)
            raise
        before = self._current() if is_journaled else None
        return Prepared(publication, name, pack, index, is_journaled, before)

    def _current(self) -> str | None:
        """The name of the recent pack."""
        chain = self.journal.known
        return _name(chain[-1].epoch, chain[-1].pack) if len(chain) > 1 else None

    def discard(self, prepared: Prepared) -> None:
        """Throw away what was prepared and not published."""
        self.directory.drop(prepared.pack)
        self.directory.drop(prepared.index)

    def publish(self, prepared: Prepared) -> None:
        """Move the branch, durably: the commit point. Under the guard.

        Raises:
            BranchMovedError: the branch is not at the parent.
            StorageError: it could not be moved; or, with code ``outcome_unknown``, it moved and that may not be durable.
        """
        publication = prepared.publication
        name = f"{PACKS}/{prepared.name}"
        # git takes a pack for one as soon as its index is there.
        self.directory.move(prepared.pack, f"{name}.pack")
        try:
            self.directory.move(prepared.index, f"{name}.idx")
            if not prepared.is_journaled:
                self.directory.sync(PACKS)
            self.refs.advance(publication.parent, publication.head, durable=not prepared.is_journaled)
        except StorageError as error:
            if error.code != "outcome_unknown":
                self.remove(prepared.name)
            raise
        if prepared.is_journaled:
            self._acknowledge(publication)
        if prepared.before is not None:
            self.remove(prepared.before)

    def _acknowledge(self, publication: Publication) -> None:
        try:
            self.journal.append(publication)
        except StorageError as error:
            logged(f"the journal failed, so everything is synced: {error}")
            self._without_journal(publication)
            return
        self._learn()

    def _without_journal(self, publication: Publication) -> None:
        """The long way to the same: after a sync that failed, no later sync of the journal says anything."""
        try:
            self.settle(names=[_name(publication.epoch, publication.pack)])
        except StorageError as error:
            raise self.refs.unknown(publication.head, error) from None
        finally:
            self.journal.drop()
            self._learn()

    def remove(self, name: str) -> None:
        """Take a pack away. Where that fails it is swept later."""
        # The index goes first: a pack alone is used by nobody.
        self.directory.drop(f"{PACKS}/{name}.idx")
        self.directory.drop(f"{PACKS}/{name}.pack")

    # --- making durable ---

    def make_durable(self, head: str) -> None:
        """Make *head*, which is the branch's, survive a power cut: whoever moved it may have been killed before that.

        Raises:
            StorageError: it may not.
        """
        chain = self._learn()
        if chain and chain[-1].head == head and is_of_this_boot(chain[0].boot):
            self.journal.sync()
        else:
            self.settle()

    def settle(self, *, names: Sequence[str] | None = None) -> None:
        """Make everything durable the long way: the packs of the epoch, and the branch.

        Raises:
            StorageError: something could not be synced.
        """
        for name in self.of_epoch() if names is None else names:
            for ending in (".pack", ".idx"):
                if self.directory.status(f"{PACKS}/{name}{ending}") is not None:
                    self.directory.sync_file(f"{PACKS}/{name}{ending}")
        self.directory.sync(PACKS)
        self.refs.make_durable()

    def of_epoch(self) -> list[str]:
        """The packs that were written in this epoch and are still there."""
        chain = self.journal.chain()
        beginning = _name(chain[0].epoch, b"") if chain else ""  # without a journal, any of them may be one
        return [name for name in pack_names(self.directory) if name.startswith(beginning)]

    # --- after a kill ---

    def tidy(self, head: str) -> None:
        """Remove what a killed writer left: packs of objects that were never published. Under the guard."""
        chain = self._learn()
        if chain and chain[-1].head == head and is_of_this_boot(chain[0].boot):
            for name in self.of_epoch():
                if name != self._current():
                    self.remove(name)


def _name(epoch: bytes, pack: bytes) -> str:
    return f"pack-{epoch.hex()}{pack.hex()}"
