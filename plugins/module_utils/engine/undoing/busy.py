# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A program that is being run cannot be written to (ETXTBSY): it is made anew in the store, and moved over each of its names.

Who runs it goes on with the old one, as after any upgrade. Where not all of its names can be found nothing is done, since they would not
be names of one file any more.

1. the new file, whole and verified, in the store; 2. its Alias in the log; 3. over each name. A death before 2 leaves a file in the store
that the next undo replaces. After it `finish` goes on: an inode that has an Alias and still has a name outside of the store is one of
which not all names are moved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

from .. import attributes, kernel, restore
from ..clearing import names_in
from ..kernel import AT_EMPTY_PATH
from ..wanted import Inode
from ..xattrs import read_xattrs
from .ground import Ground

if t.TYPE_CHECKING:
    from .places import Places

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Name(t.NamedTuple):
    """A name, and its directory's path."""

    folder: bytes
    name: bytes


def remake(ground: Ground, places: Places, inode: Inode, old: int) -> None:
    """The file of the O_PATH fd `old`, with its contents and metadata as they were. OSError: it is left."""
    fs, content, basic = inode[0], ground.wanted.contents[inode], ground.wanted.basics.get(inode)
    real = os.open(restore.proc(old), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
    staging, staged = ground.staging(fs), ground.staged_name(b"n", fs, ground.wanted.inode(*inode))
    try:
        if places.holds_image(real, fs, content, content.size):
            return
        if basic is None:
            raise OSError(errno.ETXTBSY, "it is being run, and there is no image of its metadata")
        _names(ground, fs, old, basic.path)  # or nothing is begun
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged, dir_fd=staging)
        fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=staging)
        try:
            attributes.put(fd, ground.wanted.attributes_of(inode) or attributes.get(real) or attributes.NONE)
            places.write_image(fd, fs, content, content.size)
            if not places.holds_image(fd, fs, content, content.size):
                raise OSError(errno.EIO, "what was written does not read as it was")
            restore.set_basic(fd, basic)
            pairs = ground.wanted.xattrs_of(inode)
            restore.set_xattrs(fd, read_xattrs(old) if pairs is None else pairs)
            restore.set_times(fd, basic)
            os.fsync(fd)  # its Alias may be on the disk before its data
            flags = ground.wanted.flags_of(inode)
            flags = kernel.get_flags(real) if flags is None else flags
            ground.alias(*inode, ground.reader.handle(staging, staged))
            _move(ground, fs, old, fd, basic.path)
            kernel.set_flags(fd, flags)
        finally:
            os.close(fd)
    finally:
        os.close(real)


def finish(ground: Ground) -> None:
    """What an undo that died had begun."""
    for (fs, handle), now in list(ground.wanted.aliases.items()):
        system = ground.file_systems.get(fs)
        if system is None:
            continue
        try:
            old = system.open(handle)
        except OSError:  # the usual way: it is gone
            continue
        try:
            if os.fstat(old).st_nlink and not ground.only_in_store(fs, old):
                path = system.path_of(old)
                ground.attempt(path, lambda: _finish(ground, fs, old, now, path))  # noqa: B023  (called at once)
        finally:
            os.close(old)


def _finish(ground: Ground, fs: int, old: int, now: bytes, path: bytes) -> None:
    fd = ground.inode(fs, now)
    if fd < 0:
        raise OSError(errno.ETXTBSY, "it was made anew, and that is gone")
    try:
        _move(ground, fs, old, fd, path)
    finally:
        os.close(fd)


def _move(ground: Ground, fs: int, old: int, new: int, path: bytes) -> None:
    """Over each name of the old one. The directories' times stay: where they are to be others, that comes later."""
    system, staging, temporary = ground.file_systems[fs], ground.staging(fs), b"t-busy"
    staged = [name for name in names_in(staging) if _same(new, staging, name)]
    for name in _names(ground, fs, old, path):
        folder = system.open(ground.reader.handle(kernel.AT_FDCWD, name.folder), _FOLDER)  # by our own mount: a rename does not leave one
        try:
            before = os.fstat(folder)
            source = staged[0] if staged and not system.links else temporary
            if system.links:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=staging)
                kernel.link_fd(new, staging, temporary)
            ground.entering(
                folder,
                lambda: ground.unlocking(
                    lambda: os.rename(source, name.name, src_dir_fd=staging, dst_dir_fd=folder),  # noqa: B023  (called at once)
                    (folder, b""),  # noqa: B023
                    (folder, name.name),  # noqa: B023
                ),
            )
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
        finally:
            os.close(folder)
    for one in staged:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one, dir_fd=staging)


def _names(ground: Ground, fs: int, old: int, path: bytes) -> list[Name]:
    """All names outside of the store; OSError where there are more. Those of one file are mostly in one directory."""
    system, found = ground.file_systems[fs], []
    folders = {os.path.dirname(path): None, os.path.dirname(system.path_of(old)): None}
    now = ground.wanted.inode(fs, ground.reader.handle(old, b"", AT_EMPTY_PATH))
    for entry in ground.wanted.entries.values():
        if (entry.fs, ground.wanted.inode(entry.fs, entry.handle)) == (fs, now):
            folders[ground.wanted.directories[entry.directory].path] = None
    seen = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            fd = os.open(folder, _FOLDER)
            try:
                if os.fstat(fd).st_ino not in seen and os.fstat(fd).st_dev == os.fstat(old).st_dev:
                    found += [Name(folder, name) for name in names_in(fd) if _same(old, fd, name)]
                    seen.add(os.fstat(fd).st_ino)
            finally:
                os.close(fd)
    in_store = sum(_same(old, ground.staging(fs), name) for name in names_in(ground.staging(fs)))
    if len(found) + in_store < os.fstat(old).st_nlink:
        raise OSError(errno.ETXTBSY, "it is being run, and not all of its %d names could be found" % os.fstat(old).st_nlink)
    return found


def _same(fd: int, folder: int, name: bytes) -> bool:
    mine, theirs = os.fstat(fd), os.stat(name, dir_fd=folder, follow_symlinks=False)
    return (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)
