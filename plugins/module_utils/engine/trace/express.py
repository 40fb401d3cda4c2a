# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The express lane: `chmod -R` and the like change one old inode after the other, by bare names in the directory that is held already.

The image is the one that metadata.py would take, without the objects, the second descriptor and the questions on the way there, which were
a third of the time of such a call. Whatever is not that very case is left to the general way: the lane then says so and has taken nothing.
"""

from __future__ import annotations

import stat

from ..kernel import Stat
from ..storedirs import HIDDEN
from .caller import Caller
from .images import Images
from .subjects import Directory

_NOT_HERE = (b".", b"..", HIDDEN)


class Express:
    """Not thread-safe, like the images that it belongs to."""

    def __init__(self, images: Images, caller: Caller) -> None:
        self._images, self._caller = images, caller
        #: the workplace's state for which the directory was looked up
        self._state: Stat | None = None
        self._directory: Directory | None = None

    def basic(self, dfd: int, name: bytes, *, mode: bool) -> bool:
        """Whether the image of owner, mode and times is taken. False: nothing is, go the general way. `name`: without a slash; `mode`: the
        call is a chmod."""
        images, caller = self._images, self._caller
        workplace = caller.workplace
        state = workplace.state
        if state is None or images.raced or caller.resolver.careful or name in _NOT_HERE:
            return False
        if not workplace.is_here(caller.thread, dfd):
            return False
        if state is not self._state:
            self._state, self._directory = state, images.directory(workplace.fd, state)
        directory = self._directory
        if directory is None:
            return False
        try:
            found = images.reader.stat(workplace.fd, name)
            # Also where something is mounted, where a symlink is followed, and where a birth time is none or says that it may be newborn
            if found.dev != state.dev or not 0 < found.btime <= images.epoch_start or stat.S_ISLNK(found.mode):
                return False
            key = found[:3]
            handle = b"" if images.basic_seen(key) else images.reader.handle(workplace.fd, name)
        except OSError:
            return False
        if mode:
            images.mode_changes(key, found.mode)
        if handle:
            images.basic(directory.fs, handle, found, key, directory.path + b"/" + name)
        return True
