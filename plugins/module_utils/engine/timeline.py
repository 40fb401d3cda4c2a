# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a place or an inode was at the start of an epoch: its earliest image from then on, in this log or a later one, or the present.

    then = Timeline([Source.of(directory, store, epoch=3), ...logs of later transactions, oldest first])

So a step's after-image is the next before-image (docs/adr/0001), and no step stores anything for the sake of its diff. Reads only.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import kernel
from .filesystems import TRACED, FileSystem
from .kernel import AT_EMPTY_PATH, Reader
from .records import COPY, INLINE, Content, FileSystemSeen, Keep
from .restore import proc
from .store import Store
from .wanted import Wanted, read
from .xattrs import read_xattrs

# Contents beyond are not read: a diff of them helps nobody.
LARGEST = 1 << 20


class FsKey(NamedTuple):
    """Names a file system in all logs of a host: its number differs from log to log, its device from boot to boot. `name`: what it says of
    itself, else where it is mounted."""

    fstype: bytes
    name: bytes

    @classmethod
    def of(cls, seen: FileSystemSeen) -> FsKey:
        own = seen.identity.own if seen.identity is not None else b""
        return cls(seen.fstype, own or seen.mount_point)


class InodeKey(NamedTuple):
    fs: FsKey
    handle: bytes


class PlaceKey(NamedTuple):
    directory: InodeKey
    name: bytes


class Held(NamedTuple):
    """What a place held."""

    inode: InodeKey
    mode: int


@dataclass(frozen=True)
class Side:
    """An inode at one time. `data`: a file's content or a symlink's target; None where it is too large or no more known."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int = 0
    flags: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    data: bytes | None = None


class Source:
    """One transaction's log from an epoch on, and its store."""

    def __init__(self, wanted: Wanted, store: Store) -> None:
        self.wanted, self.store = wanted, store
        self._keys = {number: FsKey.of(seen) for number, seen in wanted.file_systems.items()}
        self._numbers = {key: number for number, key in self._keys.items()}
        self._directories: dict[InodeKey, list[int]] = {}
        for number, seen in wanted.directories.items():
            self._directories.setdefault(self.key(seen.fs, seen.handle), []).append(number)

    @classmethod
    def of(cls, directory: str, store: Store, *, epoch: int) -> Source:
        return cls(read(directory, epoch=epoch), store)

    def key(self, fs: int, handle: bytes) -> InodeKey:
        return InodeKey(self._keys[fs], handle)

    def number(self, fs: FsKey) -> int | None:
        return self._numbers.get(fs)

    def entry(self, place: PlaceKey) -> tuple[bool, Held | None]:
        """(whether there is an image of the place, what it held)."""
        for number in self._directories.get(place.directory, ()):
            image = self.wanted.entries.get((number, place.name))
            if image is not None:
                return True, Held(self.key(image.fs, image.handle), image.mode) if image.mode else None
        return False, None

    def names(self, directory: InodeKey) -> set[bytes]:
        """Names in a directory of which there is an image."""
        numbers = set(self._directories.get(directory, ()))
        return {name for number, name in self.wanted.entries if number in numbers}

    def file_system(self, fs: FsKey) -> FileSystem | None:
        number = self._numbers.get(fs)
        if number is None:
            return None
        found = self.store.by_number.get(number)
        if found is None:
            seen = self.wanted.file_systems[number]
            found = self.store.adopt(seen)
        return found if found is not None and found.policy == TRACED else None


class Timeline:
    """The first source begins with the epoch asked for; the others are of later transactions, oldest first."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self._reader = Reader()

    def place(self, place: PlaceKey) -> Held | None:
        for source in self._sources:
            known, held = source.entry(place)
            if known:
                return held
        with self._present(place.directory, os.O_RDONLY | os.O_DIRECTORY) as directory:
            if directory is None:
                return None
            state = self._reader.stat_or_none(directory, place.name)
            if state is None or state.dev != self._reader.stat(directory, b"", AT_EMPTY_PATH).dev:
                return None
            return Held(InodeKey(place.directory.fs, self._reader.handle(directory, place.name)), state.mode)

    def names(self, directory: InodeKey) -> list[bytes]:
        """Names that the directory may have held; `place` says which of them it did."""
        found: set[bytes] = set()
        for source in self._sources:
            found |= source.names(directory)
        with self._present(directory, os.O_RDONLY | os.O_DIRECTORY) as present:
            if present is not None:
                found |= {os.fsencode(name) for name in os.listdir(present)}
        return sorted(found)

    def side(self, inode: InodeKey) -> Side | None:
        """None when neither an image nor the inode itself is left."""
        with self._present(inode) as fd:
            basic = next(
                (b for number, source in self._images(inode) for b in [source.wanted.basics.get((number, inode.handle))] if b), None
            )
            if basic is not None:
                fields = (basic.mode, basic.uid, basic.gid, basic.size, basic.mtime, basic.rdev)
            elif fd is not None:
                state = self._reader.stat(fd, b"", AT_EMPTY_PATH)
                fields = (state.mode, state.uid, state.gid, state.size, state.mtime, state.rdev)
            else:
                return None
            return Side(*fields, flags=self._flags(inode, fd), xattrs=self._xattrs(inode, fd), data=self._data(inode, fd, fields[0]))

    def birth_ns(self, inode: InodeKey) -> int | None:
        """None when the inode is gone. 0 where the file system knows no birth times."""
        with self._present(inode) as fd:
            return None if fd is None else self._reader.stat(fd, b"", AT_EMPTY_PATH).btime

    def _images(self, inode: InodeKey) -> Iterator[tuple[int, Source]]:
        for source in self._sources:
            number = source.number(inode.fs)
            if number is not None:
                yield number, source

    def _flags(self, inode: InodeKey, fd: int | None) -> int:
        for number, source in self._images(inode):
            image = source.wanted.flags.get((number, inode.handle))
            if image is not None:
                return image.flags
        if fd is None or stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return 0
        real = os.open(proc(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
        try:
            return kernel.get_flags(real)
        finally:
            os.close(real)

    def _xattrs(self, inode: InodeKey, fd: int | None) -> tuple[tuple[bytes, bytes], ...]:
        for number, source in self._images(inode):
            image = source.wanted.xattrs.get((number, inode.handle))
            if image is not None:
                return image.pairs
        return () if fd is None else read_xattrs(fd)

    def _data(self, inode: InodeKey, fd: int | None, mode: int) -> bytes | None:
        """The earliest image; then the inode itself, which lives as long as a place or the store has a link to it; then its keep."""
        for number, source in self._images(inode):
            content = source.wanted.contents.get((number, inode.handle))
            if content is not None:
                return _image_data(source, inode.fs, content)
        if fd is not None:
            return _present_data(fd, mode)
        for number, source in self._images(inode):
            keep = source.wanted.keeps.get((number, inode.handle))
            if keep is not None:
                return _image_data(source, inode.fs, keep)
        return None

    @contextlib.contextmanager
    def _present(self, inode: InodeKey, flags: int = os.O_PATH | os.O_NOFOLLOW) -> Iterator[int | None]:
        fd = self._open(inode, flags)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def _open(self, inode: InodeKey, flags: int) -> int | None:
        for number, source in self._images(inode):
            fs = source.file_system(inode.fs)
            if fs is None:
                continue
            try:
                fd = fs.open(source.wanted.inode(number, inode.handle), flags)
            except OSError:
                continue
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)
        return None


def _image_data(source: Source, fs: FsKey, image: Content | Keep) -> bytes | None:
    if image.how == INLINE:
        return image.data
    system = source.file_system(fs)
    if image.how != COPY or system is None or source.store.existing_directory(system) < 0:
        return None
    try:
        copy = source.store.open_copy(system, image.number)
    except FileNotFoundError:
        return None
    try:
        return os.pread(copy, LARGEST, 0) if os.fstat(copy).st_size <= LARGEST else None
    finally:
        os.close(copy)


def _present_data(fd: int, mode: int) -> bytes | None:
    if stat.S_ISLNK(mode):
        return os.readlink(b"", dir_fd=fd)
    if not stat.S_ISREG(mode) or os.fstat(fd).st_size > LARGEST:
        return None
    real = os.open(proc(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
    try:
        return os.pread(real, LARGEST, 0)
    finally:
        os.close(real)
