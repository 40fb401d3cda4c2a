# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare the present with what the steps left, once per place and inode and before the undo touches anything (I5).

It looks, and does nothing.

    findings = Judge(ground, ends, is_daemons).look()

A place is as it was left when the same inode stands there and that was not changed since; an inode that the undo would write when its ctime
is no later than the end of the last step that had hold of it. A change that left everything as it was before the transaction is no drift:
there is nothing to overwrite.
"""

from __future__ import annotations

import collections.abc
import os
import stat

from .. import restore
from ..kernel import AT_EMPTY_PATH, Stat
from ..records import Basic, Entry
from ..trace.scope import below
from ..undoing.ground import Ground
from ..wanted import Inode, Place
from . import between
from .born import Born
from .ends import DURING, LATER, OURS, Ends
from .findings import APPEARED, CHANGED, REMOVED, REPLACED, Finding, Findings, unseen
from .images import is_as_before
from .scope import COMMON_GROUND

_LOOKS = 5


class Judge:
    """`is_daemons`: whether an inode belongs to a service that the transaction has started (daemons.py); `known`: what an earlier undo has
    left, and why: its own work around it has changed the times since."""

    def __init__(
        self, ground: Ground, ends: Ends, is_daemons: collections.abc.Callable[[Stat], bool], known: collections.abc.Mapping[bytes, str]
    ) -> None:
        self._ground, self._ends, self._is_daemons = ground, ends, is_daemons
        self._known = known
        self._places: dict[bytes, Place] | None = None
        self._wanted, self._after, self._reader = ground.wanted, ground.wanted.after, ground.reader
        self._found = Findings(clock_set_back_ns=ends.clock_set_back_ns())
        self._born = Born(ground, self._end, self.when)
        directories = [entry for entry in self._wanted.entries.values() if stat.S_ISDIR(entry.mode)]
        self._wants = {(entry.fs, self._wanted.inode(entry.fs, entry.handle)) for entry in directories}

    def look(self, only: collections.abc.Container[bytes] | None = None) -> Findings:
        """`only`: at these paths."""
        for place, entry in self._wanted.entries.items():
            if only is None or self._path(entry) in only:
                try:
                    self._while_others_work(place, entry)
                except OSError as error:
                    self._found.places[place] = unseen(self._path(entry), error)
        for inode, basic in self._wanted.basics.items():
            if only is None or basic.path in only:
                try:
                    self._inode(inode, basic)
                except OSError as error:
                    self._found.inodes[inode] = unseen(basic.path, error)
        between.look(self._ground, self._ends, self._found, only)
        return self._found

    # -- times -----------------------------------------------------------------------------------------------------------

    def _end(self, inode: Inode, state: Stat, place: Place | None = None) -> tuple[int, int]:
        """(when the last step that had hold of it ended, from when on a ctime cannot be judged)."""
        after = self._after
        steps = after.touched.get(inode, 0) | after.standing.get((state.ino, state.btime), 0)
        end = after.undone.get(inode, 0)
        if place is not None:
            steps |= after.named.get(place, 0)
            end = max(end, after.undone.get(place, 0))
        return max(end, self._ends.of(steps)), self._ends.undecided_since(steps)

    def when(self, state: Stat, end: tuple[int, int]) -> str:
        when = self._ends.when(state.ctime, end[0])
        if when == OURS and state.ctime > end[1]:
            return DURING
        return DURING if when == LATER and self._is_daemons(state) else when

    # -- places ----------------------------------------------------------------------------------------------------------

    def _while_others_work(self, place: Place, entry: Entry) -> None:
        """Services still run: what is there at one look may be gone or another one at the next."""
        for _attempt in range(_LOOKS):
            try:
                return self._place(place, entry)
            except FileNotFoundError:
                continue
        self._report(place, self._path(entry), REPLACED, DURING)
        return None

    def _place(self, place: Place, entry: Entry) -> None:
        directory = self._ground.directory(entry.directory)
        if directory is None:
            return
        state = self._reader.stat_or_none(directory, entry.name)
        if state is None:
            if entry.mode:
                self._absent(place, entry, directory)
            return
        fs = self._wanted.directories[entry.directory].fs
        inode = fs, self._reader.handle(directory, entry.name)
        if entry.mode and stat.S_IFMT(state.mode) == stat.S_IFMT(entry.mode) and inode[1] == self._wanted.inode(entry.fs, entry.handle):
            return
        self._found.stands.setdefault(inode, []).append(place)
        path = self._path(entry)
        if path in self._known:
            self._found.places[place] = Finding(path, self._known[path], LATER)
            return
        left = self._after.places.get(place)
        same = left is None or (left.ino, left.btime) == (state.ino, state.btime) or place in self._after.undone
        end = self._end(inode, state, place)
        if not stat.S_ISDIR(state.mode):
            when = self.when(state, end) if same else self._put_there(place, inode, state, end)
            what = CHANGED if same else REPLACED if left and left.ino else APPEARED
            self._report(place, path, what, when, between=inode in self._after.met)
        elif not same:  # by the time of its birth: its ctime is that of its latest entry
            when = self.when(state._replace(ctime=state.btime or state.ctime), end)
            self._report(place, path, REPLACED if left and left.ino else APPEARED, when)
        elif inode not in self._wants:
            inside = self._born.look(directory, entry, path, end)
            if inside.passengers:
                self._found.passengers[place] = inside.passengers
            if inside.changed:
                self._found.places[place] = Finding(path, CHANGED, LATER, inside.changed)

    def _put_there(self, place: Place, inode: Inode, state: Stat, end: tuple[int, int]) -> str:
        """What no step has left there somebody else has put there, also where a step has written into it since: its birth tells when."""
        if place in self._after.undone:
            return self.when(state, end)
        when = self.when(state._replace(ctime=state.btime or state.ctime), (self._ends.of(self._after.named.get(place, 0)), end[1]))
        return when if when != OURS else self.when(state, end)

    def _absent(self, place: Place, entry: Entry, directory: int) -> None:
        """Somebody has removed what the step had left: the directory's ctime is no earlier than that."""
        left, path = self._after.places.get(place), self._path(entry)
        if path in self._known:
            self._report(place, path, self._known[path], LATER)
            return
        if left is None or not left.ino or place in self._after.undone:
            return
        around = self._reader.stat(directory, b"", AT_EMPTY_PATH)
        when = self._ends.when(around.ctime, self._ends.of(self._after.named.get(place, 0)))
        self._report(place, path, REMOVED, when)

    def _report(self, place: Place, path: bytes, what: str, when: str, *, between: bool = False) -> None:
        if when != OURS:
            self._found.places[place] = Finding(path, what, DURING if below(path, COMMON_GROUND) else when, between=between)

    def _path(self, entry: Entry) -> bytes:
        return os.fsencode(self._ground.path(entry))

    # -- inodes ----------------------------------------------------------------------------------------------------------

    def _inode(self, inode: Inode, basic: Basic) -> None:
        fd = self._ground.inode(*inode)
        if fd < 0:
            self._replaced(inode, basic)
            return
        try:
            state = self._reader.stat(fd, b"", AT_EMPTY_PATH)
            known = basic.path in self._known
            when = LATER if known else self.when(state, self._end(inode, state))
            if when == OURS:
                return
            if known and not is_as_before(self._ground, inode, fd):
                self._found.inodes[inode] = Finding(basic.path, self._known[basic.path], LATER)
            elif stat.S_ISDIR(state.mode):
                self._directory(inode, basic, fd, state, when)
            elif not below(basic.path, COMMON_GROUND) and not is_as_before(self._ground, inode, fd):
                self._found.inodes[inode] = Finding(basic.path, CHANGED, when)
        finally:
            os.close(fd)

    def _replaced(self, inode: Inode, basic: Basic) -> None:
        """A step wrote into a file, and somebody edited it by rename (`sed -i`, vim): what the step wrote is in his file now. Where steps
        changed the name too, the place tells."""
        fs = self._ground.file_systems.get(inode[0])
        if not stat.S_ISREG(basic.mode) or fs is None:
            return
        place = self._place_at(basic.path)
        if place is not None:
            self._replaced_before(place, inode, basic)
            return
        if self._ground.has_moved_names_at(basic.path):
            return
        fd = self._ground.at_path(basic.path)
        if fd < 0:  # he has removed it, and with it all that the step wrote
            return
        try:
            state = self._reader.stat(fd, b"", AT_EMPTY_PATH)
            if stat.S_ISREG(state.mode) and state.dev == fs.dev and not is_as_before(self._ground, inode, fd):
                end = self._ends.of(self._after.touched.get(inode, 0)), 1 << 63
                when = self.when(state._replace(ctime=state.btime or state.ctime), end)
                during = when == OURS or below(basic.path, COMMON_GROUND)
                theirs = inode[0], self._reader.handle(fd, b"", AT_EMPTY_PATH)
                finding = Finding(basic.path, REPLACED, DURING if during else when, between=theirs in self._after.met)
                self._found.inodes[inode] = finding
                if theirs in self._wanted.basics:  # a later step has written into it
                    self._found.inodes[theirs] = finding
        finally:
            os.close(fd)

    def _replaced_before(self, place: Place, inode: Inode, basic: Basic) -> None:
        """A later step has changed the name as well, and found somebody else's file there: what is wanted at the place is that one."""
        entry = self._wanted.entries[place]
        theirs = entry.fs, self._wanted.inode(entry.fs, entry.handle)
        own, met = self._after.touched.get(inode, 0), self._after.met.get(theirs, [])
        if theirs == inode or not stat.S_ISREG(entry.mode) or own.bit_length() > entry.step or place in self._found.places:
            return
        when = self._ends.when(met[0].btime, self._ends.of(own)) if met else LATER
        if when != OURS:
            self._report(place, basic.path, REPLACED, when, between=True)
            self._found.inodes[inode] = self._found.places[place]

    def _place_at(self, path: bytes) -> Place | None:
        if self._places is None:
            self._places = {self._path(entry): place for place, entry in self._wanted.entries.items()}
        return self._places.get(path)

    def _directory(self, inode: Inode, basic: Basic, fd: int, state: Stat, when: str) -> None:
        """Entries that others make or remove change its times, which stay theirs then: nothing of it is lost when the rest goes back."""
        if when == DURING:
            return
        wrong = restore.differences(fd, basic._replace(mtime=state.mtime), self._wanted.xattrs_of(inode), sized=False)
        if wrong and state.mtime != state.ctime:  # the last change was none of its entries
            self._found.inodes[inode] = Finding(basic.path, CHANGED, when)
        else:
            self._found.times[inode] = state.atime, state.mtime
