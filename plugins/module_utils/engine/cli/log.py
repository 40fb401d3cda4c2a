# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`acidctl log TX`: what happened when, in one list."""

from __future__ import annotations

from typing import Any

from ..journal import Journal
from .table import columns, printable, when


def collect(journal: Journal, tx_id: str) -> dict[str, Any]:
    """{"tx", "events": [{"ns", "what", "text"}]}, oldest first. Raises WrongTransaction."""
    tx = journal.get(tx_id)
    events = [(tx.created_ns, "begin", f"{tx.name}, of {tx.owner}, engine {tx.engine}")]
    for step in journal.steps(tx_id):
        events.append((step.started_ns, "step", f"{step.n} started: {step.task} ({step.module}, {step.position})"))
        if step.sealed_ns is not None:
            events.append((step.sealed_ns, "step", f"{step.n} sealed"))
    if tx.ended_ns is not None:
        events.append((tx.ended_ns, tx.state, tx.reason))
    # Sorted by time alone: of two at one time, the first in the journal came first.
    return {
        "tx": tx_id,
        "events": [{"ns": ns, "what": what, "text": text} for ns, what, text in sorted(events, key=lambda event: event[0])],
    }


def render(data: dict[str, Any]) -> str:
    rows = [(when(event["ns"]), event["what"], printable(event["text"])) for event in data["events"]]
    return "\n".join(columns(("TIME", "WHAT", ""), rows)) + "\n"
