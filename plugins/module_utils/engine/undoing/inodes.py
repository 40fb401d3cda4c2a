# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inodes: contents, owner, mode, extended attributes and times; directories' times after all others; project ids and inode flags last."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from .. import attributes, kernel, restore, whole
from ..records import Basic, Content, Value
from ..wanted import Inode
from .busy import finish, remake
from .ground import Ground
from .places import Places

_VALUE_PASSES = 3


class Inodes:
    def __init__(self, ground: Ground, places: Places) -> None:
        self._ground, self._wanted, self._places = ground, ground.wanted, places

    def restore(self) -> None:
        """What cannot be done to one inode is told with its path, and the others have theirs."""
        basics = self._wanted.basics
        finish(self._ground)
        self._each(self._wanted.contents, self._contents)
        self._each([inode for inode, basic in basics.items() if not stat.S_ISDIR(basic.mode)], self._metadata)
        self._each([inode for inode, basic in basics.items() if stat.S_ISDIR(basic.mode)], self._metadata)
        self._each(self._wanted.flags, self._flags)

    def _each(self, inodes: t.Iterable[Inode], act: t.Callable[[Inode], None]) -> None:
        ground = self._ground
        for inode in inodes:
            if inode in self._places.finished:
                continue
            try:
                act(inode)
            except OSError as error:
                ground.failed(ground.path_of(inode), error)

    def _contents(self, inode: Inode) -> None:
        content = self._wanted.contents[inode]
        path_fd = self._ground.inode(*inode)
        if path_fd < 0:
            return
        try:
            fd = self._open(path_fd)
            try:
                self._make_ready(fd, inode)
                self._places.write_image(fd, inode[0], content, content.size)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.ETXTBSY:
                raise
            remake(self._ground, self._places, inode, path_fd)
        finally:
            os.close(path_fd)

    def _make_ready(self, fd: int, inode: Inode) -> None:
        """A file with data takes no other hint of extent size; one that is to have another is emptied first."""
        wanted = self._wanted.attributes_of(inode)
        if wanted is None:
            return
        with contextlib.suppress(OSError):  # the verification tells
            try:
                attributes.put(fd, wanted)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                os.ftruncate(fd, 0)
                attributes.put(fd, wanted)

    def _open(self, path_fd: int) -> int:
        return self._ground.unlocking(lambda: os.open(restore.proc(path_fd), os.O_RDWR | os.O_NONBLOCK | os.O_NOATIME), (path_fd, b""))

    def _metadata(self, inode: Inode) -> None:
        basic, pairs = self._wanted.basics[inode], self._wanted.xattrs_of(inode)
        fd = self._ground.inode(*inode)
        if fd < 0:
            self._gone(inode, basic)
            return

        def act() -> None:
            restore.set_basic(fd, basic)
            if pairs is not None:
                restore.set_xattrs(fd, pairs)
            restore.set_times(fd, basic)

        try:
            self._ground.unlocking(act, (fd, b""))
        finally:
            os.close(fd)

    def _gone(self, inode: Inode, basic: Basic) -> None:
        """Somebody who edits a file by rename makes what the transaction wrote into the old one his own, and nobody can tell it apart."""
        ground = self._ground
        if inode[0] not in ground.file_systems or (not self._places.is_wanted(inode) and ground.forgotten(inode[0], basic.path)):
            return
        if self._places.is_wanted(inode) or not self.is_replaced(inode):
            ground.outcome.moot.append(os.fsdecode(basic.path))
            return
        line = ground.differs(basic.path, "was replaced since, by another file: what the transaction changed may be in that one, too")
        ground.outcome.replaced[line] = inode

    def is_replaced(self, inode: Inode) -> bool:
        """Whether another file stands where this one was last seen, by nobody's doing that the log knows of, and is not as this one was."""
        basic, content = self._wanted.basics[inode], self._wanted.contents.get(inode)
        try:
            fd = os.open(basic.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if not stat.S_ISREG(basic.mode) or not stat.S_ISREG(os.fstat(fd).st_mode) or self._ground.has_moved_names_at(basic.path):
                return False
            if restore.differences(fd, basic, self._wanted.xattrs_of(inode), sized=content is not None):
                return True
            return content is not None and not self._reads_as(fd, inode[0], content)
        finally:
            os.close(fd)

    def _reads_as(self, path_fd: int, fs: int, content: Content) -> bool:
        fd = os.open(restore.proc(path_fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
        try:
            return self._places.holds_image(fd, fs, content, content.size)
        finally:
            os.close(fd)

    def _flags(self, inode: Inode) -> None:
        flags = self._wanted.flags[inode]
        fd = self._ground.inode(*inode, os.O_RDONLY | os.O_NONBLOCK)
        if fd < 0:
            return
        try:
            if flags.attributes is not None:
                self._put_attributes(fd, flags.attributes)
            kernel.set_flags(fd, flags.flags)
        except OSError as error:
            if flags.flags:
                raise OSError(error.errno, "inode flags: %s" % error.strerror) from error
        finally:
            os.close(fd)

    def _put_attributes(self, fd: int, wanted: attributes.Attributes) -> None:
        with contextlib.suppress(OSError):  # the verification tells
            self._ground.unlocking(lambda: attributes.put(fd, wanted), (fd, b""))

    def values(self) -> None:
        """Settings of the kernel, the latest first. Some are coupled (net.ipv4.conf.all.forwarding sets that of each interface), so
        those that
        another one has moved are written again."""
        wanted = list(reversed(list(self._wanted.values.values())))
        for _attempt in range(_VALUE_PASSES):
            wanted = [value for value in wanted if not self._write_value(value)]
        for value in wanted:
            if self._read_value(value) != value.value:
                self._ground.differs(value.path, "the kernel's value is not what it was")

    @staticmethod
    def _read_value(value: Value) -> bytes:
        try:
            with open(value.path, "rb", buffering=0) as f:
                return f.read(65536)
        except OSError:
            return b""

    def _write_value(self, value: Value) -> bool:
        """Whether nothing more is to be done for it: the file is gone, or the kernel refuses."""
        if self._read_value(value) == value.value:
            return False
        try:
            with open(value.path, "wb", buffering=0) as f:
                whole.write(f.fileno(), value.value)
        except OSError as error:
            self._ground.differs(value.path, "value not written back: %s" % error.strerror)
            return True
        return False

    def verify(self, skip: t.Collection[str]) -> None:
        self._each([inode for inode in self._wanted.basics if self._ground.path_of(inode) not in skip], self._verify)
        contents = [inode for inode in self._wanted.contents if self._ground.path_of(inode) not in skip]
        self._each(contents, self._verify_contents)
        self._each([inode for inode in self._wanted.flags if self._ground.path_of(inode) not in skip], self._verify_attributes)

    def _verify(self, inode: Inode) -> None:
        basic, fd = self._wanted.basics[inode], self._ground.inode(*inode)
        if fd < 0:
            return
        try:
            wrong = restore.differences(fd, basic, self._wanted.xattrs_of(inode), sized=inode in self._wanted.contents)
            if wrong and not self._ground.only_in_store(inode[0], fd):
                self._ground.differs(basic.path, ", ".join(wrong))
        finally:
            os.close(fd)

    def _verify_contents(self, inode: Inode) -> None:
        """They are read again: that no write failed does not say that all was written, nor where."""
        fd = self._ground.inode(*inode)
        if fd < 0:
            return
        try:
            content = self._wanted.contents[inode]
            if not self._reads_as(fd, inode[0], content) and not self._ground.only_in_store(inode[0], fd):
                self._ground.differs(self._ground.path_of(inode), "its contents are not what they were")
        finally:
            os.close(fd)

    def _verify_attributes(self, inode: Inode) -> None:
        wanted = self._wanted.flags[inode].attributes
        fd = -1 if wanted is None else self._ground.inode(*inode, os.O_RDONLY | os.O_NONBLOCK)
        if wanted is None or fd < 0:
            return
        try:
            wrong = attributes.differences(attributes.get(fd), wanted)
            if wrong and not self._ground.only_in_store(inode[0], fd):
                self._ground.differs(self._ground.path_of(inode), ", ".join(wrong))
        finally:
            os.close(fd)

    def forget_what_is_cached(self, fs: int) -> None:
        """The kernel tells once that something did not get to the disk, and goes on to show it. The next undo is to see the disk."""
        for inode in self._wanted.contents:
            with contextlib.suppress(OSError):
                fd = self._ground.inode(*inode, os.O_RDONLY | os.O_NONBLOCK) if inode[0] == fs else -1
                if fd >= 0:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(fd)
