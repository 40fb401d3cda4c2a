# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From findings to a verdict: what is left, what is kept aside and undone, what is merged, and what has to stay with what is left (I5)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import typing as t

from ..undoing.ground import Ground
from ..wanted import Inode, Place
from . import merging
from .ends import DURING
from .findings import REMOVED, Finding, Findings
from .groups import ACCOUNTS, Groups
from .hold import Hold
from .mergeable import LARGEST, ROWS, kind_of
from .sides import before_at, diffs_of
from .verdict import ASIDE, FORCE, LEFT, MERGE, MERGED, Drift, MergePlan, Verdict


class _Case(t.NamedTuple):
    """One path that drifted, with the places and inodes that an undo would have changed there."""

    finding: Finding
    places: list[Place]
    inodes: list[Inode]


def decide(ground: Ground, findings: Findings, policy: str, *, judged_ns: int) -> Verdict:
    """The verdict; nothing has been touched yet."""
    return _Decision(ground, findings, policy).verdict(judged_ns)


class _Decision:
    def __init__(self, ground: Ground, findings: Findings, policy: str) -> None:
        self._ground, self._findings, self._policy = ground, findings, policy
        self._groups = Groups(ground)
        self._cases = self._by_path()
        self._plans: dict[bytes, MergePlan] = {}

    def _by_path(self) -> dict[bytes, _Case]:
        cases: dict[bytes, _Case] = {}
        for place, finding in self._findings.places.items():
            cases.setdefault(finding.path, _Case(finding, [], [])).places.append(place)
        for inode, finding in self._findings.inodes.items():
            cases.setdefault(finding.path, _Case(finding, [], [])).inodes.append(inode)
        return cases

    def verdict(self, judged_ns: int) -> Verdict:
        found = self._findings
        fates = {path: self._fate(path, case) for path, case in self._cases.items()}
        held = {self._groups.of(path) for path, fate in fates.items() if fate == LEFT} - {""}
        if ACCOUNTS in held:  # half of a family merged and half of it left would not fit together
            fates.update((path, LEFT) for path, fate in fates.items() if fate == MERGED and self._groups.of(path) == ACCOUNTS)
        if held:
            fates.update((path, LEFT) for path in fates if self._groups.of(path) in held)
        result = Verdict(self._policy, judged_ns, times=dict(found.times), clock_set_back_ns=found.clock_set_back_ns)
        hold = Hold(self._ground, found.stands)
        for path, case in self._cases.items():
            if fates[path] == LEFT:
                hold.places_and_inodes(case.places, case.inodes)
        if held:
            hold.paths(lambda path: self._groups.of(path) in held)
        result.places, result.inodes = set(hold.places), set(hold.inodes)
        around = hold.times()
        result.times.update(around)
        result.around = set(around)
        for path, plan in self._plans.items():
            if fates[path] == MERGED:
                alone = Hold(self._ground, found.stands)
                alone.places_and_inodes(self._cases[path].places, self._cases[path].inodes)
                plan.places, plan.inodes = alone.places - result.places, alone.inodes - result.inodes
                result.merges.append(plan)
        known = {os.fsdecode(path) for path in fates}
        result.with_them = sorted(path for path in hold.names() if path not in known)
        for path, case in sorted(self._cases.items()):
            if fates[path] != ASIDE or case.finding.what != REMOVED or case.finding.when != DURING:
                result.drifts.append(self._drift(path, case, fates[path]))
        result.passengers = [
            [os.fsdecode(one.path), one.what, self._kept_with(place, one.path)]
            for place, found_there in found.passengers.items()
            if place not in result.places
            for one in found_there
        ]
        return result

    # -- one path --------------------------------------------------------------------------------------------------------

    def _fate(self, path: bytes, case: _Case) -> str:
        kind = kind_of(path)
        if kind is not None and (kind == ROWS or self._policy == MERGE) and case.finding.what != REMOVED:
            plan = self._plan(path, kind, case)
            if plan is not None:
                self._plans[path] = plan
                return MERGED
        return ASIDE if self._policy == FORCE or case.finding.when == DURING else LEFT

    def _plan(self, path: bytes, kind: str, case: _Case) -> MergePlan | None:
        """None where the two changes do not go together."""
        ground = self._ground
        left = ground.wanted.after.contents.get(path)
        if kind == ROWS and path.endswith(b"-"):  # the backup of a file goes the way of the file
            plan = self._plans.get(path[:-1])
            if plan is None and path[:-1] in self._cases:
                plan = self._plan(path[:-1], kind, self._cases[path[:-1]])
            if plan is not None:
                return dataclasses.replace(plan, path=path, places=set(), inodes=set())
        was = before_at(ground, case.places, case.inodes, LARGEST)
        if left is None or was is None:
            return None
        base, earlier = was.data, list[tuple[bytes, bytes]]()
        for found, left_before in ground.wanted.after.met_contents.get(path, ()):
            if left_before is None:
                return None
            if found != left_before:
                earlier.append((left_before, base))
                base = found
        plan = MergePlan(path, kind, left, base, was.owner, earlier)
        return plan if merging.possible(plan) else None

    def _drift(self, path: bytes, case: _Case, fate: str) -> Drift:
        finding = case.finding
        drift = Drift(
            os.fsdecode(path),
            finding.what,
            finding.when,
            fate,
            self._groups.of(path) if fate == LEFT else "",
            inside=os.fsdecode(finding.inside),
            between=finding.between,
        )
        with contextlib.suppress(OSError):  # of what cannot be read there is none to show
            diffs_of(self._ground, path, case.places, case.inodes, drift)
        return drift

    def _kept_with(self, place: Place, path: bytes) -> str:
        """Where a path in a directory that goes into quarantine is then."""
        ground, entry = self._ground, self._ground.wanted.entries[place]
        found = ground.found(entry)
        fs = ground.wanted.directories[entry.directory].fs
        if found is None or not stat.S_ISDIR(found[1].mode):
            return ""
        name = ground.staged_name(b"q", fs, ground.reader.handle(found[0], entry.name))
        root = os.fsencode(ground.path(entry))
        return os.fsdecode(ground.file_systems[fs].path_of(ground.staging(fs)) + b"/" + name + path[len(root) :])
