# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A copy of what somebody else has left at a path, before an undo writes over it: in the transaction's store, below `aside`, by its path.

It goes with the transaction's other images when retention ends. Whole directories need no copy: an undo moves them into quarantine.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat

from .. import restore, whole
from ..copying import copy_data, reflink
from ..records import COPY, INLINE, LINK, Content, Keep
from ..restore import proc
from ..undoing.ground import Ground
from ..xattrs import read_xattrs

FOLDER = b"aside"


def keep(ground: Ground, fs: int, fd: int, path: bytes) -> str:
    """Copy the inode of an O_PATH fd, with all its metadata; where to. An earlier copy of the same path stays: `aside-2` and so on."""
    parts = [part for part in path.split(b"/") if part]
    for top in itertools.chain((FOLDER,), (b"%s-%d" % (FOLDER, number) for number in itertools.count(2))):
        folder = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=ground.staging(fs))
        try:
            for part in (top, *parts[:-1]):
                folder = _enter(folder, part)
            _copy(fd, folder, parts[-1])
            made = ground.file_systems[fs].path_of(folder) + b"/" + parts[-1]
            os.fsync(folder)
            return os.fsdecode(made)
        except (FileExistsError, NotADirectoryError):
            continue  # an earlier copy, of it or of what then stood above it
        finally:
            os.close(folder)
    return ""


def keep_image(ground: Ground, image: Content | Keep, path: bytes) -> str:
    """The same of what an image holds: a link with all its metadata, contents without. Empty where there is nothing to copy."""
    if image.how not in (LINK, COPY, INLINE):
        return ""
    staging = ground.staging(image.fs)
    name = {LINK: b"%d" % image.number, COPY: b"c%d" % image.number}.get(image.how, b"t-inline")
    if image.how == INLINE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=staging)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=staging)
        try:
            whole.write(fd, image.data)
        finally:
            os.close(fd)
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging)
    except FileNotFoundError:  # an undo before this one has dropped it
        return ""
    try:
        return keep(ground, image.fs, fd, path)
    finally:
        os.close(fd)
        if image.how == INLINE:
            os.unlink(name, dir_fd=staging)


def _enter(folder: int, part: bytes) -> int:
    """The caller's `folder` is closed when there is another one in its stead, and stays his when this raises."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=folder)
    child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    os.close(folder)
    return child


def _copy(fd: int, folder: int, name: bytes) -> None:
    info = os.fstat(fd)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(b"", dir_fd=fd), name, dir_fd=folder)
    elif kind == stat.S_IFREG:
        _copy_contents(fd, folder, name, info.st_size)
    else:
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=folder)
    new = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.chown(proc(new), info.st_uid, info.st_gid)
        if kind != stat.S_IFLNK:
            os.chmod(proc(new), stat.S_IMODE(info.st_mode))
        restore.set_xattrs(new, read_xattrs(fd))
        os.utime(proc(new), ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        os.close(new)


def _copy_contents(fd: int, folder: int, name: bytes, size: int) -> None:
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        source = os.open(proc(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
        try:
            if not reflink(source, target):
                copy_data(source, target, size)
        finally:
            os.close(source)
        os.fsync(target)
    finally:
        os.close(target)
