# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names in a directory as they are now, and removing them also where chattr's +i or +a forbids it."""

from __future__ import annotations

import os
import stat

from . import kernel


def names_in(directory: int) -> list[bytes]:
    """All names in it now: btrfs shows through an fd only what was there when it was opened."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def holds(directory: int, name: bytes) -> bool:
    """Whether there is such a name in it now."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove_tree_contents(directory: int) -> None:
    """Delete everything below an open directory, also where chattr +i or +a forbids it."""
    for name in names_in(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                unlock(child)
                remove_tree_contents(child)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
            continue
        try:
            os.unlink(name, dir_fd=directory)
        except PermissionError:
            if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise
            unlink_locked(directory, name)


def unlink_locked(directory: int, name: bytes) -> None:
    """Unlink a file that is +i or +a; where it has other names it stays so."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        flags = unlock(fd)
        os.unlink(name, dir_fd=directory)
        kernel.set_flags(fd, flags)
    finally:
        os.close(fd)


def unlock(fd: int) -> int:
    """Take chattr's +i and +a away; the flags as they were."""
    flags = kernel.get_flags(fd)
    if flags & (kernel.FS_IMMUTABLE_FL | kernel.FS_APPEND_FL):
        kernel.set_flags(fd, flags & ~(kernel.FS_IMMUTABLE_FL | kernel.FS_APPEND_FL))
    return flags
