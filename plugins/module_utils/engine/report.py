# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the controller and people are told of a transaction when it ends."""

from __future__ import annotations

import stat
import typing as t
from dataclasses import replace

from .journal import Journal
from .model import DIFFERS, IRREVERSIBLE, SURVIVOR, TOLD, StepSummary, Summary
from .wanted import Wanted


def summary(
    journal: Journal,
    tx: str,
    state: str,
    seconds: float,
    wanted: Wanted | None,
    *,
    units: t.Sequence[str] = (),
    counted: t.Mapping[int, int] | None = None,
    extra: dict[str, t.Any] | None = None,
) -> Summary:
    """The transaction's summary, which the journal keeps as well. `wanted`: its images, read before an undo made them void; `counted`:
    paths by step, of those that are void. `extra` is for the caller alone."""
    counts = most(counted or {}, paths_by_step(wanted) if wanted is not None else {})
    notes: dict[str, list[str]] = {}
    for note in journal.notes(tx):
        notes.setdefault(note.kind, []).append(note.text)
    known = journal.compensations(tx)
    result = Summary(
        tx,
        journal.get(tx).name,
        state,
        tuple(StepSummary.of(step, paths=counts.get(step.n, 0)) for step in journal.steps(tx)),
        sum(counts.values()),
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


def paths_by_step(wanted: Wanted) -> dict[int, int]:
    """How many places, inodes and values each step was the first to touch. A directory whose times alone changed does not count."""
    counts: dict[int, set[bytes]] = {}
    for (number, name), entry in wanted.entries.items():
        counts.setdefault(entry.step, set()).add(wanted.directories[number].path + b"/" + name)
    for basic in wanted.basics.values():
        if not stat.S_ISDIR(basic.mode):
            counts.setdefault(basic.step, set()).add(basic.path)
    for value in wanted.values.values():
        counts.setdefault(value.step, set()).add(value.path)
    return {step: len(paths) for step, paths in counts.items()}
