# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Room on the file systems that a transaction touches: the reserve for its undo (reserve.py), and what copies may take beside that."""

from __future__ import annotations

import contextlib
import os
import sys

from . import reserve
from .clearing import names_in
from .errors import StoreFull
from .filesystems import TRACED, FileSystem
from .storedirs import Directories

_IN_MEMORY = (b"tmpfs", b"devtmpfs")


class Room:
    """Of one transaction. Not thread-safe: the caller holds the transaction's lock."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        #: file system number -> bytes that copies may still take: what was free when the transaction came to it (docs/adr/0015)
        self._left: dict[int, int] = {}

    # -- reserves --------------------------------------------------------------------------------------------------------

    def take_reserve(self, fs: FileSystem) -> None:
        """Before the transaction's first change on `fs`. StoreFull where there is too little room for its undo. The host's own serves the
        file system of /var/lib/acid, and what lies in memory needs none: there names and metadata take no space."""
        if not self._directories.is_own(fs) and fs.fstype not in _IN_MEMORY:
            try:
                self._mark_reserves()
                directory = self._directories.directory(fs)
                reserve.take(directory, reserve.other_amount(directory), os.fsdecode(fs.mount_point))
            except OSError as error:
                if error.errno in reserve.FULL:
                    raise StoreFull(
                        reserve.too_little(os.fsdecode(fs.mount_point), os.fstatvfs(fs.mount_fd), reserve.OTHER_AMOUNT),
                        hint="Free some space there, and run the play again.",
                    ) from error
                # read-only, or of a kind that does not let root make a file: then nothing can be changed there either

    def release_reserve(self, fs: FileSystem) -> None:
        if (
            not self._directories.is_own(fs)
            and fs.fstype not in _IN_MEMORY
            and fs.mount_fd >= 0
            and self._directories.existing_directory(fs) >= 0
        ):
            reserve.release(fs.store_fd)

    def release_reserves(self) -> None:
        """Where a file system does not let go of it (read-only by now), its room is of no use either: the next agent tries again."""
        left = False
        for fs in self._directories.by_number.values():
            if fs.policy == TRACED:
                try:
                    self.release_reserve(fs)
                except OSError as error:
                    left = True
                    sys.stderr.write("acid: the reserve on %s stays there: %s\n" % (os.fsdecode(fs.mount_point), error.strerror))
        if not left:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._marker())

    def _marker(self) -> bytes:
        """Says that there are some, to whoever comes after an agent that died before it had released them."""
        return b"%s/tx/%s/reserves" % (self._directories.state, self._directories.tx)

    def _mark_reserves(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # of a store by itself, in a test
            os.close(os.open(self._marker(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    # -- copies ----------------------------------------------------------------------------------------------------------

    def admit(self, fs: FileSystem, size: int) -> None:
        """StoreFull for a copy into space that the steps have freed: the undo needs that again."""
        left = self._left.get(fs.number)
        if left is None:
            left = self._room_at_first(fs)
        if size > left:
            raise StoreFull(
                "no space for a before-image of %d bytes on %s: of what was free when the transaction began %d bytes are left, "
                "and its undo needs what steps have freed" % (size, os.fsdecode(fs.mount_point), max(0, left)),
                hint="Free space there and run the play again.",
            )
        self._left[fs.number] = left - size

    def _room_at_first(self, fs: FileSystem) -> int:
        """After an agent's death, or an undo to a savepoint: what copies take already counts."""
        directory = self._directories.directory(fs)
        holder = (
            directory if not self._directories.is_own(fs) else os.open(self._directories.state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        )
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

    def count_again(self) -> None:
        """Copies have gone."""
        self._left.clear()

    def held(self) -> dict[bytes, int]:
        """Mount point -> bytes that are free again only when the images go (TRACE.md 24): copies, and kept inodes without another name."""
        found: dict[bytes, int] = {}
        for fs in self._directories.by_number.values():
            directory = self._directories.existing_directory(fs) if fs.policy == TRACED and fs.mount_fd >= 0 else -1
            for name in names_in(directory) if directory >= 0 else []:
                with contextlib.suppress(FileNotFoundError):
                    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if info.st_nlink == 1:
                        found[fs.mount_point] = found.get(fs.mount_point, 0) + info.st_blocks * 512
        return found
