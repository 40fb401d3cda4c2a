# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's journal: transactions, steps, savepoints, notes and probes' images. The only folder with SQL.

Every public method is one SQL transaction: a process that dies between two calls leaves the state of the last call that returned, and a
call that raised has changed nothing. Decisions (begin, a transaction's states, the end of retention) survive a power cut too. A state
is only ever changed through `states.check`. Safe to use from several threads of one process, and from several processes at once.

Raises JournalUnwritable (full, read-only, failing disk), JournalDamaged (fails its checks, invariant I7) and SchemaTooNew from any method.
"""

from __future__ import annotations

from .compensations import Compensations
from .database import PATH
from .notes import Notes
from .probe_images import ProbeImages

__all__ = ["PATH", "Journal"]


class Journal(Compensations, Notes, ProbeImages):
    """All of it: each base has its own tables, and the methods of one may join a transaction of another."""
