# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inside of directories born in the transaction: an undo moves them into quarantine whole.

What no step left there, a database's files in a data directory that its service has filled, goes with the directory and is listed. A file
that a step did leave, and that somebody else has changed since, is drift, which holds the directory back.
"""

from __future__ import annotations

import collections.abc
import contextlib
import os
import stat
import typing as t

from ..kernel import AT_EMPTY_PATH, Stat
from ..records import Entry
from ..undoing.ground import Ground
from ..wanted import Inode, Place
from .ends import LATER, OURS
from .findings import CHANGED, Passenger

_End = tuple[int, int]


class Inside(t.NamedTuple):
    """`changed`: the first path of a step's file that somebody else has changed; empty: none."""

    passengers: list[Passenger]
    changed: bytes


class Born:
    """`end_of(inode, state, place)` and `when(state, end)` are the judge's."""

    def __init__(
        self, ground: Ground, end_of: collections.abc.Callable[..., _End], when: collections.abc.Callable[[Stat, _End], str]
    ) -> None:
        self._ground, self._reader, self._after = ground, ground.reader, ground.wanted.after
        self._end_of, self._when = end_of, when
        seen = ground.wanted.directories.items()
        self._numbers: dict[Inode, int] = {(one.fs, ground.wanted.inode(one.fs, one.handle)): number for number, one in seen}
        self._passengers: list[Passenger] = []
        self._changed = b""
        self._fs = 0

    def look(self, directory: int, entry: Entry, path: bytes, end: _End) -> Inside:
        """`end`: of the step in which the directory at the place was born."""
        self._passengers, self._changed = [], b""
        self._fs = self._ground.wanted.directories[entry.directory].fs
        self._enter(directory, entry.name, path, end, self._reader.stat(directory, entry.name).dev)
        return Inside(self._passengers, self._changed)

    def _enter(self, above: int, name: bytes, path: bytes, end: _End, dev: int) -> None:
        """Services may still be at work in there: what goes while we look is not there."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            number = self._numbers.get((self._fs, self._reader.handle(fd, b"", AT_EMPTY_PATH)))
            with os.scandir(fd) as entries:
                for child in entries:
                    with contextlib.suppress(FileNotFoundError):
                        info = child.stat(follow_symlinks=False)
                        if stat.S_ISDIR(info.st_mode) or info.st_ctime_ns > end[0] or info.st_ctime_ns > end[1]:
                            self._child(fd, os.fsencode(child.name), path, (number or 0, os.fsencode(child.name)), end, dev)
        finally:
            os.close(fd)

    def _child(self, fd: int, name: bytes, above: bytes, place: Place, end: _End, dev: int) -> None:
        state = self._reader.stat_or_none(fd, name)
        if state is None or state.dev != dev:
            return
        path = above + b"/" + name
        inode = self._fs, self._reader.handle(fd, name)
        if place in self._after.named:  # made in a later epoch than its directory
            own = self._end_of(inode, state, place)
            end = max(end[0], own[0]), min(end[1], own[1])
        made_ns = state.btime or state.ctime
        if made_ns > end[0]:
            self._passengers.append(Passenger(path, "made"))
        elif not stat.S_ISDIR(state.mode):
            own = self._end_of(inode, state)
            when = self._when(state, (max(end[0], own[0]), min(end[1], own[1])))
            if when == LATER:
                self._changed = self._changed or path
            elif when != OURS:
                self._passengers.append(Passenger(path, CHANGED))
        if stat.S_ISDIR(state.mode):
            self._enter(fd, name, path, end, dev)
