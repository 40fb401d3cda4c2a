# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Contents by their sha256, each once, in a directory of root: what the probe `etc` keeps beside the journal.

An object is written whole and renamed into place, so one that is there is complete; after a power cut it may be empty, so it is checked
when it is read. `sync` makes what was added durable.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Set as AbstractSet

from ..kernel import syncfs

# Seconds.
_YOUNG = 600.0
_OF_NOTHING = hashlib.sha256(b"").hexdigest()


class Contents:
    """`top` is made (0700) when something is added."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._unsynced = False

    def add(self, digest: str, content: bytes) -> None:
        path = self._path(digest)
        if self.get(digest) is not None:  # one that a power cut has emptied is written again
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
                self._unsynced = True  # who added it may have died before it was on the disk
                return
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fresh = f"{path}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(fresh, path)
        self._unsynced = True

    def lacks(self, digest: str) -> bool:
        """Whether it is surely missing, or was emptied by a power cut: by a look at its size alone."""
        try:
            return os.stat(self._path(digest)).st_size == 0 and digest != _OF_NOTHING
        except FileNotFoundError:
            return True

    def get(self, digest: str) -> bytes | None:
        """None when it is missing or damaged."""
        with contextlib.suppress(OSError), open(self._path(digest), "rb") as file:
            content = file.read()
            if hashlib.sha256(content).hexdigest() == digest:
                return content
        return None

    def sync(self) -> None:
        if not self._unsynced:
            return
        descriptor = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)
        self._unsynced = False

    def keep_only(self, digests: AbstractSet[str]) -> None:
        """Not what was added in the last minutes: a capture may be under way whose image the journal does not have yet."""
        with contextlib.suppress(FileNotFoundError):
            for folder in os.listdir(self._top):
                for name in os.listdir(os.path.join(self._top, folder)):
                    path = os.path.join(self._top, folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        if name not in digests and os.stat(path).st_mtime < time.time() - _YOUNG:
                            os.unlink(path)

    def _path(self, digest: str) -> str:
        return os.path.join(self._top, digest[:2], digest)
