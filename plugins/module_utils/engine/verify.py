# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a committed transaction could still be rolled back: its log is whole, and each image that the log speaks of is in the store (I7).

Looks only. Of a transaction that is open or whose undo has begun, images may have been given back already: there the log alone is judged.
"""

from __future__ import annotations

import contextlib
import os

from . import copies, states
from .clearing import holds
from .errors import JournalDamaged
from .filesystems import TRACED
from .model import Transaction
from .paths import directory_of
from .records import LINK
from .store import Store
from .wanted import Wanted, read


def check(value: Transaction) -> int:
    """The number of records. Raises JournalDamaged."""
    wanted, store = read(directory_of(value.id)), Store(value.id)
    with contextlib.closing(store):
        missing = _missing(store, wanted) if value.state == states.COMMITTED else []
        if not missing:
            copies.verify(store, wanted)
    if missing:
        raise JournalDamaged(
            "Transaction %s: %d of its images are missing, %s first." % (value.id, len(missing), missing[0]),
            hint="It cannot be rolled back exactly any more. Nothing was touched.",
        )
    return wanted.records


def _missing(store: Store, wanted: Wanted) -> list[str]:
    """Kept links; copies.py looks after the copies."""
    names = [(image.fs, b"%d" % image.number) for image in wanted.keeps.values() if image.how == LINK]
    missing = []
    for number, seen in wanted.file_systems.items():
        store.adopt(number, seen.dev, seen.fstype, seen.mount_point)
    for number, name in sorted(names):
        fs = store.by_number.get(number)
        directory = store.existing_directory(fs) if fs is not None and fs.policy == TRACED else -1
        if directory < 0 or not holds(directory, name):
            missing.append("%s on %s" % (name.decode(), os.fsdecode(wanted.file_systems[number].mount_point)))
    return missing
