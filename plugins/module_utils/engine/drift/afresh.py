# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small files as they are now, read by (directory, name) without following a symlink."""

from __future__ import annotations

import os
import stat

from .. import kernel


def read_below(directory: int, relative: bytes, largest: int) -> bytes | None:
    """None where there is no such regular file, or it is too large."""
    how = kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_BENEATH
    try:
        fd = kernel.openat2(directory, relative, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME, how)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        return os.pread(fd, largest, 0) if stat.S_ISREG(info.st_mode) and info.st_size <= largest else None
    finally:
        os.close(fd)
