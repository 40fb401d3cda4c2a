# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A step's listener, served by a thread of the agent until the last process behind it has ended.

While its transaction is open, each call waits for its images; after commit the processes that a step left behind are let run (their filter
stays for life); when the transaction is doomed or being undone, their calls fail with EIO.
"""

from __future__ import annotations

import errno
import os
import threading
import traceback
import typing as t

from .errors import AcidError, Denied, NotOnDisk
from .trace.calls import AUDIT_AARCH64, AUDIT_I386, AUDIT_X86_64, MACHINES, Call
from .trace.capture import Capture
from .trace.notify import BATCH, Gone, Listener, answer_orphans
from .trace.resolve import Resolver
from .trace.subjects import Answered, Pretended

CAPTURE, LET_RUN, REFUSE = "capture", "let run", "refuse"
_DONE = -1
_KNOWN = (AUDIT_X86_64, AUDIT_AARCH64, AUDIT_I386)


class Slots:
    """Shared memory for the ids of the calls under way; its descriptor outlives the agent in systemd's store."""

    def __init__(self, fd: int = -1) -> None:
        import mmap

        if fd < 0:
            fd = os.memfd_create("acid-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, 8 * BATCH)
        self.fd = fd
        self._map = mmap.mmap(fd, 8 * BATCH)
        self.view = memoryview(self._map)

    def ids(self) -> list[int]:
        """The newest calls that were received, answered or not."""
        return [id_ for id_ in self.view.cast("Q").tolist() if id_]

    def close(self) -> None:
        self.view.release()
        self._map.close()
        os.close(self.fd)


class Tracer(threading.Thread):
    """Serves one listener. `mode` may be changed by others while they hold `lock`."""

    def __init__(
        self,
        *,
        name: str,
        fd: int,
        slots: Slots,
        lock: threading.Lock,
        capture: Capture | None,
        step: int,
        mode: str,
        failed: t.Callable[[int, str], None],
        lost: t.Callable[[str], None] | None = None,
        denied: t.Callable[[int, str], None],
        ended: t.Callable[[Tracer], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.fd, self.slots, self.step, self.mode = fd, slots, step, mode
        self.resolver: Resolver | None = capture.resolver() if capture is not None else None
        self._lock, self._capture = lock, capture
        self._failed, self._denied, self._lost, self._ended = failed, denied, lost, ended
        self._listener = Listener(fd, slots.view)
        self._back: t.Callable[[int], None] = capture.back if capture is not None else lambda thread: None
        #: threads that made a traced call: they can be found again when they left the step's cgroup
        self.threads: set[int] = set()
        machine = MACHINES[os.uname().machine]
        self._calls: dict[tuple[int, int], Call] = {(abi.audit, number): call for abi in machine for number, call in abi.calls.items()}

    def run(self) -> None:
        serve = self._several if self._capture is not None and self._capture.durable else self._one
        try:
            try:
                while True:
                    serve()
            except Gone:
                raise
            except Exception:
                # Its processes live on, and would take an agent that does not listen for none (ENOSYS).
                traceback.print_exc()
                self.mode = REFUSE
                answer_orphans(self.fd, self.slots.ids(), errno.EIO)
                self._one()
        except Gone:
            pass
        finally:
            self._ended(self)

    def _one(self) -> None:
        receive, proceed, back, judge, lock = self._listener.receive, self._listener.proceed, self._back, self._judge, self._lock
        while True:
            note = receive()
            back(note.thread)
            with lock:
                number = judge(note)
                if number:
                    self._answer(note, number)
                else:
                    proceed(note.id)

    def _several(self) -> None:
        """`durability: power`: one write to the disk for all calls that wait."""
        notes = self._listener.receive_all()
        for note in notes:
            self._back(note.thread)
        judged: list[tuple[t.Any, int]] = []

        def let_run() -> None:
            """Also when one of them must wait until another has ended (docs/adr/0011)."""
            lost = capturing and (self.mode != CAPTURE or not self._on_the_disk())
            for note, number in judged:
                self._answer(note, errno.EIO if lost else number)
            judged.clear()

        with self._lock:
            capturing = self.mode == CAPTURE  # should one of them find the disk lost, those before it wait for their images all the same
            if self._capture is not None:
                self._capture.before_waiting(let_run)
            try:
                for note in notes:
                    judged.append((note, self._judge(note)))  # noqa: PERF401 - let_run may empty it meanwhile
                let_run()
            finally:
                if self._capture is not None:
                    self._capture.before_waiting(None)

    def _answer(self, note: t.Any, number: int) -> None:
        """While the lock is held: what was looked up for the next call holds only if this one runs before."""
        if number == _DONE:
            self._listener.pretend(note.id)
        elif number:
            self._listener.refuse(note.id, number)
        else:
            self._listener.proceed(note.id)

    def _on_the_disk(self) -> bool:
        """Whether all images are. When the disk failed once it is not asked again: what it dropped it would not name (I1)."""
        try:
            if self._capture is not None:
                self._capture.sync()
        except (OSError, AcidError) as error:
            if self._lost is not None:
                self._lost(str(error))
            return False
        return True

    def _judge(self, note: t.Any) -> int:
        """The errno to answer; 0 lets the call run; _DONE: it does not run, and is answered as if it had."""
        self.threads.add(note.thread)
        if self.mode == CAPTURE:
            return self._image(note)
        return errno.EIO if self.mode == REFUSE else 0

    def _image(self, note: t.Any) -> int:
        """Take the images; the errno to answer when that failed: no image, no change."""
        call = self._calls[note.audit, note.number]
        if self._capture is None or self.resolver is None:
            return errno.EIO
        try:
            self._capture.handle(note, call, self.step, self.resolver)
        except Pretended:
            return _DONE
        except Answered as error:
            return error.number
        except Denied as error:
            self._denied(self.step, str(error) if call.name in str(error) else "%s (%s)" % (error, call.name))
            return errno.EPERM
        except (OSError, AcidError) as error:
            self._failed(self.step, "%s: %s" % (call.name, error))
            if isinstance(error, NotOnDisk) and self._lost is not None:
                self._lost(str(error))
            return errno.EIO
        except Exception as error:
            traceback.print_exc()
            self._failed(self.step, "%s: %r" % (call.name, error))
            return errno.EIO
        return 0
