# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bytes that are written whole, or an error says why they are not.

write(2) may take a part and say so by what it returns alone: a file system that fills up does. Asked for the rest, it raises. No other
file of the engine calls os.write, os.pwrite or a raw file's write (tests/unit/engine/test_whole.py). All our sockets keep the boundaries
of messages, which are sent whole or not at all.
"""

from __future__ import annotations

import errno
import os
import typing as t


def write(fd: int, data: bytes) -> None:
    """At the file's own position. Raises OSError."""
    _all_of(data, lambda rest, _at: os.write(fd, rest))


def write_at(fd: int, data: bytes, at: int) -> None:
    """Raises OSError; what lies before the part that did not fit may have been written."""
    _all_of(data, lambda rest, done: os.pwrite(fd, rest, at + done))


def _all_of(data: bytes, take: t.Callable[[memoryview, int], int]) -> None:
    rest, done = memoryview(data), 0
    while rest:
        taken = take(rest, done)
        if taken <= 0:
            raise OSError(errno.EIO, "nothing was written, and no error told")
        rest, done = rest[taken:], done + taken
