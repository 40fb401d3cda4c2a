# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What epochs of a transaction changed: each path with how it was before and after. Pure but for what Timeline reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from .net import alike
from .timeline import FsKey, Held, InodeKey, PlaceKey, Side, Timeline
from .wanted import Wanted


@dataclass(frozen=True)
class Change:
    """`path` as the log names it. None: nothing was there. `moved_from`: where the same inode stood before, and does not now."""

    path: bytes
    before: Side | None
    after: Side | None
    moved_from: bytes | None = None


class Changes:
    """`touched`: the log's images of just the epochs in question, which say where to look; `before` and `after`: their two ends.

    `since_ns`: when the first of several epochs began (CLOCK_REALTIME). What is younger was born in them, so an image that a later one of
    them took of it says nothing about before. 0 for a single epoch: the capture takes no image of what is born in it. `every`: also what
    was written with what it had held, so that only its times differ.
    """

    def __init__(self, touched: Wanted, before: Timeline, after: Timeline, *, since_ns: int = 0, every: bool = False) -> None:
        self._every = every
        self._touched, self._before, self._after, self._since = touched, before, after, since_ns
        self._fs = {number: FsKey.of(one) for number, one in touched.file_systems.items()}
        self._origins: dict[InodeKey, tuple[bytes, PlaceKey]] = {}
        self._places: list[tuple[bytes, PlaceKey]] = []
        self._old: dict[InodeKey, bool] = {}
        self._arrivals: set[InodeKey] | None = None
        self._empty: set[bytes] = set()
        self._paths = {InodeKey(self._fs[fs], handle): basic.path for (fs, handle), basic in touched.basics.items()}
        self._paths.update((InodeKey(self._fs[seen.fs], seen.handle), seen.path) for seen in touched.directories.values())
        for (number, name), entry in touched.entries.items():
            directory = touched.directories[number]
            path = directory.path.rstrip(b"/") + b"/" + name
            place = PlaceKey(InodeKey(self._fs[directory.fs], directory.handle), name)
            self._places.append((path, place))
            if not entry.mode:
                self._empty.add(path)
            else:
                self._origins[InodeKey(self._fs[entry.fs], entry.handle)] = path, place

    def __iter__(self) -> Iterator[Change]:
        """Sorted by path; what ends as it was is left out."""
        found: dict[bytes, Change] = {}
        told: set[InodeKey] = set()
        looked_at = {path for path, _place in self._places}
        for path, place in sorted(self._places):
            for change in self._place(path, place, told):
                found.setdefault(change.path, change)
        for (number, handle), basic in self._touched.basics.items():
            inode = InodeKey(self._fs[number], handle)
            if inode not in told and basic.path not in found and self._was_there(inode):
                change = Change(basic.path, self._before.side(inode), self._after.side(inode))
                if change.after is None and basic.path in looked_at:
                    continue  # it had come and gone: its place tells what was there before
                if self._differ(change, written=(number, handle) in self._touched.contents):
                    found[basic.path] = change
        return iter([found[path] for path in sorted(found)])

    def _place(self, path: bytes, place: PlaceKey, told: set[InodeKey]) -> Iterator[Change]:
        before = self._before.place(place) if self._was_there(place.directory) else None
        after = self._after.place(place)
        if before is None and after is None:
            return
        if before is not None and after is not None and before.inode == after.inode:
            return
        origin = None if after is None else self._moved(after.inode)
        if after is None and before is not None and before.inode in self._arrived():
            # It is told where it went to.
            return
        told.update(held.inode for held in (before, after) if held is not None)
        old = before.inode if before is not None else after.inode if after is not None and origin is not None else None
        change = Change(
            path,
            None if old is None else self._before.side(old),
            None if after is None else self._after.side(after.inode),
            origin,
        )
        if origin is not None or self._differ(change, written=True):
            yield change
        # No place in a directory that was born has an image of its own epoch.
        if after is not None and stat.S_ISDIR(after.mode) and origin is None:
            yield from self._born(path, after, told)

    def _differ(self, change: Change, *, written: bool) -> bool:
        before, after = change.before, change.after
        if not alike(before, after, written=written):
            return True
        return self._every and before is not None and not stat.S_ISDIR(before.mode) and before != after

    def _moved(self, inode: InodeKey) -> bytes | None:
        """The path from which the inode went away, when it did."""
        if inode not in self._origins:
            return None
        path, place = self._origins[inode]
        now = self._after.place(place)
        return None if now is not None and now.inode == inode else path

    def _arrived(self) -> set[InodeKey]:
        """Inodes that stand at a place now where they did not before."""
        if self._arrivals is None:
            held = (self._after.place(place) for dummy, place in self._places)
            self._arrivals = {one.inode for one in held if one is not None and one.inode in self._origins and self._moved(one.inode)}
        return self._arrivals

    def _born(self, path: bytes, directory: Held, told: set[InodeKey]) -> Iterator[Change]:
        for name in self._after.names(directory.inode):
            held = self._after.place(PlaceKey(directory.inode, name))
            if held is None:
                continue
            told.add(held.inode)
            below, origin = path + b"/" + name, self._moved(held.inode)
            yield Change(below, self._before.side(held.inode) if origin else None, self._after.side(held.inode), origin)
            if stat.S_ISDIR(held.mode) and origin is None:
                yield from self._born(below, held, told)

    def _was_there(self, inode: InodeKey) -> bool:
        """Whether the inode existed before the epochs: at a place that did, or older than they are."""
        known = self._old.get(inode)
        if known is None:
            self._old[inode] = True  # a directory is no place in itself, but a damaged log must not make us run in circles
            known = self._old[inode] = not self._since or self._older(inode)
        return known

    def _older(self, inode: InodeKey) -> bool:
        origin = self._origins.get(inode)
        if origin is not None:
            return self._was_there(origin[1].directory)
        birth = self._before.birth_ns(inode)
        if birth:
            return birth <= self._since
        # Gone, or on a file system without birth times: then by the places above it.
        path = self._paths.get(inode, b"/")
        while path not in (b"/", b""):
            if path in self._empty:
                return False
            path = os.path.dirname(path)
        return True


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
