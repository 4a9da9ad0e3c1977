"""The encoding is JSON.stringify's; what JavaScript could not have written is refused."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
import subprocess
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gitstate.encoding
import gitstate.records
from gitstate.encoding import (
    MAX_DEPTH,
    MAX_GIVEN_DEPTH,
    SAFE_INTEGER,
    Json,
    decode,
    encode,
    parse,
    plain,
    reread,
    write,
)
from gitstate.errors import CorruptStateError, InvalidRecordError
from gitstate.fields import same
from gitstate.layout import REGISTRY
from gitstate.records import (
    damage_of_registry,
    damage_of_state,
    describe_damage,
    fresh_record,
    known_record,
    read_record,
    revision_of,
    stamped,
    written_record,
)

# What node 20 answers to JSON.stringify; the last test of this part asks it again where it is installed.
NUMBERS: list[tuple[int | float, str]] = [
    (0, "0"),
    (-0.0, "0"),
    (1, "1"),
    (-1, "-1"),
    (1.0, "1"),
    (-7.0, "-7"),
    (2.5, "2.5"),
    (0.1, "0.1"),
    (0.1 + 0.2, "0.30000000000000004"),
    (-1.5e-5, "-0.000015"),
    (0.000001, "0.000001"),
    (0.0000015, "0.0000015"),
    (1e-7, "1e-7"),
    (1.5e-7, "1.5e-7"),
    (-1.25e-10, "-1.25e-10"),
    (5e-324, "5e-324"),
    (2.2250738585072014e-308, "2.2250738585072014e-308"),
    (1e5, "100000"),
    (123456.789, "123456.789"),
    (1e15, "1000000000000000"),
    (1e16, "10000000000000000"),
    (1e20, "100000000000000000000"),
    (1.5e20, "150000000000000000000"),
    (123456789012345680000.0, "123456789012345680000"),
    (999999999999999900000.0, "999999999999999900000"),
    (1e21, "1e+21"),
    (1.2345e25, "1.2345e+25"),
    (-1e100, "-1e+100"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (SAFE_INTEGER, "9007199254740991"),
    (-SAFE_INTEGER, "-9007199254740991"),
    (2.0**53, "9007199254740992"),
    (2.0**63, "9223372036854776000"),
    (2.0**64, "18446744073709552000"),
]

STRINGS: list[tuple[str, str]] = [
    ("", '""'),
    ("Миграция", '"Миграция"'),
    ('"quoted" \\ /', '"\\"quoted\\" \\\\ /"'),
    ("\b\t\n\f\r", '"\\b\\t\\n\\f\\r"'),
    ("\x00\x01\x0b\x1f", '"\\u0000\\u0001\\u000b\\u001f"'),
    ("\x7f\x80\x9f", '"\x7f\x80\x9f"'),
    ("\u2028\u2029\ufeff", '"\u2028\u2029\ufeff"'),
    ("😀", '"😀"'),
    ("cut \ud83d", '"cut \\ud83d"'),
    ("\ude00 cut", '"\\ude00 cut"'),
    ("\ude00\ud83d", '"\\ude00\\ud83d"'),
    ("\ud83d" + "\ude00", '"😀"'),
]

RECORD: dict[str, Any] = {
    "version": "1.0.0",
    "empty": {},
    "none": [],
    "iterations": [{"number": 1, "learnings": ["a", "b"]}, {}],
    "cost": 2.0,
    "nested": {"deep": {"list": [[], [1, [2.5, None]], True]}},
    "__proto__": {"a": 1},
    "": "empty key",
}

RECORD_TEXT = """\
{
  "version": "1.0.0",
  "empty": {},
  "none": [],
  "iterations": [
    {
      "number": 1,
      "learnings": [
        "a",
        "b"
      ]
    },
    {}
  ],
  "cost": 2,
  "nested": {
    "deep": {
      "list": [
        [],
        [
          1,
          [
            2.5,
            null
          ]
        ],
        true
      ]
    }
  },
  "__proto__": {
    "a": 1
  },
  "": "empty key"
}
"""


@pytest.mark.parametrize(("number", "text"), NUMBERS, ids=repr)
def test_a_number_is_written_as_javascript_writes_it(number: float, text: str) -> None:
    assert encode({"n": number}) == f'{{\n  "n": {text}\n}}\n'.encode()


@pytest.mark.parametrize(("number", "text"), NUMBERS, ids=repr)
def test_a_number_that_javascript_wrote_is_read_as_what_it_meant(number: float, text: str) -> None:
    assert decode(f'{{"n": {text}}}') == {"n": number}


@pytest.mark.parametrize(("string", "text"), STRINGS, ids=ascii)
def test_a_string_is_written_as_javascript_writes_it(string: str, text: str) -> None:
    assert encode({"s": string}) == f'{{\n  "s": {text}\n}}\n'.encode()
    assert encode({string: 1}) == f"{{\n  {text}: 1\n}}\n".encode()


def test_a_record_is_indented_by_two_and_ends_with_a_newline() -> None:
    assert encode(RECORD) == RECORD_TEXT.encode()


def test_a_lone_surrogate_deep_inside_does_not_change_the_form_of_the_rest() -> None:
    assert encode({**RECORD, "": "\ud800"}) == RECORD_TEXT.replace("empty key", "\\ud800").encode()


_ASK_NODE = """
const value = (tagged) => {
  const [kind, held] = tagged;
  if (kind === "number") return Buffer.from(held, "hex").readDoubleBE(0);
  if (kind === "string") return Buffer.from(held, "hex").toString("utf16le");
  if (kind === "list") return held.map(value);
  if (kind === "object") return Object.fromEntries(held.map(([key, item]) => [value(key), value(item)]));
  return held;
};
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(cases.map((one) => JSON.stringify(value(one), null, 2))));
"""


def tagged(value: object) -> list[object]:
    """*value* so that it reaches node whole, whatever JSON would make of it on the way."""
    if isinstance(value, bool) or value is None:
        return ["as is", value]
    if isinstance(value, int | float):
        return ["number", struct.pack(">d", value).hex()]
    if isinstance(value, str):
        return ["string", value.encode("utf-16-le", "surrogatepass").hex()]
    if isinstance(value, list):
        return ["list", [tagged(item) for item in value]]
    assert isinstance(value, dict)
    return ["object", [[tagged(key), tagged(item)] for key, item in value.items()]]


def some_values() -> list[Json]:
    """Doubles of all sizes, strings of all code units, and a few records of them."""
    drawn = random.Random(20261122)
    numbers: list[Json] = [number for number, _ in NUMBERS]
    while len(numbers) < 2000:
        (number,) = struct.unpack(">d", drawn.randbytes(8))
        if math.isfinite(number):
            numbers.append(number)
    numbers += [drawn.randrange(-SAFE_INTEGER, SAFE_INTEGER) / 10 ** drawn.randrange(20) for _ in range(1000)]
    numbers += [float(drawn.randrange(1, 10**6) * 10 ** drawn.randrange(30)) for _ in range(1000)]
    strings: list[Json] = [string for string, _ in STRINGS]
    strings += [drawn.randbytes(2 * drawn.randrange(12)).decode("utf-16-le", "surrogatepass") for _ in range(1000)]
    strings += ["".join(chr(drawn.randrange(0xD7F0, 0xE010)) for _ in range(4)) for _ in range(300)]
    mixed: list[Json] = [RECORD, [], {}, [[]], [{}], True, False, None]
    mixed += [
        {f"k{drawn.choice(strings)}": drawn.choice(numbers), "list": drawn.choices(strings + numbers, k=3)}
        for _ in range(100)
    ]
    return [*numbers, *strings, *mixed]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_writes_the_same_bytes() -> None:
    values = some_values()
    asked = subprocess.run(
        ["node", "-e", _ASK_NODE], input=json.dumps([tagged(value) for value in values]), capture_output=True, check=True,
        encoding="utf-8",
    )  # fmt: skip
    answers = json.loads(asked.stdout)
    wrong = [
        (value, answer)
        for value, answer in zip(values, answers, strict=True)
        if encode(value) != f"{answer}\n".encode("utf-8", "surrogatepass")
    ]
    assert wrong == []


# --- reading ---------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[str, bytes | str, str]] = [
    ("NaN", b'{"a": NaN}', "NaN is not JSON"),
    ("infinity", b'{"a": Infinity}', "Infinity is not JSON"),
    ("minus infinity", b'{"a": -Infinity}', "-Infinity is not JSON"),
    ("1e400", b'{"a": 1e400}', "larger than any JavaScript number"),
    ("-1e400", b'[-1e400]', "larger than any JavaScript number"),
    ("duplicate key", b'{"a": 1, "a": 1}', "'a' is there twice"),
    ("duplicate key below", b'{"x": [{"status": "a", "b": 1, "status": "c"}]}', "'status' is there twice"),
    ("duplicate key, spelled twice", b'{"a": 1, "\\u0061": 1}', "'a' is there twice"),
    ("byte order mark", b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    ("UTF-16", '{"a": 1}'.encode("utf-16"), "not UTF-8 (byte 0)"),
    ("UTF-16 without a mark", '{"a": 1}'.encode("utf-16-le"), "not JSON"),
    ("invalid UTF-8", b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
    ("encoded surrogate", b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    ("Latin-1", '{"a": "é"}'.encode("latin-1"), "not UTF-8"),
    ("5000 digits", b'{"a": ' + b"9" * 5000 + b"}", "outside"),
    ("2^53", b'{"a": 9007199254740993}', "outside"),
    ("-2^60", b'{"a": -1152921504606846976}', "outside"),
    ("depth 100000", b"[" * 100_000, f"at most {MAX_DEPTH}"),
    ("depth 100000, closed", b"[" * 100_000 + b"]" * 100_000, f"at most {MAX_DEPTH}"),
    ("depth 100000 of objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, f"at most {MAX_DEPTH}"),
    ("a little too deep", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"nested {MAX_DEPTH + 1} deep"),
    ("empty", b"", "not JSON"),
    ("truncated", b'{"a": [1, 2', "not JSON"),
    ("NULs", b"\0" * 64, "not JSON"),
    ("two documents", b"{} {}", "not JSON"),
    ("single quotes", b"{'a': 1}", "not JSON"),
    ("trailing comma", b'{"a": 1,}', "not JSON"),
    ("comment", b'{"a": 1} // one', "not JSON"),
    ("raw line break", b'{"a": "1\n2"}', "not JSON"),
    ("leading zero", b'{"a": 01}', "not JSON"),
    ("text with a half", '{"a": "\ud800"}', "not UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_javascript_could_not_have_written_is_refused(raw: bytes | str, words: str) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        decode(raw)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": "\\ud800"}', {"a": "\ud800"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":1,"b":[true,null]}', {"a": 1, "b": [True, None]}),
        (b'  {"a" :\t1}\r\n', {"a": 1}),
        (b'{"a": 1e2}', {"a": 100.0}),
        (b'{"a": -0}', {"a": 0}),
        (b'{"a": 1E-7}', {"a": 1e-7}),
        (b'"text"', "text"),
        (b"null", None),
        (b'{"\\u0000": "\\u0000"}', {"\0": "\0"}),
        (b'{"a": "1234567890123456789012345"}', {"a": "1234567890123456789012345"}),
        (b'{"a": 0.12345678901234567890}', {"a": 0.12345678901234568}),
    ],
)
def test_whatever_javascript_can_write_is_read(raw: bytes, value: Json) -> None:
    assert decode(raw) == value


def test_brackets_in_strings_are_no_nesting() -> None:
    text = "[" * 10_000 + '\\"' + "{" * 10_000
    assert decode(f'{{"a": "{text}"}}') == {"a": text.replace('\\"', '"')}


def test_what_is_nested_as_deep_as_allowed_is_read_and_written() -> None:
    raw = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert encode(decode(raw)).split() == [b"["] * (MAX_DEPTH - 1) + [b"[]"] + [b"]"] * (MAX_DEPTH - 1)


def joined(text: str) -> str:
    """*text* as JavaScript has it: two halves of a character side by side are that character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


texts = st.text(st.characters(), max_size=20).map(joined)
numbers = st.integers(-SAFE_INTEGER, SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=20
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_what_is_written_is_read_back_equal(value: Json) -> None:
    assert same(decode(encode(value)), value)


@settings(max_examples=100, deadline=None)
@given(values)
def test_what_is_read_and_written_again_is_the_same_to_the_byte(value: Json) -> None:
    raw = encode(value)
    assert encode(decode(raw)) == raw


@settings(max_examples=60, deadline=None)
@given(values)
def test_python_reads_it_too(value: Json) -> None:
    # Above 2^53 JavaScript writes the digits that tell a float apart, which are not all of its digits.
    assert same(json.loads(encode(value), parse_int=float), value)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_either_read_or_refused(raw: bytes) -> None:
    try:
        decode(raw)
    except InvalidRecordError:
        return


# --- written once more -----------------------------------------------------------------------------------------------

# Numbers that the two encoders write in different ways, or that read otherwise than they were written.
odd_numbers = st.sampled_from([number for number, _ in NUMBERS])
odd_records = st.dictionaries(
    st.sampled_from("abcdef"),
    st.recursive(
        odd_numbers | st.sampled_from(["", "2.0", "1e16,", "cut \ud83d", "\n"]) | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=6,
    ),
)


def as_read(raw: bytes) -> str:
    """What tells apart what same() and == take for the same: 1, 1.0 and true, and the order of keys."""
    return repr(decode(raw))


@pytest.fixture
def long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short records, too, are compared with what was written before."""
    monkeypatch.setattr(gitstate.encoding, "_LONG", 0)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_records, odd_records)
@pytest.mark.usefixtures("long_enough")
def test_what_was_written_before_makes_no_difference(before: dict[str, Json], changes: dict[str, Json]) -> None:
    value = {**before, **changes}
    assert write(value, encode(before)).raw == encode(value)


@pytest.mark.parametrize("shared", [2.0, 1e16, 1e-7, 1.5, -0.0, 1e21, [2.0], {"a": [1e16, 1.5]}], ids=repr)
@pytest.mark.parametrize("new", [2.0, 1e16, 1e-7, 1.5, -0.0, 1e21, [2.0], {"a": [1e16, 1.5]}], ids=repr)
@pytest.mark.usefixtures("long_enough")
def test_a_number_is_right_whether_it_is_new_or_was_there(shared: Json, new: Json) -> None:
    before: dict[str, Json] = {"a": "text", "shared": shared, "b": "text", "new": 1, "c": "text"}
    value = {**before, "new": new}
    assert write(value, encode(before)).raw == encode(value)
    assert write(before, encode(value)).raw == encode(before)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_records, odd_records)
@pytest.mark.usefixtures("long_enough")
def test_what_was_written_plainly_is_read_plainly(before: dict[str, Json], changes: dict[str, Json]) -> None:
    for written in (write(before), write({**before, **changes}, encode(before))):
        if written.is_plain:
            assert repr(parse(written.raw, is_plain=True)) == as_read(written.raw)


@pytest.mark.parametrize("value", [2.0, 1e16, "cut \ud83d", 2**53, SAFE_INTEGER], ids=ascii)
def test_what_needs_a_second_look_when_it_is_read_is_not_plain(value: Json) -> None:
    assert not write({"a": [value]}).is_plain


def test_most_is_plain() -> None:
    assert write({"a": [1, 1.5, True, None, "text 2.0", {"b": 2**40}]}).is_plain


@settings(max_examples=500, deadline=None)
@given(odd_records, odd_records, st.data())
def test_a_record_counts_as_read_from_what_was_written_of_it(
    before: dict[str, Json], changes: dict[str, Json], data: st.DataObject
) -> None:
    known = cast("dict[str, Json]", decode(encode(before)))
    value = {**{key: _moved(item, data) for key, item in known.items()}, **changes}
    written = write(value)
    if written.is_plain:
        assert repr(reread(value, known)) == as_read(written.raw)


def _moved(item: Json, data: st.DataObject) -> Json:
    """*item*, or a list of what is in it, in another order and with more."""
    if not isinstance(item, list) or not data.draw(st.booleans()):
        return item
    return [*data.draw(st.permutations(item)), {"new": 1}, *item[:1]]


def test_what_did_not_change_is_the_very_same_in_the_next_version() -> None:
    known: dict[str, Json] = {"iterations": [{"number": 1}, {"number": 2}], "config": {"model": "a"}}
    new: Json = {"number": 3}
    old = cast("list[Json]", known["iterations"])
    made = cast("dict[str, Any]", reread({**known, "iterations": [*old, new]}, known))
    assert made["config"] is known["config"]
    assert [made["iterations"][place] is old[place] for place in (0, 1)] == [True, True]
    assert made["iterations"][2] == new
    assert made["iterations"][2] is not new


class Text(str):
    """More than a text, to Python."""

    __slots__ = ("more",)


def test_what_is_more_than_a_text_is_kept_as_a_text() -> None:
    copy = plain({Text("key"): [Text("value")]})
    assert [type(key) for key in cast("dict[str, Json]", copy)] == [str]
    assert [type(item) for item in cast("dict[str, list[Json]]", copy)["key"]] == [str]
    made = cast("dict[str, Json]", reread({"a": Text("value"), "b": (1, 2)}, {"a": "other", "b": [1]}))
    assert repr(made) == "{'a': 'value', 'b': [1, 2]}"
    assert type(made["a"]) is str


# --- known records ---------------------------------------------------------------------------------------------------

PATH = "loops/one/session-state.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that were taken apart."""
    monkeypatch.setattr(gitstate.records, "_KNOWN", {})
    found: list[bytes] = []

    def counted(raw: bytes, *, is_plain: bool = False) -> Json:
        found.append(raw)
        return parse(raw, is_plain=is_plain)

    monkeypatch.setattr(gitstate.records, "parse", counted)
    return found


def test_what_was_written_is_not_read_again(reads: list[bytes]) -> None:
    first = written_record(PATH, {"status": "running", "notes": ["a"]}, None)
    then = known_record(PATH, first)
    second = written_record(PATH, {**then, "note": 1}, first)
    assert known_record(PATH, second) == {"status": "running", "notes": ["a"], "note": 1}
    assert known_record(PATH, second)["notes"] is then["notes"]
    assert known_record(PATH, bytes(bytearray(second))) is known_record(PATH, second)
    assert reads == []


def test_what_does_not_read_as_it_was_written_is_read(reads: list[bytes]) -> None:
    raw = written_record(PATH, {"status": "running", "budget": 2.0}, None)
    assert repr(known_record(PATH, raw)) == "{'status': 'running', 'budget': 2}"
    assert reads == [raw]


def test_a_record_that_is_no_valid_one_is_not_known() -> None:
    raw = written_record(PATH, {"status": 1}, None)
    with pytest.raises(CorruptStateError, match="status is not a string"):
        known_record(PATH, raw)


def test_a_state_is_no_registry_whatever_its_bytes() -> None:
    raw = written_record(PATH, {"status": "running"}, None)
    assert known_record(PATH, raw)
    with pytest.raises(CorruptStateError, match="active_loops is not a list"):
        known_record(REGISTRY, raw)


def test_versions_that_begin_and_end_alike_are_told_apart() -> None:
    texts = [f"{'a' * 2000}{middle}{'a' * 2000}" for middle in "xy"]
    raws = [written_record(PATH, {"status": "running", "note": text}, None) for text in texts]
    assert [known_record(PATH, raw)["note"] for raw in (*raws, raws[0])] == [*texts, texts[0]]


def test_what_the_caller_does_with_a_fresh_record_stays_with_him() -> None:
    raw = written_record(PATH, {"status": "running", "notes": ["a"]}, None)
    cast("list[Json]", fresh_record(PATH, raw)["notes"]).append("b")
    assert known_record(PATH, raw)["notes"] == fresh_record(PATH, raw)["notes"] == ["a"]


def touched(value: Json) -> None:
    """Change everything in it that can be changed."""
    for item in [*value.values()] if isinstance(value, dict) else [*value] if isinstance(value, list) else []:
        touched(item)
    if isinstance(value, dict):
        value["touched"] = True
    elif isinstance(value, list):
        value.append("touched")


@settings(max_examples=100, deadline=None)
@given(values, st.integers(14, 18))
def test_what_the_caller_does_with_the_rows_of_a_long_list_stays_with_him(value: Json, rows: int) -> None:
    table: list[Json] = [{"number": number, "text": "a"} for number in range(rows)]
    record: dict[str, Json] = {
        "status": "running",
        "table": [*table],
        "nearly": [*table, {"deep": value}],
        "value": value,
    }
    raw = written_record(PATH, record, None)
    again = written_record(PATH, {**known_record(PATH, raw), "note": 1}, raw)
    for written in (raw, again):
        found = fresh_record(PATH, written)
        assert repr(found) == repr(parse(written))
        touched(found)
        assert repr(known_record(PATH, written)) == repr(fresh_record(PATH, written)) == repr(parse(written))


def test_a_fresh_record_of_what_was_not_written_here_is_looked_at_as_any_other() -> None:
    assert repr(fresh_record(PATH, b'{"status": "running", "a": 9007199254740992}')["a"]) == "9007199254740992.0"
    with pytest.raises(CorruptStateError):
        fresh_record(PATH, b'{"status": "running"')


def test_only_so_much_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitstate.records, "_KNOWN", {})
    for number in range(100):
        written_record(PATH, {"status": "running", "number": number}, None)
    assert len(gitstate.records._KNOWN) == gitstate.records._KNOWN_AT_MOST
    monkeypatch.setattr(gitstate.records, "_KNOWN_BYTES", 300)
    for number in range(20):
        last = written_record(PATH, {"status": "running", "number": number}, None)
        assert sum(len(known.raw) for known in gitstate.records._KNOWN.values()) <= 300
    large = written_record(PATH, {"status": "running", "note": "a" * 1000}, last)
    assert [known.raw for known in gitstate.records._KNOWN.values()] == [large]


# --- what is given ---------------------------------------------------------------------------------------------------


class Strange:
    """Nothing that JSON knows."""


GIVEN_AND_REFUSED: list[tuple[object, str, str]] = [
    ({"a": float("nan")}, "/a", "nan is not JSON"),
    ({"a": [1, float("inf")]}, "/a/1", "inf is not JSON"),
    ({"a": {"b/c": SAFE_INTEGER + 1}}, "/a/b~1c", "beyond"),
    ({"a~b": -(10**5000)}, "/a~0b", "beyond"),
    ({"a": {1: 2}}, "/a", "the key 1 is not a string"),
    ({None: 2}, "", "the key None is not a string"),
    ({"a": {1, 2}}, "/a", "a set cannot be stored"),
    ({"a": b"bytes"}, "/a", "a bytes cannot be stored"),
    ({"a": Strange()}, "/a", "a Strange cannot be stored"),
    ({"a": 1j}, "/a", "a complex cannot be stored"),
    ({"a": lambda: 1}, "/a", "a function cannot be stored"),
]


@pytest.mark.parametrize(("value", "path", "words"), GIVEN_AND_REFUSED, ids=[case[2] for case in GIVEN_AND_REFUSED])
def test_what_json_cannot_hold_is_refused_with_the_place_of_it(value: object, path: str, words: str) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        plain(value)
    assert words in str(caught.value)
    assert caught.value.path == path


def nested(depth: int, *, lists: bool = False) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [False, True], ids=["objects", "lists"])
@pytest.mark.parametrize("depth", [MAX_GIVEN_DEPTH + 1, 1000, 100_000])
def test_what_is_nested_too_deep_is_refused(depth: int, lists: bool) -> None:
    with pytest.raises(InvalidRecordError, match="nested deeper than"):
        plain(nested(depth, lists=lists))


def test_what_holds_itself_is_refused() -> None:
    ring: dict[str, object] = {}
    ring["ring"] = [ring]
    with pytest.raises(InvalidRecordError, match="nested deeper than"):
        plain(ring)


@pytest.mark.parametrize("lists", [False, True], ids=["objects", "lists"])
def test_what_is_accepted_can_be_read_back_from_inside_a_session_state(lists: bool) -> None:
    accepted = plain(nested(MAX_GIVEN_DEPTH, lists=lists))
    state: Json = {"iterations": [{"number": 1, "left": accepted}], "config": {"mcpConfig": accepted}}
    assert decode(encode(state)) == state


def test_sequences_become_lists_and_mappings_dicts() -> None:
    given = OrderedDict(a=(1, (2,)), b=MappingProxyType({"c": True}))
    assert plain(given) == {"a": [1, [2]], "b": {"c": True}}
    assert type(plain(given)) is dict


def test_a_copy_is_fresh_through_and_through() -> None:
    given = {"a": [{"b": 1}]}
    copy = plain(given)
    given["a"][0]["b"] = 2
    assert copy == {"a": [{"b": 1}]}


@settings(max_examples=50, deadline=None)
@given(values)
def test_what_json_holds_is_taken_as_it_is(value: Json) -> None:
    assert plain(value) == value


# --- validity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "damage"),
    [
        ({"status": "running"}, None),
        ({"status": "success"}, None),
        ({"status": "", "currentIteration": 2.5, "iterations": [], "currentPid": None, "x": 1}, None),
        ({"status": "running", "currentPid": 12, "iterations": [1, "two"]}, None),
        ([], "not an object"),
        ("running", "not an object"),
        (None, "not an object"),
        ({}, "status is not a string"),
        ({"status": 1}, "status is not a string"),
        ({"status": None}, "status is not a string"),
        ({"status": "running", "currentIteration": "4"}, "currentIteration is not a number"),
        ({"status": "running", "currentIteration": True}, "currentIteration is not a number"),
        ({"status": "running", "iterations": {}}, "iterations is not a list"),
        ({"status": "running", "currentPid": "12"}, "currentPid is neither a number nor null"),
    ],
)
def test_a_valid_session_state_is_an_object_with_a_status(value: Json, damage: str | None) -> None:
    assert damage_of_state(value) == damage


@pytest.mark.parametrize(
    ("value", "damage"),
    [
        ({"active_loops": []}, None),
        ({"active_loops": [{"loop_id": "a"}], "total_active": "seven"}, None),
        ([], "not an object"),
        ({}, "active_loops is not a list"),
        ({"active_loops": {}}, "active_loops is not a list"),
        ({"active_loops": [{"loop_id": "a"}, {}]}, "active_loops[1] is not an object with a loop_id"),
        ({"active_loops": [{"loop_id": 7}]}, "active_loops[0] is not an object with a loop_id"),
        ({"active_loops": ["a"]}, "active_loops[0] is not an object with a loop_id"),
    ],
)
def test_a_valid_registry_is_an_object_whose_active_loops_have_ids(value: Json, damage: str | None) -> None:
    assert damage_of_registry(value) == damage


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "nothing but NULs"),
        (b'{"status": "run\0\0\0\0', "NULs inside"),
        (b'{"status": "run', "truncated"),
        (b'{"status": "running"} trailing }', "not JSON: Extra data (line 1, column 23)"),
        (b"\xff\xfe{\x00", "NULs inside"),
        (b'{"status": "\xff"}', "not UTF-8 (byte 12)"),
        (b'\xef\xbb\xbf{"status": "running"}', "starts with a byte order mark"),
        (b"<html>", "not JSON: Expecting value (line 1, column 1)"),
    ],
)
def test_damage_is_described_in_a_few_words(raw: bytes, words: str) -> None:
    assert describe_damage(raw) == words
    assert read_record(raw, registry=False) == (None, words)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_a_record_or_damage_in_words(raw: bytes, registry: bool) -> None:
    record, damage = read_record(raw, registry=registry)
    assert (record is None) == bool(damage)


# --- the stamp -------------------------------------------------------------------------------------------------------


def test_a_stamp_counts_from_the_version_before() -> None:
    assert stamped({"a": 1}, None) == {"a": 1, "gitstate": {"revision": 1}}
    assert stamped({"a": 1}, {"gitstate": {"revision": 7}}) == {"a": 1, "gitstate": {"revision": 8}}


def test_a_stamp_keeps_what_else_gitstate_knows() -> None:
    record: dict[str, Json] = {"gitstate": {"revision": 3, "process": {"pid": 1}}}
    assert stamped(record, {"gitstate": {"revision": 9}}) == {"gitstate": {"revision": 10, "process": {"pid": 1}}}


@pytest.mark.parametrize("stamp", [None, 4, "4", [], {}, {"revision": "4"}, {"revision": True}, {"revision": 4.5}])
def test_a_stamp_that_is_none_counts_for_none(stamp: object) -> None:
    assert revision_of({"gitstate": stamp}) is None
