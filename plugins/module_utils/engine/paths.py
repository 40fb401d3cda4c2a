# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things lie on a host (docs/architecture.md)."""

from __future__ import annotations

import os

STATE = "/var/lib/acid"
LIBRARY = "/usr/local/lib/acid"


def directory_of(tx: str, state: str = STATE) -> str:
    """Of the transaction's log, and of what is noted beside it."""
    return "%s/tx/%s" % (state, tx)


def own_hash() -> str:
    """The name of the directory that this engine was installed in."""
    return os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
