# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file system that lies under another mount: its path leads to the other one, and what is to be undone is below.

    fd = covered.clone(point, dev)      a detached clone of the mount of device `dev` at `point`

A thread with a mount table of its own takes away what lies over it, there alone, and clones what comes to light.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading

from . import kernel
from .mount_table import parse_mountinfo

#: mounts over one another on the way to one path
_DEPTH = 64


def clone(point: bytes, dev: int) -> int:
    """fd of its root, by a mount that nobody sees (kernel.private_mount). OSError ENODEV when it is nowhere under that path."""
    found: list[int] = []
    errors: list[OSError] = []

    def dig() -> None:
        try:
            kernel.own_mount_namespace()
            found.append(_dig(point, dev))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=dig, name="covered")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]


def _dig(point: bytes, dev: int) -> int:
    reader = kernel.Reader()
    for _layer in range(_DEPTH):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # what lies over a directory above it need not have that path
            fd = kernel.private_mount(point)
            if reader.stat(fd, b"", kernel.AT_EMPTY_PATH).dev == dev:
                return fd
            os.close(fd)
        over = _mount_on_the_way(point, reader)
        if over == b"/":
            break
        kernel.detach(over)
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), point)


def _mount_on_the_way(point: bytes, reader: kernel.Reader) -> bytes:
    """Where the mount lies to which the path leads, as far as it leads."""
    while reader.stat_or_none(kernel.AT_FDCWD, point) is None:
        point = os.path.dirname(point)
    number = reader.mount_id()
    with open("/proc/thread-self/mountinfo", "rb") as f:
        return next((mount.point for mount in parse_mountinfo(f.read()) if mount.id == number), b"/")
