# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a place leads to, as an inode that images can name."""

from __future__ import annotations

import os
import typing as t

from ..kernel import AT_EMPTY_PATH
from .images import BASIC, Aspects, Images, Inode, below
from .resolve import Place


def inode_at(images: Images, place: Place, fs: t.Any) -> Inode | None:
    """The inode with its path; None when it lies outside what is traced."""
    found = place.found
    if found is None:
        return None
    if place.name is None or found.dev != place.parent.dev:
        handle = images.reader.handle(place.fd, place.name or b"", 0 if place.name else AT_EMPTY_PATH)
        path = images.path(fs, handle)
        if b"/.acid-store/" in path or below(path, (b"/var/lib/acid/store",)):  # the kernel may find a kept inode by its name in the store
            return Inode(fs, handle, found, os.readlink(b"/proc/self/fd/%d" % place.fd))
        return None if below(path, images.outside) else Inode(fs, handle, found, path)
    directory = images.directory(place.fd, place.parent)
    if directory is None:
        return None
    return Inode(fs, images.reader.handle(place.fd, place.name), found, directory.path + b"/" + place.name)


def touch_arrivals(images: Images, place: Place, aspects: Aspects = BASIC, *, contents: bool = False) -> None:
    if place.name is not None:
        directory = images.directory(place.fd, place.parent)
        if directory is not None:
            images.touch_arrivals((directory.number, place.name), aspects, contents=contents)
