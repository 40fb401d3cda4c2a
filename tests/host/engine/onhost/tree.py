# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tree on a host looks like: runs on the host, knows nothing of the engine.

    look(root) -> {path below root: {attribute: value}}        differences(before, after) -> sentences

Not looked at, as in the lab's oracle: atime, ctime, birth time, inode numbers, the size, blocks and link count of directories.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct

_GETFLAGS = 0x80086601
# FS_FL_USER_MODIFIABLE, linux/fs.h, without the bits that a file system sets by itself
_FLAGS = 0x000380FF | 0x00800000
_BLOCK = 1 << 20


def _name(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _xattrs(fd: int) -> dict[str, str]:
    path = f"/proc/self/fd/{fd}"
    try:
        return {name: os.getxattr(path, name).hex() for name in sorted(os.listxattr(path))}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return {}
        raise


def _content(fd: int, size: int) -> str:
    """Hash over (offset, data) of everything that is not zeros: holes and written zeros are the same content."""
    digest = hashlib.sha1(str(size).encode())
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
        at -= at % _BLOCK
        data = os.pread(fd, _BLOCK, at)
        if data.strip(b"\0"):
            digest.update(b"%d:" % at + data)
        at += _BLOCK
    return digest.hexdigest()


def _inode(fd: int, info: os.stat_result) -> dict[str, object]:
    kind = stat.S_IFMT(info.st_mode)
    found: dict[str, object] = {"mode": oct(info.st_mode), "uid": info.st_uid, "gid": info.st_gid, "mtime": info.st_mtime_ns}
    found["xattrs"] = _xattrs(fd)
    if kind != stat.S_IFDIR:
        found["nlink"] = info.st_nlink
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        found["device"] = info.st_rdev
    if kind == stat.S_IFLNK:
        found["target"] = _name(os.readlink(b"", dir_fd=fd))
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        real = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK)
        try:
            try:
                found["flags"] = hex(struct.unpack_from("<I", fcntl.ioctl(real, _GETFLAGS, bytes(8)))[0] & _FLAGS)
            except OSError:
                found["flags"] = "none"
            if kind == stat.S_IFREG:
                found["size"], found["content"] = info.st_size, _content(real, info.st_size)
                found["mostly hole"] = info.st_size > 65536 and _allocated(real, info) < info.st_size // 2
        finally:
            os.close(real)
    return found


def _allocated(fd: int, info: os.stat_result) -> int:
    """Bytes of the file that take space (FS_IOC_FIEMAP). XFS counts in st_blocks also what it has set aside behind the end of a file that
    was written, and gives it back when it likes."""
    buffer, at, found = bytearray(32 + 56 * 64), 0, 0
    while at < info.st_size:
        struct.pack_into("<QQIIII", buffer, 0, at, info.st_size - at, 0, 0, 64, 0)
        try:
            fcntl.ioctl(fd, 0xC020660B, buffer)
        except OSError:
            return info.st_blocks * 512
        extents = [struct.unpack_from("<QQQ16xI", buffer, 32 + 56 * n) for n in range(struct.unpack_from("<I", buffer, 20)[0])]
        if not extents:
            break
        found += sum(min(start + length, info.st_size) - max(start, at) for start, _physical, length, _flags in extents)
        at = extents[-1][0] + extents[-1][2]
    return found


def look(root: str) -> dict[str, dict[str, object]]:
    """The root itself is "."; names that are not UTF-8 are shown with backslashes. Other file systems below are looked into."""
    found: dict[str, dict[str, object]] = {}
    groups: dict[tuple[int, int], str] = {}

    def visit(fd: int, path: bytes) -> None:
        info = os.fstat(fd)
        name = _name(path) or "."
        seen = found[name] = _inode(fd, info)
        if stat.S_ISDIR(info.st_mode):
            real = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
            for child in sorted(os.fsencode(entry) for entry in os.listdir(real)):
                if child != b".acid-store":
                    visit(os.open(child, os.O_PATH | os.O_NOFOLLOW, dir_fd=real), path + b"/" + child if path else child)
            os.close(real)
        elif info.st_nlink > 1:
            seen["same inode as"] = groups.setdefault((info.st_dev, info.st_ino), name)
        os.close(fd)

    visit(os.open(root, os.O_PATH | os.O_NOFOLLOW), b"")
    return found


def differences(before: dict[str, dict[str, object]], after: dict[str, dict[str, object]]) -> list[str]:
    lines = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            lines.append(f"{path}: {'added' if old is None else 'removed'}")
        else:
            lines += [f"{path}: {key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return lines
