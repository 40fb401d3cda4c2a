# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which file system it is: not where it is mounted, nor of what type (docs/adr/0028).

    seen = identity.of(fd, root, fstype)            when the log names a file system
    identity.compare(seen, dev, now, now_dev)       SAME, OTHER, or CLONE: the device is another one, and all else is equal

Two ext4 have root directories with the same handle, and a clone of a disk even the same UUID. A device number tells them apart within one
boot. What has no UUID at all is the same only while it is mounted from the same device in the same boot.
"""

from __future__ import annotations

import fcntl
import struct
import typing as t

from . import kernel
from .boot import boot_id

SAME, OTHER, CLONE = "same", "other", "clone"

# XFS_IOC_FSGEOMETRY_V1 (fs/xfs/libxfs/xfs_fs.h): uuid at byte 64. FS_IOC_GETFSUUID (Linux 6.9). FAT_IOCTL_GET_VOLUME_ID.
_XFS_GEOMETRY, _FSUUID, _FAT_VOLUME_ID = 0x80705864, 0x80111500, 0x80047213
#: f_fsid is made of the UUID (of a btrfs subvolume: and of its number); that of others is the device's number. tmpfs: since Linux 5.14
_BY_STATFS = frozenset((b"ext2", b"ext3", b"ext4", b"btrfs", b"tmpfs"))
_FAT = frozenset((b"vfat", b"msdos"))


class Identity(t.NamedTuple):
    """`boot`: in which it was seen; `own`: what it says of itself, by which it is known again (empty: nothing); `root`: the directory of it
    that was mounted there, by its path within; `handle`, `btime`: that directory's."""

    boot: bytes
    own: bytes
    root: bytes
    handle: bytes
    btime: int

    @property
    def sure(self) -> bool:
        return bool(self.own)


def of(fd: int, root: bytes, fstype: bytes) -> Identity:
    """Of what is mounted at the directory of `fd`, which is open for reading."""
    reader = kernel.Reader()
    state = reader.stat(fd, b"", kernel.AT_EMPTY_PATH)
    return Identity(boot_id().encode(), _own(fd, fstype), root, reader.handle(fd, b"", kernel.AT_EMPTY_PATH), state.btime)


def _own(fd: int, fstype: bytes) -> bytes:
    """The same bytes for the same file system on every kernel: it may be found again by another one."""
    try:
        if fstype in _BY_STATFS:
            return _told(kernel.file_system_id(fd))
        if fstype == b"xfs":
            return _told(bytes(fcntl.ioctl(fd, _XFS_GEOMETRY, bytes(112)))[64:80])
        if fstype in _FAT:
            return _told(struct.pack("<I", fcntl.ioctl(fd, _FAT_VOLUME_ID) & 0xFFFFFFFF))
        found = bytes(fcntl.ioctl(fd, _FSUUID, bytes(17)))
        return _told(found[1 : 1 + found[0]])
    except OSError:
        return b""


def _told(value: bytes) -> bytes:
    return value if value.strip(b"\0") else b""


def compare(then: Identity, dev_then: int, now: Identity, dev_now: int) -> str:
    same_boot = then.boot == now.boot
    if then.own != now.own:
        return OTHER
    if not then.sure:  # numbers are handed out again: the root directory tells
        same_root = (then.root, then.handle, then.btime) == (now.root, now.handle, now.btime)
        return SAME if same_boot and dev_then == dev_now and same_root else OTHER
    if same_boot and dev_then != dev_now and _is_device(dev_then) and _is_device(dev_now):
        return CLONE
    return SAME


def _is_device(dev: int) -> bool:
    """Numbers without a device behind them (major 0: btrfs, tmpfs) are handed out anew at each mount."""
    return bool(dev >> 32)
