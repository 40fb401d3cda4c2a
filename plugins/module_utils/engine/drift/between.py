# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What somebody else changed between two steps, and a later step has changed again (I5, docs/adr/0025).

    look(ground, ends, found, only)     adds to the findings of the present
    his_version(ground, places, inodes) the image of what that step found: somebody else's version

The present does not show it: it is what the later step left. So it is judged by what that step found (trace/encounters.py), and by when the
steps before it ended.
"""

from __future__ import annotations

import collections.abc
import os
import stat

from ..records import Content, Keep, LeftPlace, Met, MetPlace
from ..trace.scope import below
from ..undoing.ground import Ground
from ..wanted import AfterDigest, Inode, Place
from .ends import DURING, OURS, Ends
from .findings import APPEARED, CHANGED, REMOVED, REPLACED, Finding, Findings, unseen
from .images import is_as_before
from .scope import COMMON_GROUND


def look(ground: Ground, ends: Ends, found: Findings, only: collections.abc.Container[bytes] | None) -> None:
    judge, basics, entries = _Look(ground, ends), ground.wanted.basics, ground.wanted.entries
    for inode, met in ground.wanted.after.met.items():
        if inode not in basics or inode in found.inodes or (only is not None and basics[inode].path not in only):
            continue
        path = basics[inode].path
        try:
            when = judge.inode(inode, met)
            if when != OURS:
                found.inodes[inode] = _finding(path, CHANGED, when)
        except OSError as error:
            found.inodes[inode] = unseen(path, error)
    for place, met_there in ground.wanted.after.met_places.items():
        path = os.fsencode(ground.path(entries[place])) if place in entries else b""
        if not path or place in found.places or (only is not None and path not in only):
            continue
        try:
            what, when = judge.place(place, met_there)
            if when != OURS:
                found.places[place] = _finding(path, what, when)
        except OSError as error:
            found.places[place] = unseen(path, error)


def his_version(ground: Ground, places: collections.abc.Iterable[Place], inodes: collections.abc.Iterable[Inode]) -> Content | Keep | None:
    after, entries, places = ground.wanted.after, ground.wanted.entries, list(places)
    theirs = [(entries[place].fs, entries[place].handle) for place in places]
    theirs += [(met.fs, met.handle) for place in places for met, _left in after.met_places.get(place, ()) if met.ino]
    found = [after.met_images[inode] for inode in (*reversed(theirs), *inodes) if inode in after.met_images]
    return found[0] if found else None


class _Look:
    def __init__(self, ground: Ground, ends: Ends) -> None:
        self._ground, self._after, self._ends = ground, ground.wanted.after, ends
        self._wanted = ground.inodes_wanted(ground.wanted.entries.values())
        #: of an undo to a savepoint: what the steps before it had hold of is not known, so it may be all
        self._unknown = _steps_before(ground.wanted.after) if ground.wanted.first_epoch else 0

    def inode(self, inode: Inode, met: list[Met]) -> str:
        when = next((when for one in met for when in [self._when(one, inode, None)] if when != OURS), OURS)
        return OURS if when != OURS and self._nothing_to_undo(inode) else when

    def place(self, place: Place, met: list[tuple[MetPlace, LeftPlace | None]]) -> tuple[str, str]:
        for one, left in met:
            what, when = self._place(place, one, left)
            if when != OURS and self._ground.in_place(self._ground.wanted.entries[place]):
                # A step has taken his away again: nothing is left to undo, and a copy of it is kept.
                when = DURING if his_version(self._ground, [place], ()) is not None else OURS
            if when != OURS:
                return what, when
        return CHANGED, OURS

    def _place(self, place: Place, met: MetPlace, left: LeftPlace | None) -> tuple[str, str]:
        was_there = left is not None and left.ino
        if self._ends.has_begun(met.step, met.ctime):  # it has linked or moved it, which takes no image of the inode
            return CHANGED, OURS
        if not met.ino:
            named = self._unknown | self._before(self._after.named.get(place, 0), met.step)
            end = max(self._ends.of(named), self._after.undone.get(place, 0))
            return REMOVED, self._ends.when(met.ctime, end) if was_there else OURS
        same = left is None or (left.ino, left.btime) == (met.ino, met.btime)
        if stat.S_ISDIR(met.mode):  # its ctime is that of its latest entry
            return REPLACED, OURS if same else self._ends.when(met.btime, self._ends.of(self._steps(met, (met.fs, met.handle), place)))
        return CHANGED if same else REPLACED if was_there else APPEARED, self._when(met, (met.fs, met.handle), place)

    def _when(self, met: Met | MetPlace, inode: Inode, place: Place | None) -> str:
        steps = self._steps(met, inode, place)
        if self._ends.has_begun(met.step, met.ctime):
            return OURS
        if not steps and place is None:  # no step's: what a step does to others' files it does to what was before it
            return OURS
        end = max(self._ends.of(steps), self._after.undone.get(inode, 0), self._after.undone.get(place, 0) if place is not None else 0)
        when = self._ends.when(met.ctime, end)
        return DURING if when == OURS and met.ctime > self._ends.undecided_since(steps) else when

    def _steps(self, met: Met | MetPlace, inode: Inode, place: Place | None) -> int:
        """Those before it that had hold of what it met (bits); of what was made inside a directory of the transaction's, the one in which
        it was born."""
        after = self._after
        steps = after.touched.get(inode, 0) | after.standing.get((met.ino, met.btime), 0)
        steps |= after.named.get(place, 0) if place is not None else 0
        return self._unknown | (self._before(steps, met.step) or self._before(self._ends.born_in(met.btime), met.step))

    def _nothing_to_undo(self, inode: Inode) -> bool:
        """All is as the images say, or it has no name any more and gets none."""
        fd = self._ground.inode(*inode)
        if fd < 0:
            return inode not in self._wanted
        try:
            return is_as_before(self._ground, inode, fd)
        finally:
            os.close(fd)

    @staticmethod
    def _before(steps: int, step: int) -> int:
        return steps & ((1 << step) - 1)


def _steps_before(after: AfterDigest) -> int:
    """Bits of all steps before the first one that is known."""
    known = 0
    for steps in (*after.touched.values(), *after.named.values()):
        known |= steps
    return (known & -known) - 1 if known else 0


def _finding(path: bytes, what: str, when: str) -> Finding:
    return Finding(path, what, DURING if below(path, COMMON_GROUND) else when, between=True)
