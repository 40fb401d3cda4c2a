# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a step left (I5), noted in the undo log when its last process has ended.

    digest = AfterDigest(images, log);  digest.note(step, ended_ns)

Of an inode it is the time at which the step ended: nobody can set a ctime back, so one that is later shows a change by somebody else,
and 40,000 files whose mode a step changed cost nothing here. Of a place it is who stands there. Only of files that can be merged are the
contents kept (docs/adr/0006).
"""

from __future__ import annotations

import os
import time

from .drift.afresh import content_of
from .drift.mergeable import kind_of, may_hold_some
from .records import Left, LeftContent, LeftPlace, Sealed
from .trace.images import Images
from .trace.subjects import Directory
from .undolog import Writer

_PER_RECORD = 10_000


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def clock_offset_ns() -> int:
    """CLOCK_REALTIME less CLOCK_BOOTTIME: moves only when the clock is set."""
    return now_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class AfterDigest:
    """Of one transaction. The caller holds its lock."""

    def __init__(self, images: Images, log: Writer) -> None:
        self._images, self._log = images, log

    def note(self, step: int, ended_ns: int) -> None:
        """`ended_ns` 0: processes of the step live on."""
        contents: dict[bytes, None] = {path: None for path in self._images.written if kind_of(path) is not None}
        places: list[LeftPlace] = []
        for directory, names in self._touched():
            places += self._who_stands_in(directory, names)
            if may_hold_some(directory.path):
                contents.update((path, None) for name in names for path in [directory.path + b"/" + name] if kind_of(path) is not None)
        for at in range(0, len(places), _PER_RECORD):
            self._log.append(Left(step, tuple(places[at : at + _PER_RECORD])))
        for path in contents:
            data = content_of(path)
            if data is not None:
                self._log.append(LeftContent(step, path, data))
        self.ended(step, ended_ns)

    def ended(self, step: int, ended_ns: int) -> None:
        """The last process that a step had left behind has ended, after the step was sealed."""
        self._log.append(Sealed(step, ended_ns, clock_offset_ns()))

    def _touched(self) -> list[tuple[Directory, list[bytes]]]:
        names: dict[int, list[bytes]] = {}
        for number, name in self._images.seen_places:
            names.setdefault(number, []).append(name)
        return [(self._images.by_number[number], found) for number, found in names.items() if number in self._images.by_number]

    def _who_stands_in(self, directory: Directory, names: list[bytes]) -> list[LeftPlace]:
        """Nothing for a directory that is gone: its places are gone with it."""
        try:
            fd = directory.fs.open(directory.handle, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return []
        reader = self._images.reader
        try:
            found = []
            for name in names:
                state = reader.stat_or_none(fd, name)
                number = directory.number
                found.append(LeftPlace(number, 0, 0, name) if state is None else LeftPlace(number, state.ino, state.btime, name))
            return found
        finally:
            os.close(fd)
