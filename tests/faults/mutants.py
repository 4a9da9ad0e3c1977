"""Faults put into gitstate itself, one at a time: each breaks one promise, and each must be noticed by the tests named.

A mutant is a file, a text that stands in it once, and what stands there instead. When gitstate is rewritten, so is its
mutant: one that no longer fits is an error, not a pass.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One fault: what it is, where, and the tests (as pytest takes them) of which one must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    at: str = ""  # only system calls, and crash states, whose words this is found in (a regular expression)


_CUT = "tests/test_power_cut.py"
_JOURNAL = "tests/test_journal.py"
_AFTER_A_KILL = f"{_CUT}::test_a_power_cut_after_a_kill_keeps_what_came_between"
_KILL = "tests/test_kill.py"
_IO = "tests/test_io_errors.py"
_HOSTILE = "tests/test_hostile_directories.py"
_LARGE = "tests/test_large_packs.py"


def _only(file: str, words: str) -> tuple[str, ...]:
    return (file, "-k", words)


MUTANTS = (
    # What survives a power cut
    Mutant(
        "the journal is not synced",
        "durable.py",
        "            medium.datasync(descriptor)\n",
        "",
        _only(_CUT, "during_an_operation and update and not first"),
        r"unsynced bytes",
    ),
    Mutant(
        "an operation is acknowledged without the journal",
        "store/recent.py",
        "            self.journal.append(chain, made)\n",
        "            pass\n",
        _only(_CUT, "during_an_operation and update and not first"),
        r'"main\.lock"',
    ),
    Mutant(
        "what changes nothing is acknowledged without making the head durable",
        "transaction.py",
        """\
            self.revisions.recent.make_durable(before.revision or "", self.publishing.guarded)
            return Done(""",
        """\
            return Done(""",
        _only(_JOURNAL, "changes_nothing"),
    ),
    Mutant(
        "what a killed writer published counts as durable",
        "store/recent.py",
        """\
        self.settle()
        made =""",
        """\
        made =""",
        _only(_JOURNAL, "no_longer_holds"),
    ),
    Mutant(
        "the journal says nothing after a power cut",
        "store/epoch.py",
        "    return not is_of_this_boot(HEAD.unpack(raw)[3])",
        "    return False",
        _only(_CUT, "during_an_operation and update and not first"),
        r'"main\.lock"',
    ),
    Mutant(
        "a record of the journal counts though its checksum is another",
        "store/journal.py",
        " or zlib.crc32(raw[12:whole]) != crc",
        "",
        _only(_JOURNAL, "no_longer_holds and flipped"),
    ),
    Mutant(
        "what the journal puts back after a power cut is not durable",
        "store/recent.py",
        """\
        self.directory.write(f"{name}.pack", raw)
""",
        """\
        self.directory.write(f"{name}.pack", raw, durable=False)
""",
        _only(_CUT, "while_another_is_recovered"),
        r"unsynced bytes",
    ),
    Mutant(
        "the bytes of a tag are not synced",
        "durable.py",
        """\
                    if durable:
                        medium.fsync(descriptor)
                except OSError:""",
        """\
                except OSError:""",
        _only(_CUT, "during_an_operation and checkpoint"),
        r"unsynced bytes",
    ),
    Mutant(
        "the entry of a directory of tags is not synced where somebody else made it",
        "store/refs.py",
        """        self.directory.sync_way(parent, below=_TAGS)  # whoever made it may have been killed before that""",
        """        pass""",
        _only(_CUT, "somebody_made and names1"),
    ),
    Mutant(
        "what somebody put in place right before he was killed counts as durable",
        "reconciling.py",
        """\
            if self.directory.is_directory(name) or not name:
                self.directory.sync(name)
""",
        """\
            pass
""",
        (f"{_AFTER_A_KILL}[4]",),
        r'renameat.*"gamma"',
    ),
    Mutant(
        "files are written before a head that somebody moved and did not acknowledge is durable",
        "reconciling.py",
        "        self.revisions.recent.make_durable(head, self.publishing.guarded)\n",
        "",
        (f"{_AFTER_A_KILL}[3]",),
        r'"main\.lock"|session-state\.json"',
    ),
    Mutant(
        "a tag that somebody made right before he was killed counts as durable",
        "reconciling.py",
        "                self.revisions.refs.make_tag_durable(ref)",
        "                pass",
        (f"{_AFTER_A_KILL}[2]",),
        r'linkat.*"here"',
    ),
    Mutant(
        "a new repository is renamed into place before it is synced",
        "store/creation.py",
        """\
        inner.sync(f"{layout.GIT}/{name}".rstrip("/"))
""",
        """\
        pass
""",
        _only(_CUT, "during_an_operation and init"),
        r'without (renameat|mkdirat)\([^;]*"(main|HEAD|config|refs|heads|objects)"',
    ),
    Mutant(
        "an artifact loses its old name before the new one is durable",
        "durable.py",
        """\
            self.sync(target.rpartition("/")[0])
        except StorageError:
            self.drop(target)""",
        """\
            pass
        except StorageError:
            self.drop(target)""",
        _only(_CUT, "artifact_that_is_moved"),
    ),
    Mutant(
        "the directories that artifacts are moved into are not synced",
        "projection.py",
        """\
        self.directory.sync_way(target)
        self._merge(""",
        """\
        self._merge(""",
        _only(_CUT, "artifact_that_is_moved"),
    ),
    # What a kill leaves
    Mutant(
        "the branch moves before its objects can be found",
        "store/recent.py",
        """\
            for raw, ending in ((prepared.pack, "pack"), (prepared.index, "idx")):
                self._put(raw, f"{PACKS}/{name}.{ending}", ending)
            if not chain:
                self._sync([name])
            self.refs.advance(made.parent, made.head, durable=not chain, keep=made.number > 2)
""",
        """\
            self._put(prepared.pack, f"{PACKS}/{name}.pack", "pack")
            if not chain:
                self._sync([name])
            self.refs.advance(made.parent, made.head, durable=not chain, keep=made.number > 2)
            self._put(prepared.index, f"{PACKS}/{name}.idx", "idx")
""",
        _only(_KILL, "any_system_call and update and not first"),
        r'"main\.lock"|\.idx',
    ),
    Mutant(
        "the files are written before the branch moves",
        "publishing.py",
        """\
                recent.publish(prepared)
""",
        """\
                for stored_id, stored in prepared.objects.items():
                    self.revisions.objects.remember(stored_id, stored)
                self.project(lease, parent, revision, paths | frozenset(after.edits), seen or {})
                recent.publish(prepared)
""",
        _only(_KILL, "any_system_call and update and not first"),
        r'"main\.lock"|\.pack"',
    ),
    Mutant(
        "packs that were never published stay",
        "store/recent.py",
        """\
                if name != _current(chain):
                    self.remove(name)
""",
        """\
                pass
""",
        _only(_KILL, "any_system_call and update and not first"),
        r'"main\.lock"|\.(pack|idx)"',
    ),
    Mutant(
        "a lock of the branch that a kill left stays",
        "upkeep.py",
        "        self.revisions.refs.left_over(self.revisions.is_ours)\n",
        "",
        _only(_KILL, "any_system_call and update and not first"),
        r'"main\.lock"',
    ),
    Mutant(
        "temporary files that a kill left stay",
        "disposal.py",
        'self._remove(f"{layout.ASIDE}/{name}")',
        "pass",
        _only(_KILL, "any_system_call and update and not first"),
        r'/aside>, "[0-9]+-',
    ),
    Mutant(
        "a tag that a kill prevented is never made",
        "reconcile.py",
        "            wanted.append(next_archive_tag(after, loop_id))",
        "            continue",
        _only(_KILL, "any_system_call and archive"),
        r"refs/tags/",
    ),
    Mutant(
        "a state that was moved and not yet rewritten counts as an outside edit",
        "reconcile.py",
        "FileHistory(revisions, path, head, elsewhere=True)",
        "FileHistory(revisions, path, head)",
        _only(_KILL, "any_system_call and archive"),
        r'"session-state\.json", RENAME',
    ),
    Mutant(
        "an older version of a file counts as an outside edit",
        "verdicts.py",
        "return past.may_hold(found) and any(version == found for version in past)",
        "return False",
        _only("tests/outside_edits", "rolled_forward"),
    ),
    Mutant(
        "a directory made by half is never completed",
        "projection.py",
        "elif place.area == LOOPS and self.directory.status(place.path) is None:",
        "elif place.area == LOOPS and not self.directory.is_directory(place.directory):",
        _only(_KILL, "any_system_call and create"),
        r'mkdirat.*"(prompts|outputs|analysis)"',
    ),
    Mutant(
        "what is left of a pruned loop counts as a new one",
        "reconcile.py",
        "elif isinstance(found, bytes) and is_held(found, FileHistory(revisions, place.path, head, elsewhere=True)):",
        "elif False:",
        _only(_KILL, "prune"),
    ),
    Mutant(
        "a pruning that was interrupted is not finished",
        "pruning.py",
        "            self._writer.projection.disposal.ask(loop_id)\n",
        "",
        _only(_KILL, "prune"),
    ),
    # What an error leads to
    Mutant(
        "a failed sync of the journal is passed over",
        "store/recent.py",
        """\
                self._sync([_name(made), *filter(None, [prepared.before])])  # which stays
                self.refs.make_durable()
            except""",
        """\
                pass
            except""",
        _only(_IO, "failed_fsync and create and not update"),
        r'/journal>|"main\.lock"',
    ),
    Mutant(
        "a journal whose sync failed is believed afterwards",
        "store/recent.py",
        """\
            finally:
                self.journal.drop()
                self._follow(())
""",
        """\
            finally:
                pass
""",
        (f"{_IO}::test_a_failed_fsync_is_never_taken_for_success[create+update]",),
        r"/journal>|^(without [^;]*; )?unsynced bytes: empty$",
    ),
    Mutant(
        "an exchange counts as failed when the other file cannot be removed",
        "store/refs.py",
        """\
                else:
                    self.directory.drop(lock)
""",
        """\
                else:
                    self.directory.discard(lock)
""",
        _only(_IO, "an_io_error and update and not first"),
        r'unlinkat.*"main\.lock"',
    ),
    Mutant(
        "what cannot be removed after the branch moved is an error",
        "store/refs.py",
        """\
                    self.directory.drop(lock)
                    is_exchanged = True
""",
        """\
                    self.directory.discard(lock)
                    is_exchanged = True
""",
        _only(_IO, "an_io_error and update and not first"),
        r"unlinkat.*main\.lock",
    ),
    Mutant(
        "a spare file is written over while somebody has it open",
        "durable.py",
        "if not medium.shut_out(descriptor):",
        "if descriptor < 0:",
        ("tests/test_spares.py",),
    ),
    Mutant(
        "a spare file is written over under all its names",
        "durable.py",
        "or found.st_nlink != 1 or not medium.is_local",
        "or not medium.is_local",
        ("tests/test_spares.py",),
    ),
    Mutant(
        "the file of a branch that was made durable is written over",
        "store/recent.py",
        "keep=made.number > 2",
        "keep=made.number > 1",
        ("tests/test_spares.py",),
    ),
    Mutant(
        "files that cannot be written after the commit point are an error",
        "publishing.py",
        """\
        except GitStateError as error:
            return [f"its files are not all written: {error.message}"]
""",
        """\
        except ZeroDivisionError as error:
            return [f"its files are not all written: {error}"]
""",
        _only(_IO, "an_io_error and create"),
        r"/projected>",
    ),
    Mutant(
        "a tag that could not be made is forgotten",
        "publishing.py",
        "whole=not untagged",
        "whole=True",
        _only(_IO, "an_io_error and archive"),
        r"refs/tags/",
    ),
    # Who may write
    Mutant(
        "the branch moves wherever it stands",
        "store/refs.py",
        """\
        if current != old:
            raise BranchMovedError(""",
        """\
        if current != old and current is None:
            raise BranchMovedError(""",
        ("tests/test_fencing.py",),
    ),
    Mutant(
        "any record counts as one's own lease",
        "lease.py",
        'found == (lease.nonce, lease.pid, lease.process["startTime"])',
        'found[1:] == (lease.pid, lease.process["startTime"])',
        ("tests/lease", "tests/test_fencing.py"),
    ),
    Mutant(
        "any file counts as that of one's own lease",
        "lease.py",
        "mark_in(found) == claim.mark",
        "True",
        ("tests/lease",),
    ),
    Mutant(
        "a lease is given back without a look at its end",
        "lease.py",
        "self._stands(claim) and self.clock.monotonic() < lease.monotonic_expiry",
        "claim is not None",
        ("tests/lease",),
    ),
    Mutant(
        "a lease is not looked at again before publishing",
        "publishing.py",
        """\
                self.keeper.prove(lease)
                recent.publish(""",
        """\
                recent.publish(""",
        ("tests/lease", "tests/test_fencing.py"),
    ),
    Mutant(
        "generations begin anew",
        "lease.py",
        "1 + max(self.newest_generation(), self._mark())",
        "1",
        ("tests/lease/test_record.py",),
    ),
    Mutant(
        "a writer who has swept never sweeps again",
        "upkeep.py",
        "        if self._has_swept and self.keeper.is_alone(lease):\n",
        "        if self._has_swept:\n",
        _only("tests/test_fencing.py", "killed and update"),
    ),
    Mutant(
        "a free lease is taken at one look",
        "lease.py",
        "is_free = before is None or now",
        "is_free = True or now",
        _only("tests/lease/test_waiting.py", "two_looks"),
    ),
    Mutant(
        "what the disk cannot read counts as damaged",
        "medium.py",
        "    if error.errno in OF_THE_FILE:\n",
        "    if True:\n",
        ("tests/test_unreadable.py",),
    ),
    Mutant(
        "a record is written behind the chain that was read last",
        "store/recent.py",
        "        self._follow((*chain, made), prepared.packed)\n",
        "        self._follow((*self._known.chain, made), prepared.packed)\n",
        _only(_JOURNAL, "who_learns"),
    ),
    # What becomes of large packs
    Mutant(
        "what was copied of large packs is not read back",
        "store/stepwise.py",
        "            if sha1(raw) != stretch.digest:\n",
        "            if False:\n",
        _only(_LARGE, "altered_body"),
    ),
    Mutant(
        "what another boot left of a large pack is gone on with",
        "store/stepwise.py",
        '"\\n".join((boot, *names))',
        '"\\n".join(names)',
        _only(_LARGE, "another_boot"),
    ),
    Mutant(
        "large packs go for one that nobody looked into",
        "store/stepwise.py",
        """\
                if not all(all(map(has, ids)) for ids in wanted):
                    return None
""",
        "",
        _only(_LARGE, "not_all_of_theirs"),
    ),
    # What damage leads to
    Mutant(
        "an object that is there already is not read back",
        "store/objects.py",
        """\
            return False
        return found == stored
""",
        """\
            return True
        return found == stored
""",
        _only("tests/test_repair.py", "object_lies_there_damaged"),
    ),
    Mutant(
        "packed refs are believed, however old they are",
        "store/revisions.py",
        "        if found is None or newer is not None:\n",
        "        if found is None:\n",
        ("tests/test_lost_ends.py", "tests/test_repair.py"),
    ),
    Mutant(
        "objects are not compared with their names",
        "store/objects.py",
        " or hashlib.sha1(whole, usedforsecurity=False).hexdigest() != object_id:",
        ":",
        _only("tests/test_check.py", "another_s_bytes"),
    ),
    # Who else may have been here
    Mutant(
        "symlinks are followed on the way down",
        "durable.py",
        "_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        _only(_HOSTILE, "leads_is_neither and loops"),
    ),
    Mutant(
        "a file with a second name is written in place",
        "durable.py",
        "if os.fstat(descriptor).st_nlink > 1:",
        "if os.fstat(descriptor).st_nlink > 9:",
        _only(_HOSTILE, "second_name and logs"),
    ),
    Mutant(
        "any repository counts as a clone",
        "store/inspection.py",
        "        if not _is_known(directory):\n",
        "        if False:\n",
        _only(_HOSTILE, "vouched_for and empty"),
    ),
)
