# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The verbs that only look: list, show, diff, log."""
from __future__ import annotations

import typing as t


def add(verb: t.Callable[..., t.Any]) -> None:
    """Add them to acidctl's parser."""
