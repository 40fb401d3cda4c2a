# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps package managers out while their database is put back, and waits for one that somebody has started meanwhile.

    with held(wanted):      where the undo is about to change one
        ...

Nobody is waited for longer than PATIENCE: what he has changed by then is drift, and treated as such (I5).
Locks of open file descriptions: a plain one would go as soon as any descriptor of the file is closed in this process. They exclude the
plain ones of dpkg and rpm.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator

from .wanted import Wanted

PATIENCE = 120.0

_LOCKS = {
    b"/var/lib/dpkg/": (b"/var/lib/dpkg/lock-frontend", b"/var/lib/dpkg/lock"),
    b"/var/lib/rpm/": (b"/var/lib/rpm/.rpm.lock",),
    b"/usr/lib/sysimage/rpm/": (b"/usr/lib/sysimage/rpm/.rpm.lock",),
}
_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")


@contextlib.contextmanager
def held(wanted: Wanted, *, patience: float = PATIENCE) -> Iterator[None]:
    touched = {folder for seen in wanted.directories.values() for folder in _LOCKS if (seen.path + b"/").startswith(folder)}
    end, fds = time.monotonic() + patience, list[int]()
    try:
        for folder in sorted(touched):
            for lock in _LOCKS[folder]:
                with contextlib.suppress(FileNotFoundError):
                    fds.append(os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
                    _take(fds[-1], end)
        yield
    finally:
        for fd in fds:
            os.close(fd)


def _take(fd: int, end: float) -> None:
    while True:
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN) or time.monotonic() > end:
                return
        time.sleep(0.1)
