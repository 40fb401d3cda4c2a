# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks of other programs' files, held by an open file description: a plain one would go as soon as any descriptor of the file is closed in
this process, and an undo opens the very files that it holds locks of. They exclude the plain ones of lckpwdf(3), dpkg and rpm.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")
_AGAIN = 0.05


def take(fd: int, end: float) -> bool:
    """The whole file, which `fd` may write. False: at that moment (monotonic) somebody else still had it, or it cannot be locked at all."""
    while True:
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            return True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN) or time.monotonic() > end:
                return False
        time.sleep(_AGAIN)
