# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose turn it is, among the threads of a step (docs/adr/0011).

A call is let run before it runs. Most calls do not mind: the images of two are from before both, in whatever order they then run. But one
that changes where names lead (what is old is moved or linked, a symlink made, a directory removed, a lock taken off) makes what was looked
up for another call wrong, and the other way round. So such a call is *alone*: it waits until the calls that were let run have ended, and
the next call waits until it has.

The kernel does not say when a call that was let run has ended; the thread's state shows it. A single thread never waits, nor do threads
that only make, write and remove files.
"""

from __future__ import annotations

import os
import time
import typing as t

#: ns of CPU time after which a thread that is still running has left its call: a change of a name takes 10,000 to 300,000.
_CALL_RUNS = 4_000_000
#: Seconds after which a call that does not end is not waited for any more: it may wait for the very thread that waits here.
_LONGEST = 5.0
#: Likewise where the kernel does not say how long a thread has run (no CONFIG_SCHED_INFO).
_LONGEST_UNSEEN = 0.02
_PAUSE = 0.00005
#: Threads that are remembered before those that have ended are looked for.
_MANY = 64


class Turns:
    """Not thread-safe but for `back`: the caller holds the transaction's lock from `take` until the call has been let run."""

    def __init__(self) -> None:
        #: thread -> number of its call that was let run, and is not known to have ended
        self._running: dict[int, int] = {}
        #: the thread whose call is alone, or 0
        self._alone = 0
        #: the thread whose turn it is
        self._thread = 0
        self._many = _MANY
        #: lets those run that had their turn and still wait to be let run
        self.let_run: t.Callable[[], None] | None = None

    def back(self, thread: int) -> None:
        """The thread makes another call, so its last one has ended."""
        self._running.pop(thread, None)

    def take(self, thread: int, number: int) -> bool:
        """The thread's call `number` waits; wait for the one that is alone. Whether other threads' calls may be running."""
        running = self._running
        running.pop(thread, None)
        if running:
            if self._alone:
                self._wait(self._alone)
            elif len(running) > self._many:
                self._prune()
        self._alone, self._thread = 0, thread
        raced = bool(running)
        running[thread] = number
        return raced

    def alone(self) -> bool:
        """The thread's call is alone: wait for all others. Whether there were any, so that what was looked up before may be wrong now."""
        self._alone = self._thread
        if len(self._running) == 1:  # the thread's own
            return False
        others = [thread for thread in self._running if thread != self._thread]
        for thread in others:
            self._wait(thread)
        return bool(others)

    def drain(self) -> None:
        """Wait until every call that was let run has ended."""
        for thread in list(self._running):
            self._wait(thread)

    def _wait(self, thread: int) -> None:
        if self.let_run is not None:
            self.let_run()
        number, begun, ran = self._running.get(thread), time.monotonic(), -1
        while number is not None and thread in self._running and not has_ended(thread, number):
            now, waited = cpu_time(thread), time.monotonic() - begun
            if ran < 0:
                ran = now
            if now - ran > _CALL_RUNS or waited > (_LONGEST if now else _LONGEST_UNSEEN):
                break
            time.sleep(_PAUSE)
        self._running.pop(thread, None)

    def _prune(self) -> None:
        if self.let_run is not None:
            self.let_run()
        for thread, number in list(self._running.items()):
            if has_ended(thread, number):
                self._running.pop(thread, None)
        self._many = max(_MANY, 2 * len(self._running))


def has_ended(thread: int, number: int) -> bool:
    """Whether the thread's call `number`, which was let run, has surely ended. False while the thread runs: it may be in the call or past
    it."""
    now = _read(thread, "syscall")
    if now.startswith(b"running"):
        return False
    if now.split(b" ", 1)[0] != b"%d" % number:
        return True  # it waits in another call, or is no more
    # In a call of that number: the one that was let run, or one that waits to be let run. What waits there can be interrupted; a change of
    # names can not. (An open of a fifo, which waits for its other side, has found its file.)
    state = _read(thread, "stat").rpartition(b") ")[2][:1]
    return state not in (b"R", b"D")


def cpu_time(thread: int) -> int:
    """ns that the thread has run, as of its last tick; 0 where the kernel does not say."""
    return int(_read(thread, "schedstat").partition(b" ")[0] or b"0")


def _read(thread: int, name: str) -> bytes:
    """A file of /proc about the thread; empty when there is no such thread any more."""
    try:
        fd = os.open("/proc/%d/%s" % (thread, name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 1024)
    except OSError:
        return b""
    finally:
        os.close(fd)
