# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Epochs, and what starts one in the course of a transaction: its steps and savepoints."""

from __future__ import annotations

from .. import states
from ..errors import Usage, WrongState
from ..model import Savepoint, Step
from . import rows
from .transactions import Transactions


class Steps(Transactions):
    def next_epoch(self, tx: str) -> int:
        """Starts an epoch: 1, 2, ... Epoch 0 is the time before the first step."""
        with self._write() as db:
            db.execute("UPDATE tx SET epoch = epoch + 1 WHERE id = ?", (tx,))
            return self.get(tx).epoch

    def add_step(self, tx: str, *, id: str, task: str, module: str, position: str, no_log: bool = False, pid: int | None = None) -> Step:
        """A STARTED step in an epoch of its own. A second `acidctl exec` with the same id is the same step, while it is STARTED.

        Raises WrongState when the transaction does not run steps or the step has ended.
        """
        with self._write() as db:
            state = self.get(tx).state
            if state not in states.RUNNING:
                raise WrongState(f"Transaction {tx} is {state}: no step may start.", hint="Begin a new transaction.")
            known = db.execute(f"SELECT {rows.STEP} FROM step WHERE tx = ? AND id = ?", (tx, id)).fetchone()
            if known is not None:
                step = rows.step(known)
                if step.state != states.STARTED:
                    raise WrongState(
                        f"Step {step.n} ({step.task!r}) of transaction {tx} is {step.state} already.",
                        hint="Each task needs a step id of its own.",
                    )
                return step
            (n,) = db.execute("SELECT COALESCE(MAX(n), 0) + 1 FROM step WHERE tx = ?", (tx,)).fetchone()
            task, module, position = map(rows.storable, (task, module, position))
            step = Step(n, id, self.next_epoch(tx), task, module, position, no_log, states.STARTED, self._clock(), None, pid)
            db.execute(
                f"INSERT INTO step (tx, {rows.STEP}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (tx, n, id, step.epoch, task, module, position, no_log, step.state, step.started_ns, None, pid),
            )
            return step

    def seal_step(self, tx: str, n: int) -> None:
        self.set_step_state(tx, n, states.SEALED)

    def set_step_state(self, tx: str, n: int, new: str) -> None:
        """Raises WrongState as `states.check_step` does."""
        with self._write() as db:
            row = db.execute("SELECT state FROM step WHERE tx = ? AND n = ?", (tx, n)).fetchone()
            if row is None:
                raise Usage(f"Transaction {tx} has no step {n}.", hint=f"`acidctl show {tx}` lists its steps.")
            if states.check_step(row[0], new):
                sealed = self._clock() if new == states.SEALED else None
                db.execute(
                    "UPDATE step SET state = ?, pid = NULL, sealed_ns = COALESCE(?, sealed_ns) WHERE tx = ? AND n = ?", (new, sealed, tx, n)
                )

    def set_step_pid(self, tx: str, n: int, pid: int) -> None:
        with self._write() as db:
            db.execute("UPDATE step SET pid = ? WHERE tx = ? AND n = ?", (pid, tx, n))

    def step_state(self, tx: str, n: int) -> str:
        with self._read() as db:
            row = db.execute("SELECT state FROM step WHERE tx = ? AND n = ?", (tx, n)).fetchone()
        return "" if row is None else str(row[0])

    def steps(self, tx: str) -> list[Step]:
        with self._read() as db:
            return [rows.step(row) for row in db.execute(f"SELECT {rows.STEP} FROM step WHERE tx = ? ORDER BY n", (tx,))]

    def add_savepoint(self, tx: str, name: str) -> Savepoint:
        """Starts an epoch that the savepoint stands before. One of the same name hides the older one until it is gone."""
        with self._write() as db:
            point = Savepoint(name, self.next_epoch(tx))
            db.execute("INSERT INTO savepoint (tx, epoch, name) VALUES (?,?,?)", (tx, point.epoch, name))
            return point

    def savepoints(self, tx: str) -> list[Savepoint]:
        with self._read() as db:
            return [Savepoint(*row) for row in db.execute("SELECT name, epoch FROM savepoint WHERE tx = ? ORDER BY epoch", (tx,))]

    def end_rewind(self, tx: str, point: Savepoint, *, doomed: str = "") -> Savepoint:
        """The undo to `point` has come to its end: its steps are UNDONE, the savepoint stands before a new epoch, and later ones are
        forgotten. ACTIVE again, or DOOMED, in one row with that, on the disk when it returns."""
        with self._write(decision=True) as db:
            for step in self.steps(tx):
                if step.epoch >= point.epoch:
                    self.set_step_state(tx, step.n, states.UNDONE)
            if self.get(tx).state != states.DOOMED:
                self.set_state(tx, states.DOOMED if doomed else states.ACTIVE, reason=doomed)
            db.execute("UPDATE tx SET rewinding_to = NULL WHERE id = ?", (tx,))
            return self.renew_savepoint(tx, point)

    def renew_savepoint(self, tx: str, point: Savepoint) -> Savepoint:
        """All since `point` has been undone: it stands before a new epoch, and later ones are forgotten."""
        with self._write() as db:
            db.execute("DELETE FROM savepoint WHERE tx = ? AND epoch >= ?", (tx, point.epoch))
            return self.add_savepoint(tx, point.name)
