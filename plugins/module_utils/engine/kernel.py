# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""System calls that Python's os module lacks: thin, typed, and raising OSError like os does.

Numbers are those of x86_64 and aarch64 (linux/arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h);
calls added since 5.1 have one number on both.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
import typing as t

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
O_PATH = os.O_PATH

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FICLONE = 0x40049409
FS_IMMUTABLE_FL, FS_APPEND_FL, FS_PROJINHERIT_FL = 0x10, 0x20, 0x20000000
#: what a user may set (FS_FL_USER_MODIFIABLE, include/uapi/linux/fs.h); EXT4_INDEX_FL and the like are the kernel's own
FS_USER_MODIFIABLE = 0x000380FF | 0x20800000  # and NOCOW, PROJINHERIT

STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND = 0x10, 0x20
#: the root of a mount (Linux 5.8)
STATX_ATTR_MOUNT_ROOT = 0x2000
STATX_BTIME = 0x800

_OPEN_TREE, _OPENAT2, _PIDFD_GETFD = 428, 437, 438
_NUMBERS = {"x86_64": (303, 304, 312), "aarch64": (264, 265, 272)}
_NAME_TO_HANDLE, _OPEN_BY_HANDLE, _KCMP = _NUMBERS.get(os.uname().machine, (-1, -1, -1))

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_linkat = libc.linkat
# No argtypes in the hot path: they cost more than the call. So its integers must fit a C int, and its pointers are made once, by byref.
_statx: t.Any = getattr(libc, "statx", None)


_U32 = struct.Struct("<I")


class Stat(t.NamedTuple):
    """What statx says of an inode; times in ns since the epoch, btime 0 where the file system has none."""

    dev: int
    ino: int
    btime: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    atime: int
    mtime: int
    ctime: int
    attributes: int

    @property
    def key(self) -> tuple[int, int, int]:
        """Identity of an inode that survives recycled inode numbers (TRACE.md 23)."""
        return self[:3]


# struct statx (include/uapi/linux/stat.h): mask, attributes, nlink, owner, mode, ino, size, times a b c m, rdev, dev; "x" skips the rest
_STATX = struct.Struct("<I4xQIIIH2xQQ16xqI4xqI4xqI4xqI4xIIII")
_new_stat: t.Callable[..., Stat] = t.cast(t.Any, tuple.__new__)  # a third of the time of Stat(...), which is half of that of the call


def fail(what: bytes | str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


class Reader:
    """statx and file handles with buffers of its own: one per thread, since the buffers are reused."""

    def __init__(self) -> None:
        self._statx_buffer = ctypes.create_string_buffer(256)
        self._statx_pointer = ctypes.byref(self._statx_buffer)
        self._statx_view = memoryview(self._statx_buffer)
        self._handle_buffer = ctypes.create_string_buffer(8 + 128)
        self._handle_pointer = ctypes.byref(self._handle_buffer)
        self._handle_view = memoryview(self._handle_buffer).cast("B")
        self._mount_id = ctypes.c_int()
        self._mount_id_pointer = ctypes.byref(self._mount_id)

    def stat(self, dirfd: int, name: bytes, flags: int = AT_SYMLINK_NOFOLLOW) -> Stat:
        if _statx(dirfd, name, flags, 0xFFF, self._statx_pointer) < 0:
            raise fail(name)
        (
            mask, attributes, nlink, uid, gid, mode, ino, size,
            asec, ansec, bsec, bnsec, csec, cnsec, msec, mnsec, rmajor, rminor, major, minor,
        ) = _STATX.unpack_from(self._statx_view)  # fmt: skip
        return _new_stat(Stat, (
            (major << 32) | minor, ino, bsec * 1000000000 + bnsec if mask & STATX_BTIME else 0, mode, nlink, uid, gid, size,
            os.makedev(rmajor, rminor) if rmajor or rminor else 0,
            asec * 1000000000 + ansec, msec * 1000000000 + mnsec, csec * 1000000000 + cnsec, attributes,
        ))  # fmt: skip

    def stat_or_none(self, dirfd: int, name: bytes, flags: int = AT_SYMLINK_NOFOLLOW) -> Stat | None:
        try:
            return self.stat(dirfd, name, flags)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def mount_id(self) -> int:
        """Mount of the object of the last stat() (STATX_MNT_ID, 5.8)."""
        return t.cast(int, struct.unpack_from("<Q", self._statx_view, 144)[0])

    def handle(self, dirfd: int, name: bytes, flags: int = 0) -> bytes:
        """File handle as bytes: its type (s32), then the opaque handle. ENOTSUP where the file system has none."""
        _U32.pack_into(self._handle_buffer, 0, 128)
        if _syscall(_NAME_TO_HANDLE, dirfd, name, self._handle_pointer, self._mount_id_pointer, flags) < 0:
            raise fail(name)
        view = self._handle_view  # struct file_handle: size (u32), type (s32), the handle itself
        return view[4 : 8 + view[0]].tobytes()


def open_by_handle(mount_fd: int, handle: bytes, flags: int) -> int:
    """Open the inode that `handle` names on the file system of `mount_fd`; ESTALE when it is gone."""
    body = handle[4:]
    packed = struct.pack("<I", len(body)) + handle[:4] + body
    fd = _syscall(_OPEN_BY_HANDLE, mount_fd, packed, flags | os.O_CLOEXEC)
    if fd < 0:
        raise fail("file handle")
    return t.cast(int, fd)


_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000


class _Readers(threading.local):
    """A Reader for each thread that asks."""

    def __init__(self) -> None:
        self.reader = Reader()


_readers = _Readers()


def is_handle_of(handle: bytes, fd: int) -> bool:
    """Whether the kernel names the inode of `fd` so. What it opened by a handle need not be what the handle was made of: ext4 takes
    generation 0, which mke2fs -d leaves on every inode, for any (ext4_nfs_get_inode); what has the number by now has another one."""
    return _readers.reader.handle(fd, b"", AT_EMPTY_PATH) == handle


_how = struct.Struct("<QQQ")


def openat2(dirfd: int, path: bytes, flags: int, resolve: int) -> int:
    fd = _syscall(_OPENAT2, dirfd, path, _how.pack(flags | os.O_CLOEXEC, 0, resolve), 24)
    if fd < 0:
        raise fail(path)
    return t.cast(int, fd)


def their_file(process: int, fd: int) -> int:
    """The very file that `fd` is open on in the process of a pidfd (pidfd_getfd, 5.6)."""
    mine = _syscall(_PIDFD_GETFD, process, fd, 0)
    if mine < 0:
        raise fail("descriptor %d" % fd)
    return t.cast(int, mine)


def same_file(process: int, mine: int, thread: int, theirs: int) -> bool:
    """Whether our descriptor `mine` is the same open file as `theirs` of a thread; False, too, where the kernel has no kcmp(2).

    `process`: our own id, since to ask for it takes a tenth of the time of the call."""
    return t.cast(bool, _syscall(_KCMP, process, thread, 0, mine, theirs) == 0)


def private_mount(path: bytes) -> int:
    """A detached clone of the mount at `path`: holding it does not make the user's umount busy (open_tree, 5.2)."""
    fd = _syscall(_OPEN_TREE, AT_FDCWD, path, 1 | os.O_CLOEXEC)  # OPEN_TREE_CLONE
    if fd < 0:
        raise fail(path)
    return t.cast(int, fd)


def own_mount_namespace() -> None:
    """The calling thread alone goes on in a copy of the mount table, in which nothing it does is seen by others."""
    if libc.unshare(_CLONE_NEWNS) < 0 or libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) < 0:
        raise fail("mount namespace")


def detach(path: bytes) -> None:
    """Take what is mounted at `path` out of the mount table, with all that is mounted on it (umount2, MNT_DETACH)."""
    if libc.umount2(path, 2) < 0:
        raise fail(path)


def link_fd(fd: int, dirfd: int, name: bytes) -> None:
    """Give the inode of `fd` one more name (needs CAP_DAC_READ_SEARCH)."""
    if _linkat(fd, b"", dirfd, name, AT_EMPTY_PATH) < 0:
        raise fail(name)


def rename_exchange(olddir: int, old: bytes, newdir: int, new: bytes) -> None:
    if libc.renameat2(olddir, old, newdir, new, 2) < 0:
        raise fail(new)


def get_flags(fd: int) -> int:
    """Inode flags that a user may set; 0 where the file system has none."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, buffer)
    except OSError:
        return 0
    return t.cast(int, struct.unpack_from("<I", buffer)[0]) & FS_USER_MODIFIABLE


def set_flags(fd: int, flags: int) -> None:
    """Set the user's flags, leaving the kernel's own as they are."""
    buffer = bytearray(8)
    fcntl.ioctl(fd, FS_IOC_GETFLAGS, buffer)
    now = struct.unpack_from("<I", buffer)[0]
    want = (now & ~FS_USER_MODIFIABLE) | flags
    if want != now:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("<Q", want))


def clear_flags(fd: int) -> None:
    """Take those away that a new inode has from its directory."""
    if get_flags(fd):
        set_flags(fd, 0)


def sync_directory(path: str | bytes) -> None:
    """The names in it are on the disk when this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    if libc.syncfs(fd) < 0:
        raise fail("syncfs")


def file_system_type(fd: int) -> int:
    """f_type of statfs(2)."""
    return int(struct.unpack_from("<q", _statfs(fd))[0])


def file_system_id(fd: int) -> bytes:
    """f_fsid of statfs(2): two numbers of 32 bits, behind seven of 64."""
    return _statfs(fd)[56:64]


def _statfs(fd: int) -> bytes:
    buffer = ctypes.create_string_buffer(256)
    if libc.fstatfs(fd, buffer) < 0:
        raise fail("fstatfs")
    return buffer.raw
