# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls by name, for programs in steps (x86_64). Raises OSError like os does."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
NUMBERS = {
    "open": 2, "creat": 85, "mmap": 9, "ioctl": 16, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87,
    "symlink": 88, "chmod": 90,
    "chown": 92, "lchown": 94, "truncate": 76, "mknod": 133, "utime": 132, "utimes": 235, "linkat": 265, "openat": 257,
    "futimesat": 261, "renameat": 264,
    "utimensat": 280, "fallocate": 285, "name_to_handle_at": 303, "open_by_handle_at": 304, "renameat2": 316, "copy_file_range": 326,
    "pwritev2": 328, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "openat2": 437, "fchmodat2": 452, "setxattrat": 463,
    "removexattrat": 466, "file_setattr": 469,
}  # fmt: skip
AT, EMPTY, NOREPLACE, EXCHANGE, WHITEOUT = -100, 0x1000, 1, 2, 4


def call(name: str, *arguments: object) -> int:
    number = NUMBERS[name] if isinstance(name, str) else name
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(name))
    return int(result)


def openat2(directory: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    how = struct.pack("QQQ", flags, mode, resolve)
    return call("openat2", directory, path, how, len(how))


def handle_of(path: bytes) -> ctypes.Array[ctypes.c_char]:
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    call("name_to_handle_at", AT, path, handle, ctypes.byref(ctypes.c_int()), 0)
    return handle


def give_name(fd: int, path: str) -> None:
    """To a file that was opened with O_TMPFILE."""
    call("linkat", AT, b"/proc/self/fd/%d" % fd, AT, path.encode(), 0x400)


def put(path: str, text: str, flags: int = os.O_WRONLY | os.O_CREAT | os.O_TRUNC) -> None:
    descriptor = os.open(path, flags, 0o644)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def subvolume(path: str) -> None:
    """btrfs subvolume create"""
    head, name = os.path.split(os.path.abspath(path))
    folder = os.open(head, os.O_RDONLY)
    fcntl.ioctl(folder, 0x5000940E, bytearray(struct.pack("q4088s", 0, name.encode())))
    os.close(folder)


if __name__ == "__main__":
    subvolume(sys.argv[1])
