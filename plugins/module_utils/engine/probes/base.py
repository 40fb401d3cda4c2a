# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a probe is: one kind of state that no system call of a step shows, captured cheaply and brought back.

The transaction calls, in this order: `check` and `capture` at begin, at each savepoint and at commit; at an undo the two halves of
converging, `before_files` of every probe in the registry's order, then it puts the files back, then `after_files`; then `compare`. When
retention ends, `discard`. Images are JSON and kept in the journal by the caller. Both halves look at what is there and then act, so that
they can be repeated after a crash in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Image = dict[str, Any]

# The kernel stamps files with the time of its last tick, up to 10 ms ago; a daemon may act a little after the step that asked it has ended.
EARLY_NS = 20_000_000
LATE_NS = 2_000_000_000


@dataclass(frozen=True)
class Circumstances:
    """What an undo knows about the time since the image was captured.

    `windows`: when steps ran, as (start, end) in CLOCK_REALTIME nanoseconds. What happened outside of all of them was somebody
    else's doing. Empty: not known, everything counts as the steps'.
    `asked`: the windows of those steps alone that talked to a daemon (PID 1, D-Bus, ...), in which one may have acted for them.
    `since`: when the undo began to change things, in the same unit; 0 before it did. What happened since then it did itself.
    `spared`: paths that the undo of the files has left to somebody else (drift, I5), with absolute names.
    `held`, `held_trees`: paths, and trees, of groups that are held back (packages): also those that no step touched, so that the undo of
    the files does not know them, such as a conffile of a package that somebody else has installed.
    `left`: the probe's own image at commit, for an undo after it: only what differs between the two images was the transaction's.
    `rebooted`: the image is from another boot than this one.
    `booted`: when this boot began, if the transaction's own reboot, a planned one, began it; else 0. What the boot did is its doing then.
    `attic`: a directory for trees that have to go and may hold somebody's data; empty: they are deleted.
    `at_boot`: PID 1 is still starting the system, so nobody may wait for one of its jobs.
    `rereads`: managers of units may have read files that are put back.
    `memory`: a file in which an attempt leaves word for the next one, in case it dies; empty: there is none.
    """

    windows: tuple[tuple[int, int], ...] = ()
    asked: tuple[tuple[int, int], ...] = ()
    since: int = 0
    spared: frozenset[bytes] = frozenset()
    held: frozenset[bytes] = frozenset()
    held_trees: tuple[bytes, ...] = ()
    left: Image | None = None
    rebooted: bool = False
    booted: int = 0
    at_boot: bool = False
    rereads: bool = True
    attic: str = ""
    memory: str = ""

    def is_held(self, path: bytes) -> bool:
        return path in self.held or any(path.startswith(tree + b"/") for tree in self.held_trees)

    def by_a_step(self, ns: int) -> bool:
        """Whether something that happened at `ns` (CLOCK_REALTIME) can be a step's doing."""
        return not self.windows or _within(self.windows, ns) or self._by_the_boot(ns)

    def by_a_daemon(self, ns: int) -> bool:
        """Whether something that happened at `ns` can be what a daemon did because a step asked it to."""
        return not self.windows or _within(self.asked, ns) or self._by_the_boot(ns)

    def _by_the_boot(self, ns: int) -> bool:
        """From its begin to the first step that came after it."""
        end = min((start for start, _end in self.windows if start > self.booted), default=1 << 63)
        return 0 < self.booted - EARLY_NS <= ns < end


def _within(windows: tuple[tuple[int, int], ...], ns: int) -> bool:
    return any(start - EARLY_NS <= ns <= end + LATE_NS for start, end in windows)


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


class Ours(NamedTuple):
    """Keys that have to be put back, and those that somebody else changed after the commit."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]


def ours(before: Mapping[str, object], now: Mapping[str, object], left: Mapping[str, object] | None) -> Ours:
    """Which values that have a name are not as before, by whom. A missing key is a value too: it is not there."""
    different = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if left is None:
        return Ours(tuple(different), ())
    meant = [key for key in different if left.get(key) == now.get(key)]
    # What the transaction had not changed at its commit is none of an undo's business.
    others = [key for key in different if key not in meant and left.get(key) != before.get(key)]
    return Ours(tuple(meant), tuple(others))


class Probe(ABC):
    """`name` is the one that users write in the option `probes`. `is_watched`: a look at every step is cheap, and is taken (sightings.py):
    who changed what is told by it."""

    name: str
    is_watched: bool = False

    def check(self) -> str:
        """Why there is nothing to capture on this host (no such tool, no such part of the kernel), as a sentence; empty when there is."""
        return ""

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

    def seen(self, image: Image) -> dict[str, object]:
        """Of one that is watched: the image as values with names."""
        raise NotImplementedError

    def adopt(self, image: Image, keys: Collection[str], other: Image) -> Image:
        """Of one that is watched: `image` with what has these names in `seen` as it is in `other`."""
        raise NotImplementedError

    def damage(self, image: Image) -> str:
        """What is wrong with what lies beside the journal for this image, as a sentence; empty when it is as it was stored (I7)."""
        return ""

    def discard(self, kept: Iterable[Image]) -> None:
        """Forget what lies beside the journal for other images than these."""
        return
