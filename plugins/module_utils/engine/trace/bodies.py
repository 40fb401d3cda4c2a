# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an inode holds, taken for an image: into the log itself where it is small, else as a copy in the store."""

from __future__ import annotations

import os

from ..filesystems import FileSystem
from ..records import COPY, INLINE
from ..store import Store

#: Contents up to this many bytes go into the log itself.
INLINE_LIMIT = 4096


def target_of(fs: FileSystem, handle: bytes) -> bytes:
    fd = fs.open(handle)
    try:
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


def contents_of(store: Store, fs: FileSystem, handle: bytes, size: int) -> tuple[int, int, bytes]:
    """(how, number, data) of a regular file's contents."""
    if size == 0:
        return INLINE, 0, b""
    if size <= INLINE_LIMIT:
        fd = fs.open(handle, os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK)
        try:
            data = os.pread(fd, INLINE_LIMIT + 1, 0)
        finally:
            os.close(fd)
        if len(data) <= INLINE_LIMIT:
            return INLINE, 0, data
    number = store.copy(fs, handle, size)
    return COPY, number, store.digest(fs, number)
