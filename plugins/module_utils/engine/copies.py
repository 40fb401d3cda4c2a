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
from .wanted import Inode, Wanted


def damaged(store: Store, wanted: Wanted) -> list[str]:
    """A sentence for each copy that an undo to this state needs and that is not what was stored."""
    sentences = []
    needed = _needed(store, wanted)
    images: list[Content | Keep] = [image for inode, image in wanted.keeps.items() if inode in needed]
    for inode, content in wanted.contents.items():
        fs = _file_system(store, wanted, content.fs)
        if inode in needed or (content.how == COPY and fs is not None and _opens(fs, wanted.inode(*inode))):
            images.append(content)
    for image in images:
        fs = _file_system(store, wanted, image.fs) if image.how == COPY else None
        problem = _problem(store, fs, image) if fs is not None else ""
        if fs is not None and problem:
            sentences.append("copy c%d on %s: %s" % (image.number, os.fsdecode(fs.mount_point), problem))
    return sentences


def lost(store: Store, wanted: Wanted) -> list[str]:
    """A sentence for each kept link that a place needs and that is not in the store."""
    sentences = []
    names: dict[int, frozenset[bytes]] = {}
    needed = _needed(store, wanted)
    for inode, image in wanted.keeps.items():
        fs = _file_system(store, wanted, image.fs) if image.how == LINK and inode in needed else None
        if fs is None:
            continue
        if image.fs not in names:
            directory = store.existing_directory(fs)
            names[image.fs] = frozenset(names_in(directory) if directory >= 0 else ())
        if b"%d" % image.number not in names[image.fs]:
            sentences.append("%d on %s is missing" % (image.number, os.fsdecode(fs.mount_point)))
    return sentences


def _needed(store: Store, wanted: Wanted) -> set[Inode]:
    """Inodes that are to be put into a directory that is there, or is to be. None is on a file system in memory that was made anew since,
    or where another one is mounted by now: nothing is undone there, and nothing of it is in the store."""
    places: dict[Inode, list[int]] = {}
    for entry in wanted.entries.values():
        if entry.mode:
            places.setdefault((entry.fs, entry.handle), []).append(entry.directory)
    there = _there(store, wanted, places)
    return {inode for inode, numbers in places.items() if not there.isdisjoint(numbers)}


def _there(store: Store, wanted: Wanted, places: dict[Inode, list[int]]) -> set[int]:
    """Directories that are there, or are to be, since a place wants them in one that is. Trees may be deeper than Python recurses."""
    there: set[int] = set()
    inside: dict[int, list[int]] = {}
    for number in {number for numbers in places.values() for number in numbers}:
        seen = wanted.directories[number]
        fs, handle = _file_system(store, wanted, seen.fs), wanted.inode(seen.fs, seen.handle)
        if fs is not None and _opens(fs, handle):
            there.add(number)
        elif fs is not None:
            for above in places.get((seen.fs, handle), ()):  # places go by the handles of now
                inside.setdefault(above, []).append(number)
    found = list(there)
    while found:
        more = [number for number in inside.get(found.pop(), ()) if number not in there]
        there.update(more)
        found += more
    return there


def _file_system(store: Store, wanted: Wanted, number: int) -> FileSystem | None:
    """None for one that is not mounted: that is not undone either, and it is said."""
    seen = wanted.file_systems[number]
    fs = store.by_number.get(number) or store.adopt(seen)
    return fs if fs is not None and fs.policy == TRACED else None


def _opens(fs: FileSystem, handle: bytes) -> bool:
    try:
        os.close(fs.open(handle))
    except OSError:
        return False
    return True


def _problem(store: Store, fs: FileSystem, image: Content | Keep) -> str:
    try:
        if store.existing_directory(fs) < 0:
            return "its store is missing"
        now = store.digest(fs, image.number)
    except OSError as error:
        return "it cannot be read (%s)" % error.strerror
    return "its contents are not what was stored" if image.data and now != image.data else ""


def verify(store: Store, wanted: Wanted, *, untouched: bool = False) -> None:
    """Raises JournalDamaged. `untouched`: no undo has put any kept link back."""
    sentences = damaged(store, wanted)
    hint = "Nothing was touched. See acidctl verify."
    if untouched and not wanted.after.undo_runs:  # one to a savepoint may have died, or not have been exact
        missing = lost(store, wanted)
        if missing and not sentences:
            hint += " Asked for again, the rollback undoes the rest, and says what is gone."
        sentences = missing + sentences
    if sentences:
        raise JournalDamaged("The store fails its checks: %s." % "; ".join(sentences[:5]), hint=hint)
