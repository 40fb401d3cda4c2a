# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When the steps that had hold of something ended, and what a later change is: pure arithmetic of times in CLOCK_REALTIME ns (I5).

A ctime no later than the end of the last step that had hold of the inode is the step's own doing. A later one is somebody else's: while
another step ran it may be a daemon's that the step asked (DURING), outside of all steps it is not (LATER). The kernel stamps with the
time of its last tick, so a change in the 10 ms after a step's end may be taken for the step's.
"""

from __future__ import annotations

import collections.abc
import typing as t

from ..records import Sealed, UndoRun

OURS, DURING, LATER = "ours", "during", "later"

_TICK_NS = 20_000_000
#: Beyond what NTP slews: 500 ppm of the time that has gone by, and the two readings of the clocks.
_SLEW_NS, _SLEW_SHARE = 50_000_000, 0.001


class StepTimes(t.NamedTuple):
    """From the journal. `sealed_ns` None: torn."""

    n: int
    started_ns: int
    sealed_ns: int | None


class Now(t.NamedTuple):
    """`offset_ns`: CLOCK_REALTIME less CLOCK_BOOTTIME; `booted_ns`: when this boot began, if it is not the transaction's, else 0."""

    ns: int
    offset_ns: int
    booted_ns: int = 0


class Ends:
    """`killed`: steps of which processes were alive until just now. `undos`: when undos of other transactions of this host were at work."""

    def __init__(
        self,
        steps: collections.abc.Iterable[StepTimes],
        sealed: collections.abc.Mapping[int, Sealed],
        runs: collections.abc.Iterable[UndoRun],
        now: Now,
        *,
        killed: collections.abc.Collection[int] = (),
        undos: collections.abc.Iterable[tuple[int, int]] = (),
    ) -> None:
        self._now, self._sealed = now, sealed
        #: the end of a step that was never sealed, also of one whose row a power cut took from the journal
        self._torn = now.booted_ns or now.ns
        self._ends: dict[int, int] = {0: sealed[0].ended_ns} if 0 in sealed else {}
        self._windows: list[tuple[int, int]] = [(run.began_ns, run.ended_ns or now.ns) for run in runs]
        self._undos = tuple(undos)
        self._known: dict[int, int] = {}
        self._started: dict[int, int] = {}
        for step in steps:
            self._started[step.n] = step.started_ns
            seal = sealed.get(step.n)
            if step.n in killed:
                end = now.ns
            elif seal is not None and seal.ended_ns:
                end = seal.ended_ns
            elif step.sealed_ns is not None:
                end = step.sealed_ns
                if seal is not None:  # some of its processes lived on, and nobody saw when they ended
                    self._windows.append((end, now.ns))
            else:
                end = self._torn
            self._ends[step.n] = end
            if end < step.started_ns:  # the clock was set back in the course of it: nobody can tell what it did before from what came after
                self._windows.append((end, 1 << 63))
            self._windows.append((step.started_ns - _TICK_NS, end))

    def of(self, steps: int) -> int:
        """The end of the last of a set of steps (bits); 0 for none."""
        known = self._known.get(steps)
        if known is None:
            known = self._known[steps] = max((self._ends.get(n, self._torn if n else 0) for n in _members(steps)), default=0)
        return known

    def when(self, ctime_ns: int, end_ns: int) -> str:
        """What a change at `ctime_ns` is to something that its last step left at `end_ns`."""
        if ctime_ns <= end_ns:
            return OURS
        if any(start <= ctime_ns <= end for start, end in self._undos):
            return OURS
        return DURING if any(start <= ctime_ns <= end for start, end in self._windows) else LATER

    def undecided_since(self, steps: int) -> int:
        """A ctime of the set's inodes from here on cannot be judged, since the clock was set back by that much after the steps; else a
        time that is later than all."""
        back = max((self._set_back(n) for n in _members(steps)), default=0)
        return self.of(steps) - back if back else 1 << 63

    def has_begun(self, step: int, ns: int) -> bool:
        """Whether that may have been the step's own doing."""
        return ns >= self._started.get(step, 0) - _TICK_NS

    def born_in(self, btime_ns: int) -> int:
        """The step (a bit) in whose time it was made; 0: none."""
        return next((1 << n for n, start in self._started.items() if start <= btime_ns <= self._ends[n]), 0)

    def clock_set_back_ns(self) -> int:
        """By how much the clock was set back since any of the steps; 0 when it was not, or was set forward, which does no harm."""
        return max((self._set_back(n) for n in self._sealed), default=0)

    def _set_back(self, step: int) -> int:
        seal = self._sealed.get(step)
        if seal is None:
            return 0
        if self._now.booted_ns:  # CLOCK_BOOTTIME began anew: all that can be told is whether the time went on
            return max(0, seal.ended_ns - self._now.ns)
        back = seal.offset_ns - self._now.offset_ns
        since = seal.ended_ns or self._started.get(step, self._now.ns)  # of one that lives on, or was torn: no later than the seal
        return back if back > _SLEW_NS + _SLEW_SHARE * max(0, self._now.ns - since) else 0


def _members(steps: int) -> collections.abc.Iterator[int]:
    while steps:
        lowest = steps & -steps
        yield lowest.bit_length() - 1
        steps ^= lowest
