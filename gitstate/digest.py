"""SHA-1, by which git names things, without what only other digests need."""

from __future__ import annotations

import sys
from contextlib import suppress


def sha1(raw: bytes) -> bytes:
    """The digest of *raw*."""
    if "hashlib" not in sys.modules:
        # hashlib loads OpenSSL first, which takes longer than to read all that a short command reads.
        with suppress(ImportError):
            from _sha1 import sha1 as made  # type: ignore[import-not-found]  # private, and without a stub

            found: bytes = made(raw, usedforsecurity=False).digest()
            return found
    import hashlib

    return hashlib.sha1(raw, usedforsecurity=False).digest()
