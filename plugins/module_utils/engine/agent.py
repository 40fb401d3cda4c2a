# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent: root, one per host. It serves the socket (protocol.py), the listeners of steps (tracer.py), and the lease.

Told to end (SIGTERM: the host shuts down, or a person stops it) with a transaction open, it lets nothing more happen and puts all that did
onto the disk (shutdown.py). Behind it stands a timer (deadman.py).

It is started by begin and ends (exit code AGENT_IDLE) when no transaction is open and no process with one of its filters lives.
If it dies, systemd starts it again with the listeners that it had put into the descriptor store:
- a step was running: the calls under way are answered EIO and the transaction is doomed (recovery.after_death);
- an undo was running: it is run again;
- only processes left behind by a committed transaction were served: they go on being let run.
All modules are imported at start: a step may replace Python itself.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import stat
import struct
import sys
import threading
import time
import traceback
import typing as t

from . import compensations, deadman, lease, opening, protocol, recovery, retention, shutdown, states, systemd_notify
from .drift.verdict import POLICIES
from .errors import AcidError, NoTransaction, Usage, WrongTransaction
from .leftovers import kill_leftovers
from .model import Step, Transaction
from .paths import directory_of
from .rollback import Manner, keep_reserve, roll_back, roll_back_to
from .shutdown import boot_id
from .trace import filter as trace_filter
from .trace.notify import answer_orphans
from .tracer import LET_RUN, REFUSE, Slots, Tracer
from .transaction import OpenTransaction
from .units import AGENT_IDLE

_IDLE_AFTER = 2.0
_CREDENTIALS = struct.Struct("iII")


class _Busy:
    """How many pieces of work are under way."""

    def __init__(self) -> None:
        self.count, self._lock = 0, threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self.count -= 1


class Agent:
    def __init__(self) -> None:
        self._journal = recovery.open_journal()
        self._journal.verify()  # all of it (I7): SQLite notices damage only where it reads
        self._program = trace_filter.build(os.uname().machine).code
        self._open: OpenTransaction | None = None
        self._control = threading.RLock()  # one begin, end or savepoint at a time
        self._left_behind: list[Tracer] = []
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._busy = _Busy()
        self._idle_since = time.monotonic()
        self._timer = threading.Lock()
        self._told_to_end = False
        self._expiring = False
        self._handed: tuple[Transaction, float] | None = None  # an undo that waits for its controller, and until when (monotonic)

    # -- life ------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        server = self._listen()
        self._take_over()
        systemd_notify.notify("READY=1")
        self._selector.register(server, selectors.EVENT_READ, "client")
        self._selector.register(self._wake_read, selectors.EVENT_READ, "wake")
        while True:
            for key, _events in self._selector.select(timeout=1.0):
                if key.data == "client":
                    client, _address = server.accept()
                    self._start(self._serve, client)
                elif key.data == "wake":
                    os.read(self._wake_read, 4096)
                else:
                    self._selector.unregister(key.fd)
                    key.data(key.fd)
            if self._told_to_end:
                server.close()
                return self._shut_down()
            self._watch_mains()
            self._watch_lease()
            self._watch_handed()
            if self._idle():
                server.close()
                retention.gc(self._journal)
                return AGENT_IDLE

    def _on_sigterm(self, _signum: int, _frame: object) -> None:
        self._told_to_end = True
        self._wake()

    def _shut_down(self) -> int:
        transaction, value = self._open, self._journal.open_transaction()
        if transaction is not None:
            transaction.shut_down()
        elif value is not None and value.state == states.ABORTING and value.boot_id == boot_id():
            os.sync()  # its processes are dead: all that has to be undone is on the disk now, with its images
            shutdown.mark(directory_of(value.id), value.boot_id)
        return 0

    @staticmethod
    def _listen() -> socket.socket:
        os.makedirs(os.path.dirname(protocol.PATH), 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(protocol.PATH)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        umask = os.umask(0o177)
        try:
            server.bind(protocol.PATH)
        finally:
            os.umask(umask)
        server.listen(64)
        return server

    def _start(self, work: t.Callable[[t.Any], None], argument: t.Any) -> None:
        """Do it in a thread; while it is under way the agent is not idle."""

        def body() -> None:
            with self._busy:
                try:
                    work(argument)
                except Exception:
                    traceback.print_exc()
            self._wake()

        threading.Thread(target=body, daemon=True).start()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _idle(self) -> bool:
        if self._open is not None or self._left_behind or self._busy.count or self._handed:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > _IDLE_AFTER

    def _watch_mains(self) -> None:
        transaction = self._open
        if transaction is None:
            return
        registered = self._selector.get_map()
        for pidfd in list(transaction.processes.mains):
            if pidfd not in registered:
                self._selector.register(pidfd, selectors.EVENT_READ, transaction.main_ended)

    def _watch_lease(self) -> None:
        transaction = self._open
        if transaction is not None and not self._expiring and transaction.lease.expired(step_runs=bool(transaction.processes.mains)):
            self._expiring = True
            self._start(self._expire, transaction)

    def _expire(self, transaction: OpenTransaction) -> None:
        try:
            with self._control:  # a request that was under way may have been the controller's word
                if self._open is transaction and transaction.lease.expired(step_runs=bool(transaction.processes.mains)):
                    waited = "no reboot within the planned time" if transaction.rebooting else "no word from the controller"
                    self._end(transaction.id, Manner("the lease ran out: %s (%d seconds)" % (waited, transaction.lease.seconds)))
        finally:
            self._expiring = False

    # -- after a death of the agent --------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        listeners = self._stored_listeners()
        value = self._journal.open_transaction()
        running = False
        for name, (fd, slots) in listeners.items():
            tx, step = name.split("-", 1)[1].rsplit("-", 2)[:2]
            of_open = value is not None and value.id == tx
            running |= of_open
            answer_orphans(fd, slots.ids(), errno.EIO)
            tracer = Tracer(
                name=name,
                fd=fd,
                slots=slots,
                lock=threading.Lock(),
                capture=None,
                step=int(step),
                mode=REFUSE if of_open else LET_RUN,
                failed=lambda step, reason: None,
                denied=lambda step, reason: None,
                ended=self._tracer_ended,
            )
            self._left_behind.append(tracer)
            tracer.start()
        if value is not None:
            after = recovery.after_death(self._journal, value, step_was_running=running)
            if after == recovery.RESUME:
                self._open = opening.resume(self._journal, self._journal.get(value.id))
            elif after == recovery.UNDO and self._patience(value.id):
                self._wait_for_controller(value.id)
            elif after == recovery.UNDO:
                self._start(self._undo_again, value)
            else:
                keep_reserve(self._journal)
        else:
            retention.release_left_reserves(self._journal)
            keep_reserve(self._journal)

    def _undo_again(self, value: Transaction) -> None:
        with self._control:
            self._end(value.id, Manner(value.reason or "the agent died while a step was running"))

    @staticmethod
    def _stored_listeners() -> dict[str, tuple[int, Slots]]:
        found = {}
        for name, fds in systemd_notify.stored().items():
            memory = [fd for fd in fds if stat.S_ISREG(os.fstat(fd).st_mode)]
            others = [fd for fd in fds if fd not in memory]
            if name.startswith("acid-") and others:
                found[name] = (others[0], Slots(memory[0] if memory else -1))
        return found

    def _tracer_ended(self, tracer: Tracer) -> None:
        systemd_notify.drop(tracer.name)
        os.close(tracer.fd)
        transaction = self._open
        for tracers in ([] if transaction is None else [transaction.processes.tracers]) + [self._left_behind]:
            if tracer in tracers:
                tracers.remove(tracer)
        if transaction is not None and tracer.name.startswith("acid-%s-" % transaction.id):
            transaction.tracer_ended(tracer)
        self._wake()

    # -- requests --------------------------------------------------------------------------------------------------------

    def _serve(self, client: socket.socket) -> None:
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
        body = b""
        while len(body) < int(first):
            body += client.recv(protocol.LARGEST)
        request = json.loads(body)
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
            transaction = self._current(request["tx"])
            transaction.check(int(request["token"]))
            step: Step = transaction.start_step(json.loads(base64.b64decode(request["step"])), process)
        except AcidError as error:
            client.send(b"E" + ("%s: %s" % (error.kind, error)).encode()[:4096])
            return
        client.send(b"F" + self._program)
        kind, fd = protocol.receive_descriptor(client)
        if kind != b"L" or fd < 0:
            return
        tracer = transaction.attach(step, process, fd, self._tracer_ended)
        systemd_notify.store(tracer.name, [fd, tracer.slots.fd])
        client.send(b"K")
        self._wake()

    def _current(self, tx: str) -> OpenTransaction:
        if self._open is None:
            raise NoTransaction(
                "No transaction is open on this host%s." % (", and %s has ended" % tx if tx else ""),
                hint="acidctl list shows what became of it.",
            )
        if tx and self._open.id != tx:
            raise WrongTransaction("The open transaction is %s, not %s." % (self._open.id, tx), hint="acidctl info tells whose it is.")
        return self._open

    def _answer(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        op = request.get("op")
        if op == "ping":  # also while an undo is under way
            return {"pid": os.getpid(), "left_behind": len(self._left_behind)}
        with self._control:
            try:
                return self._answer_one(str(op), request)
            finally:
                if self._open is not None and self._open.id == request.get("tx"):  # what took long was done for its controller
                    self._open.lease.renew()

    def _answer_one(self, op: str, request: dict[str, t.Any]) -> dict[str, t.Any]:
        if op == "begin":
            return self._begin(request)
        if op == "rollback":
            return self._rollback(request)
        if op == "compensated":
            return self._compensated(request)
        transaction = self._current(str(request.get("tx", "")))
        transaction.check(int(request.get("token", transaction.token)))
        if op == "commit":
            transaction.processes.wait_for_mains()
            done = transaction.commit([str(step) for step in request.get("steps", [])])
            self._left_behind += transaction.processes.tracers
            self._open = None
            self._disarm()
            return done.to_json()
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
            self._arm(left)
        return {"tx": transaction.id, "state": self._journal.get(transaction.id).state, "left": left}

    def _arm(self, seconds: float) -> None:
        """In the background: it costs PID 1 some time."""
        self._start(lambda _none: self._set_timer(lambda: deadman.arm(seconds + deadman.GRACE)), None)

    def _disarm(self) -> None:
        if self._journal.open_transaction() is None:
            self._start(lambda _none: self._set_timer(deadman.disarm), None)

    def _set_timer(self, way: t.Callable[[], object]) -> None:
        with self._timer:
            way()

    def _begin(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        start = time.monotonic()
        transaction = opening.begin(
            self._journal,
            name=str(request.get("name", "")),
            owner=str(request.get("owner", "")),
            options=dict(request.get("options") or {}),
        )
        self._open = transaction
        left = transaction.lease.left()
        if left is not None:
            self._arm(left)
        value = self._journal.get(transaction.id)
        return {
            "tx": value.id,
            "token": value.token,
            "state": value.state,
            "engine": value.engine,
            "seconds": round(time.monotonic() - start, 3),
        }

    def _rollback(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        tx = str(request.get("tx") or "") or (self._open.id if self._open is not None else "")
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
        if self._open is not None and self._open.id == tx:
            if "token" in request:
                self._open.check(int(request["token"]))
            if request.get("to"):
                return self._rollback_to(self._open, str(request["to"]), manner)
        return self._end(tx, manner)

    def _rollback_to(self, transaction: OpenTransaction, name: str, manner: Manner) -> dict[str, t.Any]:
        points = [point for point in self._journal.savepoints(transaction.id) if point.name == name]
        if not points:
            known = ", ".join(point.name for point in self._journal.savepoints(transaction.id)) or "none"
            raise Usage("Transaction %s has no savepoint %r." % (transaction.id, name), hint="It has: %s." % known)
        transaction.processes.wait_for_mains()
        done = roll_back_to(transaction, points[-1], manner)
        transaction.lease.renew(seconds=self._patience(transaction.id) + transaction.lease.seconds)
        return done.to_json()

    def _end(self, tx: str, manner: Manner) -> dict[str, t.Any]:
        """Kill what the transaction left running, then roll it back."""
        transaction = self._open
        if transaction is not None and transaction.id == tx:
            transaction.kill_processes()
            transaction.release_reserves()
            transaction.seal()
            transaction.close()
            self._left_behind += transaction.processes.tracers
            self._open = None
        alive = [tracer for tracer in self._left_behind if tracer.name.startswith("acid-%s-" % tx)]
        for tracer in alive:
            tracer.mode = REFUSE
        kill_leftovers(self._journal, tx)
        done = roll_back(self._journal, tx, manner._replace(killed=frozenset(tracer.step for tracer in alive)))
        self._wait_for_controller(tx)
        self._disarm()
        return done.to_json()

    # -- an undo that a controller has a part in -------------------------------------------------------------------------

    def _compensated(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        tx = str(request["tx"])
        answer = compensations.report(
            self._journal, tx, str(request["id"]), claim=str(request.get("claim", "")), problem=str(request.get("problem", ""))
        )
        if self._open is not None and self._open.id == tx:
            self._open.lease.renew()
        self._wait_for_controller(tx)
        return {"tx": tx, **answer}

    def _patience(self, tx: str) -> float:
        """Seconds for which somebody may go on running a compensation."""
        return max(0.0, (compensations.claimed_until(self._journal, tx) - time.time_ns()) / 1e9)

    def _wait_for_controller(self, tx: str) -> None:
        """An undo that stopped for a controller is gone on with, without it, when it keeps silent beyond its claim and its lease."""
        value = self._journal.get(tx)
        self._handed = None
        if value.state == states.ABORTING:
            self._handed = value, time.monotonic() + self._patience(tx) + (lease.timeout(value.options) or lease.DEFAULT)

    def _watch_handed(self) -> None:
        handed = self._handed
        if handed is not None and not self._busy.count and time.monotonic() > handed[1]:
            self._handed = None
            self._start(self._undo_again, handed[0])


def main() -> int:
    try:
        return Agent().run()
    except AcidError as error:
        sys.stderr.write("acid-agent: %s\n" % error)
        return error.exit_code
