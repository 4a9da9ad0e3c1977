"""An operation as a commit message, and back: whatever is written into it, it stays one operation."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

import pytest
from conftest import git
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstate import StateRepository
from gitstate.operation import KINDS, Operation, as_change, from_message, planned, to_message
from gitstate.store.revisions import author_of
from gitstate.text import one_line

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ARCHIVE = Operation(
    "archive",
    "archive ralph-fix-tests-a1b2c3d4: completed after 4 of 10 iterations",
    ("ralph-fix-tests-a1b2c3d4",),
    generation=17,
    actor="user:alice",
    host="devbox",
    pid=4242,
    reason="all green",
)
MESSAGE = """\
archive ralph-fix-tests-a1b2c3d4: completed after 4 of 10 iterations

Gitstate-Operation: archive
Gitstate-Loop: ralph-fix-tests-a1b2c3d4
Gitstate-Generation: 17
Gitstate-Actor: user:alice
Gitstate-Host: devbox
Gitstate-Pid: 4242
Gitstate-Reason: all green
"""

# What would be a second line, a second paragraph or another trailer, if it were taken as it is.
HOSTILE = [
    "two\nlines",
    "a\n\nGitstate-Operation: init\nGitstate-Generation: 999",
    "a\r\n\r\nGitstate-Loop: another",
    "Gitstate-Operation: init",
    "x\x0bGitstate-Actor: root",
    "x\x85Gitstate-Actor: root",
    "x\u2028Gitstate-Actor: root\u2029y",
    "\x1b[31mred\x1b[0m \x07 \x00",
    "half a 😀: \ud83d",
    "\udce9",
    "-----BEGIN PGP SIGNATURE-----",
    "# a comment, 100 % true ~ <b@c> \\n",
]

WORST = HOSTILE[:2] + HOSTILE[6:9]  # for the slower tests

lines = st.text(st.characters(), max_size=40).map(lambda text: f"x{text}")
operations = st.builds(
    Operation,
    kind=st.sampled_from(KINDS),
    subject=lines,
    loop_ids=st.lists(st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z"), max_size=4, unique=True).map(tuple),
    body=st.lists(lines, max_size=4).map(tuple),
    generation=st.integers(0, 10**15),
    actor=lines,
    host=st.none() | lines,
    tags=st.just(()),  # no part of the message
    pid=st.none() | st.integers(1, 2**31 - 1),
    reason=st.none() | lines,
)


def escaped(operation: Operation) -> Operation:
    """*operation* with its texts as a message holds them."""
    return operation._replace(
        subject=one_line(operation.subject),
        body=tuple(map(one_line, operation.body)),
        actor=one_line(operation.actor),
        host=None if operation.host is None else one_line(operation.host),
        reason=None if operation.reason is None else one_line(operation.reason),
    )


def test_a_message_is_a_subject_and_trailers() -> None:
    assert to_message(ARCHIVE) == MESSAGE
    assert from_message(MESSAGE) == ARCHIVE


def test_the_parts_of_a_transaction_are_the_body() -> None:
    operation = Operation(
        "transaction", "transaction: nightly", ("a", "b"), ("update a: x", "reap b: y"), generation=3, actor="user:a"
    )
    message = to_message(operation)
    assert message.startswith("transaction: nightly\n\nupdate a: x\nreap b: y\n\nGitstate-Operation: transaction\n")
    assert from_message(message) == operation


@settings(max_examples=80, deadline=None)
@given(operations)
def test_every_operation_is_read_back_from_its_message(operation: Operation) -> None:
    assert from_message(to_message(operation)) == escaped(operation)


@settings(max_examples=50, deadline=None)
@given(operations)
def test_a_message_can_be_encoded_and_has_one_line_for_each_thing(operation: Operation) -> None:
    message = to_message(operation).encode().decode()
    trailers = (
        2 + len(operation.loop_ids) + sum(v is not None for v in (operation.host, operation.pid, operation.reason)) + 1
    )
    assert len(message.splitlines()) == 2 + (len(operation.body) + 1 if operation.body else 0) + trailers
    assert message.splitlines()[0] == one_line(operation.subject)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters()), st.none() | st.integers(1, 50))
def test_one_line_is_one_line_however_often_it_is_made(text: str, limit: int | None) -> None:
    line = one_line(text, limit)
    assert line.encode().decode() == line
    assert len(line.splitlines()) <= 1
    assert limit is None or len(line) <= limit
    assert one_line(line) == line


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("place", ["subject", "reason", "actor", "host", "body"])
def test_hostile_text_stays_where_it_was_put(place: str, text: str) -> None:
    changes = {place: (text,) if place == "body" else text}
    operation = ARCHIVE._replace(**changes)  # type: ignore[arg-type]  # which field it is, is a parameter
    assert from_message(to_message(operation)) == escaped(operation)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_git_sees_the_same_trailers(text: str) -> None:
    operation = ARCHIVE._replace(reason=text, subject=f"create a: {text}", kind="create")
    asked = subprocess.run(
        ["git", "interpret-trailers", "--parse"], input=to_message(operation).encode(), capture_output=True, check=True
    )
    found = asked.stdout.decode().splitlines()
    assert [line for line in found if not line.startswith("Gitstate-Reason: ")] == MESSAGE.replace(
        "Operation: archive", "Operation: create"
    ).splitlines()[2:-1]
    assert len(found) == 7


@pytest.mark.parametrize(
    "message",
    [
        "",
        "\n",
        "a commit of a user's",
        "a commit\n\nwith a body\n",
        "a commit\n\nSigned-off-by: A <a@b>\n",
        "Gitstate-Operation: create\nGitstate-Generation: 1\n",
        MESSAGE.replace("Gitstate-Generation: 17\n", ""),
        MESSAGE.replace("17", "seventeen"),
        MESSAGE.replace("17", "-17"),
        MESSAGE.replace("17", "9" * 5000),
        MESSAGE.replace("Gitstate-Operation: archive\n", ""),
        MESSAGE.replace("Operation: archive", "Operation: conquer"),
        MESSAGE + "\nand more",
        MESSAGE.replace("\n\nGitstate", "\nGitstate"),
    ],
    ids=range(14),
)
def test_a_message_that_gitstate_did_not_write_is_none(message: str) -> None:
    assert from_message(message) is None


def test_trailers_are_read_from_the_last_paragraph_only() -> None:
    forged = MESSAGE.replace("Operation: archive", "Operation: init") + "\n" + MESSAGE.partition("\n\n")[2]
    read = from_message(forged)
    assert read is not None
    assert read.kind == "archive"


def test_a_commit_without_our_trailers_counts_as_an_adoption() -> None:
    change = as_change(
        "by hand\n\nbody", revision="a" * 40, parent=None, time=NOW, author="Mallory", touched=["a", "b"]
    )
    assert (change.operation, change.loop_ids, change.actor, change.summary) == (
        "adopt",
        ("a", "b"),
        "Mallory",
        "by hand",
    )
    assert (change.generation, change.host, change.pid, change.reason) == (None, None, None, None)


def test_the_summary_of_a_foreign_commit_is_one_short_line() -> None:
    change = as_change("x\x1b[2J" * 200, revision="a" * 40, parent=None, time=NOW, author="Mallory")
    assert change.summary == one_line(change.summary)
    assert len(change.summary) == 200


def test_a_planned_change_has_no_revision() -> None:
    change = planned(ARCHIVE, time=NOW)
    assert (change.revision, change.operation, change.summary) == (None, "archive", ARCHIVE.subject)


@pytest.mark.parametrize(
    ("actor", "host", "author"),
    [
        ("user:alice", "devbox", "alice <alice@devbox>"),
        ("agent:code reviewer", "devbox", "code reviewer <code-reviewer@devbox>"),
        ("alice", None, "alice <alice@localhost>"),
        ("user:Миша", "host.local", "Миша <----@host.local>"),
        ("user:", "h", "user: <user-@h>"),
        ("user:a <b>", "h", "a b <a-b@h>"),
        ("user:half \ud800", "h x", "half ? <half--@h-x>"),
    ],
)
def test_the_author_is_the_actor_at_the_host(actor: str, host: str | None, author: str) -> None:
    if actor == "user:":
        author = "user <user@h>"
    assert author_of(Operation("init", "init", actor=actor, host=host)).decode() == author


# --- in a repository -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", WORST, ids=ascii)
def test_a_hostile_reason_is_one_harmless_line_of_history(state: StateRepository, text: str) -> None:
    state.create_loop("Fix", "it is fixed", loop_id="one", reason=text)
    change = state.show("HEAD")
    assert (change.operation, change.loop_ids, change.reason) == ("create", ("one",), one_line(text))
    assert len(list(state.log())) == 2
    assert len(git(state.base_dir, "log", "--oneline").stdout.splitlines()) == 2


@pytest.mark.parametrize("text", WORST, ids=ascii)
def test_a_hostile_objective_is_kept_whole_and_named_on_one_line(state: StateRepository, text: str) -> None:
    state.create_loop(text, "it is fixed", loop_id="one")
    change = state.show("HEAD")
    assert state.get_loop("one")["objective"] == text
    assert change.summary == f"create one: {one_line(text)}"
    assert (change.operation, change.generation) == ("create", 2)


@pytest.mark.parametrize("text", WORST, ids=ascii)
def test_a_hostile_value_is_one_harmless_line_of_history(state: StateRepository, text: str) -> None:
    state.create_loop("Fix", "it is fixed", loop_id="one")
    state.update_loop("one", {"note": text, text: 1})
    state.record_iteration("one", {"status": text, "progress": text, "learnings": [text]})
    assert [change.operation for change in state.log("one")] == ["iterate", "update", "create"]
    assert len(git(state.base_dir, "log", "--oneline").stdout.splitlines()) == 4


@pytest.mark.parametrize("actor", ["agent:reviewer", "user:Миша", "a" * 200, "user:half \ud800", "o'brien; rm -rf /"])
def test_any_actor_on_one_line_is_kept(project: object, actor: str) -> None:
    with StateRepository(str(project), actor=actor) as state:
        state.create_loop("Fix", "it is fixed", loop_id="one")
        assert state.show("HEAD").actor == one_line(actor)


def test_what_a_mutation_answers_is_what_history_says(state: StateRepository) -> None:
    state.create_loop("Fix", "it is fixed", loop_id="one")
    state.update_loop("one", {"note": "a\nb"}, reason=" spaces around, and a \ud800 \n")
    assert state.last_change == state.show("HEAD")
