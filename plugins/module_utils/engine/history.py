# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which paths each step touched, read from the undo log in one pass. Also of steps that have been undone since: it is what they did."""

from __future__ import annotations

import stat

from .records import Basic, Content, DirectorySeen, Entry, EpochStarted, Flags, Value, Xattrs
from .undolog import Reader

# Images that follow a Basic of their inode, which has the path.
_OF_AN_INODE = (Xattrs, Flags, Content)


def touched(directory: str) -> dict[int, list[bytes]]:
    """Sorted paths by step number, from the log in `directory` (/var/lib/acid/tx/<id>). A directory of which only the times changed is not
    among them: its entries are. Step 0 is what happened between steps. Raises JournalDamaged (I7)."""
    places: dict[int, bytes] = {}
    names: dict[tuple[int, bytes], bytes] = {}
    found: dict[int, set[bytes]] = {}
    step = 0
    for record in Reader(directory):
        if isinstance(record, DirectorySeen):
            places[record.directory] = record.path
        elif isinstance(record, EpochStarted):
            step = record.step
        elif isinstance(record, Entry):
            found.setdefault(record.step or step, set()).add(places[record.directory].rstrip(b"/") + b"/" + record.name)
        elif isinstance(record, Basic):
            names[record.fs, record.handle] = record.path
            if not stat.S_ISDIR(record.mode):
                found.setdefault(record.step or step, set()).add(record.path)
        elif isinstance(record, _OF_AN_INODE):
            path = names.get((record.fs, record.handle))
            if path is not None:
                found.setdefault(record.step or step, set()).add(path)
        elif isinstance(record, Value):
            found.setdefault(record.step or step, set()).add(record.path)
    return {number: sorted(paths) for number, paths in sorted(found.items())}
