# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The contents of before-images, to compare and to merge with: reads only."""

from __future__ import annotations

import os
import stat

from .. import attributes, kernel, restore
from ..records import COPY, INLINE, Content, Keep
from ..restore import proc
from ..undoing.ground import Ground
from ..wanted import Inode

_BLOCK = 1 << 20


def is_as_before(ground: Ground, inode: Inode, fd: int) -> bool:
    """Whether the inode at `fd` (O_PATH) is just what its images say, so that an undo would write nothing."""
    wanted = ground.wanted
    content = wanted.contents.get(inode)
    if restore.differences(fd, wanted.basics[inode], wanted.xattrs_of(inode), sized=content is not None):
        return False
    flags = wanted.flags.get(inode)
    if content is None and flags is None:
        return True
    real = os.open(proc(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
    try:
        if flags is not None and kernel.get_flags(real) != flags.flags:
            return False
        if flags is not None and flags.attributes not in (None, attributes.get(real)):
            return False
        return content is None or _same(ground, inode, real, content)
    finally:
        os.close(real)


def _same(ground: Ground, inode: Inode, fd: int, content: Content) -> bool:
    if content.how == INLINE:
        return os.pread(fd, len(content.data) + 1, 0) == content.data
    source = ground.store.open_copy(ground.file_systems[inode[0]], content.number)
    try:
        at = 0
        while at < content.size:
            length = min(_BLOCK, content.size - at)
            if os.pread(fd, length, at) != os.pread(source, length, at):
                return False
            at += length
        return True
    finally:
        os.close(source)


def before_of(ground: Ground, inode: Inode, largest: int) -> bytes | None:
    """The contents that a regular file had; None where it is no such file, too large, or no more known."""
    wanted = ground.wanted
    content: Content | Keep | None = wanted.contents.get(inode)
    if content is not None:
        return _image(ground, inode, content, largest)
    fd = ground.inode(*inode)
    if fd >= 0:
        try:
            return present(fd, largest)
        finally:
            os.close(fd)
    keep = wanted.keeps.get(inode)
    return None if keep is None else _image(ground, inode, keep, largest)


def _image(ground: Ground, inode: Inode, image: Content | Keep, largest: int) -> bytes | None:
    if image.how == INLINE:
        return image.data
    if image.how != COPY:
        return None
    source = ground.store.open_copy(ground.file_systems[inode[0]], image.number)
    try:
        return os.pread(source, largest, 0) if os.fstat(source).st_size <= largest else None
    finally:
        os.close(source)


def present(fd: int, largest: int) -> bytes | None:
    """The contents of the regular file of an O_PATH fd, if it is not too large."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size > largest:
        return None
    real = os.open(proc(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
    try:
        return os.pread(real, largest, 0)
    finally:
        os.close(real)
