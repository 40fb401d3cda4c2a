# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kept inodes and copies of one transaction: where each lies (storedirs.py), and what it is called there.

Names: `<n>` a kept link, `c<n>` a copy of contents, `d<n>` a directory that was taken out of the tree whole, `s-...` an inode staged by
undo, `q-...` a tree put into quarantine by undo.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

from . import kernel
from .clearing import remove_tree_contents
from .copying import copy_data, reflink
from .errors import AcidError, NotOnDisk, StoreFull
from .filesystems import TRACED, FileSystem
from .paths import STATE
from .reserve import FULL
from .storedirs import Directories
from .storeroom import Room

#: Larger copies carry no digest: reading them again costs about a second for each GiB, while the step waits.
HASHED = 64 << 20
_CHUNK = 1 << 20


class Store(Directories):
    """Images of the transaction `tx`. Not thread-safe: the caller holds the transaction's lock."""

    def __init__(self, tx: str, *, state: str = STATE, durable: bool = False) -> None:
        super().__init__(tx, state=state)
        self.durable = durable
        self.room = Room(self)
        self.next_number = 1

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
            if error.errno in FULL:
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
            _to_disk(self.directory(fs), fs)

    def take(self, fs: FileSystem, directory: bytes, name: bytes) -> None:
        """Move a whole directory out of the one with that handle into the store, from where undo or retention takes it."""
        source, target = fs.open(directory, os.O_RDONLY | os.O_DIRECTORY), self.directory(fs)
        try:
            os.rename(name, b"d%d" % self.number(), src_dir_fd=source, dst_dir_fd=target)
            if self.durable:
                _to_disk(source, fs)
        finally:
            os.close(source)
        self._order(fs)

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
                self.room.admit(fs, os.fstat(source).st_blocks * 512)
                copy_data(source, target, size)
            if self.durable:
                _to_disk(target, fs)
                self._order(fs)
        except (OSError, AcidError) as error:
            if target >= 0:
                with contextlib.suppress(OSError):  # of a disk that fails: what it said first counts
                    os.unlink(name, dir_fd=directory)
                self.room.count_again()
            if isinstance(error, OSError) and error.errno in FULL:
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
            return digest_of(fd)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Delete all images of the transaction on every file system that it knows."""
        for fs in self.by_number.values():
            if fs.policy != TRACED or fs.mount_fd < 0 or self.existing_directory(fs) < 0:
                continue
            remove_tree_contents(fs.store_fd)
            os.close(fs.store_fd)
            fs.store_fd = -1
            self.remove_directory(fs)


def digest_of(fd: int) -> bytes:
    """Of the contents of the file open for reading at `fd`; empty when it is larger than HASHED."""
    size, at = os.fstat(fd).st_size, 0
    found = hashlib.blake2b(digest_size=16)
    while at < size <= HASHED:
        data = os.pread(fd, _CHUNK, at)
        if not data:
            break
        found.update(data)
        at += len(data)
    return found.digest() if size <= HASHED else b""


def _to_disk(fd: int, fs: FileSystem) -> None:
    """The kernel tells an error once: whatever is asked after that proves nothing."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise NotOnDisk(
            "%s did not take a before-image: %s" % (os.fsdecode(fs.mount_point), error.strerror), hint="See to the disk, then roll back."
        ) from error


def _no_space(fs: FileSystem, what: str) -> StoreFull:
    return StoreFull(
        "no space for a before-image of %s on %s" % (what, os.fsdecode(fs.mount_point)), hint="Free space there and run the play again."
    )
