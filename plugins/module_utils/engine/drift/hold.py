# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot be undone while something else is held back, since it stands on it: a verdict is closed under these rules.

- an inode that stands at a held place is not written, and is not put at another place;
- what a held place would have got stays where it is: to take it from there would lose it;
- a directory in which something is held stays, with all directories above it that the undo would have taken away;
- what is in a directory that a held place would have got, and that is no more, waits with it.
"""

from __future__ import annotations

import collections.abc
import os
import stat

from ..kernel import AT_EMPTY_PATH
from ..undoing.ground import Ground
from ..wanted import Inode, Place


class Hold:
    """`stands`: touched places that are not as before, by the inode that stands there (findings.py)."""

    def __init__(self, ground: Ground, stands: dict[Inode, list[Place]]) -> None:
        self._ground, self._wanted, self._stands = ground, ground.wanted, stands
        self.places: set[Place] = set()
        self.inodes: set[Inode] = set()
        self._there = {place: inode for inode, places in stands.items() for place in places}
        self._wanting: dict[Inode, list[Place]] | None = None
        self._inside: dict[Inode, list[Place]] = {}

    def places_and_inodes(self, places: collections.abc.Iterable[Place], inodes: collections.abc.Iterable[Inode]) -> None:
        self._index()
        for place in places:
            self._place(place)
        for inode in inodes:
            self._inode(inode)

    def paths(self, chosen: collections.abc.Callable[[bytes], bool]) -> None:
        """All touched places and inodes of these paths. A directory itself is held by what is in it."""
        places = [place for place, entry in self._wanted.entries.items() if chosen(os.fsencode(self._ground.path(entry)))]
        inodes = [inode for inode, basic in self._wanted.basics.items() if not stat.S_ISDIR(basic.mode) and chosen(basic.path)]
        self.places_and_inodes(places, inodes)

    def names(self) -> set[str]:
        """Paths of all that is held."""
        entries, basics = self._wanted.entries, self._wanted.basics
        found = {self._ground.path(entries[place]) for place in self.places}
        return found | {os.fsdecode(basics[inode].path) for inode in self.inodes if inode in basics}

    def times(self) -> dict[Inode, tuple[int, int]]:
        """Directories with held places in them keep the times that they have."""
        found = {}
        for number in {number for number, _name in self.places}:
            seen = self._wanted.directories[number]
            inode = seen.fs, self._wanted.inode(seen.fs, seen.handle)
            fd = self._ground.directory(number)
            if inode in self._wanted.basics and fd is not None:
                info = os.fstat(fd)
                found[inode] = info.st_atime_ns, info.st_mtime_ns
        return found

    def _index(self) -> None:
        if self._wanting is not None:
            return
        self._wanting = {}
        for place, entry in self._wanted.entries.items():
            if entry.mode:
                self._wanting.setdefault((entry.fs, self._wanted.inode(entry.fs, entry.handle)), []).append(place)
            seen = self._wanted.directories[place[0]]
            self._inside.setdefault((seen.fs, self._wanted.inode(seen.fs, seen.handle)), []).append(place)

    def _place(self, place: Place) -> None:
        entry = self._wanted.entries.get(place)
        if entry is None or place in self.places:
            return
        self.places.add(place)
        if place in self._there:
            self._inode(self._there[place])
        if entry.mode:
            wanted = entry.fs, self._wanted.inode(entry.fs, entry.handle)
            for other in self._stands.get(wanted, ()):
                self._place(other)
            if stat.S_ISDIR(entry.mode) and not self._lives(wanted):
                for inner in self._inside.get(wanted, ()):
                    self._place(inner)
        self._above(place[0])

    def _inode(self, inode: Inode) -> None:
        if inode in self.inodes:
            return
        self.inodes.add(inode)
        if inode not in self._stands:  # it may lie deep in a directory that would go
            self._around(inode)
        for place in [*self._stands.get(inode, ()), *((self._wanting or {}).get(inode, ()))]:
            self._place(place)

    def _around(self, inode: Inode) -> None:
        try:
            fd = self._ground.inode(*inode)
        except OSError:  # what cannot be looked at is left where it is
            return
        if fd < 0:
            return
        try:
            directory, _name = self._ground.file_systems[inode[0]].open_parent(fd)
        except OSError:  # it has no name any more
            return
        finally:
            os.close(fd)
        try:
            self._up_from(inode[0], directory)
        finally:
            os.close(directory)

    def _lives(self, inode: Inode) -> bool:
        fd = self._ground.inode(*inode)
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def _above(self, number: int) -> None:
        """Hold the places of the directory and of those above it, as far as the undo would have taken them away."""
        start = self._ground.directory(number)
        if start is not None:
            self._up_from(self._wanted.directories[number].fs, start)

    def _up_from(self, fs: int, start: int) -> None:
        fd = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=start)
        try:
            last = None
            while True:
                inode = fs, self._ground.reader.handle(fd, b"", AT_EMPTY_PATH)
                if inode == last:
                    return
                for place in self._stands.get(inode, ()):
                    self._place(place)
                last = inode
                above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = above
        finally:
            os.close(fd)
