# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Ctrl-C and SIGTERM do while a play holds transactions.

    PLAY     -> SETTLING  [the play ended, or the first signal stopped it; workers have the signal passed on]
    SETTLING -> LEFT      [a signal; after an interrupted play at once, else the second one: the first only asks to stop afterwards]

ansible-core registers its own handlers before callbacks load, and its SIGTERM handler ends the process without any Python clean-
up; so both are registered anew for each play. After settling the process ends as it would have ended: KeyboardInterrupt, or death
by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

PLAY, SETTLING = "play", "settling"


class Terminated(BaseException):
    """SIGTERM came. Not an Exception: nothing in between may take it for an error of a task."""


class Interrupts:
    """A context manager around one run of a play and its settling."""

    def __init__(self, tqm: Any) -> None:
        self._tqm = tqm
        self._pid = os.getpid()
        self._phase = PLAY
        self._before: dict[int, Any] = {}
        self.signum: int | None = None

    def __enter__(self) -> Interrupts:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def settling(self) -> None:
        self._phase = SETTLING

    def reraise(self) -> None:
        """End the process's work the way the first signal would have."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signum == signal.SIGTERM:
            sys.stdout.flush()
            sys.stderr.flush()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker, in the moment before it has set its own handlers
            os._exit(1)
        first = self.signum is None
        if first:
            self.signum = signum
        if self._phase == SETTLING and first:
            return
        self._pass_on(signum)
        raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    def _pass_on(self, signum: int) -> None:
        """Workers are in sessions of their own: a signal of the terminal does not reach them."""
        for worker in self._tqm._workers:
            if worker is not None and worker.pid and worker.is_alive():
                try:
                    os.kill(worker.pid, signum)
                except ProcessLookupError:
                    pass
