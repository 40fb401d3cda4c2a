# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `nft list ruleset` and `iptables-save` print, as tables by name, and the script that puts tables back. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEAD = re.compile(r"^(table \S+ \S+) \{")
_FOREIGN = re.compile(r"\bxt (match|target) \"|# xt_|^\s*# Warning: table .* is managed by iptables-nft", re.MULTILINE)
_COUNTERS = re.compile(r"\[\d+:\d+\] ?")


def tables(text: str) -> dict[str, str]:
    """By "table inet filter". Comment lines before a table (nft warns there of iptables) belong to it."""
    found: dict[str, str] = {}
    name, lines = "", list[str]()
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head and not name:
            name = head.group(1)
        if name or line.startswith("#"):
            lines.append(line)
        if line == "}" and name:
            found[name] = "\n".join(lines) + "\n"
            name, lines = "", []
    return found


def is_foreign(table: str) -> bool:
    """Whether it has rules that only iptables-nft can make."""
    return bool(_FOREIGN.search(table))


def restore_script(wanted: Mapping[str, str], now: Mapping[str, str]) -> str:
    """For `nft -f`, which takes all or nothing. `wanted`: texts of tables by name, empty for those that have to go."""
    gone = [f"delete {name}\n" for name in wanted if name in now]
    return "".join([*gone, *(wanted[name] for name in wanted)])


def iptables_tables(text: str) -> dict[str, str]:
    """By the name of the table, each from its "*name" up to its COMMIT, which is left out."""
    found: dict[str, str] = {}
    name, lines = "", list[str]()
    for line in text.splitlines():
        if line.startswith("*"):
            name, lines = line[1:], [line]
        elif line == "COMMIT" and name:
            found[name] = "\n".join(lines) + "\n"
            name = ""
        elif name and not line.startswith("#"):
            lines.append(line)
    return found


def stateless(table: str) -> str:
    """Without packet and byte counts."""
    return _COUNTERS.sub("", table)
