"""Differences of records, the merge of an edit made elsewhere, and the inverse of a change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstate.encoding import Json, Record
from gitstate.errors import InvalidRecordError
from gitstate.fields import (
    apply_inverse,
    assign,
    difference,
    entries_of,
    lookup,
    merge_registry,
    merge_state,
    same,
    tokens,
)
from gitstate.results import FieldChange

keys = st.sampled_from(["a", "b", "c", "a/b", "~", "", "0"])
scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 2.5]) | st.sampled_from(["", "x", "yz"])
)
values: st.SearchStrategy[Json] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
records = st.dictionaries(keys, values, max_size=5)


def changed(*given: tuple[str, str, object, object]) -> list[FieldChange]:
    return [FieldChange(None, path, kind, before, after) for path, kind, before, after in given]  # type: ignore[arg-type]


# --- differences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": True}, [("/a", "changed", 1, True)]),
        ({"a": 0}, {"a": None}, [("/a", "changed", 0, None)]),
        ({"a": None}, {}, [("/a", "removed", None, None)]),
        ({}, {"a": None}, [("/a", "added", None, None)]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, [("/a/b", "changed", 1, 3)]),
        ({"a": {"b": 1}}, {"a": [1]}, [("/a", "changed", {"b": 1}, [1])]),
        ({"a/b": 1, "c~d": 1}, {"a/b": 2, "c~d": 2}, [("/a~1b", "changed", 1, 2), ("/c~0d", "changed", 1, 2)]),
        ({"a": [1, 2, 3]}, {"a": [1, 5]}, [("/a/1", "changed", 2, 5), ("/a/2", "removed", 3, None)]),
        ({"a": []}, {"a": [{"b": 1}]}, [("/a/0", "added", None, {"b": 1})]),
        ({"": 1}, {"": 2}, [("/", "changed", 1, 2)]),
        ({"a": 1, "b": 1}, {"c": 1, "b": 1}, [("/c", "added", None, 1), ("/a", "removed", 1, None)]),
    ],
)
def test_a_difference_names_each_field_by_a_json_pointer(before: Record, after: Record, expected: list[object]) -> None:
    assert difference(before, after) == changed(*expected)  # type: ignore[arg-type]


def test_no_record_is_a_record_without_fields() -> None:
    assert difference(None, {"a": 1}, loop_id="one") == [FieldChange("one", "/a", "added", None, 1)]
    assert difference({"a": 1}, None, loop_id="one") == [FieldChange("one", "/a", "removed", 1, None)]
    assert difference(None, None) == []


def test_a_list_can_be_one_field() -> None:
    assert difference({"a": [1, 2]}, {"a": [1, 3]}, into_lists=False) == changed(("/a", "changed", [1, 2], [1, 3]))


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {"revision": 1}), ({"revision": 1}, {"revision": 2}), ({"revision": 1}, None), (None, {"revision": 1})],
)
def test_the_stamp_is_nobody_s_field(before: Json, after: Json) -> None:
    old: Record = {} if before is None else {"gitstate": before}
    new: Record = {} if after is None else {"gitstate": after}
    assert difference(old, new) == []


def test_a_field_whose_name_begins_like_the_stamp_s_is_a_field() -> None:
    assert difference({"gitstates": 1}, {"gitstates": 2}) == changed(("/gitstates", "changed", 1, 2))


@pytest.mark.parametrize("into_lists", [True, False])
@settings(max_examples=50, deadline=None)
@given(before=records, after=records)
def test_records_differ_exactly_where_they_are_not_the_same(before: Record, after: Record, into_lists: bool) -> None:
    assert (difference(before, after, into_lists=into_lists) == []) == same(before, after)


@settings(max_examples=50, deadline=None)
@given(records)
def test_a_record_is_the_same_as_itself(record: Record) -> None:
    assert same(record, record)
    assert difference(record, record) == []


# --- pointers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "expected"), [("", []), ("/", [""]), ("/a~1b/~0", ["a/b", "~"]), ("/~01", ["~1"])])
def test_a_pointer_is_taken_apart_as_rfc_6901_says(path: str, expected: list[str]) -> None:
    assert tokens(path) == expected


def test_what_is_assigned_is_found() -> None:
    record = assign({"a": {"b": 1}}, "/a/c~1d/e", True, 5)
    assert record == {"a": {"b": 1, "c/d": {"e": 5}}}
    assert lookup(record, "/a/c~1d/e") == (True, 5)
    assert lookup(record, "/a/x") == (False, None)
    assert lookup(record, "/a/b/c") == (False, None)


def test_assigning_leaves_the_original_alone() -> None:
    original: Record = {"a": {"b": 1}}
    assert assign(original, "/a/b", False, None) == {"a": {}}
    assert original == {"a": {"b": 1}}


def test_what_is_no_object_has_no_fields_to_assign() -> None:
    with pytest.raises(InvalidRecordError, match="a is not an object"):
        assign({"a": 5}, "/a/b", True, 1)


# --- merging ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(base=records, edit=records)
def test_an_edit_of_the_head_itself_is_taken_whole(base: Record, edit: Record) -> None:
    merge = merge_state(base, edit, base)
    assert same(merge.record, edit)
    assert merge.replaced == ()


@settings(max_examples=50, deadline=None)
@given(base=records, head=records)
def test_an_edit_that_changed_nothing_takes_nothing(base: Record, head: Record) -> None:
    assert merge_state(base, base, head) == (head, ())


@settings(max_examples=50, deadline=None)
@given(base=records, edit=records, head=records)
def test_of_each_key_the_side_that_changed_it_is_taken_and_the_edit_where_both_did(
    base: Record, edit: Record, head: Record
) -> None:
    record, replaced = merge_state(base, edit, head)
    for key in {*base, *edit, *head, *record}:
        untouched = (key in base) == (key in edit) and (key not in base or same(base[key], edit[key]))
        source = head if untouched else edit
        assert (key in record) == (key in source)
        assert key not in record or same(record[key], source[key])
        if key in replaced:
            assert not untouched
            assert (key in head) != (key in base) or not same(head[key], base[key])


def test_what_both_changed_is_named() -> None:
    base: Record = {"status": "running", "x": 1, "lastUpdate": "1", "gone": 1}
    edit: Record = {"status": "paused", "x": 2, "lastUpdate": "2", "gone": 1}
    head: Record = {"status": "failed", "x": 2, "lastUpdate": "3"}
    assert merge_state(base, edit, head) == ({"status": "paused", "x": 2, "lastUpdate": "2"}, ("status",))


def test_the_stamp_is_the_head_s() -> None:
    merge = merge_state(
        {"gitstate": {"revision": 1}}, {"gitstate": {"revision": 1}, "x": 1}, {"gitstate": {"revision": 5}}
    )
    assert merge.record == {"gitstate": {"revision": 5}, "x": 1}


def registry(*entries: Record, **keys: Json) -> Record:
    return {
        "active_loops": list(entries),
        "total_active": len(entries),
        "total_completed": 0,
        "total_aborted": 0,
        **keys,
    }


def test_in_the_registry_only_what_the_session_states_do_not_say_is_taken() -> None:
    head = registry({"loop_id": "a", "status": "running", "iteration": 3, "owner": "x"}, max_concurrent_loops=4)
    edit = registry(
        {"loop_id": "a", "status": "failed", "iteration": 9, "owner": "y", "note": 1},
        max_concurrent_loops=6, total_completed=99, extra=True,
    )  # fmt: skip
    merge = merge_registry(head, edit, head)
    assert merge.record == registry(
        {"loop_id": "a", "status": "running", "iteration": 3, "owner": "y", "note": 1},
        max_concurrent_loops=6,
        extra=True,
    )


def test_an_entry_that_is_missing_from_the_edit_stays() -> None:
    head = registry({"loop_id": "a"}, {"loop_id": "b"})
    assert merge_registry(head, registry({"loop_id": "b"}), head).record == head


def test_an_entry_that_the_head_dropped_does_not_come_back() -> None:
    base, head = registry({"loop_id": "a"}, {"loop_id": "b"}), registry({"loop_id": "b"})
    assert merge_registry(base, {**base, "limit": 2}, head).record == {**head, "limit": 2}


def test_a_field_that_both_registries_changed_is_named_with_its_loop() -> None:
    base, head, edit = (registry({"loop_id": "a", "owner": owner}) for owner in ("x", "y", "z"))
    merge = merge_registry(base, edit, head)
    assert merge.replaced == ("a/owner",)
    assert entries_of(merge.record)["a"]["owner"] == "z"


def test_of_two_entries_of_one_id_the_first_counts() -> None:
    assert entries_of(registry({"loop_id": "a", "n": 1}, {"loop_id": "a", "n": 2})) == {"a": {"loop_id": "a", "n": 1}}


# --- taking back -----------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(before=records, after=records)
def test_a_change_taken_back_is_as_if_it_never_was(before: Record, after: Record) -> None:
    back, conflicts = apply_inverse(after, difference(before, after, into_lists=False), frozenset())
    assert conflicts == []
    assert same(back, before)


@settings(max_examples=50, deadline=None)
@given(before=records, after=records)
def test_a_change_taken_back_twice_is_taken_back_once(before: Record, after: Record) -> None:
    changes = difference(before, after, into_lists=False)
    assert apply_inverse(before, changes, frozenset()) == (before, [])


@settings(max_examples=50, deadline=None)
@given(before=records, after=records, keep=st.sets(keys))
def test_kept_fields_stay(before: Record, after: Record, keep: set[str]) -> None:
    back, _ = apply_inverse(after, difference(before, after, into_lists=False), frozenset(keep))
    for key in keep:
        assert (key in back) == (key in after)
        assert key not in back or same(back[key], after[key])


@settings(max_examples=50, deadline=None)
@given(before=records, after=records, other=values)
def test_a_later_change_of_another_field_stays(before: Record, after: Record, other: Json) -> None:
    later = {**after, "elsewhere": other}
    back, conflicts = apply_inverse(later, difference(before, after, into_lists=False), frozenset())
    assert conflicts == []
    assert same(back, {**before, "elsewhere": other})


@pytest.mark.parametrize(
    ("before", "after", "current"),
    [
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, id="changed, then changed again"),
        pytest.param({"a": 1}, {"a": 2}, {}, id="changed, then removed"),
        pytest.param({}, {"a": 1}, {"a": 2}, id="added, then changed"),
        pytest.param({"a": 1}, {}, {"a": 2}, id="removed, then added"),
        pytest.param({"a": [1]}, {"a": [2]}, {"a": [2, 3]}, id="a list, then added to"),
        pytest.param(
            {"a": {"b": 1, "c": 1}}, {"a": {"c": 1}}, {"a": 5}, id="removed inside what is no object any more"
        ),
        pytest.param({"a": {"b": 1}}, {"a": {}}, {}, id="removed inside what is gone"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"b": 3}}, id="changed inside, then changed inside"),
    ],
)
def test_a_field_that_was_set_again_is_a_conflict_and_stays(before: Record, after: Record, current: Record) -> None:
    changes = difference(before, after, into_lists=False)
    back, conflicts = apply_inverse(current, changes, frozenset())
    assert conflicts == [change.path for change in changes]
    assert back == current


@pytest.mark.parametrize(
    ("before", "after"), [({"a": 1}, {"a": 2}), ({}, {"a": 1}), ({"a": 1}, {}), ({"a": {"b": 1}}, {"a": {"b": 2}})]
)
def test_a_field_that_is_back_already_is_no_conflict(before: Record, after: Record) -> None:
    assert apply_inverse(before, difference(before, after, into_lists=False), frozenset()) == (before, [])
