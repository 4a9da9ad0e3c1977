"""Hostile content: whatever bytes stand where a record belongs, given or found, they are decided soon and cheaply.

Refused bytes change nothing when given, and when found they are kept in quarantine while history's version is served.
What is accepted means the same to node, and does not change however often the record is written again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from clocks import FakeClock
from conftest import assert_sound

import gitstate
from gitstate import DamageWarning, InvalidRecordError, StateRepository
from gitstate.cli import root
from gitstate.encoding import decode, encode

pytestmark = pytest.mark.usefixtures("quick_disk")

NODE = shutil.which("node")
LOOP = "fix-tests"


# --- what is tried ---------------------------------------------------------------------------------------------------


class Value(NamedTuple):
    """The bytes of one value inside a record, and whether they are ``accepted``."""

    raw: bytes
    accepted: bool


def lists(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


VALUES = {
    "NaN": Value(b"NaN", False),
    "Infinity": Value(b"Infinity", False),
    "-Infinity": Value(b"-Infinity", False),
    "1e400": Value(b"1e400", False),
    "-1e400": Value(b"-1e400", False),
    "1e-400": Value(b"1e-400", True),
    "1e308": Value(b"1e308", True),
    "minus zero": Value(b"-0.0", True),
    "a number in another way": Value(b"1.50E+2", True),
    "a leading zero": Value(b"01", False),
    "hexadecimal": Value(b"0x10", False),
    "5000 digits": Value(b"9" * 5000, False),
    "5000 digits after the point": Value(b"0." + b"3" * 5000, True),
    "2^53-1": Value(b"9007199254740991", True),
    "2^53+1": Value(b"9007199254740993", False),
    "2^63": Value(b"9223372036854775808", False),
    "2^63 as JavaScript writes it": Value(b"9223372036854776000", True),
    "a duplicate key": Value(b'{"a": 1, "a": 2}', False),
    "a duplicate key, escaped": Value(b'{"a": 1, "\\u0061": 2}', False),
    "a duplicate key, deep inside": Value(b'[{"b": {"a": 1, "a": 1}}]', False),
    "depth 150": Value(lists(150), True),
    "depth 1000": Value(lists(1000), False),
    "depth 100,000": Value(lists(100_000), False),
    "depth 100,000 of objects": Value(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, False),
    "depth 100,000, never closed": Value(b"[" * 100_000, False),
    "brackets in a text": Value(b'"' + b"[" * 100_000 + b'"', True),
    "a text that never ends": Value(b'"' + b"x" * 1000, False),
    "a byte order mark": Value(b"\xef\xbb\xbf1", False),
    "an overlong encoding": Value(b'"\xc0\xaf"', False),
    "a byte that is none of UTF-8": Value(b'"\xff"', False),
    "half a character": Value(b'"\xe2\x82"', False),
    "a surrogate in UTF-8": Value(b'"\xed\xa0\x80"', False),
    "Latin-1": Value('"caf\xe9"'.encode("latin-1"), False),
    "a lone surrogate": Value(b'"\\ud800"', True),
    "a lone low surrogate": Value(b'"\\udc00 and more"', True),
    "surrogates the wrong way round": Value(b'"\\udc00\\ud800"', True),
    "a pair of surrogates": Value(b'"\\ud83d\\ude00"', True),
    "a lone surrogate as a key": Value(b'{"\\ud800": 1}', True),
    "an escaped NUL": Value(b'"\\u0000"', True),
    "a NUL": Value(b'"\0"', False),
    "a control character": Value(b'"\x07"', False),
    "a line separator": Value('"\u2028\u2029\x7f"'.encode(), True),
    "text from right to left": Value('"\u202e\u05d0 \u200f"'.encode(), True),
    "__proto__": Value(b'{"__proto__": {"status": "failed"}}', True),
    "constructor": Value(b'{"constructor": {"prototype": 1}}', True),
    "keys like numbers": Value(b'{"10": 1, "9": 2, "a": 3}', True),
    "an empty key": Value(b'{"": {"": 1}}', True),
    "a key of a megabyte": Value(b'{"' + b"k" * 1_000_000 + b'": 1}', True),
    "a trailing comma": Value(b"[1,]", False),
    "a comment": Value(b"1 /* one */", False),
    "single quotes": Value(b"'a'", False),
    "nothing": Value(b"", False),
    "undefined": Value(b"undefined", False),
}
DOCUMENTS = {
    "UTF-16": '{"status": "running"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"status": "running"}'.encode("utf-16-le"),
    "UTF-32": '{"status": "running"}'.encode("utf-32"),
    "a byte order mark first": b'\xef\xbb\xbf{"status": "running"}',
    "two documents": b'{"status": "running"}{"status": "running"}',
    "an array": b'[{"status": "running"}]',
    "null": b"null",
    "a text": b'"running"',
    "NULs": b"\0" * 4096,
    "a status that is none": b'{"status": 7}',
    "a merge conflict": b'{\n<<<<<<< HEAD\n"status": "running"\n=======\n"status": "paused"\n>>>>>>> x\n}',
}
EACH_VALUE = pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateRepository]:
    project = tmp_path / "project"
    project.mkdir()
    with StateRepository(project, actor="user:alice", clock=FakeClock()) as repository:
        repository.create_loop("fix the tests", "npm test", loop_id=LOOP, pid=None)
        yield repository
    assert_sound(project)


def path_of(state: StateRepository) -> Path:
    return state.loops_dir / LOOP / "session-state.json"


def with_value(state: StateRepository, raw: bytes) -> bytes:
    """The session state with one key more, whose value is *raw*."""
    return path_of(state).read_bytes().replace(b'{\n  "version"', b'{\n  "hostile": ' + raw + b',\n  "version"', 1)


def by_node(raw: bytes) -> object:
    """What node reads in *raw*, told in JSON of ASCII alone."""
    assert NODE is not None
    program = (
        "const raw = require('fs').readFileSync(0);"
        "const ascii = s => s.replace(/[^ -~]/g, c => '\\\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));"
        "process.stdout.write(ascii(JSON.stringify(JSON.parse(raw.toString('utf8')))))"
    )
    told = subprocess.run([NODE, "-e", program], input=raw, capture_output=True, check=True).stdout
    return json.loads(told, parse_int=float)


# --- found on disk ---------------------------------------------------------------------------------------------------


@EACH_VALUE
def test_what_is_found_in_a_file_is_served_or_seen_through(state: StateRepository, value: Value) -> None:
    before = state.get_loop(LOOP)
    found = with_value(state, value.raw)
    path_of(state).write_bytes(found)
    if value.accepted:
        assert state.get_loop(LOOP)["hostile"] == decode(value.raw)  # type: ignore[typeddict-item]
        assert [finding.code for finding in state.check()] == ["outside_edit"]
    else:
        with pytest.warns(DamageWarning, match="served from"):
            assert state.get_loop(LOOP) == before
        assert [finding.code for finding in state.check()] == ["file_damaged"]
        with pytest.warns(DamageWarning, match="restored from"):
            state.init()
        assert state.get_loop(LOOP) == before
        (kept,) = (state.base_dir / ".git/gitstate/quarantine").iterdir()
        assert kept.read_bytes() == found


@pytest.mark.parametrize("raw", DOCUMENTS.values(), ids=list(DOCUMENTS))
@pytest.mark.parametrize("name", ["loops/fix-tests/session-state.json", "registry.json"])
def test_a_file_that_is_no_record_is_seen_through_and_kept(state: StateRepository, name: str, raw: bytes) -> None:
    before = (state.get_loop(LOOP), state.load_registry())
    (state.base_dir / name).write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        assert (state.get_loop(LOOP), state.load_registry()) == before
        assert [finding.code for finding in state.check()] == ["file_damaged"]
        state.repair()
    assert (state.get_loop(LOOP), state.load_registry()) == before
    assert raw in [path.read_bytes() for path in (state.base_dir / ".git/gitstate/quarantine").iterdir()]


@EACH_VALUE
def test_what_is_accepted_is_stable_over_rewrites_and_the_same_to_node(state: StateRepository, value: Value) -> None:
    if not value.accepted:
        return
    path_of(state).write_bytes(with_value(state, value.raw))
    state.init()
    meant = by_node(b'{"hostile": ' + value.raw + b"}") if NODE else None
    seen = []
    for number in range(3):
        state.update_loop(LOOP, {"number": number})
        raw = path_of(state).read_bytes()
        seen.append(raw.partition(b'"hostile": ')[2].partition(b',\n  "version"')[0])
        if NODE:
            assert {"hostile": by_node(raw)["hostile"]} == meant  # type: ignore[index]
    assert len(set(seen)) == 1
    assert encode(decode(seen[0])) == seen[0].replace(b"\n  ", b"\n") + b"\n"


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_everything_at_once_is_the_same_to_node(state: StateRepository) -> None:
    everything = {name: decode(value.raw) for name, value in VALUES.items() if value.accepted}
    state.update_loop(LOOP, {"hostile": everything})
    assert by_node(path_of(state).read_bytes())["hostile"] == json.loads(json.dumps(everything), parse_int=float)  # type: ignore[index]


# --- given -----------------------------------------------------------------------------------------------------------


@EACH_VALUE
def test_what_is_given_on_the_command_line_is_stored_or_refused(
    state: StateRepository, value: Value, tmp_path: Path
) -> None:
    before, revision = state.get_loop(LOOP), state.revision()
    given = tmp_path / "given.json"
    given.write_bytes(b'{"hostile": ' + value.raw + b"}")
    words = ["-C", str(state.project_root), "--json", "update", LOOP, "--from", str(given)]
    result = CliRunner().invoke(root, words)
    document = json.loads(result.stdout)
    if value.accepted:
        assert result.exit_code == 0, document
        assert state.get_loop(LOOP)["hostile"] == decode(value.raw)  # type: ignore[typeddict-item]
    else:
        assert (result.exit_code, document["error"]["code"]) == (2, "invalid_record"), document
        assert (state.get_loop(LOOP), state.revision()) == (before, revision)


@pytest.mark.parametrize("command", ["iterate", "amend"])
def test_an_iteration_is_given_as_strictly(state: StateRepository, tmp_path: Path, command: str) -> None:
    state.record_iteration(LOOP, {"number": 1})
    given = tmp_path / "given.json"
    given.write_bytes(b'{"number": NaN}')
    words = [command, LOOP, *(["1"] if command == "amend" else []), str(given)]
    result = CliRunner().invoke(root, ["-C", str(state.project_root), *words])
    assert result.exit_code == 2
    assert "Traceback" not in result.output + result.stderr


# --- time and memory -------------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
SECONDS_EACH = 1.5  # of the processor, for a megabyte; it takes a fifth of it on a quiet machine
MANY = b'"many": [' + b"[]," * 300 + b"1.0]"  # enough brackets to be counted one by one

SHAPES: dict[str, Callable[[int], bytes]] = {
    "one long text": lambda n: b'{"a": "' + b"x" * n + b'"}',
    "one long text among brackets": lambda n: b"{" + MANY + b', "a": "' + b"x" * n + b'"}',
    "a text that never ends": lambda n: b"{" + MANY + b', "a": "' + b"x" * n,
    "a text of escaped quotes that never ends": lambda n: b"{" + MANY + b', "a": "' + b'\\"' * (n // 2),
    "a text of backslashes": lambda n: b"{" + MANY + b', "a": "' + b"\\\\" * (n // 2) + b'"}',
    "quotes": lambda n: b"{" + MANY + b', "a": ' + b'"' * n,
    "open brackets": lambda n: b"[" * n,
    "open braces": lambda n: b'{"a":' * (n // 5),
    "empty lists": lambda n: b"[" + b"[]," * (n // 3) + b"1.0]",
    "empty objects": lambda n: b"[" + b"{}," * (n // 3) + b"1.0]",
    "one long integer": lambda n: b'{"a": ' + b"1" * n + b"}",
    "one long fraction": lambda n: b'{"a": 0.' + b"3" * n + b"}",
    "one long exponent": lambda n: b'{"a": 1e' + b"1" * n + b"}",
    "numbers": lambda n: b"[" + b"1," * (n // 2) + b"1]",
    "numbers in another way": lambda n: b"[" + b"1.0," * (n // 4) + b"1]",
    "keys": lambda n: b"{" + b",".join(b'"k%d": 1.0' % i for i in range(n // 14)) + b"}",
    "a key again and again": lambda n: b"{" + b'"k": 1.0,' * (n // 9) + b'"k": 1}',
    "lone surrogates": lambda n: b'{"a": "' + b"\\ud800" * (n // 6) + b'"}',
    "spaces": lambda n: b"{" + b" " * n + b"}",
    "NULs": lambda n: b"\0" * n,
    "what is not UTF-8": lambda n: b'{"a": "' + b"\xff" * n + b'"}',
    "UTF-16": lambda n: ('{"a": "' + "x" * (n // 2) + '"}').encode("utf-16"),
    "a byte order mark": lambda n: b"\xef\xbb\xbf[" + b"1," * (n // 2) + b"1]",
}  # fmt: skip
# Python needs 64 bytes for an empty list or object and 8 for each place in a list; everything else stays below ten to one.
COSTLY = ("empty lists", "empty objects", "numbers", "numbers in another way", "keys", "a key again and again")


class Cost(NamedTuple):
    seconds: float  # of the processor
    megabytes: float


def cost(call: Callable[[], object], limit: int) -> Cost:
    """What *call* takes in a process of its own, which may use *limit* megabytes more than it has."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            already = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (already + limit * 1024 * 1024,) * 2)
            used = _peak()
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with suppress(gitstate.GitStateError):
                    call()
            told = f"{time.process_time() - began} {_peak() - used}"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"[:300]
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    try:
        seconds, megabytes = map(float, told.split())
    except ValueError:
        raise AssertionError(told or "it died") from None
    return Cost(seconds, megabytes)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_bytes_are_decided_in_time_and_memory_in_proportion_to_them(
    shape: Callable[[int], bytes], full: bool, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    for size in (100, 25, 1) if full else (2, 1):
        raw = shape(size * MEGABYTE)
        most = (60 if name in COSTLY else 10) * size + 100
        taken = cost(lambda raw=raw: decode(raw), limit=2 * most + 400)  # type: ignore[misc]
        assert taken.seconds < SECONDS_EACH * size + 1
        assert taken.megabytes < most
        print(f"{name}: {len(raw)} bytes, {taken.seconds:.2f} s, {taken.megabytes:.0f} MB")


@pytest.mark.parametrize("name", ["one long text among brackets", "a text of escaped quotes that never ends", "keys"])
def test_a_large_file_is_read_and_adopted_in_proportion_to_it(state: StateRepository, name: str, full: bool) -> None:
    size = 100 if full else 2
    raw = SHAPES[name](size * MEGABYTE)
    path_of(state).write_bytes(with_value(state, raw))
    most = (150 if name in COSTLY else 30) * size + 200
    for call in (lambda: state.get_loop(LOOP), state.init):
        taken = cost(call, limit=2 * most + 600)
        assert taken.seconds < 10 * SECONDS_EACH * size + 2
        assert taken.megabytes < most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        state.repair()


def test_the_largest_that_can_be_given_is_stored_and_read_back(state: StateRepository, full: bool) -> None:
    text = "x" * ((100 if full else 5) * MEGABYTE)
    state.update_loop(LOOP, {"long": text})
    assert state.get_loop(LOOP)["long"] == text  # type: ignore[typeddict-item]
    with StateRepository(state.project_root) as other:
        assert other.get_loop(LOOP, at="HEAD")["long"] == text  # type: ignore[typeddict-item]
        assert other.check(full=True) == []


def test_what_cannot_be_stored_is_refused_by_the_library_with_its_place(state: StateRepository) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        state.update_loop(LOOP, {"a": {"b": [1, float("nan")]}})
    assert caught.value.path == "/a/b/1"
