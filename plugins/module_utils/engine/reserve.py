# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Room that a transaction holds so that its undo works on a full file system (I2): bytes and inodes (docs/adr/0015).

    <directory>/reserve/0          its bytes
    <directory>/reserve/1, 2, ...  its inodes; with contents, since on btrfs small files are what takes room for metadata
    <directory>/reserve/free-N     N bytes were free when it was taken

One lies in /var/lib/acid while a transaction is open: for the journal, the undo log and what an undo makes on that file system. One lies in
the store of every other file system that the transaction changes. `take` is whole or not at all, `release` finishes what one that died has
begun; both can be repeated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

from . import whole
from .clearing import holds
from .errors import StoreFull

FULL = (errno.ENOSPC, errno.EDQUOT)
_NAME, _NEW, _OLD = b"reserve", b"reserve.new", b"reserve.old"
_PAGE = 2000
_FREE = b"free-"


class Amount(t.NamedTuple):
    size: int
    inodes: int


#: of the file system of /var/lib/acid, and of each other one that is large enough
STATE_AMOUNT = Amount(16 << 20, 16)
OTHER_AMOUNT = Amount(1 << 20, 8)
_LARGEST_SHARE = 64


def other_amount(directory: int) -> Amount:
    """A small file system is not to be filled by it."""
    room = os.fstatvfs(directory)
    return OTHER_AMOUNT._replace(size=min(OTHER_AMOUNT.size, room.f_blocks * room.f_frsize // _LARGEST_SHARE))


def is_full(error: BaseException | None) -> bool:
    """Whether the cause of it is that a file system has no room."""
    while error is not None:
        if isinstance(error, StoreFull) or (isinstance(error, OSError) and error.errno in FULL):
            return True
        error = error.__cause__
    return False


def take(directory: int, amount: Amount, where: str) -> None:
    """Raises StoreFull where there is not that much room; `where` names the file system."""
    if holds(directory, _NAME):
        return
    release(directory)
    room = os.fstatvfs(directory)
    try:
        os.mkdir(_NEW, 0o700, dir_fd=directory)
        fd = os.open(_NEW, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            _fill(fd, amount, room.f_bfree * room.f_frsize)
        finally:
            os.close(fd)
        os.rename(_NEW, _NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            release(directory)
        if error.errno in FULL:
            raise StoreFull(
                too_little(where, room, amount),
                hint="Free some space there (acidctl gc drops the images of old transactions), and run the play again.",
            ) from error
        raise


def too_little(where: str, room: os.statvfs_result, amount: Amount) -> str:
    """What is missing on a file system, and how much."""
    return "The file system of %s has %.1f MiB and %s inodes free, and a transaction holds %.1f MiB and %d inodes there for its undo." % (
        where,
        room.f_bavail * room.f_frsize / (1 << 20),
        room.f_favail if room.f_files else "enough",
        amount.size / (1 << 20),
        amount.inodes,
    )


def _fill(fd: int, amount: Amount, free: int) -> None:
    for number in range(amount.inodes):
        file = os.open(b"%d" % number, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd)
        try:
            if number:
                whole.write(file, bytes(_PAGE))
            else:
                os.posix_fallocate(file, 0, max(amount.size, _PAGE))
        finally:
            os.close(file)
    os.close(os.open(b"%s%d" % (_FREE, free), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))


def free_when_taken(directory: int) -> int | None:
    """Bytes that were free on the file system then; None: there is no reserve."""
    with contextlib.suppress(FileNotFoundError):
        for name in _names(directory, _NAME):
            if name.startswith(_FREE):
                return int(name[len(_FREE) :])
    return None


def release(directory: int) -> None:
    """Give the room back, at once where the file system can."""
    with contextlib.suppress(FileNotFoundError):
        # What is there under its own name is whole. On btrfs a rename may need room that only the files below hold.
        try:
            os.rename(_NAME, _OLD, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            if error.errno not in (*FULL, errno.ENOTEMPTY, errno.EEXIST):
                raise
            _remove(directory, _NAME)
    for name in (_OLD, _NEW):
        _remove(directory, name)


def _remove(directory: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            for inner in sorted(os.listdir(fd)):
                os.unlink(inner, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=directory)


def _names(directory: int, name: bytes) -> list[bytes]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return [os.fsencode(found) for found in os.listdir(fd)]
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(path: str) -> t.Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def take_host(state: str) -> None:
    """The host's own, in /var/lib/acid. Raises StoreFull."""
    with _opened(state) as fd:
        take(fd, STATE_AMOUNT, state)


def release_host(state: str) -> None:
    with contextlib.suppress(FileNotFoundError), _opened(state) as fd:
        release(fd)
