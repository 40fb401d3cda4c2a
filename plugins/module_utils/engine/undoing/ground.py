# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an undo stands on: the log's inodes and directories found again by handle, locks taken off, and a record of what went wrong."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import stat
import typing as t

from .. import attributes, kernel
from ..clearing import names_in, unlock
from ..filesystems import TRACED, FileSystem
from ..kernel import Reader, Stat
from ..records import Alias, Entry, Flags
from ..restore import proc
from ..store import Store
from ..undolog import Writer
from ..wanted import Inode, Wanted

#: ENOTDIR: a power cut can take an inode whose handle the log has, and XFS then gives number and generation to another one
_GONE = (errno.ESTALE, errno.ENOENT, errno.ENOTDIR)
_OPEN_DIRECTORIES = 200
_NOT_MOUNTED = " is not mounted"
_LOCKS = kernel.STATX_ATTR_IMMUTABLE | kernel.STATX_ATTR_APPEND
T = t.TypeVar("T")


@dataclasses.dataclass
class Outcome:
    """differs: sentences on what could not be made as it was (empty: exact); moot: paths of images whose object is no more."""

    differs: list[str] = dataclasses.field(default_factory=list)
    moot: list[str] = dataclasses.field(default_factory=list)


class Ground:
    """Shared by the parts of one undo. `store` and `log` are the transaction's, `wanted` the state to bring back."""

    def __init__(self, store: Store, log: Writer, wanted: Wanted) -> None:
        self.store, self.log, self.wanted = store, log, wanted
        self.reader, self.outcome = Reader(), Outcome()
        self.file_systems: dict[int, FileSystem] = {}
        self._open: dict[int, int] = {}
        self._no_more: set[int] = set()
        #: whether all that can go has gone (room.py): what still does not fit is a difference
        self.has_made_room = False
        self._find_file_systems()

    def again(self) -> None:
        """The undo begins anew, with more room."""
        self.has_made_room = True
        self.close()  # directories may have gone
        self.outcome = Outcome(moot=[line for line in self.outcome.moot if line.endswith(_NOT_MOUNTED)])
        self._no_more.clear()

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _find_file_systems(self) -> None:
        for seen in self.wanted.file_systems.values():
            fs = self.store.by_number.get(seen.fs) or self.store.adopt(seen)
            if fs is None or fs.policy != TRACED:
                self.outcome.moot.append("%s file system at %s%s" % (seen.fstype.decode(), os.fsdecode(seen.mount_point), _NOT_MOUNTED))
            else:
                self.file_systems[seen.fs] = fs

    def differs(self, path: str | bytes, what: str) -> None:
        self.outcome.differs.append("%s: %s" % (os.fsdecode(path), what))

    # -- finding ---------------------------------------------------------------------------------------------------------

    def inode(self, fs: int, handle: bytes, flags: int = os.O_PATH | os.O_NOFOLLOW) -> int:
        """fd of the inode that an image speaks of, or -1 when there is none any more (unlinked but open counts as none)."""
        system = self.file_systems.get(fs)
        if system is None:
            return -1
        try:
            fd = system.open(self.wanted.inode(fs, handle), flags)
        except OSError as error:
            if error.errno in _GONE:
                return -1
            raise
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return -1
        return fd

    def directory(self, number: int) -> int | None:
        """fd of a directory of the log, or None when it is no more. It stays open; callers do not close it."""
        known = self._open.get(number)
        if known is not None or number in self._no_more:
            return known
        seen = self.wanted.directories[number]
        fd = self.inode(seen.fs, seen.handle, os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            self._no_more.add(number)
            self.forgotten(seen.fs, seen.path)
            return None
        if len(self._open) > _OPEN_DIRECTORIES:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[number] = fd
        return fd

    def forgotten(self, fs: int, path: bytes) -> bool:
        """Of vfat and its like a handle holds only while the inode is in memory: what is still there by its path is not moot."""
        system = self.file_systems.get(fs)
        lost = system is not None and not system.links and os.path.lexists(path)
        if lost:
            self.differs(path, "not looked at: %s cannot tell any more whether it is the same" % (system.fstype.decode() if system else ""))
        return lost

    def path(self, entry: Entry) -> str:
        return os.fsdecode(self.wanted.directories[entry.directory].path + b"/" + entry.name)

    def found(self, entry: Entry) -> tuple[int, Stat] | None:
        """(directory fd, what the place holds), or None when it holds nothing."""
        directory = self.directory(entry.directory)
        if directory is None:
            return None
        state = self.reader.stat_or_none(directory, entry.name)
        return None if state is None else (directory, state)

    def in_place(self, entry: Entry) -> bool:
        """Whether the place holds what the image says."""
        found = self.found(entry)
        if found is None or not entry.mode:
            return found is None and not entry.mode
        directory, state = found
        if stat.S_IFMT(state.mode) != stat.S_IFMT(entry.mode):
            return False
        return self.reader.handle(directory, entry.name) == self.wanted.inode(entry.fs, entry.handle)

    # -- the store -------------------------------------------------------------------------------------------------------

    def staging(self, fs: int) -> int:
        return self.store.directory(self.file_systems[fs])

    def only_in_store(self, fs: int, fd: int) -> bool:
        """Whether nobody has the inode any more: born in the epoch's first tick, it passed for an old one, was kept, and goes with the
        store."""
        directory, seen = self.staging(fs), os.fstat(fd)
        kept = sum(os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == seen.st_ino for name in names_in(directory))
        return not stat.S_ISDIR(seen.st_mode) and kept == seen.st_nlink

    @staticmethod
    def staged_name(kind: bytes, fs: int, handle: bytes) -> bytes:
        """The same name each time, so that an undo that starts again finds it."""
        return kind + b"-%d-" % fs + hashlib.blake2b(handle, digest_size=12).hexdigest().encode()

    def alias(self, fs: int, handle: bytes, now: bytes) -> None:
        """The inode was made anew: the log must know before anything depends on it."""
        old = self.wanted.inode(fs, handle)
        self.log.append(Alias(fs, old, now))
        self.wanted.aliases[fs, old] = now
        self._no_more.clear()

    # -- locks -----------------------------------------------------------------------------------------------------------

    def unlocking(self, act: t.Callable[[], T], *places: tuple[int, bytes]) -> T:
        """Do it; where chattr's +i or +a forbids it, take these from the inodes at `places` (directory fd, name; name empty: the directory
        itself) and do it again. Flags that no image knows are put into the log first, so that the end of the undo sets them again."""
        try:
            return act()
        except PermissionError:
            for fd, name in places:
                self.unlock(fd, name)
            return act()

    def unlock(self, dirfd: int, name: bytes) -> None:
        state = self.reader.stat_or_none(dirfd, name, kernel.AT_SYMLINK_NOFOLLOW if name else kernel.AT_EMPTY_PATH)
        if state is None or not state.attributes & _LOCKS:
            return
        handle = self.reader.handle(dirfd, name, 0 if name else kernel.AT_EMPTY_PATH)
        flags = os.O_RDONLY | os.O_NONBLOCK
        real = os.open(name, flags | os.O_NOFOLLOW, dir_fd=dirfd) if name else os.open(proc(dirfd), flags)
        try:
            self._remember_flags(state.dev, handle, real)
            unlock(real)
        finally:
            os.close(real)

    def entering(self, directory: int, act: t.Callable[[], T]) -> T:
        """Move something there; where that is refused since its project id is another one (attributes.py), the directory does not hand on
        its own for so long."""
        try:
            return act()
        except OSError as error:
            now = attributes.get(directory)
            if error.errno != errno.EXDEV or now is None or not now.xflags & attributes.PROJINHERIT:
                raise
        state = self.reader.stat(directory, b"", kernel.AT_EMPTY_PATH)
        self._remember_flags(state.dev, self.reader.handle(directory, b"", kernel.AT_EMPTY_PATH), directory)
        attributes.put(directory, now._replace(xflags=now.xflags & ~attributes.PROJINHERIT))
        try:
            return act()
        finally:
            attributes.put(directory, now)

    def _remember_flags(self, dev: int, handle: bytes, fd: int) -> None:
        number = next(number for number, fs in self.file_systems.items() if fs.dev == dev)
        if not self._knows_flags(number, handle):
            record = Flags(0, number, handle, kernel.get_flags(fd), attributes.get(fd))
            self.log.append(record)
            if self.store.durable:  # else a power cut may leave the inode without them, and nobody who knows of them
                self.log.sync()
            self.wanted.flags[number, handle] = record

    def _knows_flags(self, fs: int, handle: bytes) -> bool:
        return any(self.wanted.inode(number, known) == handle for number, known in self.wanted.flags if number == fs)

    def inodes_wanted(self, entries: t.Iterable[Entry]) -> set[Inode]:
        return {(entry.fs, self.wanted.inode(entry.fs, entry.handle)) for entry in entries if entry.mode}
