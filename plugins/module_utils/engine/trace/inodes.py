# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a place leads to, as an inode that images can name."""

from __future__ import annotations

import os
import typing as t

from ..kernel import AT_EMPTY_PATH
from .images import Images
from .resolve import Place
from .scope import below, is_in_store
from .subjects import Inode


def inode_at(images: Images, place: Place, fs: t.Any) -> Inode | None:
    """The inode with its path; None when it lies outside what is traced."""
    found = place.found
    if found is None:
        return None
    if place.name is None or found.dev != place.parent.dev:
        handle = images.reader.handle(place.fd, place.name or b"", 0 if place.name else AT_EMPTY_PATH)
        path = images.path(fs, handle)
        if is_in_store(fs, path):  # the kernel may find a kept inode by its name in the store
            return Inode(fs, handle, found, os.readlink(b"/proc/self/fd/%d" % place.fd))
        return None if below(path, images.outside) else Inode(fs, handle, found, path)
    directory = images.directory(place.fd, place.parent)
    if directory is None:
        return None
    try:
        handle = images.reader.handle(place.fd, place.name)
    except FileNotFoundError:
        return None  # another thread's call has removed it, and was imaged for that; this one will fail, or make it anew
    if images.raced and (now := images.reader.stat_or_none(place.fd, place.name)) is not None and now.key != found.key:
        return None  # likewise, and what is there now was born in the epoch
    return Inode(fs, handle, found, directory.path + b"/" + place.name)
