# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What epochs of a transaction changed: each path with how it was before and after. Pure but for what Timeline reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from .timeline import FsKey, Held, InodeKey, PlaceKey, Side, Timeline
from .wanted import Wanted


@dataclass(frozen=True)
class Change:
    """`path` as the log names it. None: nothing was there. `moved_from`: the same inode stood at that path before."""

    path: bytes
    before: Side | None
    after: Side | None
    moved_from: bytes | None = None


class Changes:
    """`touched`: the log's images of just the epochs in question, which say where to look; `before` and `after`: their two ends."""

    def __init__(self, touched: Wanted, before: Timeline, after: Timeline) -> None:
        self._touched, self._before, self._after = touched, before, after
        seen = touched.file_systems
        self._keys = {number: FsKey(one.fstype, one.mount_point) for number, one in seen.items()}
        self._origins: dict[InodeKey, bytes] = {}
        self._places: list[tuple[bytes, PlaceKey]] = []
        for (number, name), entry in touched.entries.items():
            directory = touched.directories[number]
            path = directory.path.rstrip(b"/") + b"/" + name
            self._places.append((path, PlaceKey(InodeKey(self._keys[directory.fs], directory.handle), name)))
            if entry.mode:
                self._origins[InodeKey(self._keys[entry.fs], entry.handle)] = path

    def __iter__(self) -> Iterator[Change]:
        """Sorted by path; what ends as it was is left out."""
        told: set[InodeKey] = set()
        for path, place in sorted(self._places):
            before, after = self._before.place(place), self._after.place(place)
            if before is not None and after is not None and before.inode == after.inode:
                continue
            yield from self._place(path, before, after, told)
        for path, inode in sorted(self._inodes()):
            if inode not in told:
                change = Change(path, self._before.side(inode), self._after.side(inode))
                if _differ(change):
                    yield change

    def _place(self, path: bytes, before: Held | None, after: Held | None, told: set[InodeKey]) -> Iterator[Change]:
        if before is None and after is None:
            return
        told.update(held.inode for held in (before, after) if held is not None)
        origin = None if after is None else self._origins.get(after.inode)
        change = Change(
            path,
            None if before is None else self._before.side(before.inode),
            None if after is None else self._after.side(after.inode),
            origin if origin != path else None,
        )
        if _differ(change) or change.moved_from:
            yield change
        # In a directory that was born, no place has an image.
        if after is not None and stat.S_ISDIR(after.mode) and origin is None:
            yield from self._born(path, after)

    def _born(self, path: bytes, directory: Held) -> Iterator[Change]:
        for name in self._after.names(directory.inode):
            held = self._after.place(PlaceKey(directory.inode, name))
            if held is None:
                continue
            below = path + b"/" + name
            yield Change(below, None, self._after.side(held.inode), self._origins.get(held.inode))
            if stat.S_ISDIR(held.mode) and held.inode not in self._origins:
                yield from self._born(below, held)

    def _inodes(self) -> Iterator[tuple[bytes, InodeKey]]:
        """Inodes with an image of their own. Of a directory, its times alone are no news: its entries are."""
        for (fs, handle), basic in self._touched.basics.items():
            yield basic.path, InodeKey(self._keys[fs], handle)


def others_may_read(path: bytes, side: Side | None) -> bool:
    """Whether an ordinary user may read the content: the file, and the way to it as it is now."""
    if side is not None and not stat.S_ISLNK(side.mode) and not side.mode & stat.S_IROTH:
        return False
    folder = os.path.dirname(path)
    while True:
        try:
            if not os.stat(folder).st_mode & stat.S_IXOTH:
                return False
        except OSError:
            # It is gone; what is above still counts.
            pass
        if folder in (b"/", b""):
            return True
        folder = os.path.dirname(folder)


def _differ(change: Change) -> bool:
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    if stat.S_ISDIR(before.mode) and stat.S_ISDIR(after.mode):
        return (before.mode, before.uid, before.gid, before.flags, before.xattrs) != (
            after.mode,
            after.uid,
            after.gid,
            after.flags,
            after.xattrs,
        )
    return before != after
