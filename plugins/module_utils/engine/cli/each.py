# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`acidctl diff TX --each`: what each step changed, one after the other. A rehearsal shows this.

A content is shown only where an ordinary user could have read it at every step boundary: a key that is world-readable for one step, because
the next one sets its mode, is no less of a secret for that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any

from ..changes import Change, Changes, others_may_read
from ..history import touched
from ..journal import Journal
from ..model import IRREVERSIBLE, Step
from ..states import UNDONE
from ..store import Store
from ..timeline import Source, Timeline
from ..wanted import read
from . import diff
from .table import printable

# Of one step, and characters of diffs of the whole transaction: what is beyond is counted. All of it is one answer to the controller.
MOST_CHANGES = 500
MOST_TEXT = 4 << 20


def collect(journal: Journal, tx_id: str, *, state_dir: str, secrets: bool = False) -> dict[str, Any]:
    """{"tx", "state", "each": [{"n", "task", "module", "position", "state", "no_log", "irreversible", "changes" (diff.describe), "more",
    "undone": [paths]}], "host": [sentences]}. `more` counts changes that are left out. Raises as diff.collect."""
    tx = journal.get(tx_id)
    directory = diff.images_of(tx, state_dir)
    paths = touched(directory)
    steps = journal.steps(tx_id)
    told: dict[int, list[str]] = {}
    for note in journal.notes(tx_id, IRREVERSIBLE):
        told.setdefault(note.step or 0, []).append(note.text)
    with contextlib.ExitStack() as stores:
        store = Store(tx.id, state=state_dir)
        stores.callback(store.close)
        found = {step.n: _of_step(directory, store, step) for step in steps if paths.get(step.n) and step.state != UNDONE}
    of_no_log = {path for step in steps if step.no_log for path in paths.get(step.n, ())}
    secret = _secret(found.values(), of_no_log)
    budget = _Budget(MOST_TEXT)
    each: list[dict[str, Any]] = [
        {
            "n": step.n,
            "task": step.task,
            "module": step.module,
            "position": step.position,
            "state": step.state,
            "no_log": step.no_log,
            "irreversible": told.get(step.n, []),
            "changes": budget.within(diff.describe(found.get(step.n, [])[:MOST_CHANGES], secret=secret, secrets=secrets)),
            "more": max(0, len(found.get(step.n, [])) - MOST_CHANGES),
            "undone": [os.fsdecode(path) for path in paths.get(step.n, ())[:MOST_CHANGES]] if step.state == UNDONE else [],
        }
        for step in steps
    ]
    shown = {change["path"] for step in each for change in step["changes"]}
    return {"tx": tx_id, "state": tx.state, "each": each, "host": diff.host(journal, tx, shown)}


def _of_step(directory: str, store: Store, step: Step) -> list[Change]:
    def then(epoch: int) -> Timeline:
        return Timeline([Source.of(directory, store, epoch=epoch)])

    return list(Changes(read(directory, epoch=step.epoch, until=step.epoch + 1), then(step.epoch), then(step.epoch + 1)))


def _secret(steps: Iterable[list[Change]], of_no_log: set[bytes]) -> dict[bytes, str]:
    """Both names of what was moved are one content."""
    secret = dict.fromkeys(of_no_log, diff.OF_NO_LOG)
    changes = [change for changes in steps for change in changes]
    for change in changes:
        if not all(others_may_read(change.path, side) for side in (change.before, change.after)):
            secret.setdefault(change.path, diff.PRIVATE)
    for change in [*changes, *reversed(changes)]:
        if change.moved_from is not None:
            why = secret.get(change.path) or secret.get(change.moved_from)
            if why:
                secret.setdefault(change.path, why)
                secret.setdefault(change.moved_from, why)
    return secret


class _Budget:
    """Characters of diffs that may still be told."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def within(self, described: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for change in described:
            size = sum(map(len, change["diff"] or ()))
            if size > self._left:
                change.update(diff=None, hidden=f"too much for this list ({len(change['diff'])} lines)")
            else:
                self._left -= size
        return described


def render(data: dict[str, Any]) -> str:
    lines = []
    for step in data["each"]:
        lines.append(f"Step {step['n']}: {printable(step['task'])} ({step['module']}, {printable(step['position'])})")
        lines += [f"  {line}" for line in diff.lines_of(step["changes"])] or ["  No difference."]
        if step["more"]:
            lines.append(f"  and {step['more']} more")
        lines += [f"  cannot be undone: {printable(sentence)}" for sentence in step["irreversible"]]
        lines += [f"  undone since: {printable(path)}" for path in step["undone"]]
    lines += [printable(sentence) for sentence in data["host"]]
    return "\n".join(lines or ["No step has run."]) + "\n"
