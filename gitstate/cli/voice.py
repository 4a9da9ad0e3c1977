"""The only place that prints results and errors."""

from __future__ import annotations

import os
import re
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from gitstate.cli.answer import Answer
from gitstate.cli.invocation import Invocation
from gitstate.cli.page import Page
from gitstate.errors import GitStateWarning
from gitstate.text import one_line

if TYPE_CHECKING:
    from gitstate.cli.envelope import Failure, Notice


class Voice:
    """How one run speaks: a document or lines on stdout; errors, and warnings off the document, on stderr."""

    def __init__(self, call: Invocation, caught: list[warnings.WarningMessage]) -> None:
        self._call = call
        self._caught = caught
        # Python has no stream where the shell closed one; and what an encoding lacks is escaped rather than fatal.
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")

    def say(self, answer: Answer) -> int:
        """Print *answer*; the exit code. Whoever reads may stop reading at any time."""
        try:
            if self._call.as_json:
                from gitstate.cli.envelope import answer_document

                # Whole before its first byte leaves: what fails on the way makes an error document, not half a one.
                self._document(answer_document(answer, self._notices))
            else:
                page = Page.of(sys.stdout, self._call.environment)
                for line in answer.quiet() if self._call.quiet else answer.lines(page):
                    sys.stdout.write(line + "\n")
                sys.stdout.flush()
                self._warn()
        except BrokenPipeError:
            _silence()
        return answer.exit_code

    def complain(self, failure: Failure) -> int:
        """Print *failure*; the exit code."""
        try:
            if self._call.as_json:
                from gitstate.cli.envelope import error_document

                self._document(error_document(failure, self._notices()))
                return failure.exit_code
            sys.stdout.flush()
        except BrokenPipeError:
            _silence()
            return failure.exit_code
        except OSError:  # stdout itself is what fails
            _silence()
        self._warn()
        self._line("error:", "red", failure.message)
        if failure.hint:
            self._line("hint:", "cyan", failure.hint)
        return failure.exit_code

    def _document(self, document: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(document)
        sys.stdout.flush()

    def _warn(self) -> None:
        for notice in self._notices():
            self._line("warning:", "yellow", notice["message"])

    def _line(self, label: str, colour: str, text: str) -> None:
        page = Page.of(sys.stderr, self._call.environment)
        lines = "\n".join(one_line(line) for line in text.splitlines())
        with suppress(OSError):  # nobody is left to be told
            print(page.paint(label, colour, bold=True), lines, file=sys.stderr, flush=True)

    def _notices(self) -> list[Notice]:
        ours = {
            (_code(item.category), str(item.message)): None
            for item in self._caught
            if issubclass(item.category, GitStateWarning)
        }
        return [{"code": code, "message": message} for code, message in ours]


def _code(category: type[Warning]) -> str:
    name = category.__name__.removesuffix("Warning")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _silence() -> None:
    """Nobody reads stdout any more: let what is still buffered go nowhere, also at interpreter exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
