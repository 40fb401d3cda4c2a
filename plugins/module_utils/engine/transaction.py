# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An open transaction in the agent: its steps, epochs, tracers and probes, up to its end.

    tx = opening.begin(journal, ...);  tx.start_step(...);  tx.attach(...);  tx.savepoint(...);  tx.commit(...)

Order of writes at commit (I3), while every call of what steps left running waits: the log's HEAD, durable; syncfs of each file system
touched; then the one row that says COMMITTED; then they are let run. If the agent dies before that row, all is undoable; after it, only
clean-up is left.

What may run is decided by the state that the journal has (states.py), of which `_state` is a copy: a row is written before the act. Two
things are known in memory alone, and may be lost in a death: `doomed` where the journal cannot be written (doommark.py tells the next
agent), and `_over`, which only keeps steps out between the row that says DOOMED and the undo, and when the agent is told to end.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import typing as t

from . import doommark, kernel, net, ownership, reserve, shutdown, states
from .afterdigest import AfterDigest, now_ns
from .boot import boot_id
from .errors import AcidError, Doomed, JournalUnwritable, StaleToken, StoreFull, WrongState
from .filesystems import TRACED
from .journal import Journal
from .lease import Lease
from .model import SURVIVOR, Savepoint, Step, Summary, Transaction
from .observations import Observations
from .paths import STATE, directory_of
from .probes.registry import Probes
from .processes import Processes
from .report import summary
from .store import Store
from .trace.capture import Capture
from .trace.images import Images
from .trace.resolve import is_elsewhere
from .tracer import CAPTURE, LET_RUN, REFUSE, Slots, Tracer
from .undolog import Writer
from .wanted import read
from .watch import Watch


class OpenTransaction:
    """The transaction that the host is in. All methods may be called from any thread."""

    def __init__(
        self, journal: Journal, value: Transaction, log: Writer, store: Store, *, next_directory: int, holds_reserve: bool = True
    ) -> None:
        self.journal, self.id, self.token, self.store, self.log = journal, value.id, value.token, store, log
        self.options = value.options
        ownership.take(directory_of(value.id))  # whoever opens it has it already; until close()
        self.lock = threading.Lock()
        self._observations = Observations()
        self._images = Images(
            store,
            log,
            outside=[os.fsencode(path) for path in value.options.get("exclude", [])],
            next_directory=next_directory,
            observe=self._observations.add,
            deny=value.options.get("irreversible") == "deny",
        )
        self.capture = Capture(self._images)
        self._digest = AfterDigest(self._images, log)
        #: step -> when the last of its processes ended, as far as known
        self._ended: dict[int, int] = {}
        self._digested = 0  # the running step, when what it left is noted and none of its processes lives
        self._closed = False
        self.step: Step | None = None
        self.processes = Processes()
        self._mode = CAPTURE  # of a tracer that comes
        self._state = value.state
        self._over = False
        #: the epoch of the savepoint to which it is being undone
        self.rewinding_to = value.rewinding_to
        self.lease = Lease(journal, value)
        self.doomed = ""
        self._holds_reserve = holds_reserve
        self.watch = Watch(directory_of(value.id), value.options.get("probes"), self._observations.acts)

    def capture_probes(self, epoch: int) -> None:
        probes = Probes(self.options.get("probes"))
        images = {probe.name: probe.capture() for probe in probes.before_files() if not probe.check()}
        if not epoch:
            self.watch.first(images)
        self.journal.set_probes(self.id, epoch, images, on_disk=self.store.durable)

    # -- steps -----------------------------------------------------------------------------------------------------------

    def check(self, token: int) -> None:
        """Of who speaks for it (I6). While it is open no newer token is handed out, so its own is the newest."""
        if token != self.token:
            raise StaleToken(
                "Token %d is not the one of transaction %s." % (token, self.id),
                hint="Another controller has taken the host over: this one must stop.",
            )
        self.lease.renew()

    def start_step(self, info: dict[str, t.Any], process: int) -> Step:
        """The step of `info`, which may have begun already; `process` is its first process, about to become the step's command."""
        with self.lock:
            self._refuse_unless_going_on()
            if not self._holds_reserve:
                self.take_reserves()
            if self.step is None or self.step.id != info["id"]:
                self._observations.refuse_denied()
                self._seal()
                self.step = self.journal.add_step(
                    self.id,
                    id=str(info["id"]),
                    task=str(info.get("task", "")),
                    module=str(info.get("module", "")),
                    position=str(info.get("position", "")),
                    no_log=bool(info.get("no_log")),
                    pid=process,
                )
                self.capture.epoch(self.step.epoch, self.step.n)
            step = self.step
            self.watch.began(step.n, step.epoch)
            self.capture.inherited(process, step.n)
        self.processes.join(self.id, step.n, process)
        return step

    def attach(
        self,
        step: Step,
        process: int,
        fd: int,
        ended: t.Callable[[Tracer], None],
        *,
        kept: t.Callable[[str, list[int]], object] = lambda _name, _fds: None,
    ) -> Tracer:
        """Serve the step's listener from now on, which is `kept` for the next agent before that: a tracer that ends closes it. When it
        raises, it has taken over nothing."""
        name = "acid-%s-%d-%d" % (self.id, step.n, process)
        tracer = Tracer(
            name=name,
            fd=fd,
            slots=Slots(),
            lock=self.lock,
            capture=self.capture,
            step=step.n,
            mode=REFUSE,
            failed=self._observations.failed,
            lost=self._lost,
            denied=self._deny,
            ended=ended,
        )
        if tracer.resolver is not None:
            tracer.resolver.careful = is_elsewhere(process)
        with self.lock:
            try:
                self._refuse_late(step)
                self.processes.main_started(step.n, process)  # it may have been killed meanwhile
                kept(name, [fd, tracer.slots.fd])
            except (AcidError, OSError):
                tracer.slots.close()
                raise
            tracer.mode = self._mode  # the step may have begun before the transaction was doomed, or ended
            if self._mode == CAPTURE and self._ended.pop(step.n, 0):
                self._digest.ended(step.n, 0)  # one more process of the step: what the log says of its end does not hold any more
            self.processes.tracers.append(tracer)
            self._digested = 0
        tracer.start()
        return tracer

    def _refuse_late(self, step: Step) -> None:
        """It had begun its step before the transaction came to its end, or the step was undone: what it did would belong to nothing."""
        if self._over or not self.doomed:
            self._refuse_unless_going_on()
        if self.journal.step_state(self.id, step.n) == states.UNDONE:
            raise WrongState("Step %d of transaction %s has been undone meanwhile." % (step.n, self.id), hint="Run its task again.")

    def main_ended(self, pidfd: int) -> None:
        self.processes.main_ended(pidfd)
        self.lease.renew()

    def tracer_ended(self, tracer: Tracer) -> None:
        """The last process behind a listener has ended: now, and not when the next step begins, is when its step ends, unless more of it
        lives or comes (I5)."""
        with self.lock:
            if self._closed:
                return
            self._images.settle_all(tracer.threads)  # dropping a kept link is a change too
            self._ended[tracer.step] = now_ns()
            if self.processes.alive(tracer.step):
                return
            self.watch.ended(tracer.step)
            if self.step is not None and self.step.n == tracer.step:
                self._note_left(tracer.step)
            else:
                self._digest.ended(tracer.step, self._ended[tracer.step])

    def _note_left(self, step: int) -> None:
        alive = self.processes.alive(step)
        try:
            self._digest.note(step, 0 if alive else self._ended.get(step, now_ns()))
        except (OSError, AcidError) as error:  # a full disk: an undo then judges by the journal's times, and must still be possible
            sys.stderr.write("acid-agent: step %d: what it left is not noted: %s\n" % (step, error))
            return
        self._digested = 0 if alive else step

    def take_reserves(self) -> None:
        """What an undo has released, or an agent that died. Raises StoreFull."""
        self.store.room.count_again()
        reserve.take_host(STATE)
        for fs in self.store.by_number.values():
            if fs.policy == TRACED:
                self.store.room.take_reserve(fs)
        self._holds_reserve = True

    def release_reserves(self) -> None:
        """An undo begins, or there will be none."""
        self._holds_reserve = False
        reserve.release_host(STATE)
        self.store.room.release_reserves()

    def seal(self) -> None:
        with self.lock:
            self._seal()

    def _seal(self) -> None:
        """The running step ends: what it left behind goes on in the next one's epoch."""
        self.capture.settle()
        if self.step is None:
            if len(self._images.seen_places) > self._images.noted_places:  # by processes that an earlier step had left behind
                self._note_left(0)
                self._images.noted_places = len(self._images.seen_places)
            return
        if self._digested != self.step.n:
            self._note_left(self.step.n)
        if self.store.durable:
            with self._or_doom():
                self.log.sync()  # HEAD may lag on the disk, and must not lead
        self.log.write_head()
        self._observations.write(self.journal, self.id)
        self.journal.seal_step(self.id, self.step.n)
        self.processes.sealed(self.step.n)
        self._images.noted_places = len(self._images.seen_places)  # from here on others' changes there are others'
        self.step = None

    def _lost(self, reason: str) -> None:
        """Images may not have reached the disk, or all is to be undone. Whoever says so holds the lock; a tracer goes on refusing."""
        try:
            self._doom(reason)
        except (JournalUnwritable, WrongState) as error:  # by the same disk
            doommark.write(self.id, self.doomed)
            sys.stderr.write("acid-agent: doomed, which cannot be written down: %s\n" % error)

    def _deny(self, step: int, what: str) -> None:
        self._observations.denied(step, what, task=self.step.task if self.step is not None and self.step.n == step else "")

    def ask_denied(self) -> list[str]:
        """What was refused since the last time, for the step's own result."""
        with self.lock:
            return self._observations.ask_denied()

    # -- the end ---------------------------------------------------------------------------------------------------------

    def doom(self, reason: str) -> None:
        with self.lock:
            self._doom(reason)

    def _doom(self, reason: str) -> None:
        self.doomed = self.doomed or reason
        self._turn_to(REFUSE)
        try:
            self.journal.set_state(self.id, states.DOOMED, reason=reason)
        except JournalUnwritable:  # only an undo can follow, so it may have its room now
            self.release_reserves()
            self.journal.set_state(self.id, states.DOOMED, reason=reason)
        self._state = states.DOOMED

    @property
    def rebooting(self) -> bool:
        return self._state == states.WAITING_REBOOT

    def _move(self, new: str, *, on_disk: bool = True) -> None:
        """The row first. While the lock is held."""
        self.journal.set_state(self.id, new, on_disk=on_disk)
        self._state = new

    @contextlib.contextmanager
    def _or_doom(self) -> t.Iterator[None]:
        """What did not reach the disk may be lost, whatever a later attempt says: the kernel tells it once."""
        try:
            yield
        except (OSError, JournalUnwritable) as error:
            self._lost("what its steps did does not reach the disk: %s" % error)
            raise Doomed("Transaction %s is doomed: %s" % (self.id, self.doomed), hint="It can only be rolled back.") from error

    def _turn_to(self, mode: str) -> None:
        self._mode = mode
        self.processes.turn_to(mode)

    def _refuse_unless_going_on(self) -> None:
        self._refuse_doomed()
        if self._over or self._state in (states.COMMITTING, states.COMMITTED):
            raise WrongState("Transaction %s is at its end." % self.id, hint="acidctl show %s tells what became of it." % self.id)
        if self.rebooting:
            raise WrongState("Transaction %s waits for a reboot, and does nothing else." % self.id, hint="acidctl rollback ends it.")
        if self._state == states.REWINDING:
            raise WrongState(
                "Transaction %s is on its way back to a savepoint." % self.id, hint="Ask for that rollback again, or roll all of it back."
            )

    def _refuse_doomed(self) -> None:
        if self.doomed:
            raise Doomed("Transaction %s is doomed: %s" % (self.id, self.doomed), hint="It can only be rolled back.")

    def savepoint(self, name: str) -> Savepoint:
        with self.lock:
            self._refuse_unless_going_on()
            self._seal()
            point = self.journal.add_savepoint(self.id, name)
            self.capture.epoch(point.epoch, 0)
        self.capture_probes(point.epoch)
        return point

    def compensate(self, request: dict[str, t.Any]) -> int:
        """The step that comes next has a compensation: it is on the disk when this returns its epoch."""
        with self.lock:
            self._refuse_unless_going_on()
            self._seal()
            found = self.journal.add_compensation(
                self.id,
                id=str(request["id"]),
                name=str(request.get("name", "")),
                step=str(request.get("step", "")),
                body=str(request["body"]),
                host=request.get("host"),
                seconds=int(request.get("seconds", 300)),
            )
            self.capture.epoch(found.epoch, 0)
        return found.epoch

    def end_compensated(self, request: dict[str, t.Any]) -> int:
        """That step has ended. The epoch that begins is where an undo will stop for its compensation, with units as they are now."""
        with self.lock:
            self._seal()
            epoch = self.journal.end_compensated(self.id, str(request["id"]), result=str(request["result"]), host=request.get("host"))
            self.capture.epoch(epoch, 0)
        self.capture_probes(epoch)
        return epoch

    # -- reboots ---------------------------------------------------------------------------------------------------------

    def wait_for_reboot(self, seconds: float) -> None:
        """The host is going to be rebooted, by plan (I8). No step may start until `rebooted`."""
        with self.lock:
            self._refuse_unless_going_on()
            self._observations.refuse_denied()
            self._seal()
            shutdown.plan(directory_of(self.id), seconds)
            self.lease.renew(seconds=seconds)
            self._move(states.WAITING_REBOOT)
            self.sync()
        if not self.processes.tracers:  # else what they do up to the very end is to be on the disk too: shut_down() marks that
            shutdown.mark(directory_of(self.id), boot_id())

    def rebooted(self) -> None:
        """Its controller is back, before the reboot or after it."""
        with self.lock:
            if self.rebooting:
                shutdown.unmark(directory_of(self.id))
                self._move(states.ACTIVE)

    def shut_down(self) -> None:
        """The agent is told to end with the transaction open: all that has happened is on the disk, and says so, when this returns."""
        with self.lock:
            # For what is about to start, or to come to its end; the next agent knows nothing of it.
            self.doomed, self._over = self.doomed or "its agent was told to end", True
            self._turn_to(REFUSE)
            self.capture.settle()
            self.sync()
            shutdown.mark(directory_of(self.id), boot_id())

    def sync(self) -> None:
        with self._or_doom():
            self.log.write_head(durable=True)
            for fs in self.store.by_number.values():
                if fs.policy == TRACED:
                    kernel.syncfs(fs.mount_fd)

    def commit(self, armed: t.Sequence[str]) -> Summary:
        start, name = time.monotonic(), self.journal.get(self.id).name
        with self.lock:
            self._refuse_unless_going_on()
            self._observations.refuse_denied()
            self._move(states.COMMITTING, on_disk=False)  # no step starts any more; another boot undoes it anyway
        try:
            self._prepare(armed)
            with self.lock:  # calls wait for what becomes of it
                self._refuse_doomed()  # by what earlier steps left running, on a disk that did not take the row that says so
                self.sync()
                with self._or_doom():
                    self._move(states.COMMITTED)
                self._turn_to(LET_RUN)
        except BaseException:
            self._go_on()
            raise
        # From here on nothing may fail: it is committed.
        for part in (self.release_reserves, self.close):
            with contextlib.suppress(OSError, AcidError):
                part()
        try:
            return self.summary(states.COMMITTED, time.monotonic() - start)
        except (OSError, AcidError) as error:
            sys.stderr.write("acid-agent: %s is committed, and its summary cannot be kept: %s\n" % (self.id, error))
            return Summary(self.id, name, states.COMMITTED, seconds=round(time.monotonic() - start, 3))

    def _go_on(self) -> None:
        """A commit was refused before it asked the disk."""
        with self.lock, contextlib.suppress(JournalUnwritable):  # then it stays COMMITTING, and can only be rolled back
            if self._state == states.COMMITTING and (self._over or not self.doomed):
                self._move(states.ACTIVE, on_disk=False)

    # -- back to a savepoint ---------------------------------------------------------------------------------------------

    def rewind(self, point: Savepoint) -> None:
        """An undo to `point` is about to begin, or to go on: REWINDING is on the disk, no step starts any more, and what later steps left
        running is dead, when this returns."""
        self.release_reserves()  # that row is its first write
        with self.lock:
            if self.rewinding_to is None and not self.doomed:
                self._refuse_unless_going_on()
            elif self.rewinding_to is not None and self.rewinding_to < point.epoch:
                raise WrongState(
                    "Transaction %s is on its way back to a savepoint before %s." % (self.id, point.name),
                    hint="Ask for that rollback again, or roll all of it back.",
                )
            self.journal.begin_rewind(self.id, point.epoch)
            self.rewinding_to, self._state = point.epoch, states.DOOMED if self.doomed else states.REWINDING
            # No step comes to be from here on, and none of those that are there gets a tracer.
            later = [step.n for step in self.journal.steps(self.id) if step.epoch >= point.epoch]
        self.kill_processes(min(later, default=1 << 30))
        self.seal()

    def rewound(self, point: Savepoint, *, doomed: str) -> None:
        """All since `point` is undone, or what is not is the reason for which it is doomed."""
        with self.lock:
            if self._over:
                raise WrongState("The agent of transaction %s was told to end." % self.id, hint="The next one finishes that undo.")
            self.doomed = self.doomed or doomed
            again = self.journal.end_rewind(self.id, point, doomed=self.doomed)
            self.rewinding_to, self._state = None, states.DOOMED if self.doomed else states.ACTIVE
            self.capture.epoch(again.epoch, 0)
            if self.doomed:
                self._turn_to(REFUSE)
        with contextlib.suppress(StoreFull):  # then the next step is refused
            self.take_reserves()

    def _prepare(self, armed: t.Sequence[str]) -> None:
        """All that the commit row says is written down, but for the sync."""
        self.refuse_unseen(armed)
        self.seal()
        self._note_survivors()
        self.watch.close()
        self.capture_probes(self.journal.get(self.id).epoch + 1)

    def refuse_unseen(self, armed: t.Sequence[str]) -> None:
        """Steps that the controller sent, and that no shim has told of."""
        known = {step.id for step in self.journal.steps(self.id)}
        missing = [step for step in armed if step not in known]
        if missing:
            self.doom("%d step(s) ran without the shim" % len(missing))
            raise Doomed(
                "Transaction %s: %d step(s) ran without the shim, so their changes were not seen." % (self.id, len(missing)),
                hint="It can only be rolled back, and what those steps changed is not undone.",
            )

    def _note_survivors(self) -> None:
        for number, command in self.processes.survivors():
            self.journal.note(self.id, SURVIVOR, command, step=number)

    def summary(self, state: str, seconds: float) -> Summary:
        with contextlib.closing(Store(self.id)) as store:
            wanted = read(directory_of(self.id))
            store.adopt_all(wanted.file_systems.values())
            return summary(self.journal, self.id, state, seconds, net.count(wanted, store))

    def give_up(self, reason: str) -> None:
        """All of it is about to be undone: that is on the disk before anything is killed for it, if the disk takes it. Else the undo says
        so."""
        self.release_reserves()  # before the journal is even read
        with self.lock:
            self._lost(reason)

    def kill_processes(self, first_step: int = 0) -> None:
        """Kill what steps from `first_step` on left running, and wait until their tracers have ended."""
        with self.lock:
            if not first_step:
                self._over, self._mode = True, REFUSE
            chosen = self.processes.turn_to(REFUSE, first_step=first_step)
        self.processes.kill(chosen, first_step=first_step)

    def abandon(self) -> None:
        """An undo is about to take over, and depends on nothing of this: the failing disk may be the reason for it."""
        for part in (self.release_reserves, self.seal, self.close):
            try:
                part()
            except (OSError, AcidError) as error:
                sys.stderr.write("acid-agent: at the end of %s: %s\n" % (self.id, error))

    def close(self) -> None:
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self.watch.stop()
            self.capture.close()
        try:
            self.log.close()
        finally:  # else its mounts are busy for ever
            try:
                self.store.close()
            finally:
                ownership.release(directory_of(self.id))
