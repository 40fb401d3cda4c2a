# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the store holds is verified before an undo touches the first path (I7): copies of contents by the digest in their record, kept links
by being there.

A kept link has no digest: it is the user's own file, whose bytes the engine never had in hand.
"""

from __future__ import annotations

import os

from .clearing import names_in
from .errors import JournalDamaged
from .filesystems import TRACED, FileSystem
from .records import COPY, LINK, Content, Keep
from .store import Store
from .wanted import Wanted


def damaged(store: Store, wanted: Wanted) -> list[str]:
    """A sentence for each copy that an undo to this state needs and that is not what was stored."""
    sentences = []
    images: list[Content | Keep] = [*wanted.contents.values(), *wanted.keeps.values()]
    for image in images:
        seen = wanted.file_systems[image.fs]
        if image.how == COPY:
            fs = store.by_number.get(image.fs) or store.adopt(seen.fs, seen.dev, seen.fstype, seen.mount_point)
            if fs is not None and fs.policy == TRACED:  # one that is not mounted is not undone either, and that is said
                problem = _problem(store, fs, image)
                if problem:
                    sentences.append("copy c%d on %s: %s" % (image.number, os.fsdecode(fs.mount_point), problem))
    return sentences


def lost(store: Store, wanted: Wanted, *, untouched: bool) -> list[str]:
    """A sentence for each kept link that a place needs and that is not in the store. Unless the store is `untouched`, one whose inode has a
    name elsewhere is none of these: an undo that died has put it back, or the call for which it was kept had not come to pass before a
    power cut. Nor is what was born in an earlier step: a power cut may have taken it whole."""
    sentences = []
    untouched = untouched and not wanted.after.undo_runs  # an undo to a savepoint may have died, or not have been exact
    names: dict[int, frozenset[bytes]] = {}
    needed = {(entry.fs, entry.handle) for entry in wanted.entries.values() if entry.mode}
    for inode, image in wanted.keeps.items():
        if inode not in needed:
            continue
        seen = wanted.file_systems[image.fs]
        fs = store.by_number.get(image.fs) or store.adopt(seen.fs, seen.dev, seen.fstype, seen.mount_point) if image.how == LINK else None
        if fs is None or fs.policy != TRACED:
            continue
        if image.fs not in names:
            directory = store.existing_directory(fs)
            names[image.fs] = frozenset(names_in(directory) if directory >= 0 else ())
        if b"%d" % image.number not in names[image.fs] and (untouched or not _lives(fs, wanted.inode(image.fs, image.handle))):
            sentences.append("%d on %s is missing" % (image.number, os.fsdecode(fs.mount_point)))
    return sentences


def _lives(fs: FileSystem, handle: bytes) -> bool:
    try:
        fd = fs.open(handle)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_nlink > 0
    finally:
        os.close(fd)


def _problem(store: Store, fs: FileSystem, image: Content | Keep) -> str:
    try:
        if store.existing_directory(fs) < 0:
            return "its store is missing"
        now = store.digest(fs, image.number)
    except OSError as error:
        return "it cannot be read (%s)" % error.strerror
    return "its contents are not what was stored" if image.data and now != image.data else ""


def verify(store: Store, wanted: Wanted, *, untouched: bool = False) -> None:
    """Raises JournalDamaged."""
    sentences = lost(store, wanted, untouched=untouched) + damaged(store, wanted)
    if sentences:
        raise JournalDamaged("The store fails its checks: %s." % "; ".join(sentences[:5]), hint="Nothing was touched. See acidctl verify.")
