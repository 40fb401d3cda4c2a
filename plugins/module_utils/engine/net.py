# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a transaction has changed, net: paths that are not now as they were when it began. What was made and removed again, or written and
put back, is no change: Ansible's own payload files are such.

    changed(wanted, store)        paths by the step that touched them first

Asked when a transaction ends, of up to 100,000 paths, so it looks no closer than it must: at who stands at a place, then at metadata, and
at contents only where all else is alike. Beyond MOST_COMPARED contents, and of files beyond timeline.LARGEST with other times, what was
written counts as changed. The times of a directory are no news, nor are those of a file that was written with what it had held.
"""

from __future__ import annotations

import dataclasses
import os
import stat

from .kernel import AT_EMPTY_PATH, Reader
from .records import Basic, Entry
from .store import Store
from .timeline import InodeKey, Side, Source, Timeline
from .wanted import Inode, Wanted

MOST_COMPARED = 5000


def changed(wanted: Wanted, store: Store) -> dict[int, set[bytes]]:
    """`wanted`: the images since the begin, or since a savepoint. Looks only."""
    return _Net(wanted, store).by_step()


def count(wanted: Wanted, store: Store) -> dict[int, int]:
    return {step: len(paths) for step, paths in changed(wanted, store).items()}


def alike(before: Side | None, after: Side | None, *, written: bool) -> bool:
    """Whether the one is as the other was; `written`: its contents were, so that its times tell nothing."""
    if before is None or after is None:
        return before is after
    if (before.mode, before.uid, before.gid, before.rdev, before.flags, before.xattrs) != (
        after.mode,
        after.uid,
        after.gid,
        after.rdev,
        after.flags,
        after.xattrs,
    ):
        return False
    if stat.S_ISDIR(before.mode):
        return True
    same_time = before.mtime_ns == after.mtime_ns
    if stat.S_ISREG(before.mode) and (before.data is None or after.data is None):
        return before.size == after.size and same_time
    return (before.size, before.data) == (after.size, after.data) and (written or same_time)


class _Net:
    def __init__(self, wanted: Wanted, store: Store) -> None:
        bare = dataclasses.replace(wanted, entries={}, basics={}, xattrs={}, flags={}, contents={}, keeps={}, values={})
        self._wanted, self._source = wanted, Source(wanted, store)
        self._then, self._now = Timeline([self._source]), Timeline([Source(bare, store)])
        self._reader = Reader()
        self._left = MOST_COMPARED
        self._new: dict[bytes, bool] = {b"/": False, b"": False}
        self._found: dict[int, set[bytes]] = {}
        self._told: set[bytes] = set()

    def by_step(self) -> dict[int, set[bytes]]:
        by_directory: dict[int, list[Entry]] = {}
        for entry in self._wanted.entries.values():
            by_directory.setdefault(entry.directory, []).append(entry)
            if not entry.mode:
                self._new[_path(self._wanted, entry)] = True
        for number, entries in by_directory.items():
            self._places(number, entries)
        for inode, basic in self._wanted.basics.items():
            if basic.path not in self._told and not self._is_new(basic.path) and self._inode_differs(inode, basic):
                self._tell(basic.step, basic.path)
        for value in self._wanted.values.values():
            if _read(value.path) != value.value:
                self._tell(value.step, value.path)
        return self._found

    def _tell(self, step: int, path: bytes) -> None:
        if path not in self._told:
            self._told.add(path)
            self._found.setdefault(step, set()).add(path)

    def _is_new(self, path: bytes) -> bool:
        """Nothing was there at the begin, or above it."""
        known = self._new.get(path)
        if known is None:
            known = self._new[path] = self._is_new(os.path.dirname(path))
        return known

    def _places(self, number: int, entries: list[Entry]) -> None:
        seen = self._wanted.directories[number]
        fd, new = self._open((seen.fs, seen.handle), os.O_PATH | os.O_DIRECTORY), self._is_new(seen.path)
        try:
            for entry in entries:
                if self._place_differs(fd, seen.fs, entry, was=bool(entry.mode) and not new):
                    self._tell(entry.step, _path(self._wanted, entry))
        finally:
            if fd >= 0:
                os.close(fd)

    def _place_differs(self, fd: int, fs: int, entry: Entry, *, was: bool) -> bool:
        try:
            return self._stands_other(fd, fs, entry, was=was)
        except OSError:  # a disk that fails, or what is removed just now
            return True

    def _stands_other(self, fd: int, fs: int, entry: Entry, *, was: bool) -> bool:
        state = self._reader.stat_or_none(fd, entry.name) if fd >= 0 else None
        if state is not None and state.dev != self._reader.stat(fd, b"", AT_EMPTY_PATH).dev:
            return False  # something is mounted there: what is under it is not seen
        if not was or state is None:
            return was != (state is not None)
        handle = self._reader.handle(fd, entry.name)
        if (fs, handle) == (entry.fs, self._wanted.inode(entry.fs, entry.handle)):
            return False
        if stat.S_IFMT(entry.mode) != stat.S_IFMT(state.mode):
            return True
        basic = self._wanted.basics.get((entry.fs, entry.handle))
        if basic is not None and not stat.S_ISDIR(basic.mode) and _metadata(basic) != _metadata(state):
            return True
        return self._contents_differ((entry.fs, entry.handle), self._source.key(fs, handle), written=True)

    def _inode_differs(self, inode: Inode, basic: Basic) -> bool:
        """False for one that is gone: the place where it stood says so."""
        fd = self._open(inode, os.O_PATH | os.O_NOFOLLOW)
        if fd < 0:
            return False
        try:
            state = self._reader.stat(fd, b"", AT_EMPTY_PATH)
        except OSError:
            return True
        finally:
            os.close(fd)
        if not state.nlink:
            return False
        is_directory, written = stat.S_ISDIR(basic.mode), inode in self._wanted.contents
        if _metadata(basic)[: 4 if is_directory else 5] != _metadata(state)[: 4 if is_directory else 5]:
            return True
        if written or inode in self._wanted.xattrs or inode in self._wanted.flags:
            return self._contents_differ(inode, self._source.key(*inode), written=written)
        return not is_directory and basic.mtime != state.mtime

    def _contents_differ(self, before: Inode, after: InodeKey, *, written: bool) -> bool:
        self._left -= 1
        try:
            return self._left < 0 or not alike(self._then.side(self._source.key(*before)), self._now.side(after), written=written)
        except OSError:
            return True

    def _open(self, inode: Inode, flags: int) -> int:
        """-1: it is gone, or its file system is."""
        fs = self._source.file_system(self._source.key(*inode).fs)
        try:
            return -1 if fs is None else fs.open(self._wanted.inode(*inode), flags)
        except OSError:
            return -1


def _metadata(of: object) -> tuple[int, ...]:
    return tuple(getattr(of, name) for name in ("mode", "uid", "gid", "rdev", "size"))


def _path(wanted: Wanted, entry: Entry) -> bytes:
    return wanted.directories[entry.directory].path.rstrip(b"/") + b"/" + entry.name


def _read(path: bytes) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
