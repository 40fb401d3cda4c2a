# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Undo: make the earliest images true (I2, docs/adr/0001).

    outcome = Undo(store, log, wanted).run()

Each act first asks what is there, so that a crash anywhere is mended by running it again. The order of acts:

1. take +i and +a from what is to change;
2. make directories anew that are gone (in the store; an Alias in the log says which stands for which);
3. where a place holds the wrong inode, and that inode is wanted somewhere, stage it in the store: directories by rename, others by one more link,
   so that nothing wanted ever loses its last name;
4. where a place holds a directory that nobody wants, rename it whole into quarantine (TRACE.md 21);
5. put the wanted inodes into their places, over what is there; then unlink what is left of the unwanted;
6. contents, owner, mode, extended attributes, times; directories' times after all others; inode flags last;
7. verify. Only then are the store's links dropped and the log marked Undone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import stat
import typing as t

from . import kernel, restore
from .filesystems import TRACED, FileSystem
from .kernel import AT_EMPTY_PATH, Reader, Stat
from .store import Store, names_in, unlink_locked, unlock
from .undolog import COPY, INLINE, Alias, Basic, Entry, Undone, Writer
from .wanted import Inode, Wanted

_GONE = (errno.ESTALE, errno.ENOENT)
_PERMISSIONS = (errno.EPERM, errno.EACCES)
_OPEN_DIRECTORIES = 200


@dataclasses.dataclass
class Outcome:
    """paths: places and inodes looked at; differs: sentences on what could not be made as it was (empty: exact); moot: images of what is no more."""

    paths: int = 0
    differs: list[str] = dataclasses.field(default_factory=list)
    moot: list[str] = dataclasses.field(default_factory=list)


class Undo:
    """One undo back to the start of `epoch`. The transaction's processes are dead, and no step runs."""

    def __init__(self, store: Store, log: Writer, wanted: Wanted, *, epoch: int = 0) -> None:
        self._store, self._log, self._wanted, self._epoch = store, log, wanted, epoch
        self._reader = Reader()
        self._outcome = Outcome()
        self._open: dict[int, int] = {}
        self._fs: dict[int, FileSystem] = {}
        self._wanted_inodes: set[Inode] = set()

    def run(self) -> Outcome:
        try:
            self._find_file_systems()
            entries = self._present_entries()
            self._unlock_inodes()
            self._remake_directories(entries)
            wrong = [entry for entry in entries if not self._in_place(entry)]
            self._clear_places(wrong)
            self._fill_places(wrong)
            self._restore_inodes()
            self._restore_values()
            self._verify(entries)
            self._finish()
        finally:
            for fd in self._open.values():
                os.close(fd)
        self._outcome.paths = len(self._wanted.paths())
        return self._outcome

    # -- what the log speaks of ------------------------------------------------------------------------------------------

    def _find_file_systems(self) -> None:
        for seen in self._wanted.file_systems.values():
            fs = self._store.by_number.get(seen.fs) or self._store.adopt(seen.fs, seen.dev, seen.fstype, seen.mount_point)
            if fs is None or fs.policy != TRACED:
                self._outcome.moot.append("%s file system at %s is not mounted" % (seen.fstype.decode(), os.fsdecode(seen.mount_point)))
            else:
                self._fs[seen.fs] = fs

    def _present_entries(self) -> list[Entry]:
        """The entries whose file system is there, by directory; collects the inodes that are wanted."""
        entries = [entry for entry in self._wanted.entries.values() if self._wanted.directories[entry.directory].fs in self._fs]
        entries.sort(key=lambda entry: entry.directory)
        self._wanted_inodes = {(entry.fs, self._wanted.inode(entry.fs, entry.handle)) for entry in entries if entry.mode}
        return entries

    def _inode(self, fs: int, handle: bytes, flags: int = os.O_PATH | os.O_NOFOLLOW) -> int:
        """fd of the inode that an image speaks of, or -1 when there is none any more (unlinked but open counts as none)."""
        system = self._fs.get(fs)
        if system is None:
            return -1
        try:
            fd = system.open(self._wanted.inode(fs, handle), flags)
        except OSError as error:
            if error.errno in _GONE:
                return -1
            raise
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return -1
        return fd

    def _directory(self, number: int) -> int | None:
        """fd of a directory of the log, or None when it is no more."""
        known = self._open.get(number)
        if known is not None:
            return known
        seen = self._wanted.directories[number]
        fd = self._inode(seen.fs, seen.handle, os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            return None
        if len(self._open) > _OPEN_DIRECTORIES:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[number] = fd
        return fd

    def _path(self, entry: Entry) -> str:
        return os.fsdecode(self._wanted.directories[entry.directory].path + b"/" + entry.name)

    def _handle(self, directory: int, name: bytes) -> bytes:
        return self._reader.handle(directory, name)

    def _differs(self, path: str | bytes, what: str) -> None:
        self._outcome.differs.append("%s: %s" % (os.fsdecode(path), what))

    # -- 1: locks --------------------------------------------------------------------------------------------------------

    def _unlock_inodes(self) -> None:
        inodes = set(self._wanted.basics) | set(self._wanted.contents) | set(self._wanted.flags) | set(self._wanted.xattrs)
        inodes |= {(seen.fs, seen.handle) for number, seen in self._wanted.directories.items()}
        for fs, handle in inodes:
            fd = self._inode(fs, handle)
            if fd < 0:
                continue
            try:
                self._unlock(fd)
            finally:
                os.close(fd)

    def _unlock(self, fd: int) -> None:
        state = self._reader.stat(fd, b"", AT_EMPTY_PATH)
        if state.attributes & (kernel.STATX_ATTR_IMMUTABLE | kernel.STATX_ATTR_APPEND):
            real = os.open(restore.proc(fd), os.O_RDONLY | os.O_NONBLOCK)
            try:
                unlock(real)
            finally:
                os.close(real)

    @contextlib.contextmanager
    def _unlocked(self, directory: int, name: bytes) -> t.Iterator[None]:
        """For an act on a place whose inode may be +i or +a without an image saying so, since it was born like that."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        try:
            self._unlock(fd)
        finally:
            os.close(fd)
        yield

    # -- 2: directories --------------------------------------------------------------------------------------------------

    def _remake_directories(self, entries: t.Sequence[Entry]) -> None:
        for entry in entries:
            if not stat.S_ISDIR(entry.mode):
                continue
            fd = self._inode(entry.fs, entry.handle)
            if fd >= 0:
                os.close(fd)
                continue
            staging, name = self._staging(entry.fs), self._staged_name(b"d", entry.fs, entry.handle)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=staging)
            self._alias(entry.fs, entry.handle, self._handle(staging, name))

    def _alias(self, fs: int, handle: bytes, now: bytes) -> None:
        old = self._wanted.inode(fs, handle)
        self._log.append(Alias(fs, old, now))
        self._wanted.aliases[fs, old] = now
        self._wanted_inodes.discard((fs, old))
        self._wanted_inodes.add((fs, now))

    def _staging(self, fs: int) -> int:
        return self._store.directory(self._fs[fs])

    @staticmethod
    def _staged_name(kind: bytes, fs: int, handle: bytes) -> bytes:
        return kind + b"-%d-" % fs + hashlib.blake2b(handle, digest_size=12).hexdigest().encode()

    # -- 3, 4: places that hold something else ---------------------------------------------------------------------------

    def _found(self, entry: Entry) -> tuple[int, Stat] | None:
        """(directory fd, what the place holds), or None when it holds nothing."""
        directory = self._directory(entry.directory)
        if directory is None:
            return None
        state = self._reader.stat_or_none(directory, entry.name)
        return None if state is None else (directory, state)

    def _in_place(self, entry: Entry) -> bool:
        found = self._found(entry)
        if found is None or not entry.mode:
            return found is None and not entry.mode
        directory, state = found
        if stat.S_IFMT(state.mode) != stat.S_IFMT(entry.mode):
            return False
        return self._handle(directory, entry.name) == self._wanted.inode(entry.fs, entry.handle)

    def _clear_places(self, wrong: t.Sequence[Entry]) -> None:
        for entry in wrong:
            found = self._found(entry)
            if found is None:
                continue
            directory, state = found
            if state.dev != self._reader.stat(directory, b"", AT_EMPTY_PATH).dev:
                self._differs(self._path(entry), "something is mounted there")
                continue
            fs = self._wanted.directories[entry.directory].fs
            handle = self._handle(directory, entry.name)
            wanted = (fs, handle) in self._wanted_inodes
            if not stat.S_ISDIR(state.mode):
                if wanted:
                    self._stage_link(fs, handle)
                continue
            name = self._staged_name(b"s" if wanted else b"q", fs, handle)
            with self._unlocked(directory, entry.name):
                os.rename(entry.name, name, src_dir_fd=directory, dst_dir_fd=self._staging(fs))

    def _stage_link(self, fs: int, handle: bytes) -> None:
        if not self._fs[fs].links:
            return
        fd = self._fs[fs].open(handle)
        try:
            self._unlock(fd)
            kernel.link_fd(fd, self._staging(fs), self._staged_name(b"s", fs, handle))
        except FileExistsError:
            pass
        finally:
            os.close(fd)

    # -- 5: fill ---------------------------------------------------------------------------------------------------------

    def _fill_places(self, wrong: t.Sequence[Entry]) -> None:
        for entry in wrong:
            if stat.S_ISDIR(entry.mode):
                self._place_directory(entry)
        for entry in wrong:
            if entry.mode and not stat.S_ISDIR(entry.mode):
                self._place_other(entry)
        for entry in wrong:
            if not entry.mode:
                self._unlink(entry)

    def _place_directory(self, entry: Entry) -> None:
        directory = self._directory(entry.directory)
        fd = self._inode(entry.fs, entry.handle)
        if directory is None or fd < 0:
            self._moot(entry)
            return
        try:
            path = self._fs[entry.fs].path_of(fd)
            found = self._found(entry)
            if found is not None:
                self._unlink(entry)
            head, _slash, name = path.rpartition(b"/")
            source = os.open(head or b"/", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if self._handle(source, name) != self._wanted.inode(entry.fs, entry.handle):
                    self._differs(self._path(entry), "the directory could not be found again (last seen at %s)" % os.fsdecode(path))
                    return
                os.rename(name, entry.name, src_dir_fd=source, dst_dir_fd=directory)
            finally:
                os.close(source)
        finally:
            os.close(fd)

    def _place_other(self, entry: Entry) -> None:
        directory = self._directory(entry.directory)
        if directory is None:
            self._moot(entry)
            return
        staging = self._staging(entry.fs)
        fd = self._inode(entry.fs, entry.handle)
        if fd < 0:
            if not self._remake(entry, staging):
                self._differs(self._path(entry), "is gone, and there is no image of it")
                return
            fd = self._inode(entry.fs, entry.handle)
        try:
            if not self._fs[entry.fs].links:
                self._rename_in(entry, fd, directory)
                return
            temporary = b"t-%d-%d" % (entry.directory, os.getpid())
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=staging)
            kernel.link_fd(fd, staging, temporary)
            if self._reader.stat_or_none(directory, entry.name) is not None:
                with self._unlocked(directory, entry.name):
                    os.rename(temporary, entry.name, src_dir_fd=staging, dst_dir_fd=directory)
            else:
                os.rename(temporary, entry.name, src_dir_fd=staging, dst_dir_fd=directory)
        finally:
            os.close(fd)

    def _rename_in(self, entry: Entry, fd: int, directory: int) -> None:
        """A file system without hard links: the inode has one name, wherever it is."""
        os.rename(self._fs[entry.fs].path_of(fd), entry.name, dst_dir_fd=directory)

    def _remake(self, entry: Entry, staging: int) -> bool:
        """Make the inode anew from its images, in the store; False when there are none."""
        inode = (entry.fs, entry.handle)
        keep, content, basic = self._wanted.keeps.get(inode), self._wanted.contents.get(inode), self._wanted.basics.get(inode)
        kind = stat.S_IFMT(entry.mode)
        name = self._staged_name(b"n", entry.fs, entry.handle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=staging)
        if kind == stat.S_IFLNK:
            if keep is None:
                return False
            os.symlink(keep.data, name, dir_fd=staging)
        elif kind == stat.S_IFREG:
            if content is None and (keep is None or keep.how not in (INLINE, COPY)):
                return False
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=staging)
            try:
                if content is None and keep is not None:
                    self._write_image(fd, entry.fs, keep.how, keep.number, keep.data, basic.size if basic is not None else len(keep.data))
            finally:
                os.close(fd)
        elif basic is not None:
            os.mknod(name, entry.mode, basic.rdev, dir_fd=staging)
        else:
            return False
        self._alias(entry.fs, entry.handle, self._handle(staging, name))
        return True

    def _write_image(self, fd: int, fs: int, how: int, number: int, data: bytes, size: int) -> None:
        if how == INLINE:
            source = os.memfd_create("acid-image", os.MFD_CLOEXEC)
            os.write(source, data)
            size = len(data)
        else:
            source = self._store.open_copy(self._fs[fs], number)
        try:
            restore.set_contents(fd, source, size)
        finally:
            os.close(source)

    def _unlink(self, entry: Entry) -> None:
        found = self._found(entry)
        if found is None:
            return
        directory, state = found
        if stat.S_ISDIR(state.mode):
            return
        try:
            os.unlink(entry.name, dir_fd=directory)
        except OSError as error:
            if error.errno not in _PERMISSIONS:
                raise
            with self._unlocked(directory, entry.name):
                os.unlink(entry.name, dir_fd=directory)

    def _moot(self, entry: Entry) -> None:
        self._outcome.moot.append(self._path(entry))

    # -- 6: inodes -------------------------------------------------------------------------------------------------------

    def _restore_inodes(self) -> None:
        for inode, content in self._wanted.contents.items():
            fd = self._inode(*inode, os.O_RDWR | os.O_NONBLOCK | os.O_NOATIME)
            if fd >= 0:
                try:
                    self._write_image(fd, inode[0], content.how, content.number, content.data, content.size)
                finally:
                    os.close(fd)
        directories = []
        for inode, basic in self._wanted.basics.items():
            if stat.S_ISDIR(basic.mode):
                directories.append((inode, basic))
            else:
                self._restore_metadata(inode, basic)
        for inode, basic in directories:
            self._restore_metadata(inode, basic)
        for inode, flags in self._wanted.flags.items():
            fd = self._inode(*inode, os.O_RDONLY | os.O_NONBLOCK)
            if fd >= 0:
                try:
                    kernel.set_flags(fd, flags.flags)
                except OSError as error:
                    if flags.flags:
                        self._differs(self._name(inode), "inode flags: %s" % error.strerror)
                finally:
                    os.close(fd)

    def _restore_metadata(self, inode: Inode, basic: Basic) -> None:
        fd = self._inode(*inode)
        if fd < 0:
            if inode[0] in self._fs:
                self._outcome.moot.append(os.fsdecode(basic.path))
            return
        try:
            restore.set_basic(fd, basic)
            xattrs = self._wanted.xattrs.get(inode)
            if xattrs is not None:
                restore.set_xattrs(fd, xattrs.pairs)
            restore.set_times(fd, basic)
        except OSError as error:
            self._differs(basic.path, error.strerror or str(error))
        finally:
            os.close(fd)

    def _name(self, inode: Inode) -> bytes:
        basic = self._wanted.basics.get(inode)
        return basic.path if basic is not None else b"an inode"

    def _restore_values(self) -> None:
        for value in self._wanted.values.values():
            try:
                with open(value.path, "rb", buffering=0) as f:
                    if f.read(65536) == value.value:
                        continue
                with open(value.path, "wb", buffering=0) as f:
                    f.write(value.value)
            except OSError as error:
                self._differs(value.path, "value not written back: %s" % error.strerror)

    # -- 7: verify and finish --------------------------------------------------------------------------------------------

    def _verify(self, entries: t.Sequence[Entry]) -> None:
        known = {line.split(": ")[0] for line in self._outcome.differs}
        moot = set(self._outcome.moot)
        for entry in entries:
            path = self._path(entry)
            if path not in known and path not in moot and self._directory(entry.directory) is not None and not self._in_place(entry):
                self._differs(path, "is there, and was not" if not entry.mode else "is not what it was")
        for inode, basic in self._wanted.basics.items():
            fd = self._inode(*inode)
            if fd < 0:
                continue
            try:
                xattrs = self._wanted.xattrs.get(inode)
                wrong = restore.differences(fd, basic, None if xattrs is None else xattrs.pairs, sized=inode in self._wanted.contents)
                if wrong and os.fsdecode(basic.path) not in known:
                    self._differs(basic.path, ", ".join(wrong))
            finally:
                os.close(fd)

    def _finish(self) -> None:
        """Exact: drop what the store still holds of wanted inodes, so that link counts are as before; quarantine stays until gc."""
        if self._outcome.differs:
            return
        self._log.append(Undone(self._epoch))
        self._log.write_head()
        if self._epoch == 0:
            for fs in self._fs.values():
                directory = self._store.existing_directory(fs)
                if directory >= 0:
                    drop_images(directory)


def drop_images(directory: int) -> None:
    """Unlink links, copies and staged inodes from a store directory; trees in quarantine stay."""
    for name in names_in(directory):
        if name.startswith(b"q-"):
            continue
        try:
            os.unlink(name, dir_fd=directory)
        except PermissionError:
            unlink_locked(directory, name)
