"""The steps of a mutation, counted, so that a test can have something happen at any one of them."""

from __future__ import annotations

import os
from functools import wraps
from types import FunctionType

from gitstate.durable import Directory
from gitstate.lease import LeaseKeeper
from gitstate.note import Notes
from gitstate.projection import Projection
from gitstate.store.journal import Journal
from gitstate.store.objects import Objects
from gitstate.store.recent import Recent
from gitstate.store.refs import Refs

# What is a step: each of these is stopped at before it begins. The private ones are the steps of taking the lease.
STEPS: dict[type, tuple[str, ...]] = {
    Directory: (
        "make", "prepare", "write", "write_new", "link", "move", "symlink", "discard", "remove_empty", "remove_tree",
        "sync", "append", "overwrite", "jot",
    ),
    LeaseKeeper: ("acquire", "_take", "_publish", "_set_aside", "prove", "release"),
    Projection: ("survey", "apply", "quarantine", "move_directory", "follow_legacy"),
    Notes: ("write", "drop"),
    Refs: ("advance", "create_tag", "note_move", "make_durable", "left_over"),
    Objects: ("write",),
    Recent: ("prepare", "publish", "settle", "tidy", "remove"),
    Journal: ("begin", "append"),
}  # fmt: skip
WRAPPERS = ("kept_open", "hold")  # context managers; what happens in them is counted


class Steps:
    """Counts the steps of this process, from now to its end, and sends it a signal at one of them.

    With *every* each call counts, those that only look as well.
    """

    def __init__(self, *, every: bool = False) -> None:
        self.taken = self.fatal = self.signal = 0
        for owner, names in STEPS.items():
            for name, found in list(vars(owner).items()):
                if name in names or (every and isinstance(found, FunctionType) and name not in WRAPPERS):
                    setattr(owner, name, self._counting(found))

    def send(self, signal: int, number: int) -> None:
        """At the *number*-th step from here, which is 1 for the next one, send *signal*."""
        self.taken, self.fatal, self.signal = 0, number, signal

    def _counting(self, function: FunctionType) -> FunctionType:
        @wraps(function)
        def counting(*words: object, **options: object) -> object:
            self.taken += 1
            if self.taken == self.fatal:
                os.kill(os.getpid(), self.signal)
            return function(*words, **options)

        return counting
