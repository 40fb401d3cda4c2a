# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which file systems a transaction touches, by number, and its directory in the store on each: links and reflinks do not leave one.

/var/lib/acid/store/<tx>/            on the file system of /var/lib/acid
<mount point>/.acid-store/<tx>/      on every other one, made when the first image needs it (its parent's times are put back)
"""

from __future__ import annotations

import errno
import os
import typing as t

from . import attributes, identity, kernel, subvolumes
from .filesystems import TRACED, FileSystem, choose_mount, device_of, policy, unmounted_subvolume
from .mount_table import Mount, mounts_of
from .paths import STATE
from .records import FileSystemSeen

HIDDEN = b".acid-store"


class Directories:
    """Of the transaction `tx`. Not thread-safe: the caller holds the transaction's lock."""

    def __init__(self, tx: str, *, state: str = STATE) -> None:
        self.tx, self.state = tx.encode(), state.encode()
        self._by_dev: dict[int, FileSystem] = {}
        self.by_number: dict[int, FileSystem] = {}
        self._next_fs = 1
        self._state_dev = kernel.Reader().stat(kernel.AT_FDCWD, self.state).dev

    # -- file systems ----------------------------------------------------------------------------------------------------

    def file_system(self, dev: int, handle: bytes = b"") -> FileSystem | None:
        """The file system of a device number as statx gives it; None where the host's own namespace does not show it.

        `handle`: of an inode there, by which a btrfs subvolume that is not mounted by itself can be found. Only what is held open is
        remembered: of others the kernel may give the number to another one.
        """
        known = self._by_dev.get(dev)
        if known is not None:
            return known
        mounts = mounts_of()
        mount = choose_mount(mounts, dev) or (subvolumes.find(handle, dev, mounts) if handle else None)
        if mount is None:
            return None
        found = FileSystem(self._next_fs, dev, mount.fstype, mount.point, mount.root)
        if found.policy == TRACED:
            found.open_mount()
            self._next_fs += 1
            self.by_number[found.number] = self._by_dev[dev] = found
        return found

    def adopt(self, seen: FileSystemSeen) -> FileSystem | None:
        """The file system that a log calls by a number, found again: by its identity, wherever it is mounted now, also under another mount.
        None where it is not, or where another one may pass for it."""
        self._next_fs = max(self._next_fs, seen.fs + 1)
        for mount in self._candidates(seen):
            found = FileSystem(seen.fs, device_of(mount), mount.fstype, mount.point, mount.root)
            try:
                found.open_mount()
                if self._is(seen, found):
                    self.by_number[seen.fs] = self._by_dev[found.dev] = found
                    return found
            except OSError:  # of one that is going, or that nobody can look into
                pass
            found.close()
        return None

    @staticmethod
    def _candidates(seen: FileSystemSeen) -> t.Iterator[Mount]:
        """The newest at its mount point first, then what has its device, then all of its type that a UUID may tell it by."""
        mounts = [mount for mount in reversed(mounts_of()) if mount.fstype == seen.fstype and policy(mount.fstype) == TRACED]
        yield from (mount for mount in mounts if mount.point == seen.mount_point)
        others = set() if seen.identity is None else {device_of(mount) for mount in mounts} - {seen.dev}
        reached = [choose_mount(mounts, dev) for dev in (seen.dev, *others)]
        reached.append(unmounted_subvolume(seen.mount_point, seen.fstype))
        reached.append(subvolumes.find(seen.identity.handle, 0, mounts) if seen.identity is not None else None)  # it may have been moved
        yield from (mount for mount in reached if mount is not None)

    def _is(self, seen: FileSystemSeen, found: FileSystem) -> bool:
        """Of a clone of the disk nobody can tell but by the store: it lies on the one that the transaction has changed."""
        if seen.identity is None:
            return True
        verdict = identity.compare(seen.identity, seen.dev, found.identity, found.dev)
        return verdict == identity.SAME or (verdict == identity.CLONE and self.existing_directory(found) >= 0)

    def adopt_all(self, seen: t.Iterable[FileSystemSeen]) -> None:
        """Those of a log that are not known yet."""
        for one in seen:
            if one.fs not in self.by_number:
                self.adopt(one)

    def is_own(self, fs: FileSystem) -> bool:
        """Whether it is the one of /var/lib/acid."""
        return fs.dev == self._state_dev

    # -- directories -----------------------------------------------------------------------------------------------------

    def directory(self, fs: FileSystem) -> int:
        """fd of the store directory on `fs`, made at first use."""
        if fs.store_fd < 0:
            fs.reopen()  # the step may have mounted it read-write since we saw it first
            fs.store_fd = self._open_directory(fs, create=True)
        return fs.store_fd

    def existing_directory(self, fs: FileSystem) -> int:
        """Like `directory`, but -1 where the transaction never kept anything."""
        if fs.store_fd < 0:
            try:
                fs.store_fd = self._open_directory(fs, create=False)
            except FileNotFoundError:
                return -1
        return fs.store_fd

    def _relative(self, fs: FileSystem) -> bytes:
        if self.is_own(fs):
            return os.path.relpath(self.state, fs.mount_point) + b"/store"
        return HIDDEN

    def _open_directory(self, fs: FileSystem, *, create: bool) -> int:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fs.mount_fd)
        try:
            for part in self._relative(fs).split(b"/") + [self.tx]:
                made = False
                if create:
                    before = os.fstat(fd)
                    try:
                        os.mkdir(part, 0o700, dir_fd=fd)
                        made = True
                        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
                    except FileExistsError:
                        pass
                child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = child
                # Else only what has the same project id could be moved in and kept by a link. The last one also where who made it died.
                if (made or (create and part == self.tx)) and attributes.inherits(fd):
                    attributes.put(fd, attributes.NONE)
        except BaseException:
            os.close(fd)
            raise
        return fs.by_own_mount(fd, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def remove_directory(self, fs: FileSystem) -> None:
        """It is empty: it goes, and so does what this engine made to hold it."""
        relative = self._relative(fs)
        os.rmdir(relative + b"/" + self.tx, dir_fd=fs.mount_fd)
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
