# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small files as they are now, read by (directory, name) without following a symlink."""

from __future__ import annotations

import os
import stat

from .. import kernel
from .mergeable import LARGEST


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


def content_of(path: bytes) -> bytes | None:
    """All of a small regular file; None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.pread(fd, LARGEST + 1, 0)
    except OSError:
        return None
    finally:
        os.close(fd)
    return data if len(data) <= LARGEST else None
