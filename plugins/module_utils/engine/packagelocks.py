# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps package managers out while their database is put back, and waits for one that somebody has started meanwhile.

    with held(wanted) as taken:      where the undo is about to change one; `taken`: locks that somebody else still has
        ...

Nobody is waited for longer than PATIENCE: what he has changed by then is drift, and what he is at is not undone under his hands (I5).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from . import filelocks
from .wanted import Wanted

PATIENCE = 120.0

_LOCKS = {
    b"/var/lib/dpkg/": (b"/var/lib/dpkg/lock-frontend", b"/var/lib/dpkg/lock"),
    b"/var/lib/rpm/": (b"/var/lib/rpm/.rpm.lock",),
    b"/usr/lib/sysimage/rpm/": (b"/usr/lib/sysimage/rpm/.rpm.lock",),
}


@contextlib.contextmanager
def held(wanted: Wanted, *, patience: float = PATIENCE) -> Iterator[list[str]]:
    touched = {folder for seen in wanted.directories.values() for folder in _LOCKS if (seen.path + b"/").startswith(folder)}
    end, fds, taken = time.monotonic() + patience, list[int](), list[str]()
    try:
        for folder in sorted(touched):
            for lock in _LOCKS[folder]:
                with contextlib.suppress(FileNotFoundError):
                    fds.append(os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
                    if not filelocks.take(fds[-1], end):
                        taken.append(os.fsdecode(lock))
        yield taken
    finally:
        for fd in fds:
            os.close(fd)
