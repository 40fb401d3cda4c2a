# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file systems of the host, by device number: what the trace does with each, and the fd by which handles are opened.

An inode is named by (file system, handle), so a step may live in any mount namespace: the agent always works through its own mounts
(TRACE.md 1). A detached clone is held, not the mount itself, so that a step's umount is not busy because of us.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import typing as t

from . import covered, ext4, identity, kernel
from .identity import Identity
from .mount_table import Mount

#: Images are taken.
TRACED = "traced"
#: /proc/sys and /sys: the value before is recorded.
VALUES = "values"
#: Nothing there outlives the step or is state of the host.
OUTSIDE = "outside"
#: The kernel's or the firmware's state as files and directories, of which no image is taken: changes there are named irreversible.
NAMED = "named"
#: A network or FUSE file system: never touched by the agent (TRACE.md 9); changes there are named irreversible.
FOREIGN = "foreign"
#: No file handles: refused.
UNKNOWN = "unknown"

_VALUES = frozenset((b"proc", b"sysfs"))
_OUTSIDE = frozenset(
    (
        b"devpts",
        b"cgroup",
        b"cgroup2",
        b"securityfs",
        b"fusectl",
        b"selinuxfs",
        b"hugetlbfs",
        b"nsfs",
        b"pipefs",
        b"sockfs",
        b"anon_inodefs",
        b"rpc_pipefs",
        b"mqueue",
        b"ramfs",
        b"binfmt_misc",
        b"bpf",
    )
)
_NAMED = frozenset((b"efivarfs", b"pstore", b"configfs", b"debugfs", b"tracefs"))
_FOREIGN = frozenset(
    (
        b"nfs",
        b"nfs4",
        b"cifs",
        b"smb3",
        b"9p",
        b"ceph",
        b"afs",
        b"autofs",
        b"fuse",
        b"fuseblk",
        b"glusterfs",
        b"virtiofs",
        b"orangefs",
        b"ocfs2",
        b"gfs2",
    )
)
#: Birth times are there and are those of the realtime clock.
_BIRTH_TIMES = frozenset((b"ext4", b"xfs", b"btrfs", b"tmpfs", b"f2fs"))
_NO_LINKS = frozenset((b"vfat", b"msdos", b"exfat", b"ntfs3"))


def policy(fstype: bytes) -> str:
    if fstype in _VALUES:
        return VALUES
    if fstype in _OUTSIDE:
        return OUTSIDE
    if fstype in _NAMED:
        return NAMED
    if fstype in _FOREIGN or fstype.startswith(b"fuse."):
        return FOREIGN
    if fstype == b"overlay":
        return UNKNOWN
    return TRACED


class FileSystem:
    """One file system: its place among the host's mounts and the fd through which its inodes are opened by handle."""

    def __init__(self, number: int, dev: int, fstype: bytes, mount_point: bytes, root: bytes = b"/") -> None:
        """`root`: which of its directories is mounted there."""
        self.number, self.dev, self.fstype, self.mount_point, self._root = number, dev, fstype, mount_point, root
        self.policy = policy(fstype)
        self.birth_times = fstype in _BIRTH_TIMES
        self.links = fstype not in _NO_LINKS
        #: the root is never unmounted, so it can be held as it is, and inodes found by path link straight into the store
        self.shared_mount = mount_point == b"/"
        self.mount_fd = -1
        self.store_fd = -1

    @functools.cached_property
    def orders_metadata(self) -> bool:
        """Whether its journal brings changes of metadata to the disk in the order in which they were made: then a link into the store is
        there whenever the unlink after it is. XFS's log does; ext4's does unless it has no journal or fast commits, which are per
        inode; what btrfs logs at an fsync is per inode too."""
        return self.fstype == b"xfs" or (self.fstype == b"ext4" and ext4.journals_in_order(self.dev))

    @functools.cached_property
    def identity(self) -> Identity:
        """Once it is open."""
        return identity.of(self.mount_fd, self._root, self.fstype)

    def open_mount(self) -> None:
        """OSError ENODEV where its mount point leads to another one, and it is not below that."""
        if self.mount_fd < 0:
            if self.shared_mount:
                self.mount_fd = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                return
            clone = self._clone()
            try:
                self.mount_fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=clone)
            finally:
                os.close(clone)

    def _clone(self) -> int:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            clone = kernel.private_mount(self.mount_point)
            if kernel.Reader().stat(clone, b"", kernel.AT_EMPTY_PATH).dev == self.dev:
                return clone
            os.close(clone)
        return covered.clone(self.mount_point, self.dev)

    def reopen(self) -> bool:
        """Whether it was read-only, and may not be any more: a clone keeps the options of its own time."""
        if self.mount_fd < 0 or self.shared_mount or not os.fstatvfs(self.mount_fd).f_flag & os.ST_RDONLY:
            return False
        now = FileSystem(self.number, self.dev, self.fstype, self.mount_point)
        try:
            now.open_mount()
        except OSError:  # another one lies there by now
            return False
        self.close()
        self.mount_fd = now.mount_fd
        return True

    def close(self) -> None:
        for fd in (self.store_fd, self.mount_fd):
            if fd >= 0:
                os.close(fd)
        self.store_fd = self.mount_fd = -1

    def open(self, handle: bytes, flags: int = os.O_PATH | os.O_NOFOLLOW) -> int:
        """An fd of the very inode; OSError ESTALE when it is gone, whatever has its number by now."""
        fd = self.open_as_the_kernel_does(handle, flags)
        try:
            same = kernel.is_handle_of(handle, fd)
        except BaseException:
            os.close(fd)
            raise
        if not same:
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "file handle")
        return fd

    def open_as_the_kernel_does(self, handle: bytes, flags: int = os.O_PATH | os.O_NOFOLLOW) -> int:
        """What open_by_handle_at(2) opens for anybody: a step's call changes that, be it another inode than the handle was made of."""
        return kernel.open_by_handle(self.mount_fd, handle, flags)

    def open_parent(self, fd: int) -> tuple[int, bytes]:
        """(fd of the directory, to be closed; name in it) of an fd got by `open`. By our own mount: a rename does not leave one."""
        head, _slash, name = os.readlink(b"/proc/self/fd/%d" % fd).rpartition(b"/")
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return self.by_own_mount(os.open(head.lstrip(b"/") or b".", flags, dir_fd=self.mount_fd), flags), name

    def by_own_mount(self, fd: int, flags: int) -> int:
        """The same directory, by the mount that handles are opened by: on the way to it by its path from the host's root there may be a
        bind mount of the same file system, and renames and links do not leave a mount. `fd` is closed."""
        if not self.shared_mount:
            return fd
        reader = kernel.Reader()
        if reader.stat(fd, b"", kernel.AT_EMPTY_PATH).dev != self.dev:  # another file system is mounted on the way: no handle of this one
            return fd
        try:
            return self.open(reader.handle(fd, b"", kernel.AT_EMPTY_PATH), flags)
        finally:
            os.close(fd)

    def path_of(self, fd: int) -> bytes:
        """Path of an fd got by `open`, as the host's own namespace names it."""
        try:
            path = os.readlink(b"/proc/self/fd/%d" % fd)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return self._long_path_of(fd)
        if self.shared_mount:
            return path
        return self.mount_point.rstrip(b"/") + path if path != b"/" else self.mount_point

    def _long_path_of(self, fd: int) -> bytes:
        """A path beyond PATH_MAX, for display: as far as the kernel tells it."""
        try:
            above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        except NotADirectoryError:
            return self.mount_point.rstrip(b"/") + b"/..."
        try:
            path = self.path_of(above)
            return path if path.endswith(b"/...") else path + b"/..."
        finally:
            os.close(above)


def device_of(mount: Mount) -> int:
    """The device number that statx gives below this mount. A btrfs subvolume has one of its own, which mountinfo does not show."""
    if mount.fstype != b"btrfs":
        return mount.dev
    info = os.stat(mount.point)
    return os.major(info.st_dev) << 32 | os.minor(info.st_dev)


def subvolume_root(fd: int) -> Mount | None:
    """The unmounted btrfs subvolume that the directory of `fd` is in, as if it were mounted at its own root (inode 256)."""
    here = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        for _depth in range(4096):
            info = os.fstat(here)
            if info.st_ino == 256:
                point = os.readlink(b"/proc/self/fd/%d" % here)
                return Mount(0, os.major(info.st_dev) << 32 | os.minor(info.st_dev), b"/", point, b"btrfs", b"", b"")
            above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = above
    finally:
        os.close(here)
    return None


def unmounted_subvolume(path: bytes, fstype: bytes) -> Mount | None:
    """The subvolume with its root at `path`."""
    if fstype != b"btrfs":
        return None
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return subvolume_root(fd)
    finally:
        os.close(fd)


def choose_mount(mounts: t.Sequence[Mount], dev: int) -> Mount | None:
    """The mount by which to reach `dev`: the host's root before all, then the one that shows most of it."""
    fitting = [m for m in mounts if device_of(m) == dev and (policy(m.fstype) != TRACED or os.path.isdir(m.point))]
    if not fitting:
        return None
    return min(fitting, key=lambda m: (m.point != b"/", len(m.root), len(m.point)))
