# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""btrfs subvolumes that are not mounted by themselves: found by the handle of any inode in them.

    mount = subvolumes.find(handle, dev, mounts_of())

Each subvolume has a device number of its own, which no mount table shows. A handle names inode and subvolume, and opens by any mount of the
same btrfs; so does that of the subvolume's root directory, inode 256, whose generation its tree tells. Thus it does not matter whether an
inode was reached by a path, by a descriptor that was passed on, or by a mount of a single file.
"""

from __future__ import annotations

import fcntl
import os
import struct
import typing as t

from . import kernel
from .mount_table import Mount

#: inode number of a subvolume's root directory, and of what stands in a snapshot for a subvolume that was not taken along
ROOT, PLACEHOLDER = 256, 2
# struct btrfs_fid (fs/btrfs/export.h): inode, subvolume, generation; fid types (include/linux/exportfs.h)
_FID, _ALONE, _TYPES = struct.Struct("<QQI"), b"\x4d\0\0\0", (b"\x4d\0\0\0", b"\x4e\0\0\0", b"\x4f\0\0\0")
# BTRFS_IOC_TREE_SEARCH (include/uapi/linux/btrfs.h): the key, then 4096 - 104 bytes of items, each behind a header of 32
_TREE_SEARCH, _KEY, _HEADER, _ARGUMENT = 0xD0009411, struct.Struct("<7Q4I4Q"), struct.Struct("<QQQII"), 4096
_INODE_ITEM = 1


def find(handle: bytes, dev: int, mounts: t.Sequence[Mount]) -> Mount | None:
    """The subvolume of device `dev` that an inode with this handle is in, as if it were mounted at its root directory; None where the
    host's mounts show no way to it. `dev` 0: whatever its device is by now."""
    if handle[:4] not in _TYPES or len(handle) < 4 + _FID.size:
        return None
    subvolume = _FID.unpack_from(handle, 4)[1]
    for mount in mounts:
        if mount.fstype == b"btrfs":
            try:
                found = _look(mount, subvolume, dev)
            except OSError:  # another btrfs, or one that nobody can look into
                continue
            if found is not None:
                return found
    return None


def _look(mount: Mount, subvolume: int, dev: int) -> Mount | None:
    fd = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = _ALONE + _FID.pack(ROOT, subvolume, _generation(fd, subvolume))
        root = kernel.open_by_handle(fd, handle, os.O_PATH | os.O_DIRECTORY)
        try:
            path = os.readlink(b"/proc/self/fd/%d" % root)
        finally:
            os.close(root)
    finally:
        os.close(fd)
    info = os.stat(path)  # what lies outside of this mount has a path all the same, which leads elsewhere
    number = os.major(info.st_dev) << 32 | os.minor(info.st_dev)
    if info.st_ino != ROOT or (dev and number != dev) or kernel.Reader().handle(kernel.AT_FDCWD, path) != handle:
        return None
    return Mount(0, number, b"/", path, b"btrfs", b"", b"")


def _generation(fd: int, subvolume: int) -> int:
    """Of the root directory of a subvolume. OSError ENOENT where this btrfs has none of that number."""
    argument = bytearray(_ARGUMENT)
    everything = (1 << 64) - 1
    _KEY.pack_into(argument, 0, subvolume, ROOT, ROOT, 0, everything, 0, everything, _INODE_ITEM, _INODE_ITEM, 1, 0, 0, 0, 0, 0)
    fcntl.ioctl(fd, _TREE_SEARCH, argument)
    if _KEY.unpack_from(argument)[9] != 1:
        raise FileNotFoundError("btrfs subvolume %d" % subvolume)
    return int(struct.unpack_from("<Q", argument, _KEY.size + _HEADER.size)[0])
