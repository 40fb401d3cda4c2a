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
from ..records import Basic, Value
from ..reserve import FULL
from ..wanted import Inode
from .ground import Ground
from .places import Places

_VALUE_PASSES = 3


class Inodes:
    def __init__(self, ground: Ground, places: Places) -> None:
        self._ground, self._wanted, self._places = ground, ground.wanted, places

    def restore(self) -> None:
        self._contents()
        for inode, basic in self._wanted.basics.items():
            if not stat.S_ISDIR(basic.mode):
                self._metadata(inode, basic)
        for inode, basic in self._wanted.basics.items():
            if stat.S_ISDIR(basic.mode):
                self._metadata(inode, basic)
        self._flags()

    def _contents(self) -> None:
        for inode, content in self._wanted.contents.items():
            if inode in self._places.finished:
                continue
            path_fd = self._ground.inode(*inode)
            if path_fd < 0:
                continue
            try:
                fd = self._open(path_fd)
                try:
                    self._make_ready(fd, inode)
                    self._places.write_image(fd, inode[0], content.how, content.number, content.data, content.size)
                finally:
                    os.close(fd)
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

    def _metadata(self, inode: Inode, basic: Basic) -> None:
        if inode in self._places.finished:
            return
        fd = self._ground.inode(*inode)
        if fd < 0:
            if inode[0] in self._ground.file_systems and not self._ground.forgotten(inode[0], basic.path):
                self._ground.outcome.moot.append(os.fsdecode(basic.path))
            return
        pairs = self._wanted.xattrs_of(inode)

        def act() -> None:
            restore.set_basic(fd, basic)
            if pairs is not None:
                restore.set_xattrs(fd, pairs)
            restore.set_times(fd, basic)

        try:
            self._ground.unlocking(act, (fd, b""))
        except OSError as error:
            if error.errno in FULL and not self._ground.has_made_room:
                raise
            self._ground.differs(basic.path, error.strerror or str(error))
        finally:
            os.close(fd)

    def _flags(self) -> None:
        for inode, flags in self._wanted.flags.items():
            if inode in self._places.finished:
                continue
            fd = self._ground.inode(*inode, os.O_RDONLY | os.O_NONBLOCK)
            if fd < 0:
                continue
            try:
                if flags.attributes is not None:
                    self._put_attributes(fd, flags.attributes)
                kernel.set_flags(fd, flags.flags)
            except OSError as error:
                if flags.flags:
                    basic = self._wanted.basics.get(inode)
                    self._ground.differs(basic.path if basic is not None else b"an inode", "inode flags: %s" % error.strerror)
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
        for inode, basic in self._wanted.basics.items():
            fd = -1 if inode in self._places.finished else self._ground.inode(*inode)
            if fd < 0:
                continue
            try:
                wrong = restore.differences(fd, basic, self._wanted.xattrs_of(inode), sized=inode in self._wanted.contents)
                if wrong and os.fsdecode(basic.path) not in skip and not self._ground.only_in_store(inode[0], fd):
                    self._ground.differs(basic.path, ", ".join(wrong))
            finally:
                os.close(fd)
        for inode, flags in self._wanted.flags.items():
            if flags.attributes is not None and inode not in self._places.finished:
                self._verify_attributes(inode, flags.attributes, skip)

    def _verify_attributes(self, inode: Inode, wanted: attributes.Attributes, skip: t.Collection[str]) -> None:
        basic = self._wanted.basics.get(inode)
        path = os.fsdecode(basic.path) if basic is not None else "an inode"
        fd = -1 if path in skip else self._ground.inode(*inode, os.O_RDONLY | os.O_NONBLOCK)
        if fd < 0:
            return
        try:
            wrong = attributes.differences(attributes.get(fd), wanted)
            if wrong and not self._ground.only_in_store(inode[0], fd):
                self._ground.differs(path, ", ".join(wrong))
        finally:
            os.close(fd)
