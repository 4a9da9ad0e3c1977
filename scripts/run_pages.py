"""Run the commands on pages of the documentation, and compare what they print with what the page says.

::

    python scripts/run_pages.py [PAGE...]            write what they print now into the pages
    python scripts/run_pages.py --check [PAGE...]    exit 1, with a diff, where a page says something else

A block marked ``sh`` or ``python`` is run, all of a page's in order, in one shell in one empty project. The next block
marked ``text`` is what it prints; without one its output does not matter, but it must succeed. ``not-run`` after the
language leaves a block out. What differs from run to run (commit ids, times, process ids) may differ, but the same id
on the page must be the same id throughout the run. In the end the store must pass ``gitstate check`` and ``git fsck``.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = "/home/alice"  # what pages call the home directory, which is a temporary one
HOST: Final = "devbox"
TIMEOUT: Final = 300.0  # seconds for all of one page, on however busy a machine
PAGES: Final = ("README.md", "docs/tutorial.md", "docs/how-to/*.md")

VARIABLE: Final = re.compile(
    r"""
    (?P<uuid> [0-9a-f]{8} (?:-[0-9a-f]{4}){3} -[0-9a-f]{12} )
  | (?P<time> \d{4}-\d\d-\d\d [T ] \d\d:\d\d:\d\d (?:\.\d+)? (?:Z | [+-]\d\d:?\d\d)? )
  | (?P<date> [A-Z][a-z]{2}\ [A-Z][a-z]{2}\ +\d+\ \d\d:\d\d:\d\d\ \d{4} )
  | (?P<ago> just\ now | in\ \d+\ \w+ | \d+\ (?:s|min|h|days?)\ ago )
  | (?P<clock> \(\d\d:\d\d\) )
  | (?P<object> (?<=objects/) [0-9a-f]{2}/[0-9a-f]{38} )
  | (?P<hash> (?<![0-9A-Za-z]) [0-9a-f]{7,40} (?![0-9A-Za-z]) )
  | (?P<pids> (?<=pid\ ) (?:\d+|none) \ →\  (?:\d+|none) )
  | (?P<pid> (?: (?<=process\ ) | (?<=pid\ ) | (?<=Pid:\ ) | (?<=pid":\ ) | (?<=Pid":\ ) ) \d+ )
  | (?P<number> (?: (?<=startTime":\ ) | (?<=Namespace":\ ) | (?<=Expiry":\ ) | (?<=timestamp":\ ) ) [\d.]+ )
  | (?P<size> \d+ (?:\.\d+)? \ (?:B|kB|MB) \b )
    """,
    re.VERBOSE,
)
CHANGED: Final = "it prints something else now"
NAMES: Final = ("hash", "pid", "uuid")  # what names something, and must name the same thing throughout a page


@dataclass
class Block:
    """A fenced block of a page: its language, the words after it, its lines, and where they stand."""

    language: str
    words: tuple[str, ...]
    first: int
    last: int
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in ("sh", "python") and "not-run" not in self.words


@dataclass
class Names:
    """Which id on the page stands for which one of this run."""

    real: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)

    def agree(self, shown: str, real: str) -> bool:
        """Whether *shown* can stand for *real*, from now on for it alone."""
        for known, one, other in ((self.real, shown, real), (self.shown, real, shown)):
            found = known.get(one[:7], other)
            if found[:7] != other[:7]:
                return False
            known[one[:7]] = max(found, other, key=len)
        return True

    def into_run(self, command: str) -> str:
        """A command with the ids of this run."""
        return self._put(self.real, command)

    def into_page(self, output: str) -> str:
        """Output with the ids that the page has used so far."""
        return self._put(self.shown, output)

    @staticmethod
    def _put(known: dict[str, str], text: str) -> str:
        def replaced(match: re.Match[str]) -> str:
            found = known.get(match[0][:7]) if match.lastgroup in NAMES else None
            if found is None or (match.lastgroup == "hash" and len(found) < len(match[0])):
                return match[0]
            return found[: len(match[0])] if match.lastgroup == "hash" else found

        return VARIABLE.sub(replaced, text)


def blocks_of(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        words = lines[opened][3:].split()
        text = "".join(f"{inner}\n" for inner in lines[opened + 1 : number])
        yield Block(words[0] if words else "", tuple(words[1:]), opened + 1, number, text)
        opened = None


class Shell:
    """One shell in one empty project."""

    _END = "--- end of block, code"

    def __init__(self, directory: Path) -> None:
        self.home = directory.resolve() / "home"
        self.project = self.home / "demo"
        self.project.mkdir(parents=True)
        self._script = directory / "block.sh"
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        # This environment's own commands first, whether it is activated or not.
        path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.project,
            env={
                **kept,
                "PATH": path,
                "HOME": str(self.home),
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
                "GIT_CONFIG_NOSYSTEM": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def run(self, code: str) -> tuple[str, int]:
        """What *code* prints, as a page would show it, and its exit code."""
        self._script.write_text(code, encoding="utf-8")
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        # Sourced, so that variables and the directory last; commands that read stdin find it empty.
        self._bash.stdin.write(f". '{self._script}' </dev/null; printf '\\n%s %d\\n' '{self._END}' $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(self._END):
                text = "".join(lines).removesuffix("\n")
                return self._as_shown(text), int(line.split()[-1])
            lines.append(line)
        raise RuntimeError("the shell ended early:\n" + "".join(lines))

    def _as_shown(self, text: str) -> str:
        host = re.escape(socket.gethostname())
        where = rf'(?:(?<=@)|(?<=\bon )|(?<=[Hh]ost )|(?<=[Hh]ost: )|(?<="host": ")){host}(?![\w.-])'
        return re.sub(where, HOST, text.replace(str(self.home), HOME))

    def close(self) -> None:
        """End the shell."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(10)
        if self._bash.stdout is not None:
            self._bash.stdout.close()

    def kill(self) -> None:
        """End it at once."""
        self._bash.kill()


def alike(shown: str, real: str, names: Names) -> bool:
    """Whether two outputs are the same but for what differs from run to run."""
    if skeleton(shown) != skeleton(real):
        return False
    pairs = zip(VARIABLE.finditer(shown), VARIABLE.finditer(real), strict=True)
    return all(names.agree(one[0], other[0]) for one, other in pairs if one.lastgroup in NAMES)


def skeleton(text: str) -> list[str]:
    """The lines of an output with its variable parts as their kinds, and columns as wide as they may be."""
    marked = VARIABLE.sub(lambda match: f"<{match.lastgroup}>", text)
    return [re.sub(r" {2,}", "  ", line.rstrip()) for line in marked.rstrip().splitlines()]


def run_page(path: Path) -> tuple[str, list[str]]:
    """The page as it should be, and what is wrong with it as it is."""
    page = path.read_text(encoding="utf-8")
    lines, problems = page.splitlines(), []
    with tempfile.TemporaryDirectory(prefix="gitstate-page-") as directory:
        shell = Shell(Path(directory))
        watchdog = threading.Timer(TIMEOUT, shell.kill)
        watchdog.start()
        try:
            fresh = list(changed_blocks(shell, list(blocks_of(page))))
            check_store(shell)
        except CommandFailedError as error:
            return page, [f"{path.name}{error}"]
        finally:
            watchdog.cancel()
            shell.close()
    for block, output in reversed(fresh):
        problems.append(f"{path.name}:{block.first}: {CHANGED}\n{difference(block.text, output)}")
        lines[block.first : block.last] = [line.rstrip() for line in output.rstrip("\n").splitlines()]
    return "".join(f"{line}\n" for line in lines), problems[::-1]


class CommandFailedError(Exception):
    """A block that should have succeeded did not."""


def changed_blocks(shell: Shell, blocks: list[Block]) -> Iterator[tuple[Block, str]]:
    """Run the blocks; those that show what is not printed any more, with what is."""
    names = Names()
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if not block.is_run:
            continue
        output, code = shell.run(command_of(block, names))
        if code != 0:
            raise CommandFailedError(f":{block.first}: exit code {code}\n{output}")
        if after is None or after.language != "text":
            continue
        if not alike(after.text, output, names):
            fresh = names.into_page(output)
            alike(fresh, output, names)
            yield after, fresh


def command_of(block: Block, names: Names) -> str:
    """What the shell is given for a block."""
    code = names.into_run(block.text)
    return code if block.language == "sh" else f"python - <<'END OF PYTHON'\n{code}END OF PYTHON\n"


def difference(shown: str, real: str) -> str:
    """The two outputs compared, by what is neither id nor time."""
    found = difflib.unified_diff(skeleton(shown), skeleton(real), "the page", "this run", lineterm="")
    return "\n".join(found) or f"the same id stands for different things:\n{real}"


def check_store(shell: Shell) -> None:
    """Make sure that the page leaves a store that gitstate and git find nothing wrong with."""
    checks = "gitstate check && git -C .aiwg/ralph-external fsck --strict"
    output, code = shell.run(f"cd '{shell.project}' && if test -d .aiwg; then {checks}; fi")
    if code != 0:
        raise CommandFailedError(f": it leaves a store that does not check\n{output}")


def main(arguments: list[str]) -> int:
    """Check pages, or write them."""
    checking = "--check" in arguments
    given = [Path(argument) for argument in arguments if argument != "--check"]
    code = 0
    for path in given or [found for pattern in PAGES for found in sorted(ROOT.glob(pattern))]:
        text, problems = run_page(path)
        if problems and checking:
            print("\n\n".join(problems), file=sys.stderr)
            code = 1
        elif not checking:
            path.write_text(text, encoding="utf-8")
            failed = [problem for problem in problems if CHANGED not in problem]
            print("\n\n".join(failed), file=sys.stderr, end="\n" if failed else "")
            code = 1 if failed else code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
