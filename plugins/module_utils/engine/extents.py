# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of a file is allocated (Documentation/filesystems/fiemap.rst), and holes and preallocated ranges made anew.

A range that reads as zeros is a hole, or it is preallocated: fallocate(2) does that, and since large folios also a write through a mapping,
around the byte that it writes. lseek(SEEK_DATA) calls both a hole; the space that they take differs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import typing as t

from .kernel import fail, libc

_FIEMAP = 0xC020660B
_HEAD, _EXTENT = struct.Struct("<QQIIII"), struct.Struct("<QQQ16xI12x")
_AT_ONCE = 64
_LAST, _UNWRITTEN = 0x1, 0x800
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x1, 0x2, 0x10


class Extent(t.NamedTuple):
    """[start, end) in bytes, within what was asked for."""

    start: int
    end: int
    preallocated: bool


def extents(fd: int, start: int, end: int) -> list[Extent] | None:
    """What is allocated of [start, end), in order; None where the file system does not say."""
    found: list[Extent] = []
    buffer = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
    at = start
    while at < end:
        _HEAD.pack_into(buffer, 0, at, end - at, 0, 0, _AT_ONCE, 0)
        try:
            fcntl.ioctl(fd, _FIEMAP, buffer)
        except OSError:
            return None
        flags = _LAST
        for number in range(_HEAD.unpack_from(buffer)[3]):
            first, _physical, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            at = first + length
            if max(first, start) < min(at, end):
                found.append(Extent(max(first, start), min(at, end), bool(flags & _UNWRITTEN)))
        if flags & _LAST:
            break
    return found


def preallocated(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    return [(extent.start, extent.end) for extent in extents(fd, start, end) or () if extent.preallocated]


def gaps(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """What is not allocated of [start, end); nothing where the file system does not say."""
    there = extents(fd, start, end)
    if there is None:
        return []
    edges = [start, *(edge for extent in there for edge in (extent.start, extent.end)), end]
    return [(first, last) for first, last in zip(edges[::2], edges[1::2]) if first < last]


def preallocate(fd: int, start: int, end: int) -> bool:
    """Whether the range reads as zeros now, and is allocated. OSError when there is no room."""
    return _fallocate(fd, _ZERO_RANGE, start, end)


def punch_hole(fd: int, start: int, end: int) -> bool:
    """Whether the range is a hole now."""
    return _fallocate(fd, _PUNCH_HOLE, start, end)


def _fallocate(fd: int, mode: int, start: int, end: int) -> bool:
    if libc.fallocate(fd, mode | _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(end - start)) == 0:
        return True
    if ctypes.get_errno() in (errno.ENOSPC, errno.EDQUOT):
        raise fail("fallocate")
    return False
