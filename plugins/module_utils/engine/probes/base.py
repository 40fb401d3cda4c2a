# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a probe is: one kind of state that no system call of a step shows, captured cheaply and brought back.

The transaction calls, in this order: `capture` at begin, at each savepoint and at commit; at an undo `before_files` of every probe in the
registry's order, then it puts the files back, then `after_files` of every probe, then `compare`. Images are JSON and kept in the
journal by the caller. Both undo calls look at what is there and then act, so that they can be repeated after a crash in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

Image = dict[str, Any]

# The kernel stamps files with the time of its last tick, up to 10 ms ago; a daemon may act a little after the step that asked it has ended.
EARLY_NS = 20_000_000
LATE_NS = 2_000_000_000


@dataclass(frozen=True)
class Circumstances:
    """What an undo knows about the time since the image was captured.

    `windows`: when steps ran, as (start, end) in CLOCK_REALTIME nanoseconds. What happened outside of all of them was somebody
    else's doing. Empty: not known, everything counts as the steps'.
    `left`: the probe's own image at commit, for an undo after it: only what differs between the two images was the transaction's.
    `rebooted`: the image is from another boot than this one.
    `attic`: a directory for trees that have to go and may hold somebody's data; empty: they are deleted.
    `at_boot`: PID 1 is still starting the system, so nobody may wait for one of its jobs.
    """

    windows: tuple[tuple[int, int], ...] = ()
    left: Image | None = None
    rebooted: bool = False
    at_boot: bool = False
    attic: str = ""

    def by_a_step(self, ns: int) -> bool:
        """Whether something that happened at `ns` (CLOCK_REALTIME) can be a step's doing."""
        return not self.windows or any(start - EARLY_NS <= ns <= end + LATE_NS for start, end in self.windows)


UNKNOWN = Circumstances()


@dataclass(frozen=True)
class Outcome:
    """Sentences for people. `failures`: not as before. `notes`: left alone on purpose, with the reason. `units`: systemd units acted on."""

    actions: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.actions + other.actions,
            self.failures + other.failures,
            self.notes + other.notes,
            self.units + tuple(unit for unit in other.units if unit not in self.units),
        )


NOTHING = Outcome()


class Probe(ABC):
    """`name` is the one that users write in the option `probes`."""

    name: str

    @abstractmethod
    def capture(self) -> Image:
        """What there is now. JSON-able, without side effects, cheap (all probes: a few hundred ms). ProbeFailed when it cannot see."""

    @abstractmethod
    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        """One sentence for each thing that is not as before by the transaction's doing. Empty: as before."""

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        """The part that needs what the transaction's files are still good for: stop their services, unmount."""
        return NOTHING

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        """The rest, when every file is back."""
        return NOTHING
