# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the engine lies on a host (docs/architecture.md)."""

from __future__ import annotations

LIBRARY = "/usr/local/lib/acid"
SBIN = "/usr/local/sbin/acidctl"
CURRENT = "current"  # stands for the hash of the version that was installed last


def acidctl(engine: str) -> str:
    """The host command of the engine with this hash."""
    return f"{LIBRARY}/{engine}/acidctl"
