# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directory that a caller works in: chmod -R and rm -r name thousands of files in a row by the same descriptor.

While that descriptor is open on the very same file (kcmp(2)), the directory need not be looked up again. Its state is as it was when it
was
looked up; what a traced call has changed in it since was imaged then. Held open it would keep a file system from being unmounted, so it is
let go when a step mounts, or asks another process for anything.
"""

from __future__ import annotations

import os
import stat

from .. import kernel
from ..kernel import Reader, Stat
from .resolve import Place

_NOBODY = (0, -1)


class Workplace:
    """One directory at a time. Not thread-safe, like the capture that it belongs to; forget at each epoch."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._process = reader, os.getpid()
        self._whose = self._last = _NOBODY
        #: the directory while it is held, else -1, and its state
        self.fd = -1
        self.state: Stat | None = None

    def is_here(self, thread: int, dfd: int) -> bool:
        """Whether the thread's descriptor is open on the directory that is held."""
        return self._whose == (thread, dfd) and kernel.same_file(self._process, self.fd, thread, dfd)

    def place(self, thread: int, dfd: int, name: bytes, follow: bool) -> Place | None:
        """Where the name leads; None when the long way must be taken."""
        if self.state is None or not self.is_here(thread, dfd):
            return None
        found = self._reader.stat_or_none(self.fd, name)
        if found is not None and follow and stat.S_ISLNK(found.mode):
            return None
        return Place(os.dup(self.fd), self.state, name, found)

    def seen(self, thread: int, dfd: int, place: Place) -> None:
        """The long way led to this place, by a name alone. At the second time in a row it pays to hold the directory."""
        whose = (thread, dfd)
        if whose != self._last:
            self._last = whose
            return
        self.let_go()
        try:
            process = os.pidfd_open(thread)
        except OSError:  # a thread that is no process
            return
        try:
            self.fd = kernel.their_file(process, dfd)
            here = os.fstat(self.fd)
            if (here.st_ino, here.st_dev) == (place.parent.ino, os.makedev(place.parent.dev >> 32, place.parent.dev & 0xFFFFFFFF)):
                self._whose, self._last, self.state = whose, whose, place.parent
            else:
                self.let_go()
        except OSError:
            self.let_go()
        finally:
            os.close(process)

    def let_go(self) -> None:
        self._whose = self._last = _NOBODY
        self.state = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
