# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Contents of one file into another one: shared where the file system can, else extent by extent."""

from __future__ import annotations

import errno
import fcntl
import os

from . import kernel, whole
from .extents import preallocate, preallocated

_CHUNK = 1 << 20


def reflink(source: int, target: int) -> bool:
    """Whether the file system could share the contents, which takes no space."""
    try:
        fcntl.ioctl(target, kernel.FICLONE, source)
    except OSError:
        return False
    return True


def copy_data(source: int, target: int, size: int) -> None:
    """Copy extent by extent, leaving the holes holes (a lastlog of 300 GB is mostly hole), and what is preallocated so."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            start = size if error.errno == errno.ENXIO else at
        for first, last in preallocated(source, at, min(start, size)):
            preallocate(target, first, last)
        if start >= size:
            return
        try:
            end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError:
            end = size
        while start < end:
            start += _copy_range(source, target, start, end - start)
        at = end


def _copy_range(source: int, target: int, at: int, length: int) -> int:
    try:
        done = os.copy_file_range(source, target, min(length, 1 << 30), at, at)
        if done:
            return done
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    data = os.pread(source, min(length, _CHUNK), at)
    if not data:
        return length  # it shrank meanwhile
    whole.write_at(target, data, at)
    return len(data)
