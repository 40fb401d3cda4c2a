# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Drift in the course of an undo (I5): judged before anything is touched, with the verdict and all copies on the disk first.

    settled = Settled.reach(about, store, log, wanted)             looks, decides, copies aside
    for each part of the undo:
        settled.restrict(wanted)                                   what of it may be undone
        ... services stop ...
        with settled.accounts(wanted):                             nobody else writes the password files meanwhile
            undo(..., held=settled.held())
    settled.finish()

If the process dies in between, or the undo waits for a controller, the next call finds the verdict and takes it over.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import os
import stat
import typing as t

from ..afterdigest import clock_offset_ns, now_ns
from ..kernel import AT_EMPTY_PATH
from ..records import Sealed
from ..store import Store
from ..undo import Held
from ..undoing.ground import Ground
from ..undolog import Writer
from ..wanted import Inode, Place, Wanted
from . import accounts, aside, between, merging, verdict
from .daemons import Daemons
from .decide import decide
from .ends import LATER, Ends, Now, StepTimes
from .findings import REPLACED, UNSEEN
from .groups import ACCOUNTS, Groups
from .hold import Hold
from .judge import Judge
from .mergeable import FAMILY
from .sides import open_now
from .verdict import ASIDE, LEFT, MERGED, Drift, Verdict


class About(t.NamedTuple):
    """`directory`: the transaction's; `epoch`: to whose start the undo goes; `steps`: those of the epochs to undo; `killed`: steps of
    which processes were alive until just now; `booted_ns`: as in ends.Now; `undos`: when other undos of the host were at work."""

    directory: str
    epoch: int
    policy: str
    steps: tuple[StepTimes, ...]
    killed: frozenset[int] = frozenset()
    booted_ns: int = 0
    undos: tuple[tuple[int, int], ...] = ()


#: less than probes allow for, more than two readings of the clocks are apart
_SET_NS = 500_000_000


class Settled:
    def __init__(self, about: About, store: Store, log: Writer, found: Verdict) -> None:
        self._about, self._store, self._log = about, store, log
        self.verdict = found
        self._unrestricted = Wanted()
        #: since one of the steps ended: what is known by a time of its own (units) cannot be put beside the steps' times then
        self.clock_was_set = False
        self._sealed: dict[int, Sealed] = {}

    @classmethod
    def reach(cls, about: About, store: Store, log: Writer, wanted: Wanted) -> Settled:
        """`wanted`: of the whole undo."""
        found = verdict.load(about.directory, about.epoch)
        if found is not None and found.done:
            about = about._replace(undos=(*about.undos, (found.judged_ns, found.ended_ns)))
        self = cls(about, store, log, found if found is not None else Verdict())
        self._sealed = dict(wanted.after.sealed)
        offset = clock_offset_ns()
        self.clock_was_set = not about.booted_ns and any(abs(seal.offset_ns - offset) > _SET_NS for seal in wanted.after.sealed.values())
        if found is None or found.done:
            begun = now_ns()
            with self._ground(wanted) as ground:
                self.verdict = decide(ground, self._judge(ground, found).look(), about.policy, judged_ns=begun)
            if found is not None:
                self.verdict.remember(found)
            self.verdict.copied = not any(_wants_copy(drift) for drift in self.verdict.drifts)
            self._save()
        if not self.verdict.copied:
            self._copy_aside(wanted)
        return self

    def spans(self) -> dict[int, tuple[int, int]]:
        """When each step ran: from its begin to the end of its last process, as far as that was seen, else to now."""
        now = now_ns()
        found = {}
        for step in self._about.steps:
            seal = self._sealed.get(step.n)
            if step.n in self._about.killed or step.sealed_ns is None:
                end = now
            elif seal is None:  # of an older engine
                end = step.sealed_ns
            else:
                end = seal.ended_ns or now
            found[step.n] = step.started_ns, end
        return found

    @contextlib.contextmanager
    def _ground(self, wanted: Wanted) -> collections.abc.Iterator[Ground]:
        ground = Ground(self._store, self._log, wanted)
        try:
            yield ground
        finally:
            ground.close()

    def _judge(self, ground: Ground, last: Verdict | None = None) -> Judge:
        about, after, now = self._about, ground.wanted.after, Now(now_ns(), clock_offset_ns(), self._about.booted_ns)
        ends = Ends(about.steps, after.sealed, after.undo_runs, now, killed=about.killed, undos=about.undos)
        windows = tuple((step.started_ns, step.sealed_ns or now.ns) for step in about.steps)
        left = {os.fsencode(drift.path): drift.what for drift in last.drifts if drift.fate == LEFT} if last is not None else {}
        return Judge(ground, ends, Daemons(windows, now.offset_ns), left)

    def _save(self) -> None:
        verdict.save(self._about.directory, self._about.epoch, self.verdict)

    # -- copies ----------------------------------------------------------------------------------------------------------

    def _copy_aside(self, wanted: Wanted) -> None:
        """Of all that is to be undone although somebody else has changed it. Nothing is undone before the verdict says that it is done."""
        paths = {os.fsencode(drift.path): drift for drift in self.verdict.drifts if _wants_copy(drift)}
        with self._ground(wanted) as ground:
            places, inodes = _keys_of(ground, paths) if paths else ({}, {})
            lost: dict[bytes, str] = {}
            for path, drift in paths.items():
                try:
                    if drift.between:
                        drift.theirs_kept = _keep_theirs(ground, path, places.get(path, []), inodes.get(path, []))
                    if drift.fate == ASIDE:
                        drift.kept = _keep(ground, path, places.get(path, []), inodes.get(path, []))
                        if drift.what == REPLACED:
                            _take_over(ground, path, places.get(path, []), inodes.get(path, []))
                except OSError as error:  # without a copy nothing goes over it
                    lost[path] = error.strerror or str(error)
                    drift.fate, drift.what = LEFT, "%s (no copy of it could be kept: %s)" % (drift.what, lost[path])
            if lost:
                hold, groups = Hold(ground, self._judge(ground).look().stands), Groups(ground)
                for path in lost:
                    hold.places_and_inodes(places.get(path, []), inodes.get(path, []))
                held = {groups.of(path) for path in lost} - {""}
                hold.paths(lambda path: groups.of(path) in held)
                self._take(hold)
        self.verdict.copied = True
        self._save()

    # -- a part of the undo ----------------------------------------------------------------------------------------------

    def restrict(self, wanted: Wanted) -> None:
        self._unrestricted = dataclasses.replace(wanted, entries=dict(wanted.entries), contents=dict(wanted.contents))
        self.verdict.restrict(wanted)

    def held(self) -> Held:
        """Of the part that was restricted last."""
        return self.verdict.held(self._unrestricted)

    def paths(self) -> frozenset[bytes]:
        """Paths that nobody shall bring back: they are left or merged, or directories that others have changed."""
        found, basics = self.verdict, self._unrestricted.basics
        around = [basics[inode].path for inode in found.times if inode in basics]
        return frozenset([*around, *map(os.fsencode, [*found.with_them, *(drift.path for drift in found.drifts if drift.fate != ASIDE)])])

    def held_groups(self) -> frozenset[str]:
        return frozenset(drift.group for drift in self.verdict.drifts if drift.fate == LEFT and drift.group)

    def looks_again(self, wanted: Wanted) -> bool:
        """Whether the undo of the files will judge once more, and so needs to know what the steps left (`wanted.after`)."""
        return not self.verdict.begun and _touches_family(wanted)

    @contextlib.contextmanager
    def accounts(self, wanted: Wanted) -> collections.abc.Iterator[None]:
        """The undo of the files runs in here: under the password lock, when it touches the family. Whoever was quicker than the lock has
        drifted too."""
        first, self.verdict.begun = not self.verdict.begun, True
        if not self.verdict.merges and not _touches_family(wanted):
            yield
            return
        with accounts.locked() as had:
            if first:
                self._look_again(wanted)
                self._save()
            if not had:
                self.hold_back(wanted, ACCOUNTS, accounts.LOCK)
            self._merge()
            yield

    def _take(self, hold: Hold) -> None:
        """While its ground is open: held back from now on."""
        found, around = self.verdict, hold.times()
        found.places |= hold.places
        found.inodes |= hold.inodes
        found.times.update(around)
        found.around |= set(around)
        known = {drift.path for drift in found.drifts} | set(found.with_them)
        found.with_them += sorted(hold.names() - known)

    def hold_back(self, wanted: Wanted, group: str, lock: str) -> None:
        """Somebody else has had the lock of the group for all the time that was waited for it: what he writes when he is ready would go
        over what is undone now, or half of both would stay. He is drift; the group is undone when the undo is asked for again."""
        found = self.verdict
        with self._ground(wanted) as ground:
            hold, groups = Hold(ground, self._judge(ground).look().stands), Groups(ground)
            hold.paths(lambda path: groups.of(path) == group or path == os.fsencode(lock))
            for plan in [plan for plan in found.merges if groups.of(plan.path) == group]:
                found.merges.remove(plan)
                hold.places |= plan.places
                hold.inodes |= plan.inodes
            for drift in found.drifts:
                if drift.fate == MERGED and groups.of(os.fsencode(drift.path)) == group:
                    drift.fate = LEFT
            found.drifts.append(Drift(lock, "locked", LATER, LEFT, group))
            self._take(hold)
        found.restrict(wanted)
        self._save()

    def _look_again(self, wanted: Wanted) -> None:
        known = self.verdict
        with self._ground(wanted) as ground:
            findings = self._judge(ground).look(FAMILY)
            more = decide(ground, findings, self._about.policy, judged_ns=known.judged_ns)
        if more.drifts:
            known.places |= more.places
            known.inodes |= more.inodes
            known.times.update(more.times)
            known.around |= more.around
            known.drifts += more.drifts
            known.merges += more.merges
            known.with_them += more.with_them
            self._copy_aside(wanted)
            known.restrict(wanted)

    def _merge(self) -> None:
        """Before the files, so that what cannot be merged after all can still be held back."""
        found = self.verdict
        wrong = {plan.path: sentence for plan in found.merges for sentence in [merging.apply(plan)] if sentence}
        for plan in [plan for plan in found.merges if plan.path in wrong]:
            found.merges.remove(plan)
            found.places |= plan.places
            found.inodes |= plan.inodes
        for drift in found.drifts:
            sentence = wrong.get(os.fsencode(drift.path), "")
            if sentence:
                drift.fate, drift.what = LEFT, "%s by somebody else, and %s" % (drift.what, sentence)
        if wrong:
            self._save()

    # -- the end ---------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The undo has run to its end."""
        self.verdict.done, self.verdict.ended_ns = True, now_ns()
        verdict.save(self._about.directory, self._about.epoch, self.verdict, durable=self.verdict.holds())

    def differs(self) -> list[str]:
        """A sentence for each path that was left."""
        sentences = []
        for drift in self.verdict.drifts:
            if drift.fate == LEFT:
                inside = ", at " + drift.inside if drift.inside else ""
                when = "between two steps" if drift.between else "since"
                doer = "" if drift.what.startswith(UNSEEN) else " by somebody else " + when
                kept = ", and what was there then is kept as " + drift.theirs_kept if drift.theirs_kept else ""
                sentences.append("%s: drift: %s%s%s; left as it is%s" % (drift.path, drift.what, doer, inside, kept))
        if self.verdict.with_them:
            sentences.append("drift: %d more paths are held back with these, see acidctl show" % len(self.verdict.with_them))
        return sentences

    def report(self) -> dict[str, t.Any]:
        """For the summary; empty: nothing to tell."""
        return self.verdict.told()


def _wants_copy(drift: Drift) -> bool:
    """Also of what somebody had left between two steps, which is in an image alone: that goes with the others."""
    return (drift.fate == ASIDE and not drift.kept) or (drift.fate == LEFT and drift.between and not drift.theirs_kept)


def _touches_family(wanted: Wanted) -> bool:
    return any(basic.path in FAMILY for basic in wanted.basics.values()) or any(
        wanted.directories[number].path + b"/" + name in FAMILY for number, name in wanted.entries
    )


def _keep(ground: Ground, path: bytes, places: list[Place], inodes: list[Inode]) -> str:
    """Where the copy is; empty: there is nothing to copy."""
    fd = open_now(ground, places, inodes) if places or inodes else -1
    if fd < 0:
        return ""
    try:
        fs = ground.wanted.directories[places[0][0]].fs if places else inodes[0][0]
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            return aside.keep(ground, fs, fd, path)
        if not places:
            return ""
        name = ground.staged_name(b"q", fs, ground.reader.handle(fd, b"", AT_EMPTY_PATH))
        return os.fsdecode(ground.file_systems[fs].path_of(ground.staging(fs)) + b"/" + name)
    finally:
        os.close(fd)


def _keep_theirs(ground: Ground, path: bytes, places: list[Place], inodes: list[Inode]) -> str:
    image = between.his_version(ground, places, inodes)
    return "" if image is None else aside.keep_image(ground, image, path)


def _take_over(ground: Ground, path: bytes, places: list[Place], inodes: list[Inode]) -> None:
    """The file that somebody has put in the place of one that a step wrote into goes by its images from now on: what stands there, or what
    a later step found there."""
    wanted = ground.inodes_wanted(ground.wanted.entries.values())
    for fs, handle in inodes:
        if (fs, handle) in wanted or not stat.S_ISREG(ground.wanted.basics[fs, handle].mode) or _lives(ground, (fs, handle)):
            continue
        if places and ground.wanted.basics[fs, handle].step >= ground.wanted.entries[places[0]].step:  # born in the transaction itself
            continue
        now = _stands_at(ground, path, places)
        if now and now != handle:
            ground.alias(fs, handle, now)
            ground.wanted.go_by(fs, handle, now)


def _stands_at(ground: Ground, path: bytes, places: list[Place]) -> bytes:
    """Handle of the file; empty: none."""
    if places:
        entry = ground.wanted.entries[places[0]]
        return ground.wanted.inode(entry.fs, entry.handle) if stat.S_ISREG(entry.mode) else b""
    fd = ground.at_path(path)
    if fd < 0:
        return b""
    try:
        return ground.reader.handle(fd, b"", AT_EMPTY_PATH)
    finally:
        os.close(fd)


def _lives(ground: Ground, inode: Inode) -> bool:
    fd = ground.inode(*inode)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _keys_of(ground: Ground, paths: collections.abc.Container[bytes]) -> tuple[dict[bytes, list[Place]], dict[bytes, list[Inode]]]:
    places: dict[bytes, list[Place]] = {}
    inodes: dict[bytes, list[Inode]] = {}
    for place, entry in ground.wanted.entries.items():
        path = os.fsencode(ground.path(entry))
        if path in paths:
            places.setdefault(path, []).append(place)
    for inode, basic in ground.wanted.basics.items():
        if basic.path in paths:
            inodes.setdefault(basic.path, []).append(inode)
    return places, inodes
