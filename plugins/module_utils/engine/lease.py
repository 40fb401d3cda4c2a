# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lease: how long a host waits for its controller before it rolls back by itself (I6).

    TICKING -> TICKING  [renew: every request, every step's begin and end, the controller's heartbeat]
    TICKING -> OFF      [cancel: a person takes over the watch]        OFF -> TICKING  [renew(asked=True): `acidctl confirm`]

The deadline is CLOCK_BOOTTIME, which goes on in suspend and which nobody can set. It is in the journal too, so that the next agent, and the
timer behind the agent (deadman.py), know the same one. Where it cannot be written (full disk), they know an earlier one.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from .errors import JournalUnwritable
from .journal import Journal
from .model import Transaction

DEFAULT = 300


def timeout(options: dict[str, t.Any]) -> int:
    """Seconds of silence; 0: for ever."""
    return int(options.get("confirm_timeout", DEFAULT))


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def first(options: dict[str, t.Any]) -> float | None:
    """The deadline of a transaction that begins."""
    return now() + timeout(options) if timeout(options) else None


class Lease:
    """`deadline` None: nothing ticks. `beats`: its controller has promised a heartbeat (options, `heartbeat`)."""

    def __init__(self, journal: Journal, value: Transaction) -> None:
        self._journal, self._tx = journal, value.id
        self.seconds = timeout(value.options)
        self.beats = bool(value.options.get("heartbeat"))
        self.deadline = value.deadline
        self._cancelled = value.deadline is None

    def renew(self, *, seconds: float = 0.0, asked: bool = False) -> None:
        """At least `seconds`, and the option's, from now on: what was extended is never cut short. `asked`: by name, which also ends a
        cancellation."""
        if self._cancelled and not asked:
            return
        self._cancelled = False
        length = max(float(self.seconds), seconds)
        if length:
            self._move(max(self.deadline or 0.0, now() + length))

    def cancel(self) -> None:
        self._cancelled = True
        self._move(None)

    def expired(self, *, step_runs: bool) -> bool:
        """Without a promised heartbeat a step that runs is all that is heard of its controller, and has to do."""
        return self.deadline is not None and now() > self.deadline and (self.beats or not step_runs)

    def left(self) -> float | None:
        return None if self.deadline is None else round(self.deadline - now(), 1)

    def _move(self, deadline: float | None) -> None:
        self.deadline = deadline
        with contextlib.suppress(JournalUnwritable):
            self._journal.set_deadline(self._tx, deadline)
