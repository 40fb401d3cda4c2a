# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that change owner, mode, times, extended attributes and inode flags."""

from __future__ import annotations

import os

from ..filesystems import VALUES
from ..kernel import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from ..model import IRREVERSIBLE
from .caller import Arguments, Caller, signed, value
from .calls import IOCTLS, SUBVOLUME, SUBVOLUME_NAMES, Call
from .contents import Contents
from .express import Express
from .images import Images
from .inodes import inode_at
from .resolve import Place
from .subjects import BASIC, Aspects

_XATTRS, _FLAGS = Aspects(xattrs=True), Aspects(flags=True)


class Metadata:
    """Handlers by the `does` of calls.py."""

    def __init__(self, images: Images, caller: Caller, contents: Contents) -> None:
        self._images, self._caller, self._contents = images, caller, contents
        self._express = Express(images, caller)

    def basic(self, arguments: Arguments, call: Call) -> None:
        self._named(arguments, call, BASIC)

    def mode(self, arguments: Arguments, call: Call) -> None:
        self._named(arguments, call, BASIC, mode=True)

    def mode_fd(self, arguments: Arguments, call: Call) -> None:
        self._touch(self._caller.inode(signed(arguments[0])), BASIC, mode=True)

    def owner(self, arguments: Arguments, call: Call) -> None:
        self._named(arguments, call, _XATTRS)  # chown drops capabilities

    xattr = owner

    def flags(self, arguments: Arguments, call: Call) -> None:
        self._caller.turns.alone()  # where there was a lock, other threads' calls were taken for such as will fail
        self._named(arguments, call, _FLAGS)

    def basic_fd(self, arguments: Arguments, call: Call) -> None:
        self._touch(self._caller.inode(signed(arguments[0])), BASIC)

    def owner_fd(self, arguments: Arguments, call: Call) -> None:
        self._touch(self._caller.inode(signed(arguments[0])), _XATTRS)

    xattr_fd = owner_fd

    def _named(self, arguments: Arguments, call: Call, aspects: Aspects, mode: bool = False) -> None:
        caller, (dfd, path, at) = self._caller, call.at
        text = caller.text(arguments[path]) if arguments[path] else b""
        if not text:
            if dfd >= 0:  # utimensat(fd, NULL), fchownat(fd, "", AT_EMPTY_PATH)
                self._touch(caller.inode(signed(arguments[dfd])), aspects, mode)
            return
        if dfd >= 0 and aspects is BASIC and b"/" not in text and self._express.basic(signed(arguments[dfd]), text, mode=mode):
            return
        follow = not value(arguments, at) & AT_SYMLINK_NOFOLLOW
        if caller.newborn_file(text) if follow else caller.newborn_name(text):
            return
        self._touch(caller.resolve(AT_FDCWD if dfd < 0 else signed(arguments[dfd]), text, follow), aspects, mode)

    def _touch(self, place: Place | None, aspects: Aspects, mode: bool = False) -> None:
        """`mode`: the call is a chmod, which changes an ACL too."""
        if place is None:
            return
        images, found = self._images, place.found
        try:
            if found is None:
                return
            fs = images.look_up(found.dev, place.fd, place.name or b"")
            if fs == VALUES:
                images.tell(IRREVERSIBLE, "owner, mode or attributes of files in /proc or /sys")
            if isinstance(fs, str):
                return
            images.refuse_store(place)
            if images.born(fs, found):
                images.refuse_new_in_store(place)
                return
            name, at = (place.name, 0) if place.name is not None else (b"", AT_EMPTY_PATH)
            key = images.key(found, place.fd, name, at)
            if mode:
                images.mode_changes(key, found.mode)
            if images.metadata_seen(key, aspects):
                return
            inode = inode_at(images, place, fs)
            if inode is not None:
                images.touch_metadata(inode, key, aspects)
        finally:
            os.close(place.fd)

    def ioctl(self, arguments: Arguments, call: Call) -> None:
        request = arguments[1] & 0xFFFFFFFF
        does = IOCTLS.get(request)
        if does == "flags_fd":
            self._caller.turns.alone()
            self._touch(self._caller.inode(signed(arguments[0])), _FLAGS)
        elif does == "content_fd":
            place = self._caller.inode(signed(arguments[0]))
            if place is not None:
                self._contents.open_place(place, os.O_RDWR)
        elif does is not None and not (does == SUBVOLUME and self._stands_already(arguments, SUBVOLUME_NAMES[request])):
            self._images.tell(IRREVERSIBLE, "ioctl %#x (%s)" % (request, does))

    def _stands_already(self, arguments: Arguments, at: int) -> bool:
        """Where the name of a subvolume that is to be made is taken, the call fails: systemd-tmpfiles asks so for /home."""
        place = self._caller.resolve(signed(arguments[0]), self._caller.text(arguments[2] + at), False)
        try:
            return place.found is not None
        finally:
            os.close(place.fd)
