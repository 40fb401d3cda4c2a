# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The processes of a transaction's steps: by whom they are traced, which have a result to give, what a step left running.

A step has a cgroup (cgroups.py) and a listener, and so a tracer (tracer.py), for each process that the controller started for it. That one
is its *main*: the controller has the step's result when it ends, while others of the step may go on.
"""

from __future__ import annotations

import os
import time
import typing as t

from . import cgroups
from .leftovers import kill_traced
from .tracer import Tracer

#: seconds that a request waits for the processes of steps whose results the controller already has
_WAIT_FOR_MAIN = 30.0


class Processes:
    """Of one transaction. Who adds to `tracers`, or changes the mode of one, holds its lock. A tracer that ends takes itself out without
    it, so whoever goes through them goes through a copy."""

    def __init__(self) -> None:
        self.tracers: list[Tracer] = []
        self.mains: dict[int, int] = {}  # pidfd -> step number
        self._cgroups: dict[int, set[str]] = {}

    def join(self, tx: str, step: int, process: int) -> None:
        """The process, and all that it will start, goes into the step's cgroup."""
        group = cgroups.join(process, "acid-%s-%d" % (tx, step))
        if group is not None:
            self._cgroups.setdefault(step, set()).add(group)

    def main_started(self, step: int, process: int) -> None:
        self.mains[os.pidfd_open(process)] = step

    def main_ended(self, pidfd: int) -> None:
        del self.mains[pidfd]
        os.close(pidfd)

    def wait_for_mains(self) -> None:
        """The controller has the step's result, so its process is about to end."""
        end = time.monotonic() + _WAIT_FOR_MAIN
        while self.mains and time.monotonic() < end:
            time.sleep(0.002)

    def alive(self, step: int) -> bool:
        return any(tracer.step == step for tracer in list(self.tracers))

    def turn_to(self, mode: str, *, first_step: int = 0) -> list[Tracer]:
        """What becomes of calls from now on, of processes of the steps from `first_step` on; their tracers."""
        chosen = [tracer for tracer in list(self.tracers) if tracer.step >= first_step]
        for tracer in chosen:
            tracer.mode = mode
        return chosen

    def sealed(self, step: int) -> None:
        """Its cgroup goes where nothing is left in it."""
        for group in self._cgroups.get(step, set()):
            cgroups.remove(group)

    def survivors(self) -> t.Iterator[tuple[int, str]]:
        """(step, command) of all that steps left running."""
        for number, groups in self._cgroups.items():
            for group in groups:
                for process in cgroups.processes(group):
                    command = cgroups.command_of(process)
                    if command:
                        yield number, command

    def kill(self, chosen: t.Sequence[Tracer], *, first_step: int) -> None:
        """Kill what steps from `first_step` on left running, and wait until their tracers have ended. Without the lock, which they need."""
        for number, groups in list(self._cgroups.items()):
            if number >= first_step:
                for group in groups:
                    cgroups.kill(group)
        for tracer in chosen:
            for thread in list(tracer.threads):
                kill_traced(thread)
            tracer.join(timeout=5.0)
