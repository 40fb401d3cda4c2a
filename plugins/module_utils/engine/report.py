# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the controller and people are told of a transaction when it ends."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .journal import Journal
from .model import DIFFERS, IRREVERSIBLE, SURVIVOR, TOLD, StepSummary, Summary


def summary(
    journal: Journal,
    tx: str,
    state: str,
    seconds: float,
    counted: t.Mapping[int, int],
    *,
    units: t.Sequence[str] = (),
    extra: dict[str, t.Any] | None = None,
) -> Summary:
    """The transaction's summary, which the journal keeps as well. `counted`: how many paths were not as at its begin when it ended, or
    before it was undone (net.py), by step. `extra` is for the caller alone."""
    notes: dict[str, list[str]] = {}
    for note in journal.notes(tx):
        notes.setdefault(note.kind, []).append(note.text)
    known = journal.compensations(tx)
    result = Summary(
        tx,
        journal.get(tx).name,
        state,
        tuple(StepSummary.of(step, paths=counted.get(step.n, 0)) for step in journal.steps(tx)),
        sum(counted.values()),
        tuple(units),
        tuple(notes.get(IRREVERSIBLE, ())),
        tuple(notes.get(SURVIVOR, ())),
        tuple(notes.get(DIFFERS, ())),
        round(seconds, 3),
        {
            **({"compensations": [found.to_json() for found in known]} if known else {}),
            **({"told": notes[TOLD]} if TOLD in notes else {}),
        },
    )
    journal.set_summary(tx, result)
    return replace(result, extra={**result.extra, **extra}) if extra else result


def most(one: t.Mapping[int, int], other: t.Mapping[int, int]) -> dict[int, int]:
    return {step: max(one.get(step, 0), other.get(step, 0)) for step in {**one, **other}}
