"""Watching long work: what is looked at, how far it is, and at the end how much it was."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TextIO

from gitstate.cli.invocation import Invocation

_PATIENCE: Final = 0.5  # seconds of work before there is a word about it
_PAUSE: Final = 0.1  # seconds between two words
_CLEAR: Final = "\r\x1b[K"


class Watch:
    """Hears how far an examination is. On a terminal it keeps one line of *stream* up to date, and clears it at the end.

    ``looked_at`` says how many there were of each kind of thing, ``None`` where that means nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.looked_at: dict[str, int | None] = {}
        self._stream = stream
        self._next = time.monotonic() + _PATIENCE
        self._shown = False

    @classmethod
    def of(cls, call: Invocation) -> Watch:
        """The watch of one run: it shows itself only to people, who did not ask for quiet."""
        return cls(sys.stderr if sys.stderr.isatty() and not call.quiet else None)

    def __call__(self, what: str, done: int, total: int) -> None:
        self.looked_at[what] = max(done, total) or None
        now = time.monotonic()
        if self._stream is not None and now >= self._next:
            self._next = now + _PAUSE
            self._write(f"{_CLEAR}{what}: {done}" + (f" of {total}" if total else ""))
            self._shown = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            with suppress(OSError):  # nobody is left to be told
                self._stream.write(text)
                self._stream.flush()
