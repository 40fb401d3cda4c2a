# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of the agent over its socket (protocol.py): the beginning of a step by the shim, everything else by acidctl."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import sys
import time
import traceback
import typing as t

from . import compensations, lease, opening, protocol, states, systemd_notify
from .drift.verdict import POLICIES
from .errors import AcidError, NoTransaction, Usage
from .model import Step
from .rollback import Manner, roll_back_to
from .situation import Situation
from .trace import filter as trace_filter
from .transaction import OpenTransaction
from .work import Work

_CREDENTIALS = struct.Struct("iII")


class Requests:
    """Answers them, each in a thread of its own."""

    def __init__(self, situation: Situation, work: Work) -> None:
        self._situation, self._work, self._journal = situation, work, situation.journal
        self._program = trace_filter.build(os.uname().machine).code

    def serve(self, client: socket.socket) -> None:
        try:
            process, uid, _gid = _CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if uid == 0:
                self._conversation(client, process)
        except (ConnectionError, BrokenPipeError):
            pass
        finally:
            client.close()

    def _conversation(self, client: socket.socket, process: int) -> None:
        first = client.recv(protocol.LARGEST)
        if not first:  # somebody who only looked whether there is an agent
            return
        if first.startswith(b'{"op":"step"'):
            self._step(client, process, json.loads(first))
            return
        request = protocol.receive_rest(client, first)
        try:
            answer = self._answer(request)
        except AcidError as error:
            answer = {"error": error.to_json(), "code": error.exit_code}
        except Exception as error:
            traceback.print_exc()
            answer = {
                "error": AcidError("The agent failed: %r" % error, hint="See journalctl -u acid-agent.").to_json(),
                "code": AcidError.exit_code,
            }
        protocol.send(client, answer)

    def _step(self, client: socket.socket, process: int, request: dict[str, t.Any]) -> None:
        try:
            transaction = self._situation.current(request["tx"])
            transaction.check(int(request["token"]))
            step: Step = transaction.start_step(json.loads(base64.b64decode(request["step"])), process)
        except AcidError as error:
            client.send(_refusal(error))
            return
        client.send(b"F" + self._program)
        kind, fd = protocol.receive_descriptor(client)
        if kind != b"L" or fd < 0:
            if fd >= 0:
                os.close(fd)
            return
        try:
            transaction.attach(step, process, fd, self._situation.tracer_ended, kept=systemd_notify.store)
        except (AcidError, OSError) as error:
            os.close(fd)
            client.send(_refusal(error))
            return
        client.send(b"K")
        self._work.wake()

    def _answer(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        op = request.get("op")
        if op == "ping":  # also while an undo is under way
            return {"pid": os.getpid(), "left_behind": len(self._situation.left_behind)}
        with self._situation.control:
            try:
                return self._answer_one(str(op), request)
            finally:
                now = self._situation.open
                if now is not None and now.id == request.get("tx"):  # what took long was done for its controller
                    now.lease.renew()

    def _answer_one(self, op: str, request: dict[str, t.Any]) -> dict[str, t.Any]:
        if op == "begin":
            return self._begin(request)
        if op == "rollback":
            return self._rollback(request)
        if op == "compensated":
            return self._compensated(request)
        transaction = self._situation.current(str(request.get("tx", "")))
        transaction.check(int(request.get("token", transaction.token)))
        if op == "commit":
            transaction.processes.wait_for_mains()
            done = transaction.commit([str(step) for step in request.get("steps", [])])
            self._situation.let_go(transaction)
            self._situation.disarm()
            return done.to_json()
        if op == "armed":
            transaction.refuse_unseen([str(step) for step in request["steps"]])
            return {"tx": transaction.id}
        if op == "savepoint":
            transaction.processes.wait_for_mains()
            point = transaction.savepoint(str(request["name"]))
            return {"savepoint": point.name, "epoch": point.epoch}
        if op == "compensate":
            transaction.processes.wait_for_mains()
            known = "result" in request
            return {"tx": transaction.id, "epoch": (transaction.end_compensated if known else transaction.compensate)(request)}
        if op == "doom":
            transaction.doom(str(request.get("reason", "the controller asked for it")))
            return {"tx": transaction.id, "state": states.DOOMED}
        if op == "denied":
            if request.get("seal"):  # a rehearsal looks at the last step, too
                transaction.processes.wait_for_mains()
                transaction.seal()
            return {"tx": transaction.id, "denied": transaction.ask_denied(), "doomed": transaction.doomed}
        if op == "reboot":
            transaction.processes.wait_for_mains()
            transaction.wait_for_reboot(float(request.get("seconds", lease.DEFAULT)))
            return {"tx": transaction.id, "state": states.WAITING_REBOOT}
        if op == "rebooted":
            transaction.rebooted()
            return {"tx": transaction.id, "state": states.ACTIVE}
        if op == "confirm":
            return self._confirm(transaction, request)
        raise Usage("The agent knows no request %r." % op, hint="Is the engine on the host the one of this collection?")

    def _confirm(self, transaction: OpenTransaction, request: dict[str, t.Any]) -> dict[str, t.Any]:
        ticked = transaction.lease.left() is not None
        if request.get("cancel"):
            transaction.lease.cancel()
        else:
            transaction.lease.renew(seconds=float(request.get("extend", 0.0)), asked=not request.get("beat"))
        left = transaction.lease.left()
        if left is not None and not ticked:
            self._situation.arm(left)
        return {"tx": transaction.id, "state": self._journal.get(transaction.id).state, "left": left}

    def _begin(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        start = time.monotonic()
        try:
            transaction = opening.begin(
                self._journal,
                name=str(request.get("name", "")),
                owner=str(request.get("owner", "")),
                options=dict(request.get("options") or {}),
            )
        except BaseException:
            self._situation.look_after()  # a row that could not be taken back
            raise
        self._situation.open = transaction
        left = transaction.lease.left()
        if left is not None:
            self._situation.arm(left)
        value = self._journal.get(transaction.id)
        self._situation.door.tidy(None)
        door: dict[str, str] = {}
        try:
            door = self._situation.door.open(value.id, value.token, int(request.get("uid", 0)))
        except OSError as error:
            sys.stderr.write("acid-agent: there is no door for %s: %s\n" % (value.id, error))
        return {
            "tx": value.id,
            "door": door,
            "token": value.token,
            "state": value.state,
            "engine": value.engine,
            "seconds": round(time.monotonic() - start, 3),
        }

    def _rollback(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        now = self._situation.open
        tx = str(request.get("tx") or "") or (now.id if now is not None else "")
        if not tx:
            raise NoTransaction(
                "No transaction is open on this host.", hint="acidctl list shows committed ones, which can be rolled back by their id."
            )
        manner = Manner(
            str(request.get("reason", "asked for")),
            payer=compensations.Controller(str(request["session"])) if request.get("session") else compensations.Host(),
            on_drift=str(request.get("on_drift", "")),
        )
        if manner.on_drift and manner.on_drift not in POLICIES:
            raise Usage("There is no policy on_drift: %s." % manner.on_drift, hint="There are %s." % ", ".join(POLICIES))
        if now is not None and now.id == tx and "token" in request:
            now.check(int(request["token"]))
        if request.get("to"):
            return self._rollback_to(self._situation.current(tx), str(request["to"]), manner)
        return self._situation.end(tx, manner)

    def _rollback_to(self, transaction: OpenTransaction, name: str, manner: Manner) -> dict[str, t.Any]:
        points = [point for point in self._journal.savepoints(transaction.id) if point.name == name]
        if not points:
            known = ", ".join(point.name for point in self._journal.savepoints(transaction.id)) or "none"
            raise Usage("Transaction %s has no savepoint %r." % (transaction.id, name), hint="It has: %s." % known)
        transaction.processes.wait_for_mains()
        done = roll_back_to(transaction, points[-1], manner)
        transaction.lease.renew(seconds=self._situation.patience(transaction.id) + transaction.lease.seconds)
        return done.to_json()

    def _compensated(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        tx = str(request["tx"])
        answer = compensations.report(
            self._journal, tx, str(request["id"]), claim=str(request.get("claim", "")), problem=str(request.get("problem", ""))
        )
        now = self._situation.open
        if now is not None and now.id == tx:
            now.lease.renew()
        self._situation.wait_for_controller(tx)
        return {"tx": tx, **answer}


def _refusal(error: AcidError | OSError) -> bytes:
    """For the shim, which says it and ends."""
    kind = error.kind if isinstance(error, AcidError) else AcidError.kind
    return b"E" + ("%s: %s" % (kind, error)).encode(errors="backslashreplace")[:4096]
