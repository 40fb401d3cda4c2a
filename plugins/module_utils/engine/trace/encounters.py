# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a step finds of what earlier steps of its transaction had hold of: somebody else may have changed it in between (I5).

Facts alone are put into the log, once for each place and inode of an epoch: who stands there, and when it was last changed. The undo judges
them (drift/between.py), when it knows when which step ended. Of directories nothing is noted but at places: entries that others make in one
change its times, and are theirs.
"""

from __future__ import annotations

import stat

from ..drift.afresh import content_of
from ..drift.mergeable import kind_of
from ..filesystems import FileSystem
from ..kernel import Reader, Stat
from ..records import Met, MetContent, MetPlace
from ..undolog import Writer
from .resolve import Place
from .scope import CONTENTS_LEFT, below
from .subjects import Directory, Key, Where


class Encounters:
    """Of one transaction. Not thread-safe, like the images that it belongs to."""

    def __init__(self, log: Writer) -> None:
        self._log = log
        self._places: set[Where] = set()
        self._inodes: set[Key] = set()
        #: when the first step's epoch began: what was born since may be a step's own
        self._since = 0
        #: False: another agent had earlier steps, so that everything is noted
        self.knows_all = True

    def remember(self, places: set[Where], inodes: set[Key], kept: set[Key]) -> None:
        """The epoch that had hold of these is over."""
        self._places |= places
        self._inodes |= inodes
        self._inodes |= kept

    def began(self, ns: int) -> None:
        self._since = self._since or ns

    def forget(self) -> None:
        self._places.clear()
        self._inodes.clear()

    def inode_before(self, key: Key, state: Stat) -> bool:
        return (key in self._inodes or state[2] > self._since or not self.knows_all) and state[3] & 0o170000 != stat.S_IFDIR

    def place_before(self, where: Where, parent: Stat) -> bool:
        return where in self._places or parent[2] > self._since or not self.knows_all

    def inode(self, step: int, fs: FileSystem, handle: bytes, state: Stat, path: bytes) -> None:
        if not below(path, CONTENTS_LEFT):
            self._log.append(Met(step, fs.number, handle, state.ino, state.btime, state.ctime))
            self._content(step, path)

    def place(self, step: int, directory: Directory, place: Place, reader: Reader) -> None:
        name, found = place.name or b"", place.found
        path = directory.path + b"/" + name
        if below(path, CONTENTS_LEFT):
            return
        if found is None:
            self._log.append(MetPlace(step, directory.number, 0, directory.fs.number, b"", 0, 0, place.parent.ctime, name))
            return
        handle = reader.handle(place.fd, name)
        there = (found.ino, found.btime, found.ctime)
        self._log.append(MetPlace(step, directory.number, found.mode, directory.fs.number, handle, *there, name))
        self._content(step, path)

    def _content(self, step: int, path: bytes) -> None:
        data = content_of(path) if kind_of(path) is not None else None
        if data is not None:
            self._log.append(MetContent(step, path, data))
