"""The file list is the architecture: floors, one importer per outside library, one function that moves the branch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gitstate

PACKAGE = Path(gitstate.__file__).parent

# A module imports from floors below, and on its own floor only from modules to its left.
FLOORS: list[list[str]] = [
    ["errors", "clock", "text", "digest", "likeness"],
    [
        "encoding", "ids", "layout", "records", "registry", "results", "reports", "fields", "operation", "snapshot", "settling", "requests", "loops",
        "iterations", "archives", "rewinds", "migration", "verdicts",
    ],
    ["medium", "marks", "durable", "spares", "process"],
    [
        "guard", "claim", "lease", "store", "store.epoch", "store.packindex", "store.hints", "store.packs", "store.objects", "store.entries",
        "store.predecessors", "store.joining", "store.consolidation", "store.underway", "store.stepwise", "store.gathering", "store.refs", "store.tags", "store.journal", "store.recent",
        "store.pages", "store.changes", "store.trees", "store.revisions", "store.naming", "store.replay", "store.salvaging",
        "store.inspection", "store.index", "store.creation", "store.surroundings", "sight", "disposal", "projection", "note", "noting",
    ],
    ["beginning", "reconcile", "upkeep", "publishing", "reconciling", "transaction"],
    ["history", "reading", "audit", "check", "salvage", "pointers", "repair", "garbage", "doctor"],
    ["mutations", "archival", "rollbacks", "opened", "questions", "open_transaction", "pruning", "repository"],
]  # fmt: skip
PURE = FLOORS[1]
DOORS = ("__init__", "__main__", "cli")

# Outside libraries, and the one place that may import each.
IMPORTERS = {
    "dulwich": "store",
    "filelock": "guard",
    "psutil": "process",
    "click": "cli",
    "orjson": "encoding",
}

# Imports that would look down a floor if they were not made late, each with its reason.
LATE = {("reading", "reconcile"): "judging files takes the writing floor; reading files as the note has them does not"}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__") if name != "__init__" else name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """The full names that a module imports, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def for_types(tree: ast.Module) -> Iterator[str]:
    """Of these, the names that only a type checker ever imports."""
    late = {name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for name in imports(node)}
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from set(imports(node)) - late


def inside(name: str, known: set[str]) -> str | None:
    """The module of ours that an imported name lies in."""
    parts = name.split(".")
    if parts[0] != "gitstate":
        return None
    for length in range(len(parts), 1, -1):
        candidate = ".".join(parts[1:length])
        if candidate in known:
            return candidate
    return "__init__"


MODULES = modules()
PLACES = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}


def test_every_module_has_its_place_in_the_house() -> None:
    assert {name for name in MODULES if name.split(".")[0] not in DOORS} == set(PLACES)


@pytest.mark.parametrize("name", sorted(PLACES))
def test_imports_point_down_or_to_the_left(name: str) -> None:
    wrong = []
    for imported in imports(MODULES[name]):
        other = inside(imported, set(MODULES))
        if other is None or other == name or (name, other) in LATE:
            continue
        if other not in PLACES or PLACES[other] >= PLACES[name]:
            wrong.append(imported)
    assert wrong == []


@pytest.mark.parametrize(("library", "importer"), sorted(IMPORTERS.items()))
def test_each_outside_library_has_one_importer(library: str, importer: str) -> None:
    users = {
        name.split(".")[0] for name, tree in MODULES.items() if any(i.split(".")[0] == library for i in imports(tree))
    }
    assert users == {importer}


def test_nothing_else_from_outside_is_imported() -> None:
    known = set(sys.stdlib_module_names) | set(IMPORTERS) | {"gitstate"}
    assert {i.split(".")[0] for tree in MODULES.values() for i in imports(tree)} <= known


@pytest.mark.parametrize("name", PURE)
def test_the_first_floor_is_pure(name: str) -> None:
    """No I/O, no clock, no randomness but that of ids."""
    forbidden = {
        "os",
        "io",
        "pathlib.Path.open",
        "time",
        "random",
        "secrets",
        "subprocess",
        "socket",
        "shutil",
        "tempfile",
    }
    forbidden -= {"secrets"} if name == "ids" else set()
    used = {imported.split(".")[0] for imported in imports(MODULES[name])} & forbidden
    calls = {
        node.func.id
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    now = [
        node
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today")
    ]
    assert (used, calls & {"open", "print", "input"}, now) == (set(), set(), [])


def test_the_public_names_are_a_sorted_decision() -> None:
    assert gitstate.__all__ == sorted(gitstate.__all__)
    shown = {
        alias.name
        for node in MODULES["__init__"].body
        if isinstance(node, ast.If)
        for line in node.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    at_home = [name for names in gitstate._HOMES.values() for name in names]
    assert sorted(shown) == sorted(at_home) == gitstate.__all__
    assert all(getattr(gitstate, name) is not None for name in gitstate.__all__)


# --- what is imported late -------------------------------------------------------------------------------------------


def loaded_by(words: str, project: Path) -> set[str]:
    """The modules that a fresh interpreter has loaded after *words*, run in *project*."""
    code = f"import sys, gitstate\nfrom pathlib import Path\n{words}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


WRITING = {
    "filelock", "gitstate.guard", "gitstate.lease", "gitstate.transaction", "gitstate.publishing", "gitstate.reconcile",
    "gitstate.reconciling",
}  # fmt: skip


def test_one_place_imports_the_writing_floor_for_those_who_write() -> None:
    """Late, in ``StateRepository._writer``; ``repair`` and ``doctor`` are for whoever asks for them."""
    users = {
        name
        for name, tree in MODULES.items()
        for imported in set(imports(tree)) - set(for_types(tree))
        if inside(imported, set(MODULES)) == "transaction" and name not in ("repair", "salvage", "pointers", "garbage")
    }
    assert users == {"repository"}
    at_once = {
        imported
        for node in MODULES["repository"].body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for imported in imports(node)
    }
    assert not {f"gitstate.{name}" for name in ("transaction", "repair", "doctor", "guard", "lease")} & {
        name.rpartition(".")[0] for name in at_once
    }


def test_opening_and_reading_import_no_writing_floor(state: gitstate.StateRepository) -> None:
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    words = "state = gitstate.open('.'); state.get_loop('fix'); state.list_active_loops(); list(state.log('fix'))"
    assert not loaded_by(words, state.project_root) & (WRITING - {"gitstate.reconcile"})


def test_to_list_loops_takes_neither_git_nor_locks_nor_processes(state: gitstate.StateRepository) -> None:
    state.create_loop("Fix the tests", "all tests pass", loop_id="fix", pid=None)
    words = "from gitstate.cli import root\ntry: root.main(['list'])\nexcept SystemExit: pass"
    found = loaded_by(words, state.project_root)
    assert "gitstate.opened" in found
    assert not {name.partition(".")[0] for name in found} & {"dulwich", "filelock", "psutil", "logging", "secrets"}
    assert not found & {*WRITING, "gitstate.results", "gitstate.repository"}


def calls_of(attribute: str) -> set[str]:
    return {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == attribute
    }


def test_one_function_moves_the_branch() -> None:
    assert calls_of("advance") == {"store.recent"}
    assert calls_of("publish") == {"publishing"}
    assert calls_of("reinstate") == {"pointers", "store.replay"}
    assert calls_of("_exchange") == {"store.refs"}


def test_only_the_command_line_prints_exits_or_reads_the_environment() -> None:
    for name, tree in MODULES.items():
        if name.split(".")[0] in ("cli", "__main__"):
            continue
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"print", "exit", "quit"}, name
        assert not attributes & {"environ", "getenv", "exit", "_exit"}, name


def test_only_the_ground_syncs_renames_and_links() -> None:
    ground = {"medium": {"fsync", "fdatasync"}, "durable": {"rename", "replace", "link", "unlink"}}
    names = set().union(*ground.values())
    for name, tree in MODULES.items():
        used = {
            node.func.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "os"
        }
        assert used & names <= ground.get(name, set()), name


def test_no_module_is_named_after_nothing() -> None:
    for name in MODULES:
        assert not {"utils", "helpers", "manager", "base", "common"} & set(name.split(".")), name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_public_thing_has_a_docstring(name: str) -> None:
    bare = [
        node.name
        for node in MODULES[name].body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []


@pytest.mark.parametrize("face", [gitstate.StateRepository, gitstate.Transaction])
def test_every_public_method_has_a_docstring(face: type) -> None:
    bare = [name for name in dir(face) if not name.startswith("_") and not getattr(face, name).__doc__]
    assert bare == []
