# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text for a terminal: columns, times, and names that may hold any bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with every column but the last padded to its widest cell."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in table]


def printable(text: str, *, keep: str = "") -> str:
    """One line without control characters but those in `keep`, so that nothing on the host writes to the terminal."""
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    byte = ord(char) - 0xDC00 if 0xDC80 <= ord(char) <= 0xDCFF else ord(char)
    named = {10: "\\n", 9: "\\t", 13: "\\r"}.get(byte)
    if named:
        return named
    return f"\\x{byte:02x}" if byte < 256 else f"\\u{byte:04x}"


def when(ns: int | None) -> str:
    """Local time, as people of the host read it."""
    return "-" if ns is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ns / 1e9))
