"""Free text, made fit for one line."""

from __future__ import annotations

import re

_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"


def one_line(text: str, limit: int | None = None) -> str:
    """*text* on one line: control characters and lone surrogates escaped, cut at *limit* characters."""
    line = text
    if not (text.isascii() and text.isprintable()):
        line = re.sub(_CONTROL, lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def size(count: int) -> str:
    """A number of bytes for people: ``48.2 kB``."""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.1f} {unit}" if unit != "B" else f"{count} B"
