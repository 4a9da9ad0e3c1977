"""The documentation: its commands run, its links resolve, and its lists are those of the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gitstate
from gitstate import encoding, errors
from gitstate.cli import EXIT_CODES
from gitstate.operation import KINDS, Operation, to_message

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
RUN = sorted([ROOT / "README.md", DOCS / "tutorial.md", *DOCS.glob("how-to/*.md")])
PACKAGE = Path(gitstate.__file__).parent


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *words], capture_output=True, text=True, timeout=400
    )


# --- what runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", RUN, ids=named)
def test_the_commands_on_a_page_print_what_the_page_says(page: Path) -> None:
    done = script("run_pages.py", "--check", str(page))
    assert done.returncode == 0, done.stderr


def a_page(tmp_path: Path, command: str, output: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{command}\n```\n\n```text\n{output}\n```\n")
    return page


CREATE = "gitstate create x --completion y --loop-id fix && gitstate log -n 1"
SHOWN = "aaaaaaa create fix: x\naaaaaaa  just now (10:10)  user:bob  create fix: x"


def test_a_page_may_show_other_ids_and_times(tmp_path: Path) -> None:
    page = a_page(tmp_path, f"export GITSTATE_ACTOR=user:bob; {CREATE}", SHOWN)
    assert script("run_pages.py", "--check", str(page)).returncode == 0


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (SHOWN.replace("create fix: x", "create fix: z", 1), "something else"),
        (SHOWN.replace("aaaaaaa", "bbbbbbb", 1), "stands for different things"),
    ],
)
def test_a_page_that_shows_something_else_is_found_out(tmp_path: Path, shown: str, why: str) -> None:
    page = a_page(tmp_path, f"export GITSTATE_ACTOR=user:bob; {CREATE}", shown)
    done = script("run_pages.py", "--check", str(page))
    assert done.returncode == 1
    assert why in done.stderr


def test_a_command_that_fails_is_found_out(tmp_path: Path) -> None:
    done = script("run_pages.py", "--check", str(a_page(tmp_path, "gitstate archive nothing", "")))
    assert done.returncode == 1
    assert "exit code 3" in done.stderr


def test_pages_are_written_from_what_is_printed(tmp_path: Path) -> None:
    page = a_page(tmp_path, "echo one; echo two", "three")
    assert script("run_pages.py", str(page)).returncode == 0
    assert page.read_text() == "```sh\necho one; echo two\n```\n\n```text\none\ntwo\n```\n"


# --- the README ------------------------------------------------------------------------------------------------------


def test_the_readme_gives_two_commands_each_one_line_to_paste() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("&& .venv/bin/gitstate log")
    assert commands[1].endswith(".venv/bin/python -m pytest")
    assert [line for line in lines if line.endswith("-m pytest")] == [commands[1]]


def test_the_readme_is_short_and_plain() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert "![" not in text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_is_of_no_machine_and_has_no_emoji(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"/work/|/root/|/tmp/|pypi\.org|[\U0001f300-\U0001faff\u2705\u2728]", text) == []


# --- links -----------------------------------------------------------------------------------------------------------


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The relative links of a page: the path and the anchor."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", text)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are commonly made."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} in {named(page)}"
        assert not anchor or anchor in anchors(target), f"{path}#{anchor} in {named(page)}"


def test_every_page_can_be_reached_from_the_map() -> None:
    linked = {(DOCS / path).resolve() for path, _ in links(DOCS / "index.md")}
    assert {page.resolve() for page in PAGES} - linked == {DOCS / "index.md"}


# --- the library -----------------------------------------------------------------------------------------------------


def test_the_library_reference_is_fresh() -> None:
    done = script("library_reference.py", "--check")
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_in_the_library_reference() -> None:
    titles = set(re.findall(r"^### (?:gitstate\.)?(\w+)$", (REFERENCE / "library.md").read_text(), re.MULTILINE))
    attributes = set(re.findall(r"^\| `(\w+)` \|", (REFERENCE / "library.md").read_text(), re.MULTILINE))
    assert set(gitstate.__all__) - titles == set()
    for face in (gitstate.StateRepository, gitstate.Transaction):
        methods = {name for name, item in inspect.getmembers(face, inspect.isfunction) if not name.startswith("_")}
        properties = {name for name, item in inspect.getmembers(face) if isinstance(item, property) and name[0] != "_"}
        assert methods - titles == set()
        assert properties - attributes == set()


def test_every_public_method_says_what_it_does() -> None:
    faces = [gitstate.StateRepository, gitstate.Transaction]
    bare = [
        f"{face.__name__}.{name}"
        for face in faces
        for name, item in inspect.getmembers(face)
        if not name.startswith("_")
        and (inspect.isfunction(item) or isinstance(item, property))
        and not inspect.getdoc(item)
    ]
    assert bare == []


# --- tables ----------------------------------------------------------------------------------------------------------


def rows(page: Path, first: str) -> list[list[str]]:
    """The rows of every table of a page whose first column is called *first*."""
    found: list[list[str]] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    return found


def findings_in(path: Path) -> set[tuple[str, str]]:
    """The codes and severities that a module says, as far as its source shows them."""
    found: set[tuple[str, str]] = set()
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        meanings = meanings_in(function)
        for call in ast.walk(function):
            codes, severities = (texts(word, meanings) for word in words_of_finding(call))
            found |= {(code, severity) for code in codes for severity in severities}
    return found


def words_of_finding(node: ast.AST) -> list[ast.expr]:
    """The code and severity of ``Finding(…)`` or ``partial(Finding, …)``; two that say nothing for anything else."""
    if isinstance(node, ast.Call):
        named = [item.id for item in (node.func, *node.args[:1]) if isinstance(item, ast.Name)]
        if named[:1] == ["Finding"]:
            return node.args[:2]
        if named == ["partial", "Finding"]:
            return node.args[1:3]
    return [ast.Tuple(elts=[]), ast.Tuple(elts=[])]


def meanings_in(function: ast.FunctionDef) -> dict[str, list[ast.expr]]:
    """What each name in a function is set to."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        pairs = zip(target.elts, value.elts, strict=False) if both else [(target, value)]  # type: ignore[attr-defined]
        for name, meaning in pairs:
            if isinstance(name, ast.Name):
                found.setdefault(name.id, []).append(meaning)
    return found


def texts(node: ast.expr, meanings: dict[str, list[ast.expr]]) -> set[str]:
    """The texts that an expression can be."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.IfExp):
        return texts(node.body, meanings) | texts(node.orelse, meanings)
    if isinstance(node, ast.Name):
        return {text for value in meanings.get(node.id, ()) for text in texts(value, {})}
    return set()


def constants_in(path: Path) -> set[str]:
    """Every text that stands in a module by itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def listed(title: str) -> set[tuple[str, str]]:
    """The codes and severities that the page lists under a heading."""
    text = (REFERENCE / "findings.md").read_text()
    part = text.partition(f"## {title}")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", part, re.MULTILINE)
    return {(code, severity) for code, severities in cells for severity in severities.split(", ")}


DOCTOR = PACKAGE / "doctor.py"


@pytest.mark.parametrize(
    ("title", "modules"),
    [
        ("Of the store", [path for path in PACKAGE.rglob("*.py") if path != DOCTOR]),
        ("Of the surroundings", [DOCTOR]),
    ],
    ids=["check and repair", "doctor"],
)
def test_the_findings_that_can_be_said_are_those_that_are_listed(title: str, modules: list[Path]) -> None:
    said = set().union(*map(findings_in, modules))
    assert said - listed(title) == set()
    assert {code for code, _ in listed(title)} - set().union(*map(constants_in, modules)) == set()
    assert len(said) > 8


def public_errors() -> dict[str, type[errors.GitStateError]]:
    kinds = {name: item for name, item in vars(errors).items() if inspect.isclass(item)}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, errors.GitStateError)}


def test_the_exit_codes_are_those_of_the_errors_and_of_the_command_line() -> None:
    table = {
        int(code): set(re.findall(r"`(\w+Error)`", names))
        for code, _, names in rows(REFERENCE / "exit-codes.md", "exit code")
    }
    by_code: dict[int, set[str]] = {code: set() for code in EXIT_CODES}
    for name, kind in public_errors().items():
        by_code[kind.exit_code].add(name)
    assert table == by_code


# --- the format ------------------------------------------------------------------------------------------------------

FORMAT = REFERENCE / "format.md"


def samples() -> list[bytes]:
    return [text.encode() for text in re.findall(r"^```json\n(.*?)^```", FORMAT.read_text(), re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("sample", samples())
def test_a_sample_is_encoded_as_files_are(sample: bytes) -> None:
    assert encoding.encode(encoding.decode(sample)) == sample


def shape(value: Any) -> Any:
    """Keys and kinds of values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_the_samples_are_shaped_like_the_files(state: gitstate.StateRepository) -> None:
    with state.transaction() as tx:
        lease = json.loads(state.lock_path.read_text())
        loop = tx.create_loop("Fix all failing tests", "npm test passes")["loopId"]
    iteration = {"progress": "12 of 40", "learnings": ["One."], "filesModified": ["test/db.js"]}
    state.record_iteration(loop, iteration)
    found = json.loads((state.loops_dir / loop / "session-state.json").read_text())
    note = json.loads((state.base_dir / ".git" / "gitstate" / "projected").read_text())
    in_page = [json.loads(sample) for sample in samples()]
    for record in (lease, in_page[1], found["gitstate"]["process"], in_page[0]["gitstate"]["process"]):
        record.pop("pidNamespace", None)  # where there are such
    assert [shape(record) for record in in_page[:2]] == [shape(found), shape(lease)]
    assert list(in_page[2]) == list(note)
    assert len(in_page) == 3


def test_the_registry_keys_are_all_described(state: gitstate.StateRepository) -> None:
    state.create_loop("Fix all failing tests", "npm test passes")
    registry = json.loads(state.registry_path.read_text())
    section = FORMAT.read_text().partition("## The registry")[2].partition("\n## ")[0]
    keys = {*registry, *registry["active_loops"][0]}
    assert {key for key in keys if f"`{key}`" not in section} == set()


def test_the_kinds_are_all_described() -> None:
    assert [kind.strip("`") for kind, _ in rows(FORMAT, "kind")] == list(KINDS)


def test_the_trailers_are_all_described_in_their_order() -> None:
    operation = Operation("update", "update fix: x", ("fix",)).by(
        generation=1, actor="user:a", host="h", pid=1, reason="because"
    )
    trailers = [line.partition(":")[0] for line in to_message(operation).split("\n\n")[-1].splitlines()]
    assert [trailer.strip("`") for trailer, _ in rows(FORMAT, "trailer")] == trailers


def test_everything_that_stands_in_the_state_directory_is_described(state: gitstate.StateRepository) -> None:
    loop = state.create_loop("Fix all failing tests", "npm test passes")["loopId"]
    state.archive_loop(loop)
    state.create_loop("Write the manual", "it is written")
    private = state.base_dir / ".git" / "gitstate"
    text = FORMAT.read_text()
    for directory in (state.base_dir, private, next(state.loops_dir.iterdir())):
        for path in directory.iterdir():
            assert re.search(rf"\b{re.escape(path.name.lstrip('.'))}\b", text), path


# --- decisions -------------------------------------------------------------------------------------------------------


def test_decisions_are_numbered_and_fit_on_a_page() -> None:
    pages = sorted(DOCS.glob("decisions/*.md"))
    for number, page in enumerate(pages, start=1):
        lines = page.read_text().splitlines()
        titles = [line for line in lines if line.startswith("#")]
        assert page.name.startswith(f"{number:04d}-")
        assert titles[0].startswith(f"# {number}. ")
        assert titles[1:] == ["## Context", "## Decision", "## Consequences"]
        assert len(lines) <= 60
