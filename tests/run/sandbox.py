# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the machine read-only for this process and its children, besides some folders.

An engine under test that writes outside its folder must fail there and then, not damage the developer's machine. So the process
moves into a mount namespace of its own in which every mount is read-only, except the given folders, /proc and /dev.
It cannot be left; nothing has to be cleaned up: the namespace ends with its last process, and so do mounts made in it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SYS_MOUNT_SETATTR = 442  # the same number on x86_64 and aarch64; Linux 5.12
MOUNT_ATTR_RDONLY = 1
ALWAYS_WRITABLE = (Path("/proc"), Path("/dev"))

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (("set", ctypes.c_uint64), ("clear", ctypes.c_uint64), ("propagation", ctypes.c_uint64), ("userns_fd", ctypes.c_uint64))


def _checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}; the sandbox needs root and Linux 5.12")


def _set_attributes(path: Path, *, to_set: int = 0, to_clear: int = 0) -> None:
    attributes = _MountAttr(to_set, to_clear, 0, 0)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    _checked(result, f"mount_setattr {path}")


def enter(writable: list[Path]) -> None:
    """Raises OSError when the namespace cannot be had; the caller must then not run its tests."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")
    for folder in writable:
        place = os.fsencode(folder)
        _checked(_libc.mount(place, place, None, MS_BIND | MS_REC, None), f"bind {folder}")
    _set_attributes(Path("/"), to_set=MOUNT_ATTR_RDONLY)
    for folder in (*writable, *ALWAYS_WRITABLE):
        _set_attributes(folder, to_clear=MOUNT_ATTR_RDONLY)
    # The working directory still lies on the mount from before.
    os.chdir(Path.cwd())


def is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
