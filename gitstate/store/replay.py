"""After a power cut: what the journal holds is put back, durably, and the branch with it."""

from __future__ import annotations

from gitstate.store.packs import PACKS, ids_of
from gitstate.store.revisions import Revisions


def replay(revisions: Revisions) -> str | None:
    """Put back what a power cut took of what the journal holds; the head then, ``None`` if nothing was to be done.

    Under the guard. It may be done again, wherever it was interrupted.

    Raises:
        StorageError: the file system refused.
    """
    recent, directory = revisions.recent, revisions.objects.directory
    if not recent.is_overruled():
        return None
    head = revisions.head()
    packed, leftover = recent.packed, recent.of_epoch()
    if packed.entries:
        recent.keep()
    for name in leftover:
        # One that cannot be read was never synced; one that holds more was made by somebody who could not journal it.
        found = ids_of(directory, name)
        if found is None or found <= packed.entries.keys():
            recent.remove(name)
    directory.sync(PACKS)
    revisions.objects.forget()
    revisions.refs.left_over(revisions.is_ours)
    revisions.refs.drop_lost_lock(revisions.objects.has)
    revisions.refs.reinstate(head)
    recent.begin(head)
    return head
