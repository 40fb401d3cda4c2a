# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that make, remove and move names: what the places hold is imaged, and what loses its name is kept."""

from __future__ import annotations

import os
import stat

from .. import subvolumes
from ..errors import StepRefused
from ..kernel import AT_FDCWD, Stat
from .caller import Arguments, Caller, signed, value
from .calls import Call
from .images import Images
from .resolve import Place
from .subjects import BASIC, Directory, Inode
from .subvolumes import Subvolumes, is_mounted

_AT_REMOVEDIR = 0x200
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
#: On these a directory's link count is two and one for each subdirectory, so rmdir's failure can be foretold
_COUNTING = (b"ext4", b"xfs", b"tmpfs")


class Names:
    """Handlers by the `does` of calls.py."""

    def __init__(self, images: Images, caller: Caller) -> None:
        self._images, self._caller = images, caller
        self._subvolumes = Subvolumes(images)

    def absent(self, place: Place, *, receives_old: bool = False) -> None:
        """Something is to be made at the place; where something is already, the call will fail: filename_create() in fs/namei.c, for every
        file system."""
        if place.name is None or place.found is not None:
            return
        directory = self._images.directory(place.fd, place.parent)
        if directory is not None:
            self._images.touch_place(directory, place, receives_old=receives_old)
            self._images.touch_parent(directory, place)

    def create(self, arguments: Arguments, call: Call) -> None:
        place = self._caller.place(arguments, call.at[0], call.at[1], False)
        if place is None:
            return
        try:
            self.absent(place)
        finally:
            os.close(place.fd)

    def symlink(self, arguments: Arguments, call: Call) -> None:
        self._caller.turns.alone()  # other threads' paths may lead through it
        self.create(arguments, call)

    def link(self, arguments: Arguments, call: Call) -> None:
        self._caller.turns.alone()
        dfd, text = call.at[0], self._caller.text(arguments[call.at[1]])
        self._caller.newborn.forget()  # what it gets may be old
        place = self._caller.resolve(AT_FDCWD if dfd < 0 else signed(arguments[dfd]), text, False)
        try:
            self.absent(place, receives_old=True)  # whether what it gets is old is not worth another look
        finally:
            os.close(place.fd)

    def remove(self, arguments: Arguments, call: Call) -> None:
        is_rmdir = bool(value(arguments, call.at[2]) & _AT_REMOVEDIR)
        if is_rmdir:
            self._caller.turns.alone()
        place = self._caller.place(arguments, call.at[0], call.at[1], False)
        if place is None:
            return
        try:
            self._removed(place, is_rmdir)
        finally:
            os.close(place.fd)

    def _removed(self, place: Place, is_rmdir: bool) -> None:
        images, found, name = self._images, place.found, place.name
        # may_delete() and do_unlinkat() in fs/namei.c, for every file system: nothing there, "." and "..", a directory where none is to be,
        # or none where one is to be
        if name is None or found is None or stat.S_ISDIR(found.mode) != is_rmdir or is_mounted(found):
            return
        images.refuse_store(place)
        if self._not_empty(found):
            images.refuse_in_store(place)
            return
        directory = images.directory(place.fd, place.parent)
        if directory is None:
            return
        if is_rmdir:
            self._caller.newborn.forget()
            if directory.fs.fstype == b"btrfs" and found.ino in (subvolumes.ROOT, subvolumes.PLACEHOLDER):
                self._subvolumes.removed(directory, place)
                return
        imaged = images.touch_place(directory, place)
        images.keep(directory, place, imaged)
        images.touch_parent(directory, place)

    def _not_empty(self, state: Stat) -> bool:
        """These count each subdirectory of a directory in its link count, and refuse to remove one that has any: ext4_empty_dir,
        xfs_remove, simple_empty. (ext4 says 1 where there are too many to be counted.)"""
        fs = self._images.store.file_system(state.dev)
        return state.nlink > 2 and stat.S_ISDIR(state.mode) and fs is not None and fs.fstype in _COUNTING

    def rename(self, arguments: Arguments, call: Call) -> None:
        flags = value(arguments, call.at[4])
        caller = self._caller
        old_text, new_text = caller.texts(arguments[call.at[1]], arguments[call.at[3]])
        if caller.newborn_name(old_text) and caller.newborn_name(new_text):
            return
        dfds = [AT_FDCWD if at < 0 else signed(arguments[at]) for at in (call.at[0], call.at[2])]
        old, new = self._ends(dfds, old_text, new_text)
        if not self._is_newborn(old, flags) and caller.turns.alone():
            os.close(old.fd)
            os.close(new.fd)
            old, new = self._ends(dfds, old_text, new_text)
        try:
            self._renamed(old, new, flags)
        finally:
            os.close(old.fd)
            os.close(new.fd)

    def _ends(self, dfds: list[int], old_text: bytes, new_text: bytes) -> tuple[Place, Place]:
        old = self._caller.resolve(dfds[0], old_text, False)
        try:
            return old, self._caller.resolve(dfds[1], new_text, False)
        except BaseException:
            os.close(old.fd)
            raise

    def _is_newborn(self, old: Place, flags: int) -> bool:
        """Whether a rename moves no more than a file that was born in the epoch: then it is as if that were removed and made elsewhere."""
        found = old.found
        return found is not None and stat.S_ISREG(found.mode) and not flags & _RENAME_EXCHANGE and self._caller.newborn.born(found)

    def _renamed(self, old: Place, new: Place, flags: int) -> None:
        images, source, target = self._images, old.found, new.found
        exchange = bool(flags & _RENAME_EXCHANGE)
        # do_renameat2() and vfs_rename() in fs/namei.c, for every file system: no name, nothing there, one inode by two names (done, and
        # nothing changes), a mount point
        if old.name is None or new.name is None or source is None or is_mounted(source):
            return
        if target is not None and (target.key == source.key or flags & _RENAME_NOREPLACE or is_mounted(target)):
            return
        if old.parent.dev != new.parent.dev and images.mount_of(old.fd) != images.mount_of(new.fd):  # likewise
            return
        images.refuse_store(old)
        images.refuse_store(new)
        if any(found is not None and stat.S_ISDIR(found.mode) for found in (source, target)):
            self._caller.newborn.forget()
        origin, destination = images.directory(old.fd, old.parent), images.directory(new.fd, new.parent)
        if origin is not None and origin.fs.fstype == b"btrfs" and self._subvolumes.stays(old, new, exchange=exchange):
            return
        moves_old = False
        if origin is not None:
            imaged = images.touch_place(origin, old, receives_old=exchange and target is not None)
            images.touch_parent(origin, old)
            if destination is None:  # to a place that is not traced: it is lost from here
                if stat.S_ISDIR(source.mode) and not images.born(origin.fs, source):
                    raise StepRefused("%s would be moved to a place that is not traced" % os.fsdecode(origin.path + b"/" + old.name))
                images.keep(origin, old, imaged)
            moves_old = self._moved(old, origin)
        if destination is not None:
            imaged = images.touch_place(destination, new, receives_old=moves_old)
            if target is not None and exchange:
                self._moved(new, destination)
            elif target is not None:
                images.keep(destination, new, imaged)
            images.touch_parent(destination, new)

    def _moved(self, place: Place, parent: Directory) -> bool:
        """Whether the inode at the place is an old one. A directory that moves may have its own times changed; a subvolume has not
        (btrfs_rename)."""
        images = self._images
        name, found = place.held()
        if found.dev != place.parent.dev:
            return not images.born(parent.fs, found)
        fs = images.traced(found.dev, place.fd, name)
        if fs is None or images.born(fs, found):
            return False
        if stat.S_ISDIR(found.mode):
            inode = Inode(fs, images.reader.handle(place.fd, name), found, parent.path + b"/" + name)
            images.touch_metadata(inode, images.key(found, place.fd, name), BASIC)
        return True

    def bind(self, arguments: Arguments, call: Call) -> None:
        self.bound(self._caller.socket_path(arguments[1], signed(arguments[2])))

    def bound(self, path: bytes) -> None:
        if path:
            place = self._caller.resolve(AT_FDCWD, path, False)
            try:
                self.absent(place)
            finally:
                os.close(place.fd)
