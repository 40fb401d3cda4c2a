# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Extended attributes as they are read for images, and ACLs as they were before a chmod."""

from __future__ import annotations

import errno
import os
import struct

#: XFS shows root each ACL under a second name, as it lies on the disk. Written back, one would undo the other.
_ALIASES = {"trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"}


def read_xattrs(fd: int) -> tuple[tuple[bytes, bytes], ...]:
    """All extended attributes of an O_PATH fd, by the magic link (works for symlinks and devices too)."""
    path = "/proc/self/fd/%d" % fd
    try:
        names = os.listxattr(path)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.ELOOP):
            return ()
        raise
    pairs = []
    for name in sorted(set(names) - _ALIASES):
        try:
            pairs.append((os.fsencode(name), os.getxattr(path, name)))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    return tuple(pairs)


_ACL = "system.posix_acl_access"
_ACL_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


def pairs_of_mode(pairs: tuple[tuple[bytes, bytes], ...], mode: int) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes with their ACL as it was when the mode was this one."""
    acl = os.fsencode(_ACL)
    return tuple((name, acl_of_mode(data, mode) if name == acl else data) for name, data in pairs)


def acl_of_mode(acl: bytes, mode: int) -> bytes:
    """The ACL (linux/posix_acl_xattr.h) as it was when the inode had `mode`: chmod changes its owner, mask and other entries."""
    entries = [_ACL_ENTRY.unpack_from(acl, at) for at in range(4, len(acl), _ACL_ENTRY.size)]
    group = _MASK if any(tag == _MASK for tag, _perm, _id in entries) else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return acl[:4] + b"".join(_ACL_ENTRY.pack(tag, bits.get(tag, perm), id_) for tag, perm, id_ in entries)
