# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kept inodes and copies of one transaction: a directory per file system, since links and reflinks do not leave one.

    /var/lib/acid/store/<tx>/            on the file system of /var/lib/acid
    <mount point>/.acid-store/<tx>/      on every other one, made when the first image needs it (its parent's times are put back)

Names in it: `<n>` a kept link, `c<n>` a copy of contents, `s-...` an inode staged by undo, `q-...` a tree put into quarantine by undo.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import typing as t

from . import kernel, reserve
from .errors import StoreFull
from .filesystems import TRACED, FileSystem, choose_mount, device_of, is_btrfs, mounts_of, subvolume_root, unmounted_subvolume
from .paths import STATE
from .records import FileSystemSeen

HIDDEN = b".acid-store"
#: Larger copies carry no digest: reading them again costs about a second for each GiB, while the step waits.
HASHED = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 1 << 20
_IN_MEMORY = (b"tmpfs", b"devtmpfs")


class Store:
    """Images of the transaction `tx`. Not thread-safe: the caller holds the transaction's lock."""

    def __init__(self, tx: str, *, state: str = STATE, durable: bool = False) -> None:
        self.durable = durable
        self._tx, self._state = tx.encode(), state.encode()
        self._by_dev: dict[int, FileSystem | None] = {}
        self.by_number: dict[int, FileSystem] = {}
        self._next_fs, self.next_number = 1, 1
        #: file system number -> bytes that copies may still take: what was free when the transaction came to it (docs/adr/0015)
        self._room: dict[int, int] = {}
        self._state_dev = kernel.Reader().stat(kernel.AT_FDCWD, self._state).dev

    # -- file systems ----------------------------------------------------------------------------------------------------

    def file_system(self, dev: int, fd: int = -1) -> FileSystem | None:
        """The file system of a device number as statx gives it; None where the host's own namespace does not show it.

        `fd`: a directory there, by which a btrfs subvolume that is not mounted by itself can be found.
        """
        known = self._by_dev.get(dev)
        if known is not None or (dev in self._by_dev and fd < 0):
            return known
        mount = choose_mount(mounts_of(), dev)
        if mount is None and fd >= 0 and is_btrfs(fd):
            mount = subvolume_root(fd)
        found = None
        if mount is not None:
            found = FileSystem(self._next_fs, dev, mount.fstype, mount.point)
            if found.policy == TRACED:
                found.open_mount()
            self._next_fs += 1
            self.by_number[found.number] = found
        self._by_dev[dev] = found
        return found

    def adopt(self, number: int, dev: int, fstype: bytes, mount_point: bytes) -> FileSystem | None:
        """The file system that a log calls `number`, found again by its mount point. None when another one is mounted there now."""
        self._next_fs = max(self._next_fs, number + 1)
        mounts = [m for m in mounts_of() if m.point == mount_point and m.fstype == fstype]
        if not mounts:
            mount = choose_mount(mounts_of(), dev) or unmounted_subvolume(mount_point, fstype)
            if mount is None or mount.fstype != fstype:
                return None
            mounts = [mount]
        found = FileSystem(number, device_of(mounts[-1]), fstype, mounts[-1].point)
        if found.policy == TRACED:
            found.open_mount()
        self.by_number[number] = self._by_dev[found.dev] = found
        return found

    def adopt_all(self, seen: t.Iterable[FileSystemSeen]) -> None:
        """Those of a log that are not known yet."""
        for one in seen:
            if one.fs not in self.by_number:
                self.adopt(one.fs, one.dev, one.fstype, one.mount_point)

    def forget_unknown(self) -> None:
        """After a mount call: what the host did not show may be there now, and the other way round."""
        for dev in [dev for dev, fs in self._by_dev.items() if fs is None]:
            del self._by_dev[dev]

    def directory(self, fs: FileSystem) -> int:
        """fd of the store directory on `fs`, made at first use."""
        if fs.store_fd < 0:
            fs.store_fd = self._open_directory(fs, create=True)
        return fs.store_fd

    def _relative(self, fs: FileSystem) -> bytes:
        if fs.dev == self._state_dev:
            return os.path.relpath(self._state, fs.mount_point) + b"/store"
        return HIDDEN

    def _open_directory(self, fs: FileSystem, *, create: bool) -> int:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fs.mount_fd)
        for part in self._relative(fs).split(b"/") + [self._tx]:
            if create:
                before = os.fstat(fd)
                try:
                    os.mkdir(part, 0o700, dir_fd=fd)
                    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
                except FileExistsError:
                    pass
            try:
                child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            finally:
                os.close(fd)
            fd = child
        return fd

    def existing_directory(self, fs: FileSystem) -> int:
        """Like `directory`, but -1 where the transaction never kept anything."""
        if fs.store_fd < 0:
            try:
                fs.store_fd = self._open_directory(fs, create=False)
            except FileNotFoundError:
                return -1
        return fs.store_fd

    # -- room ------------------------------------------------------------------------------------------------------------

    def take_reserve(self, fs: FileSystem) -> None:
        """Before the transaction's first change on `fs`. StoreFull where there is too little room for its undo. The host's own serves the
        file system of /var/lib/acid, and what lies in memory needs none: there names and metadata take no space."""
        if fs.dev != self._state_dev and fs.fstype not in _IN_MEMORY:
            try:
                self._mark_reserves()
                directory = self.directory(fs)
                reserve.take(directory, reserve.other_amount(directory), os.fsdecode(fs.mount_point))
            except OSError as error:
                if error.errno in _FULL:
                    raise StoreFull(
                        reserve.too_little(os.fsdecode(fs.mount_point), os.fstatvfs(fs.mount_fd), reserve.OTHER_AMOUNT),
                        hint="Free some space there, and run the play again.",
                    ) from error
                # read-only, or of a kind that does not let root make a file: then nothing can be changed there either

    def release_reserve(self, fs: FileSystem) -> None:
        if fs.dev != self._state_dev and fs.fstype not in _IN_MEMORY and fs.mount_fd >= 0 and self.existing_directory(fs) >= 0:
            reserve.release(fs.store_fd)

    def release_reserves(self) -> None:
        for fs in self.by_number.values():
            if fs.policy == TRACED:
                self.release_reserve(fs)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._marker())

    def _marker(self) -> bytes:
        """Says that there are some, to whoever comes after an agent that died before it had released them."""
        return b"%s/tx/%s/reserves" % (self._state, self._tx)

    def _mark_reserves(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # of a store by itself, in a test
            os.close(os.open(self._marker(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _admit(self, fs: FileSystem, size: int) -> None:
        """StoreFull for a copy into space that the steps have freed: the undo needs that again."""
        left = self._room.get(fs.number)
        if left is None:
            left = self._room_at_first(fs)
        if size > left:
            raise StoreFull(
                "no space for a before-image of %d bytes on %s: of what was free when the transaction began %d bytes are left, "
                "and its undo needs what steps have freed" % (size, os.fsdecode(fs.mount_point), max(0, left)),
                hint="Free space there and run the play again.",
            )
        self._room[fs.number] = left - size

    def _room_at_first(self, fs: FileSystem) -> int:
        """After an agent's death, or an undo to a savepoint: what copies take already counts."""
        directory = self.directory(fs)
        holder = directory if fs.dev != self._state_dev else os.open(self._state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            free = reserve.free_when_taken(holder)
        finally:
            if holder != directory:
                os.close(holder)
        if free is None:
            room = os.fstatvfs(directory)
            return room.f_bfree * room.f_frsize
        copies = [name for name in names_in(directory) if name.startswith(b"c")]
        return free - sum(os.stat(name, dir_fd=directory, follow_symlinks=False).st_blocks * 512 for name in copies)

    def count_room_again(self) -> None:
        """Copies have gone."""
        self._room.clear()

    def held(self) -> dict[bytes, int]:
        """Mount point -> bytes that are free again only when the images go (TRACE.md 24): copies, and kept inodes without another name."""
        found: dict[bytes, int] = {}
        for fs in self.by_number.values():
            directory = self.existing_directory(fs) if fs.policy == TRACED and fs.mount_fd >= 0 else -1
            for name in names_in(directory) if directory >= 0 else []:
                with contextlib.suppress(FileNotFoundError):
                    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if info.st_nlink == 1:
                        found[fs.mount_point] = found.get(fs.mount_point, 0) + info.st_blocks * 512
        return found

    # -- images ----------------------------------------------------------------------------------------------------------

    def number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def keep_link(self, fs: FileSystem, dirfd: int, name: bytes, handle: bytes) -> int:
        """One more name, in the store, for the inode `handle`; (dirfd, name), where it stands, allows a quicker way unless dirfd is -1.

        OSError EXDEV, EMLINK, EPERM where it cannot have one.
        """
        number, directory = self.number(), self.directory(fs)
        try:
            self._keep_link(fs, dirfd, name, handle, b"%d" % number, directory)
        except OSError as error:
            if error.errno in _FULL:
                raise _no_space(fs, "one more name") from error
            raise
        self._order(fs)
        return number

    @staticmethod
    def _keep_link(fs: FileSystem, dirfd: int, name: bytes, handle: bytes, target: bytes, directory: int) -> None:
        if fs.shared_mount and dirfd >= 0:
            try:
                os.link(name, target, src_dir_fd=dirfd, dst_dir_fd=directory, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        fd = fs.open(handle)
        try:
            kernel.link_fd(fd, directory, target)
        finally:
            os.close(fd)

    def _order(self, fs: FileSystem) -> None:
        """With `durability: power`: what was made in the store reaches the disk before the change that it is for. A file system that
        journals metadata in order sees to that itself."""
        if self.durable and not fs.orders_metadata:
            os.fsync(self.directory(fs))

    def links_of(self, fs: FileSystem, number: int) -> int:
        """Link count of the kept inode `number`."""
        return os.stat(b"%d" % number, dir_fd=self.directory(fs), follow_symlinks=False).st_nlink

    def drop_link(self, fs: FileSystem, number: int) -> None:
        os.unlink(b"%d" % number, dir_fd=self.directory(fs))

    def copy(self, fs: FileSystem, handle: bytes, size: int) -> int:
        """A copy of the contents, by reflink where the file system can, holes kept. StoreFull when there is no room."""
        number, directory = self.number(), self.directory(fs)
        source, target, name = fs.open(handle, os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK), -1, b"c%d" % number
        try:
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
            if not reflink(source, target):
                self._admit(fs, os.fstat(source).st_blocks * 512)
                copy_data(source, target, size)
            if self.durable:
                os.fsync(target)
                self._order(fs)
        except (OSError, StoreFull) as error:
            if target >= 0:
                os.unlink(name, dir_fd=directory)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise _no_space(fs, "%d bytes" % size) from error
            raise
        finally:
            os.close(source)
            if target >= 0:
                os.close(target)
        return number

    def open_copy(self, fs: FileSystem, number: int) -> int:
        return os.open(b"c%d" % number, os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC, dir_fd=self.directory(fs))

    def digest(self, fs: FileSystem, number: int) -> bytes:
        """Of the contents of copy `number`; empty when it is larger than HASHED."""
        fd = self.open_copy(fs, number)
        try:
            size, at = os.fstat(fd).st_size, 0
            found = hashlib.blake2b(digest_size=16)
            while at < size <= HASHED:
                data = os.pread(fd, _CHUNK, at)
                if not data:
                    break
                found.update(data)
                at += len(data)
            return found.digest() if size <= HASHED else b""
        finally:
            os.close(fd)

    # -- end -------------------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Delete all images of the transaction on every file system that it knows."""
        for fs in self.by_number.values():
            if fs.policy != TRACED or fs.mount_fd < 0 or self.existing_directory(fs) < 0:
                continue
            remove_tree_contents(fs.store_fd)
            os.close(fs.store_fd)
            fs.store_fd = -1
            self._remove_directory(fs)

    def _remove_directory(self, fs: FileSystem) -> None:
        relative = self._relative(fs)
        os.rmdir(relative + b"/" + self._tx, dir_fd=fs.mount_fd)
        if relative == HIDDEN:
            before = os.fstat(fs.mount_fd)
            try:
                os.rmdir(relative, dir_fd=fs.mount_fd)
                os.utime(fs.mount_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def close(self) -> None:
        for fs in self.by_number.values():
            fs.close()


def _no_space(fs: FileSystem, what: str) -> StoreFull:
    return StoreFull(
        "no space for a before-image of %s on %s" % (what, os.fsdecode(fs.mount_point)), hint="Free space there and run the play again."
    )


def reflink(source: int, target: int) -> bool:
    """Whether the file system could share the contents, which takes no space."""
    try:
        fcntl.ioctl(target, kernel.FICLONE, source)
    except OSError:
        return False
    return True


def copy_data(source: int, target: int, size: int) -> None:
    """Copy extent by extent, leaving the holes holes (a lastlog of 300 GB is mostly hole)."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start = at
        try:
            end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError:
            end = size
        while start < end:
            start += _copy_range(source, target, start, end - start)
        at = end


def _copy_range(source: int, target: int, at: int, length: int) -> int:
    try:
        done = os.copy_file_range(source, target, min(length, 1 << 30), at, at)
        if done:
            return done
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    data = os.pread(source, min(length, _CHUNK), at)
    if not data:
        return length  # it shrank meanwhile
    return os.pwrite(target, data, at)


def remove_tree_contents(directory: int) -> None:
    """Delete everything below an open directory, also where chattr +i or +a forbids it."""
    for name in names_in(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                unlock(child)
                remove_tree_contents(child)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
            continue
        try:
            os.unlink(name, dir_fd=directory)
        except PermissionError:
            if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise
            unlink_locked(directory, name)


def unlink_locked(directory: int, name: bytes) -> None:
    """Unlink a file that is +i or +a; where it has other names it stays so."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        flags = unlock(fd)
        os.unlink(name, dir_fd=directory)
        kernel.set_flags(fd, flags)
    finally:
        os.close(fd)


def names_in(directory: int) -> list[bytes]:
    """All names in it now: btrfs shows through an fd only what was there when it was opened."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def unlock(fd: int) -> int:
    """Take chattr's +i and +a away; the flags as they were."""
    flags = kernel.get_flags(fd)
    if flags & (kernel.FS_IMMUTABLE_FL | kernel.FS_APPEND_FL):
        kernel.set_flags(fd, flags & ~(kernel.FS_IMMUTABLE_FL | kernel.FS_APPEND_FL))
    return flags
