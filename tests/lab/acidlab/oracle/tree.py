# SPDX-License-Identifier: GPL-3.0-or-later
"""Every path of a host and all that the kernel tells about it.

Walks by directory descriptors and the current directory, since names may be odd and paths longer than PATH_MAX.
"""

from __future__ import annotations

import array
import base64
import errno
import fcntl
import os
import resource
import stat
import struct
import sys
from collections.abc import Callable

from ..volatile import ABSENT, CONTENT, MTIME, PATHS, Matcher
from .hashes import Hashes
from .model import Fields, Key, State

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_FSGETXATTR = 0x801C581F
# What a user may set (linux/fs.h, FS_FL_USER_MODIFIABLE of ext4, xfs and btrfs), by chattr's letters.
FLAGS = {
    0x1: "s",
    0x2: "u",
    0x4: "c",
    0x8: "S",
    0x10: "i",
    0x20: "a",
    0x40: "d",
    0x80: "A",
    0x4000: "j",
    0x8000: "t",
    0x10000: "D",
    0x20000: "T",
    0x800000: "C",
    0x2000000: "x",
    0x20000000: "P",
    0x40000000: "F",
}
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
UNSUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)


def _flags(descriptor: int, fields: Fields) -> None:
    buffer = array.array("l", [0])
    try:
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, buffer, True)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    else:
        letters = "".join(letter for bit, letter in FLAGS.items() if buffer[0] & bit)
        if letters:
            fields["flags"] = letters
    extended = bytearray(28)
    try:
        fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, extended, True)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return
    _xflags, extent_size, _extents, project, cow_extent_size = struct.unpack("5I8x", extended)
    if extent_size or project or cow_extent_size:
        fields["project"] = f"{project} {extent_size} {cow_extent_size}"


def _xattrs(target: int | bytes, fields: Fields) -> None:
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        raise
    if names:
        fields["xattrs"] = {name: base64.b64encode(os.getxattr(target, name, follow_symlinks=follow)).decode() for name in sorted(names)}


class Walk:
    """One walk over the tree of the calling process."""

    def __init__(self, *, hashes: Hashes, place: Callable[[int], str], skip: frozenset[str]) -> None:
        """place: device number -> name for hashes; skip: mount points whose content is the kernel's invention."""
        self.state: State = {}
        self._hashes = hashes
        self._place = place
        self._skip = skip
        self._rules = Matcher(PATHS)
        self._groups: dict[tuple[int, int], list[str]] = {}

    def run(self) -> State:
        sys.setrecursionlimit(20_000)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._directory(b"/", os.open("/", OPEN | os.O_DIRECTORY), "/")
        for names in self._groups.values():
            for name in names:
                self.state[Key("path", name)]["links"] = sorted(names)
        return self.state

    def _directory(self, name: bytes, descriptor: int, path: str) -> None:
        try:
            os.fchdir(descriptor)
            self._entry(name, path, os.fstat(descriptor), descriptor)
            if path in self._skip:
                return
            prefix = path if path == "/" else path + "/"
            for child in sorted(os.listdir(b".")):
                self._child(child, prefix + os.fsdecode(child), descriptor)
        finally:
            os.close(descriptor)

    def _child(self, name: bytes, path: str, parent: int) -> None:
        if self._rules.part(path) == ABSENT:
            return
        try:
            found = os.stat(name, follow_symlinks=False)
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFDIR:
                self._directory(name, os.open(name, OPEN | os.O_DIRECTORY), path)
                os.fchdir(parent)
            elif kind == stat.S_IFREG:
                descriptor = os.open(name, OPEN | os.O_NOATIME)
                try:
                    self._entry(name, path, os.fstat(descriptor), descriptor)
                finally:
                    os.close(descriptor)
            else:
                self._entry(name, path, found, None)
        except FileNotFoundError:
            # Gone between listing and looking: a running host's own business. Its directory's mtime tells.
            os.fchdir(parent)

    def _entry(self, name: bytes, path: str, found: os.stat_result, descriptor: int | None) -> None:
        kind = stat.S_IFMT(found.st_mode)
        part = self._rules.part(path)
        fields: Fields = {"type": TYPES[kind], "mode": f"{stat.S_IMODE(found.st_mode):04o}", "uid": found.st_uid, "gid": found.st_gid}
        if part not in (CONTENT, MTIME) or (part == CONTENT and kind == stat.S_IFDIR):
            fields["mtime"] = found.st_mtime_ns
        if kind == stat.S_IFLNK:
            fields["target"] = os.fsdecode(os.readlink(name))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            fields["device"] = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        elif kind == stat.S_IFREG and part != CONTENT:
            assert descriptor is not None
            fields["size"] = found.st_size
            fields["blocks"] = found.st_blocks
            fields["sha256"] = self._hashes.sha256(descriptor, found, self._place(found.st_dev))
        if kind != stat.S_IFDIR:
            fields["nlink"] = found.st_nlink
            if found.st_nlink > 1:
                self._groups.setdefault((found.st_dev, found.st_ino), []).append(path)
        if descriptor is not None:
            _flags(descriptor, fields)
        _xattrs(descriptor if descriptor is not None else name, fields)
        self.state[Key("path", path)] = fields
