# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The three sides of a file that drifted: before the transaction, as its steps left it, and now. As diffs for people."""

from __future__ import annotations

import collections.abc
import difflib
import os
import stat
import typing as t

from ..undoing.ground import Ground
from ..wanted import Inode, Place
from .images import before_of, present
from .verdict import Drift

_LARGEST = 256 << 10
_LINES = 200
#: These hold password hashes, and a diff is made to be passed on.
_SECRET = (b"/etc/shadow", b"/etc/gshadow")


class Before(t.NamedTuple):
    """`owner`: (mode, uid, gid); None: there was no such file."""

    data: bytes
    owner: tuple[int, int, int] | None


def before_at(
    ground: Ground, places: collections.abc.Sequence[Place], inodes: collections.abc.Sequence[Inode], largest: int
) -> Before | None:
    """The regular file that was there before; None where it was something else, too large, or is no more known."""
    wanted = ground.wanted
    if places:
        entry = wanted.entries[places[0]]
        if not entry.mode:
            return Before(b"", None)
        inode = entry.fs, wanted.inode(entry.fs, entry.handle)
        if not stat.S_ISREG(entry.mode):
            return None
    else:
        inode = inodes[0]
    data, owner = before_of(ground, inode, largest), _owner(ground, inode)
    return None if data is None or owner is None else Before(data, owner)


def _owner(ground: Ground, inode: Inode) -> tuple[int, int, int] | None:
    basic = ground.wanted.basics.get(inode)
    if basic is not None:
        return stat.S_IMODE(basic.mode), basic.uid, basic.gid
    fd = ground.inode(*inode)
    if fd < 0:
        return None
    try:
        info = os.fstat(fd)
        return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    finally:
        os.close(fd)


def open_now(ground: Ground, places: collections.abc.Sequence[Place], inodes: collections.abc.Sequence[Inode]) -> int:
    """O_PATH fd of what is there now, to be closed; -1: nothing."""
    if not places:
        fd = ground.inode(*inodes[0])
        basic = ground.wanted.basics.get(inodes[0])
        return fd if fd >= 0 or basic is None else ground.at_path(basic.path)  # somebody has replaced it
    directory = ground.directory(places[0][0])
    if directory is None:
        return -1
    try:
        return os.open(places[0][1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return -1


def diffs_of(
    ground: Ground, path: bytes, places: collections.abc.Sequence[Place], inodes: collections.abc.Sequence[Inode], drift: Drift
) -> None:
    """Fill in the drift's diffs, as far as the sides are text and known."""
    if path.startswith(_SECRET):
        return
    was = before_at(ground, places, inodes, _LARGEST)
    fd = open_now(ground, places, inodes)
    try:
        now = b"" if fd < 0 else present(fd, _LARGEST)
    finally:
        if fd >= 0:
            os.close(fd)
    left = ground.wanted.after.contents.get(path)
    before = None if was is None else was.data
    if left is None:
        drift.both = _diff(before, now, "before the transaction", "now")
    else:
        drift.ours = _diff(before, left, "before the transaction", "as its steps left it")
        drift.theirs = _diff(left, now, "as the steps left it", "now")


def _diff(old: bytes | None, new: bytes | None, old_name: str, new_name: str) -> str:
    if old is None or new is None or b"\0" in old or b"\0" in new:
        return ""
    one, other = (data.decode("utf-8", "backslashreplace").splitlines() for data in (old, new))
    lines = list(difflib.unified_diff(one, other, old_name, new_name, lineterm="", n=1))
    more = ["... and %d more lines" % (len(lines) - _LINES)] if len(lines) > _LINES else []
    return "\n".join(lines[:_LINES] + more)
