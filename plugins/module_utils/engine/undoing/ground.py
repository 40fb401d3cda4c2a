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
from ..records import Alias, Entry, FileSystemSeen, Flags
from ..reserve import FULL
from ..restore import proc
from ..store import Store
from ..undolog import Writer
from ..wanted import Inode, Place, Wanted

#: ENOTDIR: a power cut can take an inode whose handle the log has, and XFS then gives number and generation to another one
_GONE = (errno.ESTALE, errno.ENOENT, errno.ENOTDIR)
_OPEN_DIRECTORIES = 200
_NOT_MOUNTED = "is not mounted"
_IN_MEMORY = frozenset((b"tmpfs", b"ramfs", b"devtmpfs"))
_LOCKS = kernel.STATX_ATTR_IMMUTABLE | kernel.STATX_ATTR_APPEND
T = t.TypeVar("T")


@dataclasses.dataclass
class Outcome:
    """differs: sentences on what could not be made as it was (empty: exact), paths: of those; moot: paths of images whose object is no
    more, and left nothing of the transaction's; replaced: the sentences among `differs` on files that somebody else has put another one
    in the place of, each with the inode that stood there. A probe may still make such a one what it was (`undo.look_again`)."""

    differs: list[str] = dataclasses.field(default_factory=list)
    moot: list[str] = dataclasses.field(default_factory=list)
    paths: set[str] = dataclasses.field(default_factory=set)
    replaced: dict[str, Inode] = dataclasses.field(default_factory=dict)


class Ground:
    """Shared by the parts of one undo. `store` and `log` are the transaction's, `wanted` the state to bring back; `since`: when its first
    step began, in nanoseconds; `told`: places that are no more in `wanted`, since they are held back or merged, and the verdict tells."""

    def __init__(self, store: Store, log: Writer, wanted: Wanted, *, since: int = 1 << 63, told: t.Collection[Place] = ()) -> None:
        self.store, self.log, self.wanted = store, log, wanted
        self.reader, self.outcome = Reader(), Outcome()
        self.file_systems: dict[int, FileSystem] = {}
        self._open: dict[int, int] = {}
        self._no_more: set[int] = set()
        self._since, self._told = since, frozenset(told)
        #: whether all that can go has gone (room.py): what still does not fit is a difference
        self.has_made_room = False
        self._find_file_systems()

    def again(self) -> None:
        """The undo begins anew, with more room."""
        self.has_made_room = True
        self.close()  # directories may have gone
        self.outcome = Outcome()
        self._no_more.clear()
        self._find_file_systems()

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _find_file_systems(self) -> None:
        for seen in self.wanted.file_systems.values():
            fs = self.store.by_number.get(seen.fs) or self.store.adopt(seen)
            if fs is not None and fs.policy == TRACED:
                self.file_systems[seen.fs] = fs
                continue
            if not self._has_images_of(seen.fs):  # a step came by and changed nothing there
                continue
            what = "%s file system %s" % (seen.fstype.decode(), _NOT_MOUNTED)
            if self._went_with_its_files(seen):
                self.outcome.moot.append("%s: %s" % (os.fsdecode(seen.mount_point), what))
            else:
                self.differs(seen.mount_point, "the %s: what the transaction changed there is not undone" % what)

    def _has_images_of(self, number: int) -> bool:
        wanted = self.wanted
        inodes = (wanted.basics, wanted.xattrs, wanted.flags, wanted.contents)
        return any(wanted.directories[directory].fs == number for directory, _name in wanted.entries) or any(
            fs == number for images in inodes for fs, _handle in t.cast("dict[Inode, object]", images)
        )

    def _went_with_its_files(self, seen: FileSystemSeen) -> bool:
        """Of one in memory nothing is left, and all of one that a step has made was the transaction's."""
        born = seen.identity.btime if seen.identity is not None else 0
        return seen.fstype in _IN_MEMORY or self._since < born

    # -- what differs ----------------------------------------------------------------------------------------------------

    def differs(self, path: str | bytes, what: str) -> str:
        """The sentence."""
        name = os.fsdecode(path)
        line = "%s: %s" % (name, what)
        self.outcome.paths.add(name)
        if line not in self.outcome.replaced and line not in self.outcome.differs[-2:]:
            self.outcome.differs.append(line)
        return line

    def attempt(self, path: str | bytes, act: t.Callable[[], object], what: str = "") -> bool:
        """Whether it could be done. An error of one place or inode is its own (docs/adr/0023): it is told with its path, and the undo goes
        on. Errors of the log and the journal are no OSError, and end it; so does the first lack of room, for which there is a way."""
        try:
            act()
        except OSError as error:
            self.failed(path, error, what)
            return False
        return True

    def failed(self, path: str | bytes, error: OSError, what: str = "") -> None:
        """Where an error is being handled: tells of it, or raises it again."""
        if error.errno in FULL and not self.has_made_room:
            raise error
        self.differs(path, (what + ": " if what else "") + (error.strerror or str(error)))

    def path_of(self, inode: Inode) -> str:
        """Where it was last seen, as far as known."""
        basic = self.wanted.basics.get(inode)
        if basic is not None:
            return os.fsdecode(basic.path)
        for entry in self.wanted.entries.values():
            if (entry.fs, entry.handle) == inode:
                return self.path(entry)
        fs = self.wanted.file_systems.get(inode[0])
        return "an inode of %s" % os.fsdecode(fs.mount_point if fs is not None else b"a file system")

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

    def at_path(self, path: bytes) -> int:
        """O_PATH fd of what stands at a path as the log has it, by no symlink that somebody may have put on the way; -1: nothing."""
        try:
            return kernel.openat2(kernel.AT_FDCWD, path, os.O_PATH | os.O_NOFOLLOW, kernel.RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return -1
            raise

    def has_moved_names_at(self, path: bytes) -> bool:
        """Whether the transaction itself has changed who stands at the path, or has made a directory above; or whether somebody else has,
        and the verdict tells so."""
        numbers: dict[Inode, list[int]] = {}
        for number, seen in self.wanted.directories.items():
            numbers.setdefault((seen.fs, self.wanted.inode(seen.fs, seen.handle)), []).append(number)
        by_dev = {system.dev: number for number, system in self.file_systems.items()}
        parts = [part for part in path.split(b"/") if part]
        folder = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for at, part in enumerate(parts):
                fs = by_dev.get(self.reader.stat(folder, b"", kernel.AT_EMPTY_PATH).dev)
                known = numbers.get((fs, self.reader.handle(folder, b"", kernel.AT_EMPTY_PATH)), ()) if fs is not None else ()
                entries = [entry for number in known for entry in [self.wanted.entries.get((number, part))] if entry is not None]
                if any(at == len(parts) - 1 or not entry.mode for entry in entries) or any(
                    (number, part) in self._told for number in known
                ):
                    return True
                if at < len(parts) - 1:
                    below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
                    os.close(folder)
                    folder = below
        except OSError:  # somebody moves names just now
            return False
        finally:
            os.close(folder)
        return False

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
