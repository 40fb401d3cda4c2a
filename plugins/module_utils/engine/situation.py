# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the agent has in its care: the open transaction, what ended ones left running, an undo that waits for its controller, the timer.

Whoever opens or ends a transaction, or sets a savepoint, holds `control` all the while.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
import traceback
import typing as t

from . import compensations, deadman, formats, lease, ownership, states, systemd_notify
from .door import Asked, Door
from .errors import AcidError, NoTransaction, WrongState, WrongTransaction
from .journal import Journal
from .leftovers import kill_leftovers
from .model import Transaction
from .paths import directory_of
from .rollback import Manner, refuse, roll_back, roll_back_to
from .tracer import REFUSE, Tracer
from .transaction import OpenTransaction
from .work import Work


class Situation:
    def __init__(self, journal: Journal, work: Work) -> None:
        self.journal, self._work = journal, work
        self.open: OpenTransaction | None = None
        self.control = threading.RLock()
        self.left_behind: list[Tracer] = []
        self.handed: tuple[Transaction, float] | None = None  # an undo that waits for its controller, and until when (monotonic)
        self.door = Door()
        self._timer = threading.Lock()

    def current(self, tx: str) -> OpenTransaction:
        if self.open is None:
            raise NoTransaction(
                "No transaction is open on this host%s." % (", and %s has ended" % tx if tx else ""),
                hint="acidctl list shows what became of it.",
            )
        if tx and self.open.id != tx:
            raise WrongTransaction("The open transaction is %s, not %s." % (self.open.id, tx), hint="acidctl info tells whose it is.")
        return self.open

    def let_go(self, transaction: OpenTransaction) -> None:
        """It has ended, or is about to be undone: what lives on of it is traced all the same."""
        self.left_behind += transaction.processes.tracers
        self.open = None

    def tracer_ended(self, tracer: Tracer) -> None:
        systemd_notify.drop(tracer.name)
        os.close(tracer.fd)
        tracer.slots.close()
        transaction = self.open
        for tracers in ([] if transaction is None else [transaction.processes.tracers]) + [self.left_behind]:
            if tracer in tracers:
                tracers.remove(tracer)
        if transaction is not None and tracer.name.startswith("acid-%s-" % transaction.id):
            transaction.tracer_ended(tracer)
        self._work.wake()

    # -- ends ------------------------------------------------------------------------------------------------------------

    def end(self, tx: str, manner: Manner) -> dict[str, t.Any]:
        """Kill what the transaction left running, then roll it back; what refuses the undo refuses it before that."""
        try:
            with ownership.owned(directory_of(tx)):
                return self._end(tx, manner)
        except BaseException:
            self.look_after()
            raise

    def look_after(self) -> None:
        """What is open, and nobody has open, was to be undone and could not (a full disk): that is tried again."""
        with contextlib.suppress(AcidError):
            value = self.journal.open_transaction()
            if value is None or value.state == states.PREPARED or not formats.known(directory_of(value.id)):
                return
            if self.open is None and self.handed is None:
                again = dataclasses.replace(value, reason=value.reason or "it could not be undone before")
                self.handed = again, time.monotonic() + deadman.AGAIN

    def _end(self, tx: str, manner: Manner) -> dict[str, t.Any]:
        transaction = self.open
        if transaction is not None and transaction.id == tx:  # on a full disk its reserve goes first, before the journal is even read
            transaction.give_up(manner.reason)
            transaction.kill_processes()
            transaction.abandon()
            self.let_go(transaction)
        else:
            refuse(self.journal, tx)
        alive = [tracer for tracer in list(self.left_behind) if tracer.name.startswith("acid-%s-" % tx)]
        for tracer in alive:
            tracer.mode = REFUSE
        kill_leftovers(self.journal, tx)
        done = roll_back(self.journal, tx, manner._replace(killed=frozenset(tracer.step for tracer in alive)))
        self.wait_for_controller(tx)
        self.disarm()
        return done.to_json()

    def rewind_again(self, transaction: OpenTransaction) -> None:
        """An agent died in an undo to a savepoint. A compensation that is due on the way is its controller's to run: it asks again, or the
        lease ends the transaction."""
        with self.control:
            epoch = transaction.rewinding_to
            if self.open is not transaction or epoch is None or compensations.due(self.journal, transaction.id, epoch):
                return
            point = next(point for point in self.journal.savepoints(transaction.id) if point.epoch == epoch)
            roll_back_to(transaction, point, Manner("the agent died in an undo to a savepoint"))

    def undo_again(self, value: Transaction) -> None:
        with self.control:
            self.end(value.id, Manner(value.reason or "the agent died while a step was running"))

    def end_by_door(self, asked: Asked) -> None:
        """The controller's word when it can run nothing here. What only a controller can compensate stays owed."""
        with self.control:
            try:
                value = self.journal.get(asked.tx)
                if value.state in (states.COMMITTED, states.PREPARED, states.RESOLVED):
                    raise WrongState("Transaction %s is %s: only an open one is rolled back so." % (value.id, value.state))
                if self.open is not None and self.open.id == asked.tx:
                    self.open.check(asked.token)
                self.door.tell(asked.tx, {"tx": asked.tx, "state": states.ABORTING})
                answer = self.end(asked.tx, Manner("asked for, by a controller that can run nothing on this host"))
            except AcidError as error:
                answer = {"error": error.to_json()}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": AcidError("The agent failed: %r" % error, hint="See journalctl -u acid-agent.").to_json()}
            self.door.tell(asked.tx, answer)

    def patience(self, tx: str) -> float:
        """Seconds for which somebody may go on running a compensation."""
        return max(0.0, (compensations.claimed_until(self.journal, tx) - time.time_ns()) / 1e9)

    def wait_for_controller(self, tx: str) -> None:
        """An undo that stopped for a controller is gone on with, without it, when it keeps silent beyond its claim and its lease."""
        value = self.journal.get(tx)
        self.handed = None
        if value.state == states.ABORTING:
            self.handed = value, time.monotonic() + self.patience(tx) + (lease.timeout(value.options) or lease.DEFAULT)

    # -- the timer behind the agent --------------------------------------------------------------------------------------

    def arm(self, seconds: float) -> None:
        """In the background: it costs PID 1 some time."""
        self._work.start(lambda _none: self._set_timer(lambda: deadman.arm(seconds + deadman.GRACE)), None)

    def disarm(self) -> None:
        self._work.start(lambda _none: self._set_timer(self._disarm), None)

    def _disarm(self) -> None:
        if self.journal.open_transaction() is None:  # else it is the next one's timer
            deadman.disarm()

    def _set_timer(self, way: t.Callable[[], object]) -> None:
        with self._timer:
            way()
