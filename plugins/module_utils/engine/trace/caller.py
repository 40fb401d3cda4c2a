# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The thread whose call waits: its arguments, its memory, and where its paths and descriptors lead."""

from __future__ import annotations

import errno
import os
import stat
import struct

from ..kernel import AT_FDCWD
from .calls import FIXED
from .newborn import Newborn
from .resolve import Elsewhere, Memory, Place, Resolver
from .subjects import Answered
from .turns import Turns
from .workplace import Workplace

Arguments = tuple[int, int, int, int, int, int]
_DOTS = (b".", b"..")
#: Errors of resolving which the call itself will meet, since the kernel resolves its path by the same rules (docs/adr/0022); ESRCH: the
#: thread is gone.
_FAILS = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP, errno.ENAMETOOLONG, errno.ESRCH))


class WillFail(Exception):
    """The call will fail by itself, so it changes nothing."""


class Caller:
    """Set `thread` and `resolver` before each call. Every method raises WillFail where the call itself will fail."""

    def __init__(self, resolver: Resolver, newborn: Newborn) -> None:
        self.thread, self.resolver, self.newborn = 0, resolver, newborn
        self.workplace, self.turns = Workplace(resolver.reader), Turns()
        self._memory = Memory()

    def text(self, address: int) -> bytes:
        try:
            return self._memory.string(self.thread, address)
        except OSError as error:
            raise foretold(error) from None

    def texts(self, first: int, second: int) -> tuple[bytes, bytes]:
        try:
            return self._memory.strings(self.thread, first, second)
        except OSError as error:
            raise foretold(error) from None

    def memory(self, address: int, length: int) -> bytes:
        try:
            return self._memory.read(self.thread, address, length)
        except OSError as error:
            raise foretold(error) from None

    def resolve(self, dfd: int, text: bytes, follow: bool) -> Place:
        if not text:
            raise WillFail
        alone = dfd >= 0 and b"/" not in text and text not in _DOTS and not self.resolver.careful
        try:
            place = self.workplace.place(self.thread, dfd, text, follow) if alone else None
            if place is not None:
                return place
            place = self.resolver.place(self.thread, dfd, text, follow=follow)
        except OSError as error:
            raise foretold(error) from None
        if alone and place.name is not None:
            self.workplace.seen(self.thread, dfd, place)
        elif self.resolver.quick and text.startswith(b"/"):
            try:
                self.newborn.learn(text, place)
            except BaseException:  # in a store, or a full disk: nobody else knows of its descriptor
                os.close(place.fd)
                raise
        return place

    def newborn_name(self, text: bytes) -> bool:
        """Whether what happens to this name needs no image."""
        return not self.resolver.careful and self.newborn.covers(text)

    def newborn_file(self, text: bytes) -> bool:
        """Whether what happens to the inode that this path leads to needs no image: it is a newborn name, and no symlink or device."""
        if not self.newborn_name(text):
            return False
        try:
            mode = os.lstat(text).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return True
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def place(self, arguments: Arguments, dfd: int, path: int, follow: bool) -> Place | None:
        """Where the path leads; None where what happens there needs no image."""
        text = self.text(arguments[path])
        if self.newborn_file(text) if follow else self.newborn_name(text):
            return None
        return self.resolve(AT_FDCWD if dfd < 0 else signed(arguments[dfd]), text, follow)

    def inode(self, dfd: int) -> Place | None:
        """What the caller's descriptor is open on; None where that was born in the epoch."""
        try:
            if dfd >= 0 and self.newborn.born(self.resolver.state(self.thread, dfd)):
                return None
        except OSError as error:
            raise foretold(error) from None
        return self.opened(dfd)

    def opened(self, dfd: int) -> Place:
        """What the caller's descriptor is open on, newborn or not."""
        try:
            fd, state = self.resolver.inode(self.thread, dfd)
        except OSError as error:
            raise foretold(error) from None
        return Place(fd, state, None, state)

    def socket_path(self, address: int, length: int) -> bytes:
        """The path of a UNIX socket's address; empty for other families and for abstract and unnamed sockets."""
        if not 2 < length <= 128:
            return b""
        raw = self.memory(address, length)
        if struct.unpack_from("<H", raw)[0] != 1 or raw[2:3] == b"\0":
            return b""
        return raw[2:].split(b"\0")[0]


def foretold(error: OSError) -> BaseException:
    """WillFail when the call will meet this error itself; else the error, or what it means."""
    if error.errno == errno.EFAULT:  # the kernel can read what the agent can not (memfd_secret, a device's memory): it must not try
        return Answered(errno.EFAULT)
    if error.errno == errno.EACCES:  # to root: a FUSE or NFS mount that lets others in
        return Elsewhere()
    return WillFail() if error.errno in _FAILS else error


def signed(value: int) -> int:
    """A 32-bit int argument as the caller meant it."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def value(arguments: Arguments, at: int) -> int:
    return int(at) if isinstance(at, FIXED) else arguments[at]
