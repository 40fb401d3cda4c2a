# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that may write into a file: its contents are imaged, and the value of a kernel's setting."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
import struct

from .. import kernel
from ..filesystems import VALUES
from ..kernel import AT_EMPTY_PATH
from ..model import IRREVERSIBLE
from ..records import Value
from .caller import Arguments, Caller, foretold, signed, value
from .calls import OPEN_MASK, Call
from .images import Images
from .inodes import inode_at
from .names import Names
from .resolve import Place
from .scope import CONTENTS_LEFT, below
from .unlisted import Reached, setting


class Contents:
    """Handlers by the `does` of calls.py. `forget` at each epoch."""

    def __init__(self, images: Images, caller: Caller, names: Names) -> None:
        self._images, self._caller, self._names = images, caller, names
        self._values: set[bytes] = set()

    def forget(self) -> None:
        self._values.clear()

    def open(self, arguments: Arguments, call: Call) -> None:
        self._opened(arguments, call.at[0], call.at[1], value(arguments, call.at[2]))

    def openat2(self, arguments: Arguments, call: Call) -> None:
        flags, _mode, resolve = struct.unpack("<QQQ", self._caller.memory(arguments[2], 24))
        if not flags & OPEN_MASK:
            return
        if not resolve & kernel.RESOLVE_IN_ROOT:  # the other bits only make more paths fail
            self._opened(arguments, 0, 1, flags)
            return
        try:
            place = self._caller.resolver.walk(
                self._caller.thread, signed(arguments[0]), self._caller.text(arguments[1]), follow=not flags & os.O_NOFOLLOW, in_root=True
            )
        except OSError as error:
            raise foretold(error) from None
        self.open_place(place, flags)

    def _opened(self, arguments: Arguments, dfd: int, path: int, flags: int) -> None:
        if not flags & os.O_PATH:
            follow = not (flags & os.O_NOFOLLOW or (flags & os.O_CREAT and flags & os.O_EXCL))
            place = self._caller.place(arguments, dfd, path, follow)
            if place is not None:
                self.open_place(place, flags)

    def open_place(self, place: Place, flags: int) -> None:
        try:
            if place.found is None:
                if flags & os.O_CREAT:
                    self._names.absent(place)
                return
            if flags & os.O_CREAT and flags & os.O_EXCL:  # fails, for every file system: lookup_open() and do_open() in fs/namei.c
                self._images.refuse_in_store(place)  # there what was to go first only seems to have gone
                return
            kind = stat.S_IFMT(place.found.mode)
            if kind == stat.S_IFBLK:
                self._images.tell(
                    IRREVERSIBLE, "block device %d:%d opened for writing" % (os.major(place.found.rdev), os.minor(place.found.rdev))
                )
            elif kind == stat.S_IFREG:
                self._touch_contents(place)
        finally:
            os.close(place.fd)

    def truncate(self, arguments: Arguments, call: Call) -> None:
        place = self._caller.place(arguments, call.at[0], call.at[1], True)
        if place is not None:
            self.open_place(place, os.O_WRONLY)

    def _touch_contents(self, place: Place) -> None:
        """A regular file is about to be written in place."""
        images, found = self._images, place.found
        if found is None:
            return
        fs = images.look_up(found.dev, place.fd, place.name or b"")
        if fs == VALUES:
            self._touch_value(place)
        # No file system lets anybody write to or truncate an immutable inode: inode_permission() in fs/namei.c
        if isinstance(fs, str) or found.attributes & kernel.STATX_ATTR_IMMUTABLE:
            return
        if images.born(fs, found):
            images.refuse_new_in_store(place)
            return
        name, at = (place.name, 0) if place.name is not None else (b"", AT_EMPTY_PATH)
        key = images.key(found, place.fd, name, at)
        if images.contents_seen(key):
            return
        inode = inode_at(self._images, place, fs)
        if inode is not None and not below(inode.path, CONTENTS_LEFT):
            images.touch_contents(inode, key)

    def _touch_value(self, place: Place) -> None:
        """A setting of the kernel: /proc/sys or /sys. What cannot be read cannot be undone."""
        path = setting(self._images.reader, Reached(place.parent.dev, place.fd, place.name or b""), self._caller.thread)
        if not below(path, (b"/proc/sys", b"/sys")):
            return
        self._value(path)
        for other in coupled(path):
            self._value(other)

    def _value(self, path: bytes) -> None:
        if path in self._values:
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                found = os.read(fd, 65536)
            finally:
                os.close(fd)
        except OSError:
            self._images.tell(IRREVERSIBLE, "write to %s, which cannot be read" % os.fsdecode(path))
            return
        self._images.log.append(Value(self._images.step, path, found))
        self._values.add(path)

    def open_by_handle(self, arguments: Arguments, call: Call) -> None:
        if not arguments[2] & OPEN_MASK:
            return
        size, kind = struct.unpack("<I4s", self._caller.memory(arguments[1], 8))
        if size > 128:
            return
        handle = kind + self._caller.memory(arguments[1] + 8, size)
        mount = self._caller.opened(signed(arguments[0]))  # no more than the file system is meant: it may be newborn, the inode old
        try:
            fs = self._images.traced(mount.parent.dev, mount.fd)
            if fs is None:
                return
            try:
                fd = fs.open_as_the_kernel_does(handle)
            except OSError as error:
                if error.errno == errno.ESTALE:  # there is no such inode: the call fails
                    return
                raise
            found = self._images.reader.stat(fd, b"", AT_EMPTY_PATH)
            self.open_place(Place(fd, found, None, found), arguments[2])
        finally:
            os.close(mount.fd)


def coupled(path: bytes) -> list[bytes]:
    """Other settings of the network that the kernel changes together with this one (Documentation/networking/ip-sysctl.rst)."""
    match = re.fullmatch(rb"/proc/sys/net/(ipv[46])/conf/(?:all|default)/([a-z0-9_]+)", path)
    family, names = (match[1], [match[2]]) if match else (b"ipv4", [])
    if path == b"/proc/sys/net/ipv4/ip_forward" or path.endswith(b"/forwarding"):
        family, names = (b"ipv6", [b"forwarding", b"accept_ra"]) if b"/ipv6/" in path else (b"ipv4", [b"forwarding", b"accept_redirects"])
    found = [other for name in names for other in sorted(glob.glob(b"/proc/sys/net/%s/conf/*/%s" % (family, name)))]
    return found + ([b"/proc/sys/net/ipv4/ip_forward"] if b"forwarding" in names and family == b"ipv4" else [])
