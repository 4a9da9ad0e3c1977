"""How records are written and read: ``JSON.stringify(x, null, 2)`` (ECMA-262, 25.5.2) plus a newline.

orjson does both; where it refuses what JavaScript can write (a lone
surrogate), or writes a number otherwise than JavaScript, the standard library
or the writer at the end of this page is the second opinion.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Mapping
from itertools import chain
from typing import Final, NamedTuple, TypeAlias, TypeVar, cast

import orjson

from gitstate.errors import InvalidRecordError
from gitstate.likeness import unlike_lines

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Record: TypeAlias = "dict[str, Json]"
T = TypeVar("T")

SAFE_INTEGER: Final = 2**53 - 1
# How deep records may be nested: what is compared and copied recurses twice a level, and Python's stack has 1000. What is
# given gets a little less, since it may be put inside a session state.
MAX_DEPTH: Final = 200
MAX_GIVEN_DEPTH: Final = 190

# --- input -----------------------------------------------------------------------------------------------------------


def plain(value: object, path: str = "", depth: int = 0) -> Json:
    """A fresh copy of *value* as JSON can hold it: mappings become dicts, sequences lists, ``2.0`` stays what it is.

    Raises:
        InvalidRecordError: something in it cannot be stored; ``path`` is its JSON pointer.
    """
    if depth > MAX_GIVEN_DEPTH:
        raise InvalidRecordError(f"{path:.80}…: nested deeper than {MAX_GIVEN_DEPTH}", path=path[:80])
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            raise InvalidRecordError(f"{path or 'the value'}: integers beyond ±(2^53-1) cannot be stored", path=path)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRecordError(f"{path or 'the value'}: {value} is not JSON", path=path)
        return float(value)
    if isinstance(value, Mapping):
        record: Record = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidRecordError(f"{path or 'the value'}: the key {key!r:.60} is not a string", path=path)
            record[str.__str__(key)] = plain(item, f"{path}/{escape_pointer(key)}", depth + 1)
        return record
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}/{number}", depth + 1) for number, item in enumerate(value)]
    raise InvalidRecordError(f"{path or 'the value'}: a {type(value).__name__} cannot be stored as JSON", path=path)


def fresh(value: Json) -> Json:
    """A copy of *value* that shares nothing with it that can be changed."""
    if isinstance(value, dict):
        return {key: fresh(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fresh(item) for item in value]
    return value


def escape_pointer(key: str) -> str:
    """*key* as one reference token of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


# --- decoding --------------------------------------------------------------------------------------------------------

# An integer that may be beyond 2^53: JavaScript's numbers are floats, which orjson would not make of it.
_LONG_INTEGER = re.compile(rb"(?:^|[\s:,\[])-?\d{16,}(?=[\s,}\]]|\Z)")
_EVERY_DIGIT_ZERO = bytes.maketrans(b"123456789", b"0" * 9)


def _has_long_integer(raw: bytes) -> bool:
    # Looking for sixteen zeros takes a twentieth of what the expression takes, and nearly always there are none.
    return b"0" * 16 in raw.translate(_EVERY_DIGIT_ZERO) and _LONG_INTEGER.search(raw) is not None


def parse(raw: bytes, *, is_plain: bool = False) -> Json:
    """The value of bytes that are known to be good: those that history holds. *is_plain* as :class:`Written` says it."""
    if is_plain:
        return cast("Json", orjson.loads(raw))
    try:
        value = cast("Json", orjson.loads(raw))
    except orjson.JSONDecodeError:
        return decode(raw)
    return decode(raw) if _has_long_integer(raw) else value


def decode(raw: bytes | str) -> Json:
    """The value of bytes that anyone may have written.

    Raises:
        InvalidRecordError: not UTF-8, not JSON, a byte order mark, a duplicate key, ``NaN`` or an infinity (also
            ``1e400``), an integer that a JavaScript number cannot hold, or nesting deeper than 200.
    """
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogatepass")
    try:
        value = cast("Json", orjson.loads(raw))
        # What re-encodes to itself is canonical, so no key was there twice; the rest gets the slow, strict look.
        if not _has_long_integer(raw) and orjson.dumps(value, option=orjson.OPT_INDENT_2) == raw.rstrip(b"\n"):
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    return _decode_strictly(raw)


def _decode_strictly(raw: bytes) -> Json:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise InvalidRecordError("starts with a byte order mark")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRecordError(f"not UTF-8 (byte {error.start})") from None
    depth = _depth(text)
    if depth > MAX_DEPTH:
        raise InvalidRecordError(f"nested {depth} deep, at most {MAX_DEPTH} can be stored")
    try:
        return cast(
            "Json",
            json.loads(
                text,
                object_pairs_hook=_unique,
                parse_constant=_no_constant,
                parse_int=_javascript_integer,
                parse_float=_finite,
            ),
        )
    except json.JSONDecodeError as error:
        raise InvalidRecordError(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None


# Possessive, and with an unterminated string to the end: nothing is remembered to come back to, nothing looked at twice.
_STRING_OR_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]++|[\]}]++', re.DOTALL)


def _depth(text: str) -> int:
    """How deep *text* is nested, looked at no further than to where that is too deep."""
    deepest = depth = 0
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    for match in _STRING_OR_BRACKETS.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth += len(match[0])
            deepest = max(deepest, depth)
            if depth > MAX_DEPTH:
                break
        elif first in "]}":
            depth -= len(match[0])
    return deepest


def _unique(pairs: list[tuple[str, Json]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRecordError(f"the key {twice!r:.80} is there twice")
    return record


def _no_constant(name: str) -> Json:
    raise InvalidRecordError(f"{name} is not JSON")


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise InvalidRecordError(f"{literal:.40} is larger than any JavaScript number")
    return value


def _javascript_integer(literal: str) -> int | float:
    if len(literal) < 16:
        return int(literal)
    if len(literal) < 400:
        value = float(literal)
        # JavaScript writes its large numbers with all digits up to 1e21; what it would write is read as what it meant.
        if abs(value) <= SAFE_INTEGER:
            return int(literal)
        if _javascript_number(value) == literal:
            return value
    raise InvalidRecordError(f"the integer {literal:.40} is outside ±(2^53-1), where JavaScript would change it")


# --- encoding --------------------------------------------------------------------------------------------------------

# In orjson's indented form every number ends its line, and no string can hold a line break: a hit is always a number
# that JavaScript writes in another way (2.0 as 2, 1e16 as 10000000000000000). Two expressions, each beginning with a
# letter that is looked for as such: together they take an eighth of what one takes that may begin with either.
_WHOLE_FLOAT = re.compile(rb"\.0,?\n")
_EXPONENT = re.compile(rb"e[-+]?[0-9]+,?\n")


_LONG = 1 << 13  # bytes from which on comparing takes less than looking through all of them


class Written(NamedTuple):
    """A value's bytes. ``is_plain``: orjson alone made them, and reads the same value in them."""

    raw: bytes
    is_plain: bool


def encode(value: Mapping[str, object] | Json) -> bytes:
    """*value* as ``JSON.stringify(value, null, 2)`` and a newline."""
    return write(value).raw


def write(value: Mapping[str, object] | Json, like: bytes = b"") -> Written:
    """As :func:`encode`. *like* are bytes that this made: what of the new ones is the same needs no second look."""
    try:
        raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return Written(_stringify(cast("Json", value)), False)
    lines = unlike_lines(like, raw) if like and len(raw) > _LONG else raw
    if _WHOLE_FLOAT.search(lines) or _EXPONENT.search(lines):
        return Written(_stringify(cast("Json", value)), False)
    return Written(raw, not _has_long_integer(lines))


_SCALARS: Final = frozenset((str, int, float, bool, type(None)))


def reread(value: Json, known: Json) -> Json:
    """*value* as reading what :func:`write` made plainly of it would make it, but for what is the very same in *known*.

    *known* was read, or made like this, so that nothing in it needs to be made again.
    """
    if value is known:
        return known
    if isinstance(value, dict) and isinstance(known, dict):
        return {
            key: item if type(item) in _SCALARS or item is known.get(key) else reread(item, known.get(key))
            for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(known, list):
        kept = {id(item) for item in known}
        others = iter(_reread([item for item in value if id(item) not in kept]))
        return [item if id(item) in kept else next(others) for item in value]
    return value if type(value) in _SCALARS else _reread(value)


def _reread(value: T) -> T:
    return cast("T", orjson.loads(orjson.dumps(value)))


_FEW: Final = 16  # records that are not worth looking at


def is_table(value: Json) -> bool:
    """Whether *value* is a list of many records in which nothing can be changed but themselves, as long lists mostly are."""
    if not isinstance(value, list) or len(value) < _FEW or set(map(type, value)) != {dict}:
        return False
    records = cast("list[Record]", value)
    return set(map(type, chain.from_iterable(map(dict.values, records)))) <= _SCALARS


def copied(record: Record, tables: Container[str]) -> Record:
    """A copy of a record that was read, which shares nothing with it that can be changed. *tables* are the keys of those."""
    others = _reread({key: item for key, item in record.items() if key not in tables})
    return {
        key: others[key] if key in others else cast("Json", list(map(dict.copy, cast("list[Record]", item))))
        for key, item in record.items()
    }


def encodes_alike(one: Json, other: Json) -> bool:
    """A quick yes to whether two values are the same; a no says nothing (``1`` and ``1.0`` encode differently)."""
    try:
        return orjson.dumps(one) == orjson.dumps(other)
    except orjson.JSONEncodeError:
        return False


_SURROGATE = re.compile("[\ud800-\udfff]")


def _string(text: str) -> str:
    # To JavaScript two halves side by side are one character, however they came together.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _javascript_number(value: float) -> str:
    """Number.prototype.toString (ECMA-262, 6.1.6.1.20); Python's repr finds the same shortest digits."""
    if value == 0:
        return "0"
    sign, digits, exponent = "-" if value < 0 else "", "", 0
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) + len(whole) if whole.strip("0") else int(power or 0) - (len(fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= exponent <= 21:
        return sign + digits + "0" * (exponent - len(digits))
    if 0 < exponent <= 21:
        return f"{sign}{digits[:exponent]}.{digits[exponent:]}"
    if -6 < exponent <= 0:
        return f"{sign}0.{'0' * -exponent}{digits}"
    tail = f"e{'+' if exponent > 0 else '-'}{abs(exponent - 1)}"
    return sign + digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "") + tail


def _scalar(value: Json) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        return _javascript_number(value)
    return json.dumps(value)


def _stringify(value: Json) -> bytes:
    out: list[str] = []

    def write(node: Json, indent: str) -> None:
        if not isinstance(node, dict | list) or not node:
            out.append(_scalar(node) if not isinstance(node, dict | list) else "{}" if isinstance(node, dict) else "[]")
            return
        inner = indent + "  "
        out.append("{" if isinstance(node, dict) else "[")
        between = "\n"
        for key, item in node.items() if isinstance(node, dict) else ((None, item) for item in node):
            out.append(between + inner + ("" if key is None else f"{_string(key)}: "))
            write(item, inner)
            between = ",\n"
        out.append("\n" + indent + ("}" if isinstance(node, dict) else "]"))

    write(value, "")
    out.append("\n")
    return "".join(out).encode()
