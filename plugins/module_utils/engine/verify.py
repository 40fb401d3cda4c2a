# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a committed transaction could still be rolled back: what the journal and the log say of it is
whole, and each image that the log speaks of is in the store (I7).

Looks only.
"""

from __future__ import annotations

import contextlib

from . import copies, states
from .basis import damage_beside
from .errors import JournalDamaged
from .journal import Journal
from .model import Transaction
from .paths import directory_of
from .store import Store
from .wanted import read


def check(journal: Journal, value: Transaction) -> int:
    """The number of records. Raises JournalDamaged."""
    journal.verify_rows(value.id)
    beside = damage_beside(journal, value)
    if beside:
        raise JournalDamaged("Transaction %s: %s." % (value.id, beside[0]), hint="It cannot be rolled back exactly any more.")
    wanted, store = read(directory_of(value.id)), Store(value.id)
    with contextlib.closing(store):
        copies.verify(store, wanted, untouched=value.state == states.COMMITTED)
    return wanted.records
