# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent: root, one per host. It serves the socket (requests.py), the listeners of steps (tracer.py), and the lease.

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

import contextlib
import errno
import os
import selectors
import signal
import socket
import stat
import sys
import threading
import time

from . import deadman, opening, ownership, protocol, recovery, retention, shutdown, states, systemd_notify
from .boot import boot_id
from .errors import AcidError
from .journal import Journal
from .paths import directory_of
from .requests import Requests
from .rollback import Manner, keep_reserve
from .situation import Situation
from .trace.notify import answer_orphans
from .tracer import LET_RUN, REFUSE, Slots, Tracer
from .transaction import OpenTransaction
from .units import AGENT_IDLE
from .work import Work

_IDLE_AFTER = 2.0
_OTHERS_END = 5.0


class Agent:
    def __init__(self) -> None:
        self._journal = recovery.open_journal()
        self._journal.verify()  # all of it (I7): SQLite notices damage only where it reads
        self._work = Work()
        self._situation = Situation(self._journal, self._work)
        self._requests = Requests(self._situation, self._work)
        self._selector = selectors.DefaultSelector()
        self._idle_since = time.monotonic()
        self._told_to_end = False
        self._expiring = False
        self._cleaned = False

    # -- life ------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if not self._is_only():
            return AGENT_IDLE
        server = self._listen()
        self._take_over()
        systemd_notify.notify("READY=1")
        self._selector.register(server, selectors.EVENT_READ, "client")
        self._selector.register(self._work.wake_fd, selectors.EVENT_READ, "wake")
        while True:
            for key, _events in self._selector.select(timeout=1.0):
                if key.data == "client":
                    client, _address = server.accept()
                    self._work.start(self._requests.serve, client)
                elif key.data == "wake":
                    self._work.woken()
                else:
                    self._selector.unregister(key.fd)
                    key.data(key.fd)
            if self._told_to_end:
                server.close()
                return self._shut_down()
            self._watch_mains()
            self._watch_lease()
            self._watch_handed()
            self._watch_door()
            if self._idle() and not self._cleaned:  # while it listens: it may take a minute
                self._cleaned = True
                self._work.start(self._clean_up, self._journal)
            elif self._idle():
                self._situation.door.tidy(None)
                server.close()
                ownership.release(os.path.dirname(protocol.PATH))  # another one may listen
                return AGENT_IDLE

    def _on_sigterm(self, _signum: int, _frame: object) -> None:
        self._told_to_end = True
        self._work.wake()

    def _shut_down(self) -> int:
        transaction, value = self._situation.open, self._journal.open_transaction()
        if transaction is not None:
            transaction.shut_down()
        elif (
            value is not None
            and value.state == states.ABORTING
            and (value.boot_id == boot_id() or shutdown.was_clean(directory_of(value.id), value.boot_id))
        ):
            os.sync()  # its processes are dead: all that has to be undone is on the disk now, with its images
            shutdown.mark(directory_of(value.id), value.boot_id)
        return 0

    @staticmethod
    def _is_only() -> bool:
        """Of those who listen on that socket: without systemd two can be started at a time. A while: of an agent that was killed just now a
        child may still have the lock, which is about to become another program."""
        folder, end = os.path.dirname(protocol.PATH), time.monotonic() + _OTHERS_END
        os.makedirs(folder, 0o700, exist_ok=True)
        while not ownership.take(folder, waits=False):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    @staticmethod
    def _listen() -> socket.socket:
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

    def _idle(self) -> bool:
        if self._situation.open is not None:
            self._cleaned = False
        if self._situation.open is not None or self._situation.left_behind or self._work.is_under_way() or self._situation.handed:
            self._idle_since = time.monotonic()
        if self._situation.door.is_awaited():
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > _IDLE_AFTER

    def _clean_up(self, journal: Journal) -> None:
        retention.gc(journal, goes_on=self._nobody_came)

    def _nobody_came(self) -> bool:
        """Who begins has the agent for himself, and it cleans up after him."""
        if self._situation.open is not None:
            self._cleaned = False
        return self._cleaned and not self._told_to_end

    def _watch_mains(self) -> None:
        transaction = self._situation.open
        if transaction is None:
            return
        registered = self._selector.get_map()
        for pidfd in list(transaction.processes.mains):
            if pidfd not in registered:
                self._selector.register(pidfd, selectors.EVENT_READ, transaction.main_ended)

    def _watch_lease(self) -> None:
        transaction = self._situation.open
        if transaction is not None and not self._expiring and transaction.lease.expired(step_runs=bool(transaction.processes.mains)):
            self._expiring = True
            self._work.start(self._expire, transaction)

    def _expire(self, transaction: OpenTransaction) -> None:
        try:
            with self._situation.control:  # a request that was under way may have been the controller's word
                if self._situation.open is transaction and transaction.lease.expired(step_runs=bool(transaction.processes.mains)):
                    waited = "no reboot within the planned time" if transaction.rebooting else "no word from the controller"
                    self._situation.end(transaction.id, Manner("the lease ran out: %s (%d seconds)" % (waited, transaction.lease.seconds)))
        finally:
            self._expiring = False

    def _watch_handed(self) -> None:
        handed = self._situation.handed
        if handed is not None and not self._work.is_under_way() and time.monotonic() > handed[1]:
            self._situation.handed = None
            self._work.start(self._situation.undo_again, handed[0])

    def _watch_door(self) -> None:
        asked = self._situation.door.asked()
        if asked is not None:
            self._work.start(self._situation.end_by_door, asked)

    # -- after a death of the agent --------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        self._situation.door.adopt()
        listeners = self._stored_listeners()
        value = recovery.owned_by_us(self._journal)
        running: set[int] = set()
        for name, (fd, slots) in listeners.items():
            tx, step = name.split("-", 1)[1].rsplit("-", 2)[:2]
            of_open = value is not None and value.id == tx
            running |= {int(step)} if of_open else set()
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
                ended=self._situation.tracer_ended,
            )
            self._situation.left_behind.append(tracer)
            tracer.start()
        if value is not None:
            goes_on = recovery.goes_on_with(self._journal, value, running)
            after = recovery.after_death(self._journal, value, step_was_running=goes_on)
            if after == recovery.RESUME:
                self._situation.open = opening.resume(self._journal, self._journal.get(value.id))
                self._work.start(self._situation.rewind_again, self._situation.open)
            elif after == recovery.UNDO and self._situation.patience(value.id):
                self._situation.wait_for_controller(value.id)
            elif after == recovery.UNDO:
                self._work.start(self._situation.undo_again, value)
            else:
                keep_reserve(self._journal)
            ownership.release(directory_of(value.id))  # who has it open, or undoes it, has taken it too
        else:
            retention.release_left_reserves(self._journal)
            keep_reserve(self._journal)
            if deadman.armed():  # by an agent that died at the transaction's end
                self._situation.disarm()

    @staticmethod
    def _stored_listeners() -> dict[str, tuple[int, Slots]]:
        found = {}
        for name, fds in systemd_notify.stored().items():
            memory = [fd for fd in fds if stat.S_ISREG(os.fstat(fd).st_mode)]
            others = [fd for fd in fds if fd not in memory]
            if name.startswith("acid-") and others:
                found[name] = (others[0], Slots(memory[0] if memory else -1))
        return found


def main() -> int:
    try:
        return Agent().run()
    except AcidError as error:
        sys.stderr.write("acid-agent: %s\n" % error)
        return error.exit_code
