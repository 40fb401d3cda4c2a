# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Room for an undo that met a full file system: what the steps added goes before what they took away comes back (docs/adr/0015).

Otherwise an undo removes what it has no use for last of all, and keeps directories that were born in quarantine (TRACE.md 21). Where the
space that they take is needed, they go; what others put into them since (`spared`) stays. What cannot go now goes the usual way, which
tells of it where that fails.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import typing as t

from .. import kernel, restore
from ..clearing import names_in, unlink_locked
from ..kernel import AT_EMPTY_PATH, Stat
from ..records import LINK
from ..wanted import Inode
from .ground import Ground


class Room:
    """`held`: inodes that are held back. `spared`: paths, also those in quarantine, of which nothing goes. `since`: when the first
    step that is undone began, in nanoseconds; an inode born later is not needed, whatever a later step's images say of it."""

    def __init__(self, ground: Ground, held: t.Iterable[Inode], spared: t.Collection[bytes], since: int) -> None:
        self._ground, self._spared, self._since, self._now = ground, spared, since, time.time_ns()
        wanted = ground.wanted
        self._held = {(fs, wanted.inode(fs, handle)) for fs, handle in held}
        self._known = ground.inodes_wanted(wanted.entries.values())
        kinds: tuple[t.Iterable[Inode], ...] = (wanted.basics, wanted.contents, wanted.keeps, wanted.xattrs, wanted.flags)
        for inodes in kinds:
            self._known.update((fs, wanted.inode(fs, handle)) for fs, handle in inodes)
        #: those that the log speaks of, and that went all the same
        self._gone: set[Inode] = set()
        self._count = 0

    def make(self) -> bool:
        """Whether anything went. What fits into what there is comes back in any case."""
        self._strangers()
        for number, fs in self._ground.file_systems.items():
            with contextlib.suppress(OSError):
                directory = self._ground.store.existing_directory(fs)
                if directory >= 0:
                    self._stored(number, directory)
        self._shrink()
        entries = self._ground.wanted.entries
        for place in [place for place, entry in entries.items() if (entry.fs, entry.handle) in self._gone]:
            del entries[place]  # of a directory that was born, and goes too
        for fs in self._ground.file_systems.values():
            with contextlib.suppress(OSError):
                kernel.syncfs(fs.mount_fd)  # before that, not all of what was freed can be had again
        return self._count > 0

    def _strangers(self) -> None:
        """What stands at a place of the log and is no inode that is wanted."""
        ground = self._ground
        for entry in list(ground.wanted.entries.values()):
            fs = ground.wanted.directories[entry.directory].fs
            with contextlib.suppress(OSError):
                found = ground.found(entry) if fs in ground.file_systems else None
                if found is not None:
                    dev = ground.reader.stat(found[0], b"", AT_EMPTY_PATH).dev
                    self._remove(fs, found[0], entry.name, os.fsencode(ground.path(entry)), dev)

    def _stored(self, number: int, directory: int) -> None:
        """Quarantine; kept links and staged ones of inodes that were born."""
        ground = self._ground
        kept = {b"%d" % keep.number for (fs, _handle), keep in ground.wanted.keeps.items() if fs == number and keep.how == LINK}
        above, dev = ground.file_systems[number].path_of(directory), ground.file_systems[number].dev
        for name in names_in(directory):
            if name in kept or name.startswith((b"q-", b"s-", b"t-")):
                with contextlib.suppress(OSError):
                    self._remove(number, directory, name, above + b"/" + name, dev)

    def _remove(self, fs: int, directory: int, name: bytes, path: bytes, dev: int) -> None:
        """Unless it is needed. Of a tree, all that is not."""
        ground = self._ground
        state = ground.reader.stat_or_none(directory, name)
        if state is None or state.dev != dev or path in self._spared:
            return
        inode = fs, ground.reader.handle(directory, name)
        if inode in self._held or (inode in self._known and not self._born(fs, state)):
            return
        if stat.S_ISDIR(state.mode):
            self._remove_tree(inode, directory, name, path, dev)
            return
        try:
            os.unlink(name, dir_fd=directory)
        except PermissionError:
            if not stat.S_ISREG(state.mode):
                return
            unlink_locked(directory, name)
        self._went(inode)

    def _remove_tree(self, inode: Inode, directory: int, name: bytes, path: bytes, dev: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC, dir_fd=directory)
            try:
                for inner in names_in(fd):
                    with contextlib.suppress(OSError):
                        self._remove(inode[0], fd, inner, path + b"/" + inner, dev)
            finally:
                os.close(fd)
            with contextlib.suppress(OSError):  # something in it stays, or it is locked: it goes the usual way
                os.rmdir(name, dir_fd=directory)
                self._went(inode)

    def _went(self, inode: Inode) -> None:
        self._count += 1
        if inode in self._known:
            self._gone.add(inode)

    def _born(self, fs: int, state: Stat) -> bool:
        return self._ground.file_systems[fs].birth_times and self._since < state.btime <= self._now

    def _shrink(self) -> None:
        """Files that grew are cut at once, where otherwise that comes last (TRACE.md 22)."""
        ground = self._ground
        for inode, content in ground.wanted.contents.items():
            with contextlib.suppress(OSError):
                self._cut(inode, content.size)

    def _cut(self, inode: Inode, size: int) -> None:
        fd = self._ground.inode(*inode)
        if fd < 0:
            return
        try:
            if os.fstat(fd).st_size > size:
                self._ground.unlocking(lambda: os.truncate(restore.proc(fd), size), (fd, b""))
                self._count += 1
        finally:
            os.close(fd)
