# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`acidctl list`: the transactions that the journal knows."""

from __future__ import annotations

from typing import Any

from ..journal import Journal
from .table import columns, printable, when


def collect(journal: Journal) -> dict[str, Any]:
    """{"transactions": [...]}, newest first: the transaction's fields, and how many steps it has."""
    newest_first = reversed(journal.transactions())
    return {"transactions": [{**tx.to_json(), "steps": len(journal.steps(tx.id))} for tx in newest_first]}


def render(data: dict[str, Any]) -> str:
    if not data["transactions"]:
        return "The journal knows no transaction.\n"
    rows = [
        (tx["tx"], tx["state"], when(tx["created_ns"]), str(tx["steps"]), printable(tx["owner"]), printable(tx["name"]))
        for tx in data["transactions"]
    ]
    return "\n".join(columns(("TRANSACTION", "STATE", "BEGUN", "STEPS", "OWNER", "NAME"), rows)) + "\n"
