# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What FS_IOC_FSGETXATTR has besides the inode flags of chattr(1): project id, hints of extent size, and flags that GETFLAGS does not show.

Into a directory whose new files get its project id (PROJINHERIT), XFS and ext4 let nothing be moved or linked that has another one.
"""

from __future__ import annotations

import fcntl
import struct
import typing as t

FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
PROJINHERIT = 0x200
_EXTSIZE, _COWEXTSIZE = 0x800 | 0x1000, 0x10000  # EXTSIZE, EXTSZINHERIT
#: those, and REALTIME, RTINHERIT, NOSYMLINKS, NODEFRAG, FILESTREAM, DAX (include/uapi/linux/fs.h); set_flags has the others
_SETTABLE = PROJINHERIT | _EXTSIZE | _COWEXTSIZE | 0x1 | 0x100 | 0x400 | 0x2000 | 0x4000 | 0x8000

# struct fsxattr: flags, extent size, number of extents, project, extent size of copies, padding
_FSXATTR = struct.Struct("<IIIII8x")


class Attributes(t.NamedTuple):
    xflags: int
    extsize: int
    projid: int
    cowextsize: int


#: of an inode that has nothing of the kind
NONE = Attributes(0, 0, 0, 0)


def get(fd: int) -> Attributes | None:
    """None where the file system has none."""
    buffer = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buffer)
    except OSError:
        return None
    return _of(*_FSXATTR.unpack(buffer))


def _of(xflags: int, extsize: int, _extents: int, projid: int, cowextsize: int) -> Attributes:
    """Older kernels tell sizes that no flag makes a hint of."""
    return Attributes(xflags & _SETTABLE, extsize if xflags & _EXTSIZE else 0, projid, cowextsize if xflags & _COWEXTSIZE else 0)


def put(fd: int, wanted: Attributes) -> None:
    """Leaves the flags of chattr(1) as they are. EINVAL: XFS takes a hint of extent size only while a file has no data."""
    buffer = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buffer)
    except OSError:
        if wanted == NONE:
            return
        raise
    found = _FSXATTR.unpack(buffer)
    if _of(*found) != wanted:
        flags = (found[0] & ~_SETTABLE) | wanted.xflags
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, wanted.extsize, 0, wanted.projid, wanted.cowextsize))


def inherits(directory: int) -> bool:
    """Whether what is born in the directory gets its project id."""
    found = get(directory)
    return found is not None and bool(found.xflags & PROJINHERIT)


def differences(now: Attributes | None, wanted: Attributes) -> list[str]:
    """Their names, for the verification."""
    now = now or NONE
    wrong = ["project id"] if now.projid != wanted.projid else []
    if (now.extsize, now.cowextsize) != (wanted.extsize, wanted.cowextsize):
        wrong.append("extent size hint")
    if now.xflags != wanted.xflags and not wrong:
        wrong.append("inode flags %#x in place of %#x" % (now.xflags, wanted.xflags))
    return wrong
