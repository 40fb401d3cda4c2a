# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put one inode's content and metadata back, in the order that keeps each step from spoiling an earlier one.

content, owner, mode, extended attributes, times; inode flags last of all and by themselves (`set_flags`), since +i forbids the rest.
chown drops suid and capabilities; writing drops capabilities; chmod changes an ACL's mask.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import typing as t

from . import kernel, whole
from .extents import extents, gaps, preallocate, preallocated, punch_hole
from .records import Basic
from .xattrs import read_xattrs

_BLOCK = 1 << 17
_SECURITY = b"security."


def proc(fd: int) -> bytes:
    """A path that leads to the inode of an O_PATH fd."""
    return b"/proc/self/fd/%d" % fd


def set_bytes(fd: int, data: bytes) -> None:
    """Make the small file open for reading and writing at `fd` equal to `data`."""
    if os.pread(fd, len(data) + 1, 0) != data:
        whole.write_at(fd, data, 0)
        os.ftruncate(fd, len(data))


def set_contents(fd: int, source: int, size: int) -> None:
    """Make the file open for writing at `fd` equal to the first `size` bytes of `source`: only blocks that differ are written, and the cut
    comes last, so that a process which has it mapped meets no SIGBUS (TRACE.md 22). What was a hole, preallocated or written zeros is so
    again (extents.py)."""
    if os.fstat(source).st_size < size:
        raise _too_short()
    if os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)  # XFS allocates ahead of a write that makes a file longer, and what comes to lie inside it stays
    at = 0
    while at < size:
        start, end = _next_data(source, at, size)
        if start > at:
            for first, last in preallocated(source, at, start):
                _make_hole(fd, at, first)
                at = last if preallocate(fd, first, last) else first
            # a hole at the end goes on behind it: of the last block only whole ones can be punched
            _make_hole(fd, at, start if start < size else _past_end(fd, size))
        at = start
        absent = gaps(fd, start, end)
        while at < end:
            data = os.pread(source, min(_BLOCK, end - at), at)
            if not data:
                raise _too_short()
            upto = at + len(data)
            # zeros that were written take space, and a hole that reads the same takes none
            if os.pread(fd, len(data), at) != data or any(first < upto and last > at for first, last in absent):
                whole.write_at(fd, data, at)
            at = upto
        at = max(at, end)
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)


def _too_short() -> OSError:
    return OSError(errno.EIO, "its copy in the store is shorter than it was")


def same_contents(fd: int, source: int, size: int) -> bool:
    """Whether the file at `fd` reads as the first `size` bytes of `source`, and is no longer: only what is data in one of them is read."""
    if os.fstat(fd).st_size != size:
        return False
    at = 0
    while at < size:
        at = min(_next_data(one, at, size)[0] for one in (fd, source))
        length = min(_BLOCK, size - at)
        if os.pread(fd, length, at) != os.pread(source, length, at):
            return False
        at += length
    return True


def share_contents(fd: int, source: int, size: int) -> bool:
    """The same by reflink, which takes no space; False where the file system cannot. For when there is none."""
    try:
        fcntl.ioctl(fd, kernel.FICLONE, source)
    except OSError:
        return False
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)
    return True


def _next_data(fd: int, at: int, size: int) -> tuple[int, int]:
    """The next extent of data in [at, size), or (size, size)."""
    try:
        start = min(os.lseek(fd, at, os.SEEK_DATA), size)
    except OSError as error:
        return (size, size) if error.errno == errno.ENXIO else (at, size)
    try:
        return start, min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError:
        return start, size


def _past_end(fd: int, size: int) -> int:
    return (max(os.fstat(fd).st_size, size) | (_BLOCK - 1)) + 1


def _make_hole(fd: int, at: int, end: int) -> None:
    """Punch, where the target has something; zeros where the file system cannot punch."""
    present = min(end, os.fstat(fd).st_size)
    if present <= at or (not extents(fd, at, present) and _next_data(fd, at, present)[0] >= present):
        return
    if not punch_hole(fd, at, end):
        while at < present:
            zeros = bytes(min(_BLOCK, present - at))
            whole.write_at(fd, zeros, at)
            at += len(zeros)


def set_basic(fd: int, basic: Basic) -> None:
    """Owner and mode of the inode of an O_PATH fd. chown only where it differs: it drops suid and capabilities."""
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (basic.uid, basic.gid):
        os.chown(proc(fd), basic.uid, basic.gid)
        now = os.fstat(fd)
    if not stat.S_ISLNK(basic.mode) and now.st_mode != basic.mode:
        os.chmod(proc(fd), stat.S_IMODE(basic.mode))


def set_xattrs(fd: int, pairs: t.Sequence[tuple[bytes, bytes]]) -> None:
    """All extended attributes, and no other. Those that the kernel or an LSM refuses to take away are left."""
    path = os.fsdecode(proc(fd))
    want, now = dict(pairs), dict(read_xattrs(fd))
    for name in now:
        if name not in want:
            try:
                os.removexattr(path, name)
            except OSError as error:
                if not name.startswith(_SECURITY) or error.errno not in (errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
                    raise
    for name, value in pairs:
        if now.get(name) != value:
            os.setxattr(path, name, value)


def set_times(fd: int, basic: Basic) -> None:
    os.utime(proc(fd), ns=(basic.atime, basic.mtime))


def differences(fd: int, basic: Basic, xattrs: t.Sequence[tuple[bytes, bytes]] | None, *, sized: bool) -> list[str]:
    """What of the metadata is not as wanted, for the verification: names of attributes. `sized`: the contents were restored, so the size
    counts."""
    now, wrong = os.fstat(fd), []
    if stat.S_IFMT(now.st_mode) != stat.S_IFMT(basic.mode):
        return ["type"]
    if stat.S_IMODE(now.st_mode) != stat.S_IMODE(basic.mode):
        wrong.append("mode")
    if (now.st_uid, now.st_gid) != (basic.uid, basic.gid):
        wrong.append("owner")
    if now.st_mtime_ns != basic.mtime:
        wrong.append("mtime")
    if sized and now.st_size != basic.size:
        wrong.append("size")
    if xattrs is not None and dict(read_xattrs(fd)) != dict(xattrs):
        wrong.append("extended attributes")
    return wrong
