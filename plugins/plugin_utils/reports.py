# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What became of each host's transaction: values for the recap, the custom stats and the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

COMMITTED = "committed"
REHEARSED = "rehearsed"
ROLLED_BACK = "rolled_back"
REFUSED = "refused"
UNDO_FAILED = "undo_failed"
LEFT_TO_HOST = "left_to_host"

# The worst one of a host's transactions stands for the host.
SEVERITY = (COMMITTED, REHEARSED, ROLLED_BACK, REFUSED, LEFT_TO_HOST, UNDO_FAILED)


@dataclass(frozen=True)
class Report:
    """One transaction on one host. `paths` counts what was changed (committed) or undone (rolled back); times are seconds.
    `drift` has a sentence for each path that somebody else changed since and that was merged, or undone with a copy kept; `told`
    one for each thing that the undo left alone on purpose, or kept a copy of; `entangled` one for each delegation between this host and one
    whose transaction ended the other way."""

    host: str
    play: str
    outcome: str
    tx: str = ""
    reason: str = ""
    steps: int = 0
    paths: int = 0
    units: list[str] = field(default_factory=list)
    irreversible: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    entangled: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    compensated: list[str] = field(default_factory=list)
    seconds: float = 0.0
    lease: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of_summary(host: str, play: str, outcome: str, summary: dict[str, Any], *, reason: str, outside: list[str]) -> Report:
    """From the host's own summary (docs/architecture.md)."""
    differs = [str(item) for item in summary.get("differs", [])]
    failed = outcome in (ROLLED_BACK, REHEARSED) and summary.get("state") == "UNDO_FAILED"
    return Report(
        host=host,
        play=play,
        outcome=UNDO_FAILED if failed else outcome,
        tx=str(summary.get("tx", "")),
        reason=reason,
        steps=len(summary.get("steps", [])),
        paths=int(summary.get("paths", 0)),
        units=[str(item) for item in summary.get("units", [])],
        irreversible=[*outside, *(str(item) for item in summary.get("irreversible", []))],
        survivors=[str(item) for item in summary.get("survivors", [])],
        differs=differs,
        drift=_drift(summary.get("drift") or {}),
        told=[str(item) for item in summary.get("told", [])],
        compensated=[str(one["name"]) for one in summary.get("compensations", []) if one["state"] == "PAID"],
        seconds=float(summary.get("seconds", 0.0)),
    )


def _drift(found: dict[str, Any]) -> list[str]:
    """What was left is among the differences."""
    sentences = [f"{one['path']}: merged with what somebody else changed" for one in found.get("merged", [])]
    for one in found.get("kept_aside", []):
        copy = f", copy kept as {one['kept']}" if one.get("kept") else ""
        sentences.append(f"{one['path']}: undone though {one['what']} by somebody else{copy}")
    if found.get("gone"):
        sentences.append(f"{found['gone_count']} paths that no step had made went with the directories that they were in")
    return sentences


def custom_stats(reports: list[Report]) -> dict[str, Any]:
    """The value of the custom stats key `acid`: the outcome per host for those in a hurry, and every transaction."""
    hosts: dict[str, str] = {}
    for report in reports:
        before = hosts.get(report.host, COMMITTED)
        hosts[report.host] = max(before, report.outcome, key=SEVERITY.index)
    return {"hosts": hosts, "transactions": [report.to_json() for report in reports]}
