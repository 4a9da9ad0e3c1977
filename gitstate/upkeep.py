"""What is done besides mutating: what others left is removed, and `.git` stays small at any length of history."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from gitstate.durable import Directory
from gitstate.errors import CorruptStateError, GitStateError, logged
from gitstate.guard import BRIEFLY
from gitstate.lease import Lease, LeaseKeeper
from gitstate.projection import Projection
from gitstate.store import creation, tags
from gitstate.store.consolidation import consolidate
from gitstate.store.replay import replay
from gitstate.store.revisions import Revisions

_LOOSE_TAGS = 8  # that have files of their own, before they are packed


@dataclass(eq=False, repr=False)
class Upkeep:
    """Whoever keeps one state directory in order."""

    directory: Directory
    projection: Projection
    revisions: Revisions
    keeper: LeaseKeeper
    _has_swept: bool = field(default=False, init=False)
    _left: list[str] = field(default_factory=list, init=False)  # signs of passes that may have left something behind

    # --- what others left ---

    def clear_up(self, lease: Lease) -> None:
        """Remove what was left behind, if anything can have been. Under the guard.

        Whoever mutates has his sign in the aside directory until he is done: where there is none, nobody was killed.
        """
        if self._has_swept and self.keeper.is_alone(lease):
            return
        self._sweep()
        while self._left:
            self.directory.drop(self._left.pop())
        self._has_swept = True

    def _sweep(self) -> None:
        """Remove what a killed gitstate left: its temporary files and its lock of the branch."""
        self._replay()
        self.revisions.refs.left_over(self.revisions.is_ours)
        with suppress(CorruptStateError):
            self.revisions.recent.tidy(self.revisions.head())
        tags.left_over(self.directory)
        # A builder that was killed after its repository stood in place leaves the empty shell of it.
        creation.sweep(self.directory)
        self.projection.disposal.sweep()  # last: with what lies there goes the sign that all of this is to be done

    def _replay(self) -> None:
        """After a power cut, put back what the journal holds."""
        head = replay(self.revisions)
        if head is not None:
            logged(f"the machine had stopped: main is at {head[:7]}, with all that the journal holds")

    def leave(self, lease: Lease, *, guarded: bool = False) -> None:
        """Take the sign away, unless something may be left: then it has the next writer sweep."""
        if self.directory.is_littered and lease.sign is not None:
            self.directory.is_littered = False
            self._left.append(lease.sign)
            lease.sign = None
        else:
            self.keeper.take_sign_away(lease, guarded=guarded)

    # --- what grows ---

    def keep_few(self) -> None:
        """Now and then, so that `.git` stays small at any length of history: join packs, pack tags, shorten the reflog.

        The mutation is published, and nobody has to wait for this.
        """
        refs = self.revisions.refs
        joined = None
        with suppress(GitStateError):
            joined = consolidate(self.directory)
            with self.keeper.guard.hold(BRIEFLY):
                refs.shorten_log()
                if len(refs.loose_names("refs/tags")) >= _LOOSE_TAGS:
                    tags.pack_tags(refs, self.revisions.peel)
        if joined is None or joined.name is None:
            self._join_large()

    def _join_large(self) -> None:
        from gitstate.store.stepwise import take_a_step  # few processes come here

        with suppress(GitStateError):  # somebody else may be at it
            take_a_step(self.directory)
