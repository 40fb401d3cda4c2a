# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Copies of contents in the store carry a digest in their record, and are verified before an undo touches the first path (I7).

A kept link has none: it is the user's own file, whose bytes the engine never had in hand.
"""

from __future__ import annotations

import os

from .errors import JournalDamaged
from .filesystems import TRACED, FileSystem
from .records import COPY, Content, Keep
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


def _problem(store: Store, fs: FileSystem, image: Content | Keep) -> str:
    try:
        if store.existing_directory(fs) < 0:
            return "its store is missing"
        now = store.digest(fs, image.number)
    except OSError as error:
        return "it cannot be read (%s)" % error.strerror
    return "its contents are not what was stored" if image.data and now != image.data else ""


def verify(store: Store, wanted: Wanted) -> None:
    """Raises JournalDamaged."""
    sentences = damaged(store, wanted)
    if sentences:
        raise JournalDamaged("The store fails its checks: %s." % "; ".join(sentences[:5]), hint="Nothing was touched. See acidctl verify.")
