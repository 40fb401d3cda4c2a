# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Paths that make sense together only: a package database with the files of its packages, the password files (I5).

Where one of a group is held back, all of it is, so that nothing ends half undone.
"""

from __future__ import annotations

import contextlib
import glob
import os

from ..trace.scope import below
from ..undoing.ground import Ground
from .afresh import read_below
from .images import before_of
from .mergeable import FAMILY

PACKAGES, ACCOUNTS = "packages", "accounts"

_DPKG_INFO, _PACMAN = b"/var/lib/dpkg/info", b"/var/lib/pacman/local"
DATABASES = (b"/var/lib/dpkg", b"/var/lib/pacman", b"/etc/alternatives", b"/var/lib/apt/extended_states")
_LARGEST = 64 << 20


def of_changed_packages(since_ns: int, *, dpkg: bytes = _DPKG_INFO, pacman: bytes = _PACMAN) -> frozenset[bytes]:
    """Paths of the packages that anybody has installed or changed since then (CLOCK_REALTIME, ns), by the lists that are there now. One
    that was purged meanwhile has no list any more."""
    found: set[bytes] = set()
    for pattern, parse in ((dpkg + b"/*.list", parse_dpkg), (pacman + b"/*/files", parse_pacman)):
        for path in glob.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if os.stat(path).st_ctime_ns >= since_ns:
                    with open(path, "rb") as file:
                        found |= parse(file.read(_LARGEST))
    return frozenset(found)


class Groups:
    """Of the places that one transaction has touched. Package lists are read when first asked for."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._files: frozenset[bytes] | None = None

    def of(self, path: bytes) -> str:
        """The group of a path; empty: it stands for itself."""
        if path in FAMILY:
            return ACCOUNTS
        if below(path, DATABASES):
            return PACKAGES
        if self._files is None:
            self._files = frozenset(self._package_files())
        return PACKAGES if path in self._files else ""

    def _package_files(self) -> set[bytes]:
        """Of the packages that the transaction installed, changed or removed: by their lists as they are and as they were."""
        found: set[bytes] = set()
        for entry in self._ground.wanted.entries.values():
            folder = self._ground.wanted.directories[entry.directory].path
            if folder == _DPKG_INFO and entry.name.endswith(b".list"):
                parse = parse_dpkg
                relative = entry.name
            elif folder == _PACMAN:
                parse = parse_pacman
                relative = entry.name + b"/files"
            elif folder.startswith(_PACMAN + b"/") and entry.name == b"files":
                parse = parse_pacman
                relative = entry.name
            else:
                continue
            directory = self._ground.directory(entry.directory)
            now = None if directory is None else read_below(directory, relative, _LARGEST)
            was = before_of(self._ground, (entry.fs, self._ground.wanted.inode(entry.fs, entry.handle)), _LARGEST) if entry.mode else None
            for text in (now, was):
                if text is not None:
                    found |= parse(text)
        return found | {b"/usr" + path for path in found if _merged(path)}


def parse_dpkg(text: bytes) -> set[bytes]:
    """/var/lib/dpkg/info/NAME.list: a path a line, the first one `/.`."""
    return {line for line in text.splitlines() if line.startswith(b"/") and line != b"/."}


def parse_pacman(text: bytes) -> set[bytes]:
    """/var/lib/pacman/local/NAME/files: below %FILES% a path a line, relative, directories with a slash at their end."""
    lines = text.partition(b"%FILES%\n")[2].partition(b"\n\n")[0].splitlines()
    return {b"/" + line.rstrip(b"/") for line in lines if line}


def _merged(path: bytes) -> bool:
    """Packages may still name files below /bin and /lib, which are links into /usr."""
    top = b"/" + path.split(b"/")[1]
    return top.startswith((b"/bin", b"/sbin", b"/lib")) and os.path.islink(top)
