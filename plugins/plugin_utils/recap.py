# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The recap that people read after the play: one line a host, and a line for everything that is not as one would hope."""

from __future__ import annotations

from collections.abc import Iterable

from .reports import COMMITTED, LEFT_TO_HOST, REFUSED, REHEARSED, ROLLED_BACK, UNDO_FAILED, Report

TITLE = "TRANSACTIONS"
WIDTH = 80
SHOWN = 5

# How the host tells of a call that it did not let run (engine/observations.py): nothing was left by that.
REFUSED_CALL = "refused with "

WORDS = {
    COMMITTED: "committed",
    REHEARSED: "rehearsed",
    ROLLED_BACK: "rolled back",
    REFUSED: "not begun",
    UNDO_FAILED: "UNDO FAILED",
    LEFT_TO_HOST: "left to the host",
}

COLOURS = {COMMITTED: "green", REHEARSED: "green", ROLLED_BACK: "yellow", REFUSED: "red", UNDO_FAILED: "red", LEFT_TO_HOST: "red"}


def lines(reports: Iterable[Report]) -> list[tuple[str, str]]:
    """(text, colour) of each line, without the title."""
    found = list(reports)
    if not found:
        return []
    width = max(len(report.host) for report in found)
    out: list[tuple[str, str]] = []
    for report in found:
        out.append((f"{report.host:<{width}} : {_line(report)}", COLOURS[report.outcome]))
        out += [(f"{'':<{width}}   {text}", "yellow") for text in _details(report)]
    return out


def title() -> str:
    return f"{TITLE} {'*' * (WIDTH - len(TITLE) - 1)}"


def _line(report: Report) -> str:
    parts = [f"{WORDS[report.outcome]:<12}"]
    if report.outcome == REFUSED:
        return f"{parts[0].rstrip()}: {report.reason}"
    if report.outcome == LEFT_TO_HOST:
        lease = f"at most {report.lease} s after it last heard from the controller"
        return f"{parts[0].rstrip()}: {report.reason} It rolls itself back by the end of its lease, {lease}."
    parts += [f"steps={report.steps}", f"{'undone' if report.outcome != COMMITTED else 'changed'}={report.paths}"]
    if report.units:
        parts.append(f"units={','.join(report.units[:SHOWN])}{_more(report.units)}")
    return "  ".join([*parts, f"{report.seconds:.1f}s"])


def _details(report: Report) -> list[str]:
    found = []
    if report.reason and report.outcome in (ROLLED_BACK, UNDO_FAILED):
        found.append(f"because: {report.reason}")
    if report.reason and report.outcome == REHEARSED:
        found.append(f"the play failed here: {report.reason}")
    refused = [item for item in report.irreversible if item.startswith(REFUSED_CALL)]
    irreversible = [item for item in report.irreversible if item not in refused]
    found += refused[:SHOWN]
    for label, items in (
        ("not undone", irreversible),
        ("differs", report.differs),
        ("drift", report.drift),
        ("note", report.told),
        ("still running", report.survivors),
    ):
        if report.outcome == COMMITTED and label == "not undone":
            label = "could not have been undone"
        found += [f"{label}: {item}" for item in items[:SHOWN]]
        if len(items) > SHOWN:
            found.append(f"{label}: and {len(items) - SHOWN} more, see 'acidctl show {report.tx}' on {report.host}")
    if report.compensated:
        found.append(f"compensated: {', '.join(report.compensated[:SHOWN])}{_more(report.compensated)}")
    found += [f"note: {item}" for item in report.entangled[:SHOWN]]
    if report.outcome == UNDO_FAILED:
        found.append(f"what now: see 'acidctl show {report.tx}' on {report.host}, then 'acidctl rollback' again or 'acidctl resolve'")
    if report.outcome == LEFT_TO_HOST and report.tx:
        found.append(f"transaction: {report.tx}; 'acidctl show {report.tx}' on {report.host} says how it ended")
    return found


def _more(items: list[str]) -> str:
    return f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
