"""Whether the journal was written in this boot of the machine. If not, it says more than the branch does.

Every read begins with this question, so it is answered without what the journal itself needs.
"""

from __future__ import annotations

import os
import struct

from gitstate import process
from gitstate.digest import sha1
from gitstate.durable import Directory
from gitstate.layout import JOURNAL
from gitstate.medium import NotAFileError, readable

MAGIC = b"gsmoved1"
HEAD = struct.Struct(">8sI8s8s")  # with which every publication begins: magic, CRC, epoch, boot
_NO_BOOT = b"\0" * 8


def this_boot() -> bytes:
    """What tells this boot from others; zeros where boots cannot be told apart."""
    boot = process.boot_id()
    return _NO_BOOT if boot is None else sha1(boot.encode())[:8]


def is_of_this_boot(boot: bytes) -> bool:
    """Whether *boot* is known to be this one."""
    return boot == this_boot() != _NO_BOOT


def is_overruled(directory: Directory) -> bool:
    """Whether the journal was written before the machine, or what keeps its files, last stopped.

    Raises:
        UnreadableError: the journal cannot be read.
    """
    try:
        with directory.opened(JOURNAL) as file, readable(JOURNAL):
            raw = os.pread(file.fileno(), HEAD.size, 0)
    except NotAFileError:
        return False
    if len(raw) < HEAD.size or not raw.startswith(MAGIC):
        return False
    return not is_of_this_boot(HEAD.unpack(raw)[3])
