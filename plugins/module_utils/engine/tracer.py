# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A step's listener, served by a thread of the agent until the last process behind it has ended.

While its transaction is open, each call waits for its images; after commit the processes that a step left behind are let run (their filter
stays for life); when the transaction is doomed or being undone, their calls fail with EIO.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback
import typing as t

from .errors import AcidError
from .trace.calls import AUDIT_AARCH64, AUDIT_I386, AUDIT_X86_64, MACHINES, Call
from .trace.capture import Capture
from .trace.notify import Gone, Listener
from .trace.resolve import Resolver

CAPTURE, LET_RUN, REFUSE = "capture", "let run", "refuse"
_KNOWN = (AUDIT_X86_64, AUDIT_AARCH64, AUDIT_I386)


class Slot:
    """Eight bytes of shared memory for the id of the call under way; its descriptor outlives the agent in systemd's store."""

    def __init__(self, fd: int = -1) -> None:
        import mmap

        if fd < 0:
            fd = os.memfd_create("acid-slot", os.MFD_CLOEXEC)
            os.ftruncate(fd, 8)
        self.fd = fd
        self._map = mmap.mmap(fd, 8)
        self.view = memoryview(self._map)

    def pending(self) -> int:
        return int.from_bytes(self.view, sys.byteorder)

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
        slot: Slot,
        lock: threading.Lock,
        capture: Capture | None,
        step: int,
        mode: str,
        failed: t.Callable[[int, str], None],
        ended: t.Callable[[Tracer], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.fd, self.slot, self.step, self.mode = fd, slot, step, mode
        self.resolver: Resolver | None = capture.resolver() if capture is not None else None
        self._lock, self._capture = lock, capture
        self._failed, self._ended = failed, ended
        self._listener = Listener(fd, slot.view)
        #: threads that made a traced call: they can be found again when they left the step's cgroup
        self.threads: set[int] = set()
        machine = MACHINES[os.uname().machine]
        self._calls: dict[tuple[int, int], Call] = {(abi.audit, number): call for abi in machine for number, call in abi.calls.items()}

    def run(self) -> None:
        try:
            while True:
                self._one()
        except Gone:
            pass
        finally:
            self._ended(self)

    def _one(self) -> None:
        note = self._listener.receive()
        self.threads.add(note.thread)
        with self._lock:
            number = 0
            if self.mode == REFUSE:
                number = errno.EIO
            elif self.mode == CAPTURE:
                number = self._image(note)
        if number:
            self._listener.refuse(note.id, number)
        else:
            self._listener.proceed(note.id)

    def _image(self, note: t.Any) -> int:
        """Take the images; the errno to answer when that failed: no image, no change."""
        call = self._calls[note.audit, note.number]
        if self._capture is None or self.resolver is None:
            return errno.EIO
        try:
            self._capture.handle(note, call, self.step, self.resolver)
        except (OSError, AcidError) as error:
            self._failed(self.step, "%s: %s" % (call.name, error))
            return errno.EIO
        except Exception as error:
            traceback.print_exc()
            self._failed(self.step, "%s: %r" % (call.name, error))
            return errno.EIO
        return 0
