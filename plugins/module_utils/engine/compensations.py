# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compensations: which is next in an undo, who runs it, and what becomes of it (docs/compensation.md, states in states.py).

An undo comes to a compensation when all that came after its step is undone, and asks a payer:

    Host         nobody else is there: runs host commands itself, with retries; all others become OWED, and the undo goes on
    Controller   hands it out with a claim, and the undo stops; the controller says how it went (`report`), and asks for the undo again

Every decision is a row before it is acted on, so an undo that starts again finds the same place (I2). A claim is on the disk before
anybody runs the compensation, its success before the undo goes on: it runs again only when its runner died, or kept silent beyond the
claim.
"""

from __future__ import annotations

import glob
import os
import time
import typing as t

from . import states
from .commands import run
from .journal import Journal
from .model import Compensation

ATTEMPTS = 4
BACKOFF = (1.0, 2.0, 4.0)  # seconds after the first, the second, ... attempt that failed

Answer = dict[str, t.Any]


def due(journal: Journal, tx: str, epoch: int) -> list[Compensation]:
    """Those of the steps since `epoch` that have not been paid, newest first."""
    return [found for found in reversed(journal.compensations(tx)) if found.epoch >= epoch and found.state != states.PAID]


def boundary(journal: Journal, tx: str, compensation: Compensation) -> int:
    """The first epoch after its step: it finds the host as its step left it. A step that was never seen to end may have changed anything
    up to the next one."""
    if compensation.end_epoch is not None:
        return compensation.end_epoch
    own = {step.epoch for step in journal.steps(tx) if step.id == compensation.step}
    starts = [step.epoch for step in journal.steps(tx)] + [point.epoch for point in journal.savepoints(tx)]
    starts += [other.epoch for other in journal.compensations(tx)]
    last = journal.get(tx).epoch
    return min((start for start in starts if start > compensation.epoch and start not in own), default=last + 1)


class Payer(t.Protocol):
    def pay(self, journal: Journal, tx: str, compensation: Compensation) -> Answer | None:
        """None: the undo goes on, whatever became of it. Else it stops here, and this is for whoever asked for the undo."""


class Host:
    """`at_boot`: nothing but the root file system is there yet, so nothing is run."""

    def __init__(self, *, at_boot: bool = False) -> None:
        self._at_boot = at_boot

    def pay(self, journal: Journal, tx: str, compensation: Compensation) -> Answer | None:
        if _claimed(compensation):
            return None  # its controller is at it, and will say how it went
        if compensation.host is None or self._at_boot:
            if compensation.state != states.FAILED:
                journal.settle_compensation(tx, compensation.id, states.OWED, reason=compensation.reason)
            return None
        for attempt in range(1, ATTEMPTS + 1):
            until = time.time_ns() + (compensation.seconds + 60) * 10**9
            journal.claim_compensation(tx, compensation.id, by="the host", attempts=attempt, until_ns=until)
            problem = _run(compensation)
            if not problem:
                journal.settle_compensation(tx, compensation.id, states.PAID)
                return None
            if attempt < ATTEMPTS:
                journal.settle_compensation(tx, compensation.id, states.RUNNING_NOW, reason=problem)
                time.sleep(BACKOFF[attempt - 1])
        journal.settle_compensation(tx, compensation.id, states.FAILED, reason=problem)
        return None


class Controller:
    """`session` names one run of the controller's loop: what has failed for good in it is not tried again in it."""

    def __init__(self, session: str) -> None:
        self._session = session

    def pay(self, journal: Journal, tx: str, compensation: Compensation) -> Answer | None:
        same = compensation.claimed_by == self._session
        if _claimed(compensation) and not same:
            left = (compensation.claim_until_ns - time.time_ns()) / 1e9
            return {"busy": {"name": compensation.name, "seconds": round(left, 1)}}
        if compensation.state == states.FAILED and same:
            return None
        going_on = compensation.state == states.RUNNING_NOW and same
        until = time.time_ns() + (compensation.seconds + 10) * 10**9
        claimed = journal.claim_compensation(
            tx, compensation.id, by=self._session, attempts=compensation.attempts + 1 if going_on else 1, until_ns=until
        )
        keys = ("id", "name", "step", "body", "result", "attempts", "claim", "seconds")
        return {"compensate": {key: getattr(claimed, key) for key in keys}}


def report(journal: Journal, tx: str, id: str, *, claim: str, problem: str) -> Answer:
    """What a controller says of the one it was handed. {"state", "wait"}: seconds to wait before the undo is asked for again.

    A success counts even when the claim has passed to somebody else meanwhile; a failure does not then."""
    found = next((one for one in journal.compensations(tx) if one.id == id), None)
    if found is not None and found.state != states.PAID:
        if not problem:
            return {"state": journal.settle_compensation(tx, id, states.PAID).state, "wait": 0}
        if found.claim == claim:
            last = found.attempts >= ATTEMPTS
            journal.settle_compensation(tx, id, states.FAILED if last else states.RUNNING_NOW, reason=problem)
            return {"state": states.FAILED if last else states.RUNNING_NOW, "wait": 0 if last else BACKOFF[found.attempts - 1]}
    return {"state": found.state if found is not None else "", "wait": 0}


def claimed_until(journal: Journal, tx: str) -> int:
    """CLOCK_REALTIME in ns until which somebody may be running a compensation of the transaction; 0: nobody is."""
    return max((found.claim_until_ns for found in journal.compensations(tx) if _claimed(found)), default=0)


def sentences(journal: Journal, tx: str, *, epoch: int = 0) -> list[str]:
    """What an undo has to say of those that are not paid."""
    return [_sentence(found) for found in reversed(due(journal, tx, epoch))]


def _sentence(found: Compensation) -> str:
    if found.state == states.FAILED:
        return "compensation '%s' failed %d times: %s" % (found.name, found.attempts, found.reason)
    if _claimed(found):
        return "compensation '%s' is being run by its controller, which has not said yet how it went" % found.name
    return "compensation '%s' is owed%s: run the playbook acid.host.recover" % (found.name, " (%s)" % found.reason if found.reason else "")


def _claimed(compensation: Compensation) -> bool:
    # The host's own claims end with its process: nobody but the one undo at a time makes them (rollback.roll_back's lock).
    return bool(compensation.claim) and compensation.claimed_by != "the host" and compensation.claim_until_ns > time.time_ns()


def _run(compensation: Compensation) -> str:
    """Why it did not work; empty: it did."""
    for command in compensation.host or ():
        creates, removes = command.get("creates"), command.get("removes")
        if (creates and glob.glob(creates)) or (removes and not glob.glob(removes)):
            continue
        folder = command.get("chdir") or "/"
        if not os.path.isdir(folder):
            return "there is no directory %s" % folder
        done = run(command["argv"], timeout=compensation.seconds, input=command.get("stdin"), folder=folder, as_user=True)
        if not done.ok:
            return "%s: %s" % (command["argv"][0] if len(command["argv"]) == 1 else command["argv"][-1][:200], done.complaint)
    return ""
