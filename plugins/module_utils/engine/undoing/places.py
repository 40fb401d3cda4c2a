# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Places: put each wanted inode where it was, and take away what was not there.

1. make directories anew that are gone (in the store; an Alias in the log says which stands for which);
2. where a place holds the wrong inode, and that one is wanted somewhere, stage it in the store: directories by rename, others by one more
   link, so that nothing wanted ever loses its last name;
3. where a place holds a directory that nobody wants, rename it whole into quarantine (TRACE.md 21);
4. put the wanted into their places, directories first, over what is there; then unlink what is left of the unwanted.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat
import typing as t

from .. import attributes, kernel, restore
from ..attributes import Attributes
from ..records import COPY, INLINE, LINK, Basic, Content, Entry, Keep
from ..reserve import FULL
from ..store import digest_of
from ..wanted import Inode, Place
from .ground import Ground


class Places:
    def __init__(self, ground: Ground) -> None:
        self._ground, self._wanted = ground, ground.wanted
        directories = self._wanted.directories
        self.entries = [entry for entry in self._wanted.entries.values() if directories[entry.directory].fs in ground.file_systems]
        self.entries.sort(key=lambda entry: entry.directory)
        #: inodes made anew with all their metadata: nothing more is to be done for them
        self.finished: set[Inode] = set()
        self._names = collections.Counter((entry.fs, entry.handle) for entry in self.entries if entry.mode)
        self._moot: set[Place] = set()
        #: directories that could not be made anew
        self._unmade: set[Inode] = set()

    def restore(self) -> None:
        """A place at which something fails is left as it is from then on: what stands there may be wanted elsewhere, and have no other
        name."""
        self._remake_directories()
        wanted = self._ground.inodes_wanted(self.entries)
        wrong = [entry for entry in self.entries if not self._is_right(entry)]
        wrong = self._each(wrong, lambda entry: self._clear(entry, wanted))
        self._each([entry for entry in wrong if stat.S_ISDIR(entry.mode)], self._place_directory)
        self._each([entry for entry in wrong if entry.mode and not stat.S_ISDIR(entry.mode)], self._place_other)
        self._each([entry for entry in wrong if not entry.mode], self._unlink)

    def _each(self, entries: list[Entry], act: t.Callable[[Entry], object]) -> list[Entry]:
        """Those at which it could be done."""
        ground = self._ground
        return [entry for entry in entries if ground.attempt(ground.path(entry), lambda: act(entry))]  # noqa: B023  (called at once)

    def _is_right(self, entry: Entry) -> bool:
        """One that cannot be looked at is left alone, and told."""
        found: list[bool] = []
        self._ground.attempt(self._ground.path(entry), lambda: found.append(self._ground.in_place(entry)))
        return found != [False]

    def is_wanted(self, inode: Inode) -> bool:
        """Whether some place is to hold it."""
        return inode in self._names

    # -- 1 ---------------------------------------------------------------------------------------------------------------

    def _remake_directories(self) -> None:
        """Parents first. A directory whose own directory is no more, and is not wanted either, was born later than the state to bring
        back."""
        gone = [entry for entry in self.entries if stat.S_ISDIR(entry.mode) and not self._lives(entry)]
        while gone:
            ready = [entry for entry in gone if self._directory(entry) is not None]
            if not ready:
                break
            made = {id(entry) for entry in self._each(ready, self._remake_directory)}
            self._unmade.update((entry.fs, entry.handle) for entry in ready if id(entry) not in made)
            tried = {id(entry) for entry in ready}
            gone = [entry for entry in gone if id(entry) not in tried]
        while True:  # what is in those cannot be made either
            inside = {(entry.fs, entry.handle) for entry in gone if self._lacks_directory(entry)} - self._unmade
            if not inside:
                break
            self._unmade |= inside

    def _lacks_directory(self, entry: Entry) -> bool:
        seen = self._wanted.directories[entry.directory]
        return (seen.fs, self._wanted.inode(seen.fs, seen.handle)) in self._unmade

    def _lives(self, entry: Entry) -> bool:
        """Also where nobody can tell, which is told."""
        found: list[int] = []
        self._ground.attempt(self._ground.path(entry), lambda: found.append(self._ground.inode(entry.fs, entry.handle)))
        for fd in found:
            if fd >= 0:
                os.close(fd)
        return found != [-1]

    def _directory(self, entry: Entry) -> int | None:
        """None, too, where it cannot be opened, which is told."""
        found: list[int | None] = [None]
        seen = self._wanted.directories[entry.directory]
        self._ground.attempt(seen.path, lambda: found.append(self._ground.directory(entry.directory)))
        return found[-1]

    def _pass_over(self, entry: Entry) -> None:
        """The directory of the place is no more, or what is to stand there. Where that could not be made, it is told."""
        if self._lacks_directory(entry):
            self._ground.differs(self._ground.path(entry), "its directory could not be made")
            return
        self._moot.add((entry.directory, entry.name))
        self._ground.outcome.moot.append(self._ground.path(entry))

    def _remake_directory(self, entry: Entry) -> None:
        ground = self._ground
        staging, name = ground.staging(entry.fs), ground.staged_name(b"d", entry.fs, entry.handle)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=staging)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=staging)
        try:
            if self._wanted.flags_of((entry.fs, entry.handle)) == 0:
                kernel.clear_flags(fd)
            self._put_attributes(fd, entry)  # now: symbolic links made in it get its project id, and cannot be given one
        finally:
            os.close(fd)
        ground.alias(entry.fs, entry.handle, ground.reader.handle(staging, name))

    # -- 2, 3 ------------------------------------------------------------------------------------------------------------

    def _clear(self, entry: Entry, wanted: set[Inode]) -> None:
        ground = self._ground
        found = ground.found(entry)
        if found is None:
            return
        directory, state = found
        if state.attributes & kernel.STATX_ATTR_MOUNT_ROOT:  # a btrfs subvolume has another device, too
            raise OSError(errno.EBUSY, "something is mounted there")
        fs = self._wanted.directories[entry.directory].fs
        handle = ground.reader.handle(directory, entry.name)
        is_wanted = (fs, handle) in wanted
        if stat.S_ISDIR(state.mode):
            name = ground.staged_name(b"s" if is_wanted else b"q", fs, handle)
            staging = ground.staging(fs)
            ground.unlocking(
                lambda: os.rename(entry.name, name, src_dir_fd=directory, dst_dir_fd=staging), (directory, b""), (directory, entry.name)
            )
        elif is_wanted:
            self._stage_link(fs, handle)

    def _stage_link(self, fs: int, handle: bytes) -> None:
        ground = self._ground
        if not ground.file_systems[fs].links:
            return
        staging, name = ground.staging(fs), ground.staged_name(b"s", fs, handle)
        fd = ground.file_systems[fs].open(handle)
        try:
            ground.unlocking(lambda: kernel.link_fd(fd, staging, name), (fd, b""))
        except FileExistsError:
            pass
        finally:
            os.close(fd)

    # -- 4 ---------------------------------------------------------------------------------------------------------------

    def _place_directory(self, entry: Entry) -> None:
        ground = self._ground
        directory = ground.directory(entry.directory)
        if directory is None:
            self._pass_over(entry)
            return
        fd = ground.inode(entry.fs, entry.handle)
        if fd < 0:
            if (entry.fs, entry.handle) not in self._unmade:  # then that is told
                self._pass_over(entry)
            return
        try:
            self._unlink(entry)
            source, name = ground.file_systems[entry.fs].open_parent(fd)
            try:
                if ground.reader.handle(source, name) != self._wanted.inode(entry.fs, entry.handle):
                    where = os.fsdecode(ground.file_systems[entry.fs].path_of(fd))
                    ground.differs(ground.path(entry), "the directory could not be found again (last seen at %s)" % where)
                    return
                ground.entering(
                    directory,
                    lambda: ground.unlocking(
                        lambda: os.rename(name, entry.name, src_dir_fd=source, dst_dir_fd=directory),
                        (directory, b""),
                        (source, b""),
                        (source, name),
                    ),
                )
            finally:
                os.close(source)
        finally:
            os.close(fd)

    def _place_other(self, entry: Entry) -> None:
        ground = self._ground
        directory = ground.directory(entry.directory)
        if directory is None:
            self._pass_over(entry)
            return
        inode = (entry.fs, entry.handle)
        keep = self._wanted.keeps.get(inode)
        only = self._names[inode] == 1
        if only and keep is not None and keep.how == LINK and self._move(b"%d" % keep.number, entry, directory):
            return
        fd = ground.inode(*inode)
        if fd < 0:
            if only and (ground.found(entry) is None or (not stat.S_ISREG(entry.mode) and attributes.inherits(directory))):
                # straight into its place: if we die here, the next undo finds a stranger and replaces it
                self._remake(entry, directory, entry.name)
                return
            staging, name = ground.staging(entry.fs), ground.staged_name(b"n", entry.fs, entry.handle)
            if not self._remake(entry, staging, name):
                return
            if only:
                self._move(name, entry, directory)
                return
            fd = ground.inode(*inode)
        try:
            self._place_live(entry, fd, directory)
        finally:
            os.close(fd)

    def _place_live(self, entry: Entry, fd: int, directory: int) -> None:
        """The inode lives, at some other name: give it this one too. Its other names go when their own places are looked at."""
        ground = self._ground
        if not ground.file_systems[entry.fs].links:  # then it has but one name
            source, name = ground.file_systems[entry.fs].open_parent(fd)
            try:
                os.rename(name, entry.name, src_dir_fd=source, dst_dir_fd=directory)
            finally:
                os.close(source)
            return
        temporary, staging = b"t-%d" % entry.directory, ground.staging(entry.fs)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=staging)
        ground.unlocking(lambda: kernel.link_fd(fd, staging, temporary), (fd, b""))
        self._move(temporary, entry, directory)

    def _move(self, name: bytes, entry: Entry, directory: int) -> bool:
        """From the store to the place, over what is there; False when the store has it no more."""
        ground, staging = self._ground, self._ground.staging(entry.fs)
        try:
            ground.entering(
                directory,
                lambda: ground.unlocking(
                    lambda: os.rename(name, entry.name, src_dir_fd=staging, dst_dir_fd=directory),
                    (directory, b""),
                    (directory, entry.name),
                    (staging, name),
                ),
            )
        except FileNotFoundError:
            return False
        return True

    def _remake(self, entry: Entry, dirfd: int, name: bytes) -> bool:
        """Make the inode anew at (dirfd, name) from its images; False when there are none. What comes next knows it by its Alias."""
        ground, inode = self._ground, (entry.fs, entry.handle)
        keep, content, basic = self._wanted.keeps.get(inode), self._wanted.contents.get(inode), self._wanted.basics.get(inode)
        kind = stat.S_IFMT(entry.mode)
        image = content or keep
        if basic is None or (kind in (stat.S_IFREG, stat.S_IFLNK) and (image is None or image.how not in (INLINE, COPY))):
            if self._in_quarantine(entry):
                self._moot.add((entry.directory, entry.name))
                ground.outcome.moot.append(ground.path(entry))
            else:
                ground.differs(ground.path(entry), "is gone, and there is no image of it")
            return False
        if dirfd == ground.staging(entry.fs):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=dirfd)  # of an undo that died
        elif kind != stat.S_IFREG:
            self._unlink(entry)
        make = {stat.S_IFREG: self._make_file, stat.S_IFLNK: self._make_symlink}.get(kind, self._make_special)
        ground.unlocking(lambda: make(entry, basic, dirfd, name), (dirfd, b""))
        ground.alias(entry.fs, entry.handle, ground.reader.handle(dirfd, name))
        return True

    def _in_quarantine(self, entry: Entry) -> bool:
        """Whether the place lies in a directory that nobody wants: it was born in an earlier step that is undone too. What a later step
        moved in it need not have reached the disk before a power cut."""
        directory, fs = self._ground.directory(entry.directory), self._ground.file_systems[entry.fs]
        return directory is not None and fs.path_of(directory).startswith(fs.path_of(self._ground.staging(entry.fs)) + b"/")

    def _put_attributes(self, fd: int, entry: Entry) -> bool:
        """Give the new inode its project id and the like; whether it has them. What an older engine's log does not say, it gets from the
        directory, as if it were born there."""
        inode = (entry.fs, entry.handle)
        wanted = self._wanted.attributes_of(inode)
        if wanted is None:
            directory = self._ground.directory(entry.directory)
            above = attributes.get(directory) if directory is not None else None
            if above is None or not above.xflags & attributes.PROJINHERIT:
                return True
            flags = self._wanted.flags_of(inode) or 0
            wanted = Attributes(attributes.PROJINHERIT if flags & kernel.FS_PROJINHERIT_FL else 0, 0, above.projid, 0)
        try:
            attributes.put(fd, wanted)
        except OSError:
            return False
        return True

    def _make_file(self, entry: Entry, basic: Basic, dirfd: int, name: bytes) -> None:
        """With its metadata at once, while it is open: most of what an undo makes anew are many small files."""
        inode = (entry.fs, entry.handle)
        image = self._wanted.contents.get(inode) or self._wanted.keeps[inode]
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dirfd)
        try:
            complete = self._put_attributes(fd, entry)  # before there is data: XFS takes a hint of extent size only then
            if image.data or image.how == COPY:
                size = image.size if isinstance(image, Content) else basic.size
                self.write_image(fd, inode[0], image, size)
                if not self.holds_image(fd, inode[0], image, size):
                    raise OSError(errno.EIO, "what was written does not read as it was")
            complete = self._put_metadata(fd, inode, basic) and complete
            if self._ground.store.durable:
                os.fsync(fd)  # its Alias may be on the disk before its data
            if complete and kernel.get_flags(fd) == self._wanted.flags_of(inode) and not restore.differences(fd, basic, None, sized=True):
                self.finished.add(inode)
        except BaseException:
            with contextlib.suppress(OSError):  # a part of a file is worse than none
                os.unlink(name, dir_fd=dirfd)
            raise
        finally:
            os.close(fd)

    def _put_metadata(self, fd: int, inode: Inode, basic: Basic) -> bool:
        """Whether it could be done; if not, it is tried again with that of all inodes, and told."""
        try:
            restore.set_basic(fd, basic)
            restore.set_xattrs(fd, self._wanted.xattrs_of(inode) or ())
            restore.set_times(fd, basic)
        except OSError as error:
            if error.errno in FULL:
                raise
            return False
        return True

    def _make_symlink(self, entry: Entry, basic: Basic, dirfd: int, name: bytes) -> None:
        os.symlink(self._wanted.keeps[entry.fs, entry.handle].data, name, dir_fd=dirfd)

    def _make_special(self, entry: Entry, basic: Basic, dirfd: int, name: bytes) -> None:
        os.mknod(name, basic.mode, basic.rdev, dir_fd=dirfd)

    def write_image(self, fd: int, fs: int, image: Content | Keep, size: int) -> None:
        """Make the file open at `fd` what its image says."""
        if image.how == INLINE:
            restore.set_bytes(fd, image.data)
            return
        source = self._ground.store.open_copy(self._ground.file_systems[fs], image.number)
        try:
            restore.set_contents(fd, source, size)
        except OSError as error:
            if error.errno not in FULL or not restore.share_contents(fd, source, size):
                raise
        finally:
            os.close(source)

    def holds_image(self, fd: int, fs: int, image: Content | Keep, size: int) -> bool:
        """Whether the file open for reading at `fd` reads as its image says: by the digest that was taken when the image was, where there
        is one."""
        if image.how == INLINE:
            return os.pread(fd, len(image.data) + 1, 0) == image.data
        if image.data:
            return digest_of(fd) == image.data
        source = self._ground.store.open_copy(self._ground.file_systems[fs], image.number)
        try:
            return restore.same_contents(fd, source, size)
        finally:
            os.close(source)

    def _unlink(self, entry: Entry) -> None:
        found = self._ground.found(entry)
        if found is None or stat.S_ISDIR(found[1].mode):
            return
        directory = found[0]
        self._ground.unlocking(lambda: os.unlink(entry.name, dir_fd=directory), (directory, b""), (directory, entry.name))

    def verify(self, skip: t.Collection[str]) -> None:
        ground = self._ground
        for entry in self.entries:
            path = ground.path(entry)
            if path not in skip and (entry.directory, entry.name) not in self._moot:
                ground.attempt(path, lambda: self._verify(entry, path))  # noqa: B023  (called at once)

    def _verify(self, entry: Entry, path: str) -> None:
        ground = self._ground
        if ground.directory(entry.directory) is None:
            # Somebody else has put another directory there: with what was in the old one, or without.
            if not entry.mode and os.path.lexists(path) and not ground.has_moved_names_at(os.fsencode(path)):
                ground.differs(path, "is there, and was not: its directory is another one")
        elif not ground.in_place(entry):
            ground.differs(path, "is not what it was" if entry.mode else "is there, and was not")
