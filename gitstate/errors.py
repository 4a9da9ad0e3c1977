"""Every error and warning, in one tree.

::

    GitStateError
    ├─ InvalidInputError (ValueError)        2  what was given cannot be used
    │  ├─ InvalidLoopIdError                    … as the id of a loop
    │  └─ InvalidRecordError                    … as a registry, session state or iteration record
    ├─ LoopNotFoundError (LookupError)       3
    │  └─ AmbiguousLoopError                    several loops fit
    ├─ RevisionNotFoundError (LookupError)   3
    ├─ LeaseTimeoutError (TimeoutError)      4  somebody else kept the lease for longer than the wait
    ├─ LeaseLostError                        5  the lease went to another writer; nothing was published
    ├─ StaleRevisionError                    5  the record changed since the given revision
    ├─ CorruptStateError                     6  damaged, and not repaired because that was switched off or impossible
    ├─ LoopLimitError                        7
    ├─ RefusedError                          8  possible, but not without more words (``force``, ``--yes``)
    │  └─ LoopExistsError
    └─ StorageError                          9  permissions, disk, the repository itself
       └─ UnsafeRepositoryError                 not a repository that gitstate made or can vouch for

The number is the command line's exit code. An error carries its facts as
attributes (``error.loop_id``, ``error.holder``) and in ``error.facts``, and
in ``error.hint`` the next command to run.
"""

from __future__ import annotations

import re
import sys
import warnings
from typing import ClassVar


class GitStateError(Exception):
    """What every error of this package derives from.

    ``code`` is the class name in snake case without ``Error`` (a
    ``StorageError`` may carry ``outcome_unknown`` instead), ``exit_code`` the
    command line's, ``hint`` the next command to run or ``None``. It pickles.
    """

    exit_code: ClassVar[int] = 9
    code: str

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or _code_of(type(self))
        self.facts = facts

    def __getattr__(self, name: str) -> object:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no fact {name!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (type(self), self.message, self.hint, self.code, self.facts)


def _rebuilt(
    kind: type[GitStateError], message: str, hint: str | None, code: str, facts: dict[str, object]
) -> GitStateError:
    return kind(message, hint=hint, code=code, **facts)


def shown(value: object, limit: int = 80) -> str:
    """A value that was given, as a message about it shows it."""
    try:
        words = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a list …
        words = f"a {type(value).__name__} too large to show"
    return words[:limit]


def _code_of(kind: type[Exception]) -> str:
    """The code of the nearest class that is part of the tree above; the walls derive finer ones for themselves."""
    return _snake_case(next(known.__name__ for known in kind.__mro__ if known.__module__ == __name__))


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Error")).lower()


class InvalidInputError(GitStateError, ValueError):
    """What was given cannot be used; nothing was read or written."""

    exit_code = 2


class InvalidLoopIdError(InvalidInputError):
    """Not an id of our grammar. Facts: ``loop_id``."""


class InvalidRecordError(InvalidInputError):
    """Not a record that could be stored. Facts: ``path``, the JSON pointer to the offending value, where known."""


class LoopNotFoundError(GitStateError, LookupError):
    """No loop of that id, active or archived. Facts: ``loop_id``, ``close`` (ids that look like it)."""

    exit_code = 3


class AmbiguousLoopError(LoopNotFoundError):
    """Several loops fit, or none was named and it is not clear which is meant. Facts: ``candidates``."""


class RevisionNotFoundError(GitStateError, LookupError):
    """No such revision, or none of that loop. Facts: ``revision``."""

    exit_code = 3


class LeaseTimeoutError(GitStateError, TimeoutError):
    """The lease (or the guard) was not to be had in time; nothing was written. Facts: ``holder`` (a LeaseInfo or None), ``waited`` in seconds."""

    exit_code = 4


class LeaseLostError(GitStateError):
    """Another writer took the lease before the commit point: nothing was published. Safe to start again."""

    exit_code = 5


class StaleRevisionError(GitStateError):
    """The loop changed since the revision the caller had read. Facts: ``loop_id``, ``expected``, ``actual``."""

    exit_code = 5


class CorruptStateError(GitStateError):
    """Damaged state that was not, or could not be, repaired. Facts: ``path``, ``damage``, ``revision`` (the last good one)."""

    exit_code = 6


class LoopLimitError(GitStateError):
    """As many loops are active as the registry allows. Facts: ``active``, ``limit``, ``paths``, ``dead``."""

    exit_code = 7


class RefusedError(GitStateError):
    """Possible, but not as it was asked for; the message names who or what is in the way."""

    exit_code = 8


class LoopExistsError(RefusedError):
    """An id names one loop, ever. Facts: ``loop_id``, ``place`` (active, archived or tagged)."""


class StorageError(GitStateError):
    """The file system or the repository did not do its part. Facts: ``path``, ``errno`` where known.

    With code ``outcome_unknown`` the branch may have moved to ``revision``
    without that being durable yet: read before trying again.
    """

    exit_code = 9


class UnsafeRepositoryError(StorageError):
    """A repository that gitstate did not make and cannot vouch for."""


class GitStateWarning(UserWarning):
    """What every warning of this package derives from."""


class LoopLimitWarning(GitStateWarning):
    """``force`` went over the limit of concurrent loops."""


class DamageWarning(GitStateWarning):
    """Damage was met and seen through: what is served comes from history."""


class UnknownStatusWarning(GitStateWarning):
    """A session state carries a status that gitstate would not write."""


def logged(words: str) -> None:
    """Tell the logger ``gitstate``, and nobody if nobody listens."""
    import logging  # whatever calls this is rare

    logger = logging.getLogger("gitstate")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # without one, logging itself would print
    logger.warning(words)


def warn(words: str, category: type[GitStateWarning]) -> None:
    """A warning that points at the line which called into this package, however many calls lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("gitstate", "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(words, category, stacklevel=level)


def warn_of_damage(words: str) -> None:
    """Say that damage was seen through: a :class:`DamageWarning`, and a line for the logger."""
    logged(words)
    warn(words, DamageWarning)
