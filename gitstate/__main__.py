"""The ``gitstate`` command, and ``python -m gitstate``."""

from __future__ import annotations

import gc
from typing import NoReturn

# Imports make many objects and no garbage: looking for it again and again takes a fifteenth of the start.
_SELDOM = 50_000


def main() -> NoReturn:
    """The entry point."""
    gc.set_threshold(_SELDOM)
    from gitstate.cli import main as run

    run()


if __name__ == "__main__":
    main()
