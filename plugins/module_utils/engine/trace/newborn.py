# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directories born in the epoch, by path: names in them need no image, so most calls of an unpacking program need no look at the disk.

A path is learned when it was resolved without a symlink, to a directory of root's that was born in the epoch, that others may not write
to, and that never received an inode older than the epoch. All is forgotten when a directory is moved or removed, since paths lead
elsewhere then; such a call is alone (turns.py).
"""

from __future__ import annotations

import os

from ..kernel import Stat
from .images import Images
from .resolve import Place

_DOTS = (b"", b".", b"..")


class Newborn:
    """Not thread-safe, like the images that it belongs to."""

    def __init__(self, images: Images) -> None:
        self._images = images
        #: to the directory's number
        self._paths: dict[bytes, int] = {}
        #: these and all directories above them
        self._prefixes: set[bytes] = set()

    def forget(self) -> None:
        self._paths.clear()
        self._prefixes.clear()

    def covers(self, path: bytes) -> bool:
        """Whether what is done to this name needs no image. What its last component links to is another matter."""
        if not self._paths:
            return False
        head, _slash, name = path.rpartition(b"/")
        number = self._paths.get(head)
        if number is None or path in self._prefixes or name in _DOTS:
            return False
        return number not in self._images.received_old  # by now

    def born(self, state: Stat) -> bool:
        """Whether this inode was made in the epoch."""
        fs = self._images.store.file_system(state.dev)
        return fs is not None and self._images.born(fs, state)

    def learn(self, path: bytes, place: Place) -> None:
        """`path` is absolute and was resolved to `place` without meeting a symlink."""
        images, parent = self._images, place.parent
        if parent.btime <= images.epoch_start or parent.uid or parent.mode & 0o022:
            return
        head = path.rpartition(b"/")[0]
        if head in self._paths or os.path.normpath(head) != head:
            return
        fs = images.store.file_system(parent.dev)
        if fs is None or not images.born(fs, parent):
            return
        directory = images.directory(place.fd, parent)
        if directory is None or directory.number in images.received_old:
            return
        self._paths[head] = directory.number
        while head and head not in self._prefixes:
            self._prefixes.add(head)
            head = head.rpartition(b"/")[0]
