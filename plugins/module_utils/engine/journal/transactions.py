# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Transactions: who may begin, which states they go through, and what is kept of them (invariants I3, I6 and I8)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from .. import states
from ..errors import Blocked, Busy, WrongState, WrongTransaction
from ..model import Summary, Transaction
from . import rows
from .database import Database


class Transactions(Database):
    def begin(
        self,
        *,
        name: str,
        owner: str,
        options: dict[str, Any],
        boot_id: str,
        engine: str,
        deadline: float | None = None,
        prepare: Callable[[str], None] = lambda tx: None,
    ) -> Transaction:
        """A new ACTIVE transaction with the highest token yet. `prepare` is called with its id before there is one: what it raises, this
        raises.

        Raises Busy while another one is open, Blocked while one is in UNDO_FAILED.
        """
        with self._write(decision=True) as db:
            self._refuse_second()
            # No RETURNING: Debian 11 and RHEL 9 have SQLite 3.34.
            db.execute("UPDATE counter SET value = value + 1 WHERE name = 'token'")
            (token,) = db.execute("SELECT value FROM counter WHERE name = 'token'").fetchone()
            now = self._clock()
            tx = Transaction(
                id=_new_id(now),
                name=name,
                owner=owner,
                state=states.ACTIVE,
                token=token,
                created_ns=now,
                deadline=deadline,
                options=options,
                boot_id=boot_id,
                engine=engine,
                reason="",
            )
            prepare(tx.id)
            db.execute(
                f"INSERT INTO tx ({rows.TX}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (tx.id, name, owner, tx.state, token, now, deadline, rows.dump(options), boot_id, engine, "", 0, None, 1, None),
            )
        return tx

    def refuse_undo(self, tx: str) -> None:
        """Raises what `set_state` to ABORTING would: WrongState, Busy or Blocked. An ABORTED transaction is refused nothing."""
        with self._read():
            found = self.get(tx)
            if found.state not in (states.ABORTED, states.UNDO_FAILED):
                states.check(found.state, states.ABORTING)
            if found.state == states.COMMITTED:
                if not found.images:
                    raise images_gone(tx)
                self._refuse_second(but=tx)

    def _refuse_second(self, *, but: str = "") -> None:
        holder = self._open()
        if holder is not None and holder.id != but:
            raise Busy(
                f"Transaction {holder.id} ({holder.name!r}) of {holder.owner} is open on this host since {_when(holder.created_ns)},"
                f" state {holder.state}.",
                hint=f"Wait for it to end, or undo it with `acidctl rollback {holder.id}`.",
            )
        row = self._db.execute("SELECT id, name, owner, reason FROM tx WHERE state = ? ORDER BY token", (states.UNDO_FAILED,)).fetchone()
        if row is not None and row[0] != but:
            raise Blocked(
                f"The undo of transaction {row[0]} ({row[1]!r}) of {row[2]} has failed{': ' + row[3] if row[3] else ''}.",
                hint=f"See `acidctl show {row[0]}`; then `acidctl rollback {row[0]}` again,"
                f" or `acidctl resolve {row[0]}` to keep the host as it is.",
            )

    def get(self, tx: str) -> Transaction:
        """Raises WrongTransaction when there is none of that id."""
        with self._read() as db:
            row = db.execute(f"SELECT {rows.TX} FROM tx WHERE id = ?", (tx,)).fetchone()
            if row is None:
                raise WrongTransaction(f"The journal {self.path} knows no transaction {tx!r}.", hint="`acidctl list` names those it knows.")
            return rows.transaction(row)

    def open_transaction(self) -> Transaction | None:
        with self._read():
            return self._open()

    def _open(self) -> Transaction | None:
        marks = ",".join("?" * len(states.OPEN))
        row = self._db.execute(f"SELECT {rows.TX} FROM tx WHERE state IN ({marks}) ORDER BY token DESC", tuple(states.OPEN)).fetchone()
        return None if row is None else rows.transaction(row)

    def transactions(self) -> list[Transaction]:
        """Oldest first."""
        with self._read() as db:
            return [rows.transaction(row) for row in db.execute(f"SELECT {rows.TX} FROM tx ORDER BY token")]

    def set_state(self, tx: str, new: str, *, reason: str = "", on_disk: bool = True) -> Transaction:
        """Moves the transaction as `states` allows; a move to where it is already changes nothing. A reason replaces the last one.
        Without `on_disk` it survives every process, and not a power cut.

        Raises WrongState; Busy or Blocked when an ended transaction would open again beside another one.
        """
        with self._write(decision=on_disk) as db:
            old = self.get(tx)
            if not states.check(old.state, new):
                return old
            if old.state == states.COMMITTED and not old.images:
                raise images_gone(tx)
            if new in states.OPEN and old.state not in states.OPEN:
                self._refuse_second(but=tx)
            ended = None if new in states.OPEN else self._clock()
            values = (new, rows.storable(reason) or old.reason, ended, tx)
            db.execute("UPDATE tx SET state = ?, reason = ?, ended_ns = ? WHERE id = ?", values)
            return self.get(tx)

    def begin_rewind(self, tx: str, epoch: int) -> None:
        """REWINDING to the savepoint that stands before `epoch`, on the disk when it returns. One that is DOOMED stays that."""
        with self._write(decision=True) as db:
            if self.get(tx).state != states.DOOMED:
                self.set_state(tx, states.REWINDING)
            db.execute("UPDATE tx SET rewinding_to = ? WHERE id = ?", (epoch, tx))

    def set_deadline(self, tx: str, deadline: float | None) -> None:
        self._update(tx, "deadline = ?", deadline)

    def go_on(self, tx: str, *, boot_id: str, deadline: float | None) -> None:
        """After a planned reboot the transaction goes on in another boot (invariant I8). On the disk when it returns."""
        with self._write(decision=True) as db:
            self.get(tx)
            db.execute("UPDATE tx SET boot_id = ?, deadline = ? WHERE id = ?", (boot_id, deadline, tx))

    def drop_images(self, tx: str) -> None:
        """Retention has ended: no rollback is possible any more, and the probes' images are forgotten. Call before deleting files."""
        with self._write(decision=True) as db:
            state = self.get(tx).state
            if state in states.OPEN or state == states.UNDO_FAILED:
                raise WrongState(f"Transaction {tx} is {state}: its images are still needed.", hint="End it first.")
            db.execute("UPDATE tx SET images = 0 WHERE id = ?", (tx,))
            db.execute("DELETE FROM probe WHERE tx = ?", (tx,))
            db.execute("UPDATE compensation SET body = '', host = NULL, result = NULL WHERE tx = ?", (tx,))

    def set_summary(self, tx: str, summary: Summary) -> None:
        """Kept for `acidctl show` after the undo log is gone."""
        self._update(tx, "summary = ?", rows.dump(summary.to_json()))

    def summary(self, tx: str) -> Summary | None:
        with self._read() as db:
            row = db.execute("SELECT summary FROM tx WHERE id = ?", (tx,)).fetchone()
            return None if row is None or row[0] is None else Summary.from_json(rows.load(row[0]))

    def _update(self, tx: str, assignment: str, value: object) -> None:
        with self._write() as db:
            if db.execute(f"UPDATE tx SET {assignment} WHERE id = ?", (value, tx)).rowcount != 1:
                self.get(tx)


def images_gone(tx: str) -> WrongState:
    return WrongState(
        f"The images of transaction {tx} are gone: its retention has ended.", hint="acidctl list shows which can be rolled back."
    )


def _new_id(now_ns: int) -> str:
    return f"{time.strftime('%Y%m%d', time.gmtime(now_ns / 1e9))}-{os.urandom(4).hex()}"


def _when(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ns / 1e9))
