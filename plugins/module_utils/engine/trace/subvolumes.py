# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""btrfs subvolumes under rmdir(2) and rename(2): directories with a device number of their own, which yet are no mount points.

An empty subvolume that is removed cannot be made again: its number and UUID are gone, and with it all images that lie in it. So it is not
removed: the agent moves it into the store of the directory's file system, and tells the caller that it is done. Undo moves it back.
"""

from __future__ import annotations

import os

from .. import kernel
from ..clearing import names_in
from ..kernel import Stat
from ..model import IRREVERSIBLE
from ..storedirs import HIDDEN
from ..subvolumes import ROOT
from .images import Images
from .resolve import Place
from .subjects import Directory, Pretended

_LOCKS = kernel.STATX_ATTR_IMMUTABLE | kernel.STATX_ATTR_APPEND
#: CAP_DAC_OVERRIDE, CAP_FOWNER: who has them may remove any directory
_MAY = 1 << 1 | 1 << 3


def is_mounted(found: Stat) -> bool:
    """Whether something is mounted there: no call removes or moves a mount point (EBUSY: vfs_rmdir, vfs_unlink, vfs_rename)."""
    return bool(found.attributes & kernel.STATX_ATTR_MOUNT_ROOT)


class Subvolumes:
    def __init__(self, images: Images) -> None:
        self._images = images

    def removed(self, directory: Directory, place: Place) -> None:
        """rmdir of a subvolume, or of what stands for one in a snapshot. Raises Pretended when it is in the store."""
        name, found = place.held()
        what = "removal of the btrfs subvolume %s" % os.fsdecode(directory.path + b"/" + name)
        if found.ino != ROOT:
            self._images.tell(IRREVERSIBLE, what)
            return
        # may_delete(), mnt_want_write() and btrfs_rmdir(): the call fails
        if (found.attributes | place.parent.attributes) & _LOCKS or os.fstatvfs(place.fd).f_flag & os.ST_RDONLY or not _is_empty(place):
            return
        if not may_remove_all(self._images.thread):  # whether this caller may is for the kernel to say
            self._images.tell(IRREVERSIBLE, what)
            return
        self._images.move_into_store(directory, place)
        raise Pretended

    def stays(self, old: Place, new: Place, *, exchange: bool) -> bool:
        """Whether a rename fails, or is named. btrfs_rename() and btrfs_rename_exchange(): no subvolume is replaced (ENOTEMPTY), and
        between two subvolumes nothing but a subvolume is moved (EXDEV)."""
        moved = [_is_subvolume(place) for place in (old, new)]
        if moved[1] and not exchange:
            return True
        if old.parent.dev == new.parent.dev:
            return False
        if any(moved):  # it lies beyond the mount by which an undo reaches the one that it came from
            where = os.readlink(b"/proc/self/fd/%d" % old.fd) + b"/" + (old.name or b"")
            self._images.tell(IRREVERSIBLE, "move of the btrfs subvolume %s into another one" % os.fsdecode(where))
        return True


def _is_subvolume(place: Place) -> bool:
    return place.found is not None and place.found.ino == ROOT and place.found.dev != place.parent.dev


def _is_empty(place: Place) -> bool:
    """But for a store."""
    fd = os.open(place.name or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
    try:
        return set(names_in(fd)) <= {HIDDEN}
    finally:
        os.close(fd)


def may_remove_all(thread: int) -> bool:
    """Whether the caller is root, with what makes it root, in the agent's own user namespace."""
    try:
        if os.stat("/proc/%d/ns/user" % thread).st_ino != os.stat("/proc/self/ns/user").st_ino:
            return False
        with open("/proc/%d/status" % thread, "rb") as f:
            fields = dict(line.split(b":", 1) for line in f if b":" in line)
    except OSError:
        return False
    return fields[b"Uid"].split()[3] == b"0" and int(fields[b"CapEff"], 16) & _MAY == _MAY
