# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""That a transaction is doomed, for the next agent, where the journal cannot be written: the disk that lost its images takes no row either.

write(tx, reason)      in memory that outlives the agent; another boot undoes what is open anyway
read(tx)               the reason; empty: there is none
"""

from __future__ import annotations

import contextlib
import os

FOLDER = "/run/acid"


def write(tx: str, reason: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(_path(tx), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write(reason)


def read(tx: str) -> str:
    try:
        with open(_path(tx), encoding="utf-8", errors="replace") as f:
            return f.read() or "what its steps did does not reach the disk"
    except OSError:
        return ""


def forget(tx: str) -> None:
    """It has ended."""
    with contextlib.suppress(OSError):
        os.unlink(_path(tx))


def _path(tx: str) -> str:
    return "%s/doomed-%s" % (FOLDER, tx)
