"""What parses meets anything: records, commit messages, lock records, packed refs."""

from __future__ import annotations

import json
import string
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from gitstate.claim import find_claim
from gitstate.durable import Directory
from gitstate.encoding import decode, encode
from gitstate.errors import InvalidRecordError
from gitstate.operation import KINDS, Operation, from_message, one_line, to_message
from gitstate.records import read_record
from gitstate.results import LeaseInfo
from gitstate.store.inspection import settings_in
from gitstate.store.refs import format_packed, parse_packed

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def thorough(test: Any) -> Any:
    """The same examples every time; with --full, others, and more of them."""

    def run(full: bool) -> None:
        profile = settings(
            derandomize=not full, max_examples=10_000 if full else 150, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        profile(test)()

    run.__name__ = test.__name__
    return run


texts = some.text(some.characters(exclude_categories=()), max_size=20)  # lone surrogates among them
numbers = some.integers(-(2**53) + 1, 2**53 - 1) | some.floats(allow_nan=False, allow_infinity=False)
values = some.recursive(
    some.none() | some.booleans() | numbers | texts,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
fragments = some.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"d800", b"null", b"NaN", b"1e400", b"-0", b"0.1", b"9" * 20,
     b'"status"', b'"running"', b"\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"true", b'"active_loops"', b" "]
)  # fmt: skip
bytes_of_any_kind = some.binary(max_size=200) | some.lists(fragments, max_size=30).map(b"".join)


@thorough
@given(bytes_of_any_kind)
def test_any_bytes_are_a_value_that_is_stable_or_refused(raw: bytes) -> None:
    try:
        value = decode(raw)
    except InvalidRecordError:
        return
    again = encode(value)
    assert encode(decode(again)) == again
    json.loads(raw)  # what is accepted is JSON


@thorough
@given(values)
def test_any_value_survives_being_written_and_read(value: Any) -> None:
    raw = encode(value)
    assert raw.endswith(b"\n")
    again = decode(raw)
    assert encode(again) == raw


@thorough
@given(values, some.integers(0, 400), some.binary(min_size=1, max_size=3))
def test_a_record_with_any_bytes_put_in_is_read_or_its_damage_is_named(value: Any, at: int, wrong: bytes) -> None:
    raw = encode({"status": "running", "value": value, "active_loops": []})
    for registry in (False, True):
        record, damage = read_record(raw[:at] + wrong + raw[at:], registry=registry)
        assert (record is None) == bool(damage)


# --- commit messages -------------------------------------------------------------------------------------------------

lines = some.text(max_size=60)
sly = some.sampled_from(
    ["\n\nGitstate-Operation: init", "\nGitstate-Generation: 99", "Gitstate-Loop: x", "\r\n\r\n", "\x00", "\u2028"]
)
free = some.lists(lines | sly, min_size=1, max_size=4).map("".join)
ids = some.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)


@thorough
@given(some.text(max_size=300) | some.lists(sly | lines, max_size=8).map("".join))
def test_any_message_is_an_operation_or_none(message: str) -> None:
    operation = from_message(message)
    assert operation is None or operation.kind in KINDS


@thorough
@given(some.sampled_from(KINDS), free, some.lists(ids, max_size=3, unique=True), some.integers(0, 2**53), free, free)
def test_no_text_forges_what_machines_read(
    kind: str, subject: str, loops: list[str], generation: int, actor: str, reason: str
) -> None:
    words = one_line(subject) or "x"
    made = Operation(kind, words, tuple(loops)).by(
        generation=generation, actor=one_line(actor) or "a", host="h", pid=1, reason=one_line(reason) or None
    )
    read = from_message(to_message(made))
    assert read is not None
    assert (read.kind, read.loop_ids, read.generation, read.host, read.pid) == (kind, tuple(loops), generation, "h", 1)


# --- lock records ----------------------------------------------------------------------------------------------------

KEYS = (
    "pid",
    "loopId",
    "timestamp",
    "leaseExpiry",
    "fencingToken",
    "host",
    "bootId",
    "startTime",
    "monotonicExpiry",
    "nonce",
    "pidNamespace",
)
odd = some.none() | some.booleans() | some.integers() | some.floats() | texts | some.lists(some.integers(), max_size=2)
claims = some.dictionaries(
    some.sampled_from(KEYS), odd | some.sampled_from([1, -1, 0, 2**31, 2**63, 1e308, "localhost"])
)


@thorough
@given(claims.map(lambda record: json.dumps(record).encode()) | bytes_of_any_kind)
def test_any_lock_record_is_judged(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "registry.json.lock").write_bytes(raw)
        claim = find_claim(Directory(Path(place), "aside"), "registry.json.lock", 1000.0)
        assert claim is not None
        assert claim.is_stale(1000.0, NOW) in (True, False)
        info = claim.info(1000.0, NOW)
        assert isinstance(info, LeaseInfo)
        json.dumps(info.to_dict())


# --- what git writes -------------------------------------------------------------------------------------------------

hexes = some.text("0123456789abcdef", min_size=40, max_size=40)
names = some.text(string.ascii_letters + "/-.", min_size=1, max_size=20).map(lambda name: f"refs/{name}")


@thorough
@given(some.binary(max_size=200))
def test_any_bytes_are_packed_refs_or_lines_that_are_none(raw: bytes) -> None:
    found, wrong = parse_packed(raw)
    assert len(found) + len(wrong) <= raw.count(b"\n") + 1


@thorough
@given(some.dictionaries(names, some.tuples(hexes, some.none() | hexes), max_size=5))
def test_packed_refs_survive_being_written_and_read(refs: dict[str, tuple[str, str | None]]) -> None:
    given_refs = sorted((name, value, target) for name, (value, target) in refs.items())
    assert parse_packed(format_packed(given_refs)) == (given_refs, [])


@thorough
@given(some.binary(max_size=200))
def test_any_bytes_are_a_configuration(raw: bytes) -> None:
    settings_found, wrong = settings_in(raw)
    assert all(isinstance(name, bytes) for name in settings_found)
    assert all(1 <= number <= raw.count(b"\n") + 1 for number in wrong)
