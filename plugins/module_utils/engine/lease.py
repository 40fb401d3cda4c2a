# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lease: how long a host waits for its controller before it rolls back by itself.

It is renewed by every request and every step, and does not run while a step's first process lives. CLOCK_BOOTTIME: it goes on in suspend.
"""

from __future__ import annotations

import time
import typing as t

DEFAULT = 300


def timeout(options: dict[str, t.Any]) -> int:
    """Seconds of silence; 0: for ever."""
    return int(options.get("confirm_timeout", DEFAULT))


def expired(transaction: t.Any) -> bool:
    limit = timeout(transaction.options)
    if not limit or transaction.mains:
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) > float(transaction.last_activity) + limit
