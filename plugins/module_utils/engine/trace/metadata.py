# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that change owner, mode, times, extended attributes and inode flags."""

from __future__ import annotations

import os

from ..kernel import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from .caller import Arguments, Caller, signed, value
from .calls import IOCTLS, Call
from .contents import Contents
from .images import Images
from .inodes import inode_at, touch_arrivals
from .resolve import Place


class Metadata:
    """Handlers by the `does` of calls.py."""

    def __init__(self, images: Images, caller: Caller, contents: Contents) -> None:
        self._images, self._caller, self._contents = images, caller, contents

    def basic(self, arguments: Arguments, call: Call) -> None:
        self._metadata(arguments, call)

    def mode(self, arguments: Arguments, call: Call) -> None:
        self._metadata(arguments, call, mode=True)

    def mode_fd(self, arguments: Arguments, call: Call) -> None:
        self._touch_metadata(self._caller.inode(signed(arguments[0])), mode=True)

    def owner(self, arguments: Arguments, call: Call) -> None:
        self._metadata(arguments, call, xattrs=True)  # chown drops capabilities

    def xattr(self, arguments: Arguments, call: Call) -> None:
        self._metadata(arguments, call, xattrs=True)

    def flags(self, arguments: Arguments, call: Call) -> None:
        self._metadata(arguments, call, flags=True)

    def basic_fd(self, arguments: Arguments, call: Call) -> None:
        self._touch_metadata(self._caller.inode(signed(arguments[0])))

    def owner_fd(self, arguments: Arguments, call: Call) -> None:
        self._touch_metadata(self._caller.inode(signed(arguments[0])), xattrs=True)

    xattr_fd = owner_fd

    def _metadata(self, arguments: Arguments, call: Call, **what: bool) -> None:
        dfd, at_flags = call.at[0], value(arguments, call.at[2])
        text = self._caller.text(arguments[call.at[1]]) if arguments[call.at[1]] else b""
        if not text:
            if dfd >= 0:  # utimensat(fd, NULL), fchownat(fd, "", AT_EMPTY_PATH)
                self._touch_metadata(self._caller.inode(signed(arguments[dfd])), **what)
            return
        follow = not at_flags & AT_SYMLINK_NOFOLLOW
        if self._caller.newborn_file(text) if follow else self._caller.newborn_name(text):
            return
        place = self._caller.resolve(AT_FDCWD if dfd < 0 else signed(arguments[dfd]), text, follow)
        self._touch_metadata(place, **what)

    def _touch_metadata(self, place: Place, *, xattrs: bool = False, flags: bool = False, mode: bool = False) -> None:
        """`mode`: the call is a chmod, which changes an ACL too."""
        images, found = self._images, place.found
        try:
            if images.flights:
                touch_arrivals(self._images, place, xattrs=xattrs, flags=flags)
            if found is None:
                return
            fs = images.traced(found.dev)
            if fs is None or images.born(fs, found):
                return
            name, at = (place.name, 0) if place.name is not None else (b"", AT_EMPTY_PATH)
            key = images.key(found, place.fd, name, at)
            if mode:
                images.mode_changes(key, found.mode)
            if images.metadata_seen(key, xattrs=xattrs, flags=flags):
                return
            inode = inode_at(self._images, place, fs)
            if inode is not None:
                images.touch_metadata(inode, key, xattrs=xattrs, flags=flags)
        finally:
            os.close(place.fd)

    def ioctl(self, arguments: Arguments, call: Call) -> None:
        request = arguments[1] & 0xFFFFFFFF
        does = IOCTLS.get(request)
        if does == "flags_fd":
            self._touch_metadata(self._caller.inode(signed(arguments[0])), flags=True)
        elif does == "content_fd":
            self._contents.open_place(self._caller.inode(signed(arguments[0])), os.O_RDWR)
        elif does is not None:
            self._images.tell("irreversible", "ioctl %#x (%s)" % (request, does))
