# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `nft list ruleset` and `iptables-save` print, as tables by name, and the script that puts tables back. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_HEAD = re.compile(r"^(table \S+ \S+) \{")
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


def skeleton(table: str) -> str:
    """A table of nft's that iptables made, without its rules: chains with their hooks and policies."""
    lines = [line for line in table.splitlines() if not line.startswith("\t\t") or line.startswith("\t\ttype ")]
    return "\n".join(lines) + "\n"


def chains_of(table: str) -> set[str]:
    return set(re.findall(r"^\tchain (\S+) \{", table, re.MULTILINE))


def only_chains(table: str, chains: Collection[str]) -> str:
    """iptables-save names a table's own chains also where they are not there yet."""
    return "".join(line + "\n" for line in table.splitlines() if not line.startswith(":") or line[1:].split(" ")[0] in chains)


def emptied(table: str) -> str:
    """A table of iptables without rules, its own chains alone, accepting: as it is when it is first looked at."""
    lines = table.splitlines()
    chains = [line.split(" ")[0] for line in lines if line.startswith(":") and line.split(" ")[1] != "-"]
    return "\n".join([lines[0], *(f"{chain} ACCEPT [0:0]" for chain in chains)]) + "\n"


def stateless(table: str) -> str:
    """Without packet and byte counts."""
    return _COUNTERS.sub("", table)
