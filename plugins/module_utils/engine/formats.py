# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The format of what a transaction keeps for its undo: framing and records of the log, names and contents of the store.

The name of an empty file beside the log carries it, `format-N` (none: 1). An engine undoes the formats that it says it can, and refuses
each other one by name, with nothing touched. Raise FORMAT when an older engine would take a new log or store for something else, and
leave in UNDOABLE what can still be undone. The journal has a number of its own (its schema).
"""

from __future__ import annotations

import os

from .errors import FormatUnknown
from .paths import LIBRARY

#: 2: records of format 1, and further kinds of them (records.py), which an engine of format 1 does not know
FORMAT = 2
UNDOABLE = frozenset({1, 2})
_PREFIX = "format-"
#: An empty file beside a log of which each writer images project ids: what was kept in the log and has no image of them had none.
#: An engine that does not know it leaves them as they are.
_ATTRIBUTES = "attributes"


def write(directory: str) -> None:
    """Before the directory is synced."""
    for name in ("%s%d" % (_PREFIX, FORMAT), _ATTRIBUTES):
        os.close(os.open("%s/%s" % (directory, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def has_attributes(directory: str) -> bool:
    return os.path.exists("%s/%s" % (directory, _ATTRIBUTES))


def of(directory: str) -> int:
    """The newest, where a later engine has gone on with it. A directory that is not there is for the log's own checks to say."""
    try:
        names = os.listdir(directory)
    except OSError:
        return 1
    numbers = [name[len(_PREFIX) :] for name in names if name.startswith(_PREFIX)]
    return max([int(number) for number in numbers if number.isdigit()], default=1)


def known(directory: str) -> bool:
    """Whether this engine can undo the transaction of that directory."""
    return of(directory) in UNDOABLE


def check(directory: str, *, tx: str, engine: str) -> None:
    """Raises FormatUnknown; `engine`: the hash of the one that wrote it."""
    if known(directory):
        return
    writer = "%s/%s/acidctl" % (LIBRARY, engine)
    there = os.path.exists(writer)
    raise FormatUnknown(
        "Transaction %s was written by engine %s in format %d, and this engine can undo %s."
        % (tx, engine, of(directory), ", ".join(map(str, sorted(UNDOABLE)))),
        hint="Nothing was touched. %s"
        % (
            "That engine is still there: run `%s rollback %s`." % (writer, tx)
            if there
            else "%s/%s is no more: run a play of the collection version that had it, or a newer one." % (LIBRARY, engine)
        ),
    )


def check_log(directory: str) -> None:
    """For a log that is only looked at."""
    if not known(directory):
        raise FormatUnknown(
            "%s has format %d, and this engine can read %s." % (directory, of(directory), ", ".join(map(str, sorted(UNDOABLE)))),
            hint="Nothing was touched. Use the engine that wrote it (`acidctl list --json` names it), or a newer one.",
        )
