# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`acidctl show TX`: a table of its steps, what each touched, and what there is to know about its end."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from .. import net
from ..drift.verdict import load as load_verdict
from ..history import touched
from ..journal import Journal
from ..model import DIFFERS, IRREVERSIBLE, MOOT, SURVIVOR, TOLD, Note, StepSummary, Summary, Transaction
from ..states import ABORTING, COMMITTED, OPEN
from ..store import Store
from ..wanted import read
from .drift import drift_lines
from .table import columns, printable, when

# More of a step's paths are counted, not listed.
LISTED = 10
#: Less than this many bytes of images are not worth a line.
WORTH_A_LINE = 1 << 20
#: of these states what was done is still there
_RUNS = OPEN - {ABORTING}
_STANDS = _RUNS | {COMMITTED}
_TITLES = {
    "irreversible": "Cannot be undone",
    "survivors": "Still running",
    "differs": "Not as before",
    "told": "Notes of the undo",
    "moot": "Passed over",
}


def collect(journal: Journal, tx_id: str, *, state_dir: str, every_path: bool = False, every: bool = False) -> dict[str, Any]:
    """The summary (docs/architecture.md) with "transaction", "savepoints", "told", "moot", and each step with "touched": its first paths,
    or with `every_path` all. Paths that end as they began are among them with `every`, and nowhere counted.

    Raises WrongTransaction, JournalDamaged.
    """
    tx = journal.get(tx_id)
    paths, now = _touched(os.path.join(state_dir, "tx", tx.id)), _changed(tx, state_dir)
    steps = journal.steps(tx.id)
    kept = journal.summary(tx.id)
    counts = {n: len(found) for n, found in now.items()}
    if kept is not None and (tx.state not in _RUNS or paths is None):  # else it is that of an undo to a savepoint
        counts = {step.n: step.paths for step in kept.steps}
    summary = Summary(
        tx.id,
        tx.name,
        tx.state,
        tuple(StepSummary.of(step, paths=counts.get(step.n, 0)) for step in steps),
        paths=sum(counts.values()),
        units=kept.units if kept is not None else (),
        irreversible=_notes(journal.notes(tx.id, IRREVERSIBLE)),
        survivors=_notes(journal.notes(tx.id, SURVIVOR)),
        differs=_notes(journal.notes(tx.id, DIFFERS)),
        seconds=kept.seconds if kept is not None else 0.0,
    )
    data = summary.to_json()
    data["transaction"] = tx.to_json()
    data["savepoints"] = [point.to_json() for point in journal.savepoints(tx.id)]
    data["compensations"] = [found.to_json() for found in journal.compensations(tx.id)]
    drift = load_verdict(os.path.join(state_dir, "tx", tx.id), 0)
    if drift is not None:
        data["drift"] = drift.told(diffs=True)
    data["held"] = [] if paths is None else _held(tx.id, state_dir)
    differ = {path for found in now.values() for path in found}
    data["told"] = list(_notes(journal.notes(tx.id, TOLD)))
    data["moot"] = list(_notes(journal.notes(tx.id, MOOT)))
    for step, shown in zip(steps, data["steps"]):
        found = [] if paths is None else paths.get(step.n, [])
        if not every:  # of what was undone nothing differs any more
            found = [path for path in found if path in differ] if tx.state in _STANDS else found if shown["paths"] else []
        shown["no_log"] = step.no_log
        shown["touched"] = [os.fsdecode(path) for path in (found if every_path else found[:LISTED])]
        shown["more"] = len(found) - len(shown["touched"])
    return data


def _touched(directory: str) -> dict[int, list[bytes]] | None:
    """None once the log is gone (retention)."""
    return touched(directory) if os.path.exists(os.path.join(directory, "log")) else None


def _changed(tx: Transaction, state_dir: str) -> dict[int, set[bytes]]:
    """Paths that are not now as they were at its begin, by the step that touched them first."""
    directory = os.path.join(state_dir, "tx", tx.id)
    if tx.state not in _STANDS or not os.path.exists(os.path.join(directory, "log")):
        return {}
    with contextlib.closing(Store(tx.id, state=state_dir)) as store:
        wanted = read(directory)
        store.adopt_all(wanted.file_systems.values())
        return net.changed(wanted, store)


def _held(tx: str, state_dir: str) -> list[dict[str, Any]]:
    """Where its images take space that removing files did not free."""
    store = Store(tx, state=state_dir)
    try:
        store.adopt_all(read(os.path.join(state_dir, "tx", tx)).file_systems.values())
        return [{"path": os.fsdecode(point), "bytes": size} for point, size in sorted(store.room.held().items()) if size >= WORTH_A_LINE]
    finally:
        store.close()


def _notes(notes: list[Note]) -> tuple[str, ...]:
    return tuple(f"{note.text} (step {note.step})" if note.step else note.text for note in notes)


def render(data: dict[str, Any]) -> str:
    tx = data["transaction"]
    lines = [
        f"Transaction {tx['tx']}  {tx['state']}  {printable(tx['name'])}",
        f"of {printable(tx['owner'])}, begun {when(tx['created_ns'])}, ended {when(tx['ended_ns'])}, {data['paths']} paths",
    ]
    if tx["reason"]:
        lines.append(f"Reason: {printable(tx['reason'])}")
    if data["units"]:
        lines.append(f"Units brought back: {', '.join(data['units'])}")
    lines.append("")
    rows = [(str(step["n"]), step["state"], str(step["paths"]), step["module"], step["position"], step["task"]) for step in data["steps"]]
    lines += (
        columns(("STEP", "STATE", "PATHS", "MODULE", "AT", "TASK"), [tuple(map(printable, row)) for row in rows])
        if rows
        else ["No step has run."]
    )
    if data["compensations"]:
        told = [(one["state"], str(one["attempts"]), one["name"], one["reason"]) for one in data["compensations"]]
        lines += ["", *columns(("STATE", "ATTEMPTS", "COMPENSATION", "REASON"), [tuple(map(printable, row)) for row in told])]
    for step in data["steps"]:
        if step["touched"]:
            lines += ["", f"Step {step['n']} ({printable(step['task'])}) touched"]
            lines += [f"  {printable(path)}" for path in step["touched"]]
            if step["more"]:
                lines.append(f"  and {step['more']} more (--json --paths lists all)")
    for held in data.get("held", ()):
        size = f"{held['bytes'] / (1 << 20):.1f} MiB on {printable(held['path'])}"
        lines += ["", f"Its images hold {size}: free again when its retention ends, or by `acidctl gc --days 0`."]
    for key, title in _TITLES.items():
        if data[key]:
            # What differs is told in full, whatever its length.
            told = data[key] if key == "differs" else data[key][:LISTED]
            lines += ["", f"{title}:", *(f"  {printable(sentence)}" for sentence in told)]
            if len(told) < len(data[key]):
                lines.append(f"  and {len(data[key]) - len(told)} more")
    lines += drift_lines(data.get("drift", {}), LISTED)
    return "\n".join(lines) + "\n"
