"""What must hold after a fault, judged by a process that shares nothing with the one that was hit.

* the visible state is exactly the one before or the one after the operation;
* every acknowledged operation is in history, and nothing else than what was begun;
* ``git fsck --strict --full`` has nothing to say (for every set of objects and refs not judged before); after a power
  cut, from the first mutation on: until then history is what gitstate tells;
* the next operation succeeds, soon and without help;
* nothing of ours is left behind after it; registry, directories, tags, index and head agree, for git as for gitstate.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import gitstate
from faults.workloads import follow, opened

if TYPE_CHECKING:
    from faults.zygote import Answer

SOON = 5.0  # seconds that the next operation may take, with waits ten times as short as they are
_NEXT = 60  # minutes after the beginning
_GIT = {**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0"}  # fmt: skip

Json = dict[str, object]


# --- what can be seen ------------------------------------------------------------------------------------------------


def visible(root: str) -> Json:
    """All that the interface shows of the state, but for history and tags."""
    state = opened(root, _NEXT)
    try:
        registry = state.load_registry()
        ids = [str(entry["loop_id"]) for entry in state.list_active_loops()]
        archived = sorted(loop.loop_id for loop in state.list_archived_loops())
        view = {
            "registry": registry,
            "active": {loop_id: state.get_loop(loop_id) for loop_id in ids},
            "archived": {loop_id: state.get_loop(loop_id) for loop_id in archived},
        }
    except gitstate.GitStateError as error:
        return {"error": error.code}
    finally:
        state.close()
    normal = _normal(view)
    assert isinstance(normal, dict)
    return normal


def _normal(value: object) -> object:
    """Random ids and short revisions, which differ from run to run, made equal."""
    if isinstance(value, dict):
        return {_same(key): _normal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_normal(inner) for inner in value]
    return _same(value) if isinstance(value, str) else value


def _same(text: str) -> str:
    text = re.sub(r"(ralph-[a-z0-9-]*)-[0-9a-f]{8}\b", r"\1-RANDOM", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
    return re.sub(r"\b[0-9a-f]{7}\b", "REVISED", text)


def base_of(root: str) -> Path:
    return Path(root) / ".aiwg" / "ralph-external"


def git(base: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ordinary git, without any configuration but the repository's."""
    return subprocess.run(
        ["git", *words], cwd=base, env=_GIT | variables, capture_output=True, text=True, errors="replace"
    )


def history(root: str) -> list[str]:
    """The subjects of all commits, oldest first, as the interface shows them."""
    state = opened(root, _NEXT)
    try:
        return [_same(change.summary) for change in state.log()][::-1]
    except gitstate.GitStateError as error:
        return [f"unreadable: {error.message}"]
    finally:
        state.close()


def history_of_git(root: str) -> list[str]:
    """The same as git shows it."""
    base = base_of(root)
    if not (base / ".git").is_dir():
        return []
    shown = git(base, "log", "--reverse", "--first-parent", "--format=%H %s", "refs/heads/main", "--")
    if shown.returncode:
        return [f"unreadable: {shown.stderr.strip()}"]
    return [_same(line[41:]) for line in shown.stdout.splitlines()]


def listing(root: str) -> set[str]:
    """Everything below the project but objects, tags, loose or packed, and what is in quarantine; directories end in a slash.

    Of files that are in no history, whose bytes no commit can bring back, it says how many bytes there are.
    """
    found = set()
    for above, directories, files in os.walk(root):
        here = os.path.relpath(above, root)
        if here.endswith((".git/objects", ".git/gitstate/quarantine")):
            directories[:] = []
            continue
        in_tags = ".git/refs/tags" in here
        found |= {_same(os.path.normpath(f"{here}/{name}")) + "/" for name in directories if not in_tags}
        for name in files:
            if (in_tags or name == "packed-refs") and not name.endswith(".lock"):
                continue
            path = os.path.normpath(f"{here}/{name}")
            size = f": {os.lstat(f'{root}/{path}').st_size} bytes" if _is_artifact(path) else ""
            found.add(_same(path) + size)
    return found


def _is_artifact(path: str) -> bool:
    return ".git/" not in path and not path.endswith(("registry.json", "/session-state.json", ".lock"))


def objects_of(root: str) -> str:
    """A digest of the objects and refs, and of whatever else gitstate may keep history in."""
    digest = hashlib.sha256()
    for above, directories, files in os.walk(base_of(root) / ".git"):
        directories[:] = sorted(name for name in directories if name not in ("logs", "quarantine", "aside", "info"))
        for name in sorted(set(files) - {"index", "guard", "turn", "generation", "projected"}):
            path = f"{above}/{name}"
            with open(path, "rb") as file:
                digest.update(f"{path.removeprefix(root)}\0".encode() + file.read() + b"\0")
    return digest.hexdigest()


# --- what is expected ------------------------------------------------------------------------------------------------


def expect(answer: Answer, stages: list[list[str]], levels: list[int], needs_repair: bool) -> None:
    """What is to be seen at each stage: of the first of its two projects now, of the other after the next operation.

    *levels* says how many operations are done at each stage; a stage within an operation, which makes several commits,
    has the level of the one before.
    """
    found: dict[str, list[object]] = {"visible": [], "history": [], "next": [], "listing": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for root, copy in stages:
            found["visible"].append(visible(root))
            found["history"].append(history(root))
            follow(opened(copy, _NEXT), needs_repair=needs_repair)
            found["next"].append(visible(copy))
            found["listing"].append(sorted(listing(copy)))
    answer.say({**found, "levels": levels, "needs_repair": needs_repair})


# --- the judgement ---------------------------------------------------------------------------------------------------


def judge_all(
    answer: Answer,
    roots: list[str],
    acknowledged: list[int],
    expected: Json,
    known: list[str],
    lacks: list[str],
    exact: bool,
    tolerant: bool,
    cuts: list[bool],
) -> None:
    """Judge many projects, one after the other; *known* holds the digests of what git's own check has passed.

    With *exact* nothing may have happened but what was acknowledged; *lacks* says for each what may be missing, *cuts*
    whether the power was cut. With *tolerant* there may be other adoptions and repairs than in an undisturbed run.
    """
    verdicts = []
    seen = set(known)
    for root, count, lack, is_cut in zip(roots, acknowledged, lacks, cuts, strict=True):
        judge = Judge(root, count, expected, seen)
        judge.is_cut = is_cut
        judge.lacks, judge.tolerant, judge.most = lack, tolerant, count if exact else count + 1
        verdicts.append(judge.verdict())
    answer.say({"verdicts": verdicts, "known": sorted(seen - set(known))})


# Files that are kept to be written over: each may be there or not.
_SPARES = tuple(f".git/gitstate/spare/{name}" for name in ("", "branch", "idx", "index", "lease", "pack"))
_MAY_STAY = (".git/gitstate/quarantine/", ".git/gitstate/joining/left", *_SPARES)
# By whoever joins large packs first, and by one mutation in eight.
_MADE_LATER = (".git/gitstate/joining/", ".git/gitstate/joining/guard", ".git/gitstate/changes", *_SPARES)


class Judge:
    """The judgement of one project in which *acknowledged* operations had been acknowledged when it was hit."""

    def __init__(self, root: str, acknowledged: int, expected: Json, known: set[str]) -> None:
        self.root, self.base, self.acknowledged, self.known = root, base_of(root), acknowledged, known
        self.lacks, self.tolerant, self.most = "nothing", False, acknowledged + 1
        self.is_cut = False
        self.views: list[Json] = expected["visible"]  # type: ignore[assignment]
        self.histories: list[list[str]] = expected["history"]  # type: ignore[assignment]
        self.next_views: list[Json] = expected["next"]  # type: ignore[assignment]
        self.listings: list[list[str]] = expected["listing"]  # type: ignore[assignment]
        self.levels: list[int] = expected["levels"]  # type: ignore[assignment]
        self.needs_repair = bool(expected["needs_repair"])
        self.wrong: list[str] = []

    def verdict(self) -> list[str]:
        """What does not hold, in words; nothing if all does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._judge()
            except gitstate.GitStateError as error:
                self.wrong.append(f"wedged: {error.code}: {error.message}")
            except Exception:
                self.wrong.append(f"undocumented: {traceback.format_exc(limit=-6)}")
        return self.wrong

    def _judge(self) -> None:
        before = history(self.root)
        which = self._which(before)
        if not self.is_cut:
            self._fsck("at once")
            if not self.needs_repair and history_of_git(self.root) != before:
                self.wrong.append(f"git has {history_of_git(self.root)}, gitstate {before}")
        began = time.monotonic()
        follow(opened(self.root, _NEXT), needs_repair=self.needs_repair)
        took = time.monotonic() - began
        if took > SOON:
            self.wrong.append(f"slow: the next operation took {took:.1f} s")
        after = history_of_git(self.root)
        if after != history(self.root):
            self.wrong.append(f"git has {after}, gitstate {history(self.root)}")
        if after[: len(before)] != before and not (self.needs_repair and before and "unreadable" in before[0]):
            self.wrong.append(f"lost: history was {before}, is {after}")
        if not after or not after[-1].startswith("create next-loop"):
            self.wrong.append(f"lost: the next operation is not the newest: {after}")
        if which is not None:
            for difference in _differences(self.next_views[which], visible(self.root)):
                self.wrong.append(f"visible after the next operation: {difference}")
            self._left(set(self.listings[which]))
        self._fsck("after the next operation")
        self._agreement(after)

    def _which(self, here: list[str]) -> int | None:
        """The stage that history and visible state agree upon; it is one that the acknowledged operations allow."""
        done, view = self.acknowledged, visible(self.root)
        allowed = [stage for stage, level in enumerate(self.levels) if done <= level <= self.most]
        shown = self.views
        if not (self.needs_repair and here and here[0].startswith("unreadable")):
            known = self.histories
            if self.tolerant:
                known, here = [_without_mending(past) for past in known], _without_mending(here)
            first, last = known[allowed[0]], known[allowed[-1]]
            if here != last[: len(here)] or len(here) < len(first):
                self.wrong.append(f"lost: {done} acknowledged, history is {here}, not {last}")
                return None
            if len(here) in map(len, known) and not self.tolerant:
                allowed = [stage for stage in allowed if len(known[stage]) == len(here)]
            else:
                # Between the commits of one operation; what is not in line yet is shown as of the time of looking.
                shown, view = [_without_time(known) for known in self.views], _without_time(view)
        for stage in reversed(allowed):
            if view == shown[stage]:
                return stage
        closest = min((_differences(shown[stage], view) for stage in allowed), key=len)
        self.wrong.append(f"visible, with history {here[-2:]}: {'; '.join(closest[:6])}")
        return None

    def _fsck(self, when: str) -> None:
        if not (self.base / ".git").is_dir() or (self.needs_repair and when == "at once"):
            return
        digest = objects_of(self.root)
        if digest in self.known:
            return
        # The index is derived and not durable: a power cut may have left anything there until the next operation.
        index = {"GIT_INDEX_FILE": "/nonexistent"} if when == "at once" else {}
        fsck = git(self.base, "fsck", "--strict", "--full", **index)
        said = [
            line for line in (fsck.stdout + fsck.stderr).splitlines() if not line.startswith(("dangling", "notice"))
        ]
        if fsck.returncode or said:
            self.wrong.append(f"fsck {when}: {fsck.returncode} {said[:4]}")
        else:
            self.known.add(digest)

    def _left(self, expected: set[str]) -> None:
        here = listing(self.root)
        extra = sorted(name for name in here - expected if not name.endswith(_MAY_STAY))
        if extra:
            self.wrong.append(f"left behind: {extra}")
        missing = sorted(
            name for name in expected - here if not _MAY_LACK[self.lacks](name) and not name.endswith(_MADE_LATER)
        )
        if missing:
            self.wrong.append(f"missing after the next operation: {missing}")

    def _agreement(self, subjects: list[str]) -> None:
        """Registry, directories, tags, index, head: as gitstate sees them, as git does, and as they lie there."""
        state = opened(self.root, _NEXT)
        findings = [f"{finding.code} {finding.path}: {finding.message}" for finding in state.check(full=True)]
        if findings:
            self.wrong.append(f"check: {findings}")
        if state.lease_info() is not None:
            self.wrong.append("left behind: the lease")
        status = git(self.base, "status", "--porcelain", "--untracked-files=all")
        if status.returncode or status.stdout:
            self.wrong.append(f"git status: {status.stdout or status.stderr}")
        registry = json.loads((self.base / "registry.json").read_text())
        listed = sorted(entry["loop_id"] for entry in registry["active_loops"])
        lying = sorted(path.parent.name for path in self.base.glob("loops/*/session-state.json"))
        if listed != lying or registry["total_active"] != len(listed):
            self.wrong.append(f"registry lists {listed}, directories are {lying}")
        tags = git(self.base, "for-each-ref", "--format=%(refname)", "refs/tags").stdout.split()
        for subject in subjects:
            words = re.sub("[:,]", "", subject).split()
            wanted = {
                "archive": f"refs/tags/archive/{words[1]}",
                "checkpoint": "refs/tags/checkpoint/" + "/".join(words[1:3]),
            }
            if words[0] in wanted and wanted[words[0]] not in tags:
                self.wrong.append(f"tag missing: {wanted[words[0]]}")


def _without_mending(subjects: list[str]) -> list[str]:
    return [subject for subject in subjects if not subject.startswith(("adopt ", "repair "))]


def _without_time(view: Json) -> Json:
    registry = view.get("registry")
    return {**view, "registry": {**registry, "updated_at": ""}} if isinstance(registry, dict) else view


# What may be gone after a fault, for good.
_MAY_LACK: dict[str, Callable[[str], bool]] = {
    "nothing": lambda name: False,
    # What is made empty, or is derived: it is in no history, and nobody misses it.
    "what is empty": lambda name: name.endswith("/") or (".git/" in name and not name.endswith(_HELD)),
    # Where a file system lost a directory in the middle of its move.
    "artifacts": lambda name: not name.endswith((".json", *_HELD)),
}
_HELD = ("HEAD", "config", "main", "index")


def _differences(one: object, other: object, path: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in sorted({*one, *other}):
            found += _differences(one.get(key, "(nothing)"), other.get(key, "(nothing)"), f"{path}/{key}")
        return found
    return [] if one == other else [f"{path}: {str(one)[:80]!r} is {str(other)[:80]!r}"]


def count_commits(answer: Answer, root: str, start: str) -> None:
    """The subjects of the commits that *root* has and *start* has not."""
    answer.say(history(root)[len(history(start)) :])


def unclean(answer: Answer, root: str) -> None:
    """What the full check has to say, but of the lease: what finds nothing to do takes none, so it stays."""
    found = opened(root, _NEXT).check(full=True)
    answer.say([f"{finding.code} {finding.path}" for finding in found if finding.code != "lease_held"])
