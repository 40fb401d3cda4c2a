# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`acidctl debts`: compensations that an undo came to and that nobody has paid yet, with their tasks, for people to judge."""

from __future__ import annotations

import json
from typing import Any

from .. import compensations, states
from ..journal import Journal
from .table import columns, printable

# In others they are not due: nothing is undone there, or a person has taken it on.
_UNDONE = (states.ABORTING, states.UNDO_FAILED)


def owing(journal: Journal) -> list[str]:
    """Ids of the transactions."""
    return [tx.id for tx in journal.transactions() if tx.state in _UNDONE and compensations.due(journal, tx.id, 0)]


def collect(journal: Journal) -> dict[str, Any]:
    found = []
    for tx in owing(journal):
        for one in compensations.due(journal, tx, 0):
            body = one.body.partition(":")[2]  # what stands before is the controller's seal
            found.append({"tx": tx, **one.to_json(), "host": one.host, "body": json.loads(body) if body else None})
    return {"debts": found}


def render(data: dict[str, Any]) -> str:
    if not data["debts"]:
        return "No compensation is owed on this host.\n"
    rows = [(one["tx"], one["state"], "host" if one["host"] else "controller", one["name"], one["reason"]) for one in data["debts"]]
    lines = columns(("TRANSACTION", "STATE", "RUN BY", "COMPENSATION", "REASON"), [tuple(map(printable, row)) for row in rows])
    return "\n".join([*lines, "", "The playbook acid.host.recover pays them; --json shows their tasks."]) + "\n"
