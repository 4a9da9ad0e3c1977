"""Names of loops: which are allowed, and how a new one is made."""

from __future__ import annotations

import re

from gitstate.errors import InvalidLoopIdError, shown

GRAMMAR = "[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?"
_GIVEN = rf"\A{GRAMMAR}\Z"
# What git-check-ref-format(1) forbids in a component, and what a path component cannot hold.
_UNSAFE = re.compile(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{|\A[-.]|[.]\Z|\.lock\Z")


def generate_loop_id(task: str) -> str:
    """A fresh id ``ralph-{slug}-{8 hex}`` for *task*.

    The slug is what the original makes of the text (lower case, everything
    but ``a-z0-9`` a dash, at most 30 characters), without a dash at its end,
    and ``loop`` when nothing is left. Ids are random: unlikely, not certain,
    to be unused, so ``create_loop`` draws again when one is taken.
    """
    import secrets  # reading draws no ids

    slug = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")[:30].rstrip("-")
    return f"ralph-{slug or 'loop'}-{secrets.token_hex(4)}"


def validate_loop_id(loop_id: object) -> str:
    """*loop_id* itself, if it is one that may be given to a new loop.

    Raises:
        InvalidLoopIdError: it is not a string of the grammar ``[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?``.
    """
    if isinstance(loop_id, str) and re.match(_GIVEN, loop_id):
        return loop_id
    raise InvalidLoopIdError(
        f"not a loop id: {shown(loop_id, 140)}; an id is 1 to 100 of a-z, 0-9 and '-', and starts and ends with a letter or digit",
        hint="gitstate list",
        loop_id=loop_id,
    )


def is_servable(loop_id: str) -> bool:
    """Whether an id that something else chose can be kept: one safe path component that is also a safe ref name."""
    try:
        encoded = loop_id.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(encoded) <= 200 and loop_id != "@" and not _UNSAFE.search(loop_id)


def validate_known_id(loop_id: object) -> str:
    """*loop_id* itself, if a loop could be kept under it (ours or a foreign one).

    Raises:
        InvalidLoopIdError: no loop can have that id.
    """
    if isinstance(loop_id, str) and is_servable(loop_id):
        return loop_id
    return validate_loop_id(loop_id)
