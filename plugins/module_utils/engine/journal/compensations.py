# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compensations, which start epochs too: what is kept to run one, and who has claimed it."""

from __future__ import annotations

import os
from typing import Any

from .. import states
from ..errors import Usage, WrongState
from ..model import Compensation
from . import rows
from .steps import Steps


class Compensations(Steps):
    def add_compensation(
        self, tx: str, *, id: str, name: str, step: str, body: str, host: list[dict[str, Any]] | None, seconds: int
    ) -> Compensation:
        """RECORDED, on the disk, at the start of an epoch of its own. The same id again is the same compensation."""
        with self._write(decision=True) as db:
            known = [found for found in self.compensations(tx) if found.id == id]
            if known:
                return known[0]
            state = self.get(tx).state
            if state not in states.RUNNING:
                raise WrongState(f"Transaction {tx} is {state}: no step may start.", hint="Begin a new transaction.")
            (n,) = db.execute("SELECT COALESCE(MAX(n), 0) + 1 FROM compensation WHERE tx = ?", (tx,)).fetchone()
            commands = None if host is None else rows.dump(host)
            name, step, body = map(rows.storable, (name, step, body))
            row = (id, n, self.next_epoch(tx), None, name, step, body, commands, None, seconds, states.RECORDED, 0, "", "", 0, "")
            db.execute(f"INSERT INTO compensation (tx, {rows.COMPENSATION}) VALUES (?{',?' * len(row)})", (tx, *row))
            return rows.compensation(row)

    def end_compensated(self, tx: str, id: str, *, result: str, host: list[dict[str, Any]] | None) -> int:
        """The compensated step has ended, with that result: starts an epoch, and returns it."""
        with self._write() as db:
            self._compensation(tx, id)
            epoch = self.next_epoch(tx)
            commands = None if host is None else rows.dump(host)
            db.execute(
                "UPDATE compensation SET end_epoch = ?, result = ?, host = ? WHERE tx = ? AND id = ?", (epoch, result, commands, tx, id)
            )
            return epoch

    def compensations(self, tx: str) -> list[Compensation]:
        """In the order of their steps."""
        with self._read() as db:
            found = db.execute(f"SELECT {rows.COMPENSATION} FROM compensation WHERE tx = ? ORDER BY n", (tx,))
            return [rows.compensation(row) for row in found]

    def claim_compensation(self, tx: str, id: str, *, by: str, attempts: int, until_ns: int) -> Compensation:
        """RUNNING, on the disk before anybody runs it; the claim's name is new each time. Raises WrongState when it has been paid."""
        with self._write(decision=True) as db:
            states.check_compensation(self._compensation(tx, id).state, states.RUNNING_NOW)
            values = (states.RUNNING_NOW, attempts, os.urandom(8).hex(), by, until_ns, tx, id)
            columns = "state = ?, attempts = ?, claim = ?, claimed_by = ?, claim_until_ns = ?"
            db.execute(f"UPDATE compensation SET {columns} WHERE tx = ? AND id = ?", values)
            return self._compensation(tx, id)

    def settle_compensation(self, tx: str, id: str, new: str, *, reason: str = "") -> Compensation:
        """Ends a claim, on the disk when it returns. RUNNING: it waits for its next attempt."""
        with self._write(decision=True) as db:
            states.check_compensation(self._compensation(tx, id).state, new)
            db.execute(
                "UPDATE compensation SET state = ?, claim = '', claim_until_ns = 0, reason = ? WHERE tx = ? AND id = ?",
                (new, rows.storable(reason), tx, id),
            )
            return self._compensation(tx, id)

    def _compensation(self, tx: str, id: str) -> Compensation:
        row = self._db.execute(f"SELECT {rows.COMPENSATION} FROM compensation WHERE tx = ? AND id = ?", (tx, id)).fetchone()
        if row is None:
            raise Usage(f"Transaction {tx} has no compensation {id}.", hint=f"`acidctl show {tx}` lists them.")
        return rows.compensation(row)
