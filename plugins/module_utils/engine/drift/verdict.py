# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is to become of drift: decided once, on the disk before the undo's first change, and the same for an undo that starts again (I5).

    /var/lib/acid/tx/<id>/drift            of the undo of the whole transaction; drift-<epoch>: of one to a savepoint

While `done` is false an undo is under way, or has died: the next one takes this verdict over and asks nothing anew, since what has been
undone so far looks like drift. When it is done, what was held back is all that the log still has images of, and an undo that is asked for
later judges anew.
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import json
import os
import typing as t

from ..errors import JournalDamaged
from ..undo import Held
from ..wanted import Inode, Place, Wanted

STOP, FORCE, MERGE = "stop", "force", "merge"
#: Of long lists the controller is told so many, and their length.
_SHOWN = 50
POLICIES = (STOP, FORCE, MERGE)

#: What became of a drifted path.
LEFT, ASIDE, MERGED = "left", "kept aside", "merged"


@dataclasses.dataclass
class Drift:
    """A path that somebody else has changed. `kept`: where the copy is. `between`: two steps, and then a copy of what he had left is
    `theirs_kept`. `inside`: see findings.py. `ours`, `theirs`: unified diffs of what
    the transaction and what the others did to it, as far as known; `both` where the two cannot be told apart."""

    path: str
    what: str
    when: str
    fate: str
    group: str = ""
    kept: str = ""
    inside: str = ""
    between: bool = False
    theirs_kept: str = ""
    ours: str = ""
    theirs: str = ""
    both: str = ""

    def told(self, *, diffs: bool) -> dict[str, str]:
        names = ("path", "what", "when", "group", "kept", "theirs_kept", "inside") + (("ours", "theirs", "both") if diffs else ())
        return {name: value for name in names for value in [getattr(self, name)] if value}


@dataclasses.dataclass
class MergePlan:
    """`left`: what the last step left; `before`: what was before it; `owner`: mode, uid and gid then, None: there was no such file."""

    path: bytes
    kind: str
    left: bytes
    before: bytes
    owner: tuple[int, int, int] | None
    #: what steps before had left, and what was before each: somebody else has changed it in between
    earlier: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)
    places: set[Place] = dataclasses.field(default_factory=set)
    inodes: set[Inode] = dataclasses.field(default_factory=set)

    def to_json(self) -> dict[str, t.Any]:
        texts = {key: base64.b64encode(getattr(self, key)).decode() for key in ("path", "left", "before")}
        earlier = [[base64.b64encode(data).decode() for data in pair] for pair in self.earlier]
        held = {"places": _dump(self.places), "inodes": _dump(self.inodes)}
        return {**texts, **held, "earlier": earlier, "kind": self.kind, "owner": self.owner}

    @classmethod
    def from_json(cls, data: dict[str, t.Any]) -> MergePlan:
        path, left, before = (base64.b64decode(data[key]) for key in ("path", "left", "before"))
        owner = None if data["owner"] is None else t.cast("tuple[int, int, int]", tuple(data["owner"]))
        earlier = [(base64.b64decode(one), base64.b64decode(other)) for one, other in data.get("earlier", ())]
        return cls(path, data["kind"], left, before, owner, earlier, set(_load(data["places"])), set(_load(data["inodes"])))


@dataclasses.dataclass
class Verdict:
    """`places`, `inodes`: what is held back."""

    policy: str = STOP
    judged_ns: int = 0
    places: set[Place] = dataclasses.field(default_factory=set)
    inodes: set[Inode] = dataclasses.field(default_factory=set)
    times: dict[Inode, tuple[int, int]] = dataclasses.field(default_factory=dict)
    #: directories around held places: of these the times are still to be brought back
    around: set[Inode] = dataclasses.field(default_factory=set)
    drifts: list[Drift] = dataclasses.field(default_factory=list)
    merges: list[MergePlan] = dataclasses.field(default_factory=list)
    #: [path, what, where it is kept]
    passengers: list[list[str]] = dataclasses.field(default_factory=list)
    #: paths that did not drift and are held back with one that did
    with_them: list[str] = dataclasses.field(default_factory=list)
    clock_set_back_ns: int = 0
    copied: bool = False
    begun: bool = False
    done: bool = False
    ended_ns: int = 0

    def remember(self, last: Verdict) -> None:
        """What an undo before this one has merged and kept aside is still to be told."""
        self.drifts = [drift for drift in last.drifts if drift.fate != LEFT] + self.drifts
        self.passengers = last.passengers + self.passengers

    def restrict(self, wanted: Wanted) -> None:
        """Take out of what an undo is to bring back all that is held or merged."""
        for place in self.places.union(*(plan.places for plan in self.merges)):
            wanted.entries.pop(place, None)
        for inode in self.inodes.union(*(plan.inodes for plan in self.merges)):
            for images in _of_inodes(wanted):
                images.pop((inode[0], wanted.inode(*inode)), None)
        for (fs, handle), (atime, mtime) in self.times.items():
            inode = fs, wanted.inode(fs, handle)
            basic = wanted.basics.get(inode)
            if basic is not None:
                wanted.basics[inode] = basic._replace(atime=atime, mtime=mtime)

    def held(self, wanted: Wanted) -> Held:
        """`wanted`: not restricted."""
        needed = {(fs, wanted.inode(fs, handle)) for fs, handle in self.inodes}
        for place in self.places:
            entry = wanted.entries.get(place)
            if entry is not None and entry.mode:
                needed.add((entry.fs, wanted.inode(entry.fs, entry.handle)))
        keeps = ((inode, name) for inode, keep in wanted.keeps.items() for name in (b"%d" % keep.number, b"c%d" % keep.number))
        contents = ((inode, b"c%d" % content.number) for inode, content in wanted.contents.items())
        stored = frozenset((inode[0], name) for found in (keeps, contents) for inode, name in found if inode in needed)
        told = frozenset(self.places.union(*(plan.places for plan in self.merges)))
        return Held(tuple(sorted(self.places)), tuple(sorted(self.inodes | self.around)), stored, told)

    def holds(self) -> bool:
        return bool(self.places or self.inodes)

    def told(self, *, diffs: bool = False) -> dict[str, t.Any]:
        """For people and the controller; what there is nothing to tell of is left out. `diffs`: all of it, and with the contents, which
        root alone may see."""
        shown = None if diffs else _SHOWN
        data: dict[str, t.Any] = {
            "left": [drift.told(diffs=diffs) for drift in self.drifts if drift.fate == LEFT],
            "held": self.with_them[:shown],
            "held_count": len(self.with_them),
            "merged": [drift.told(diffs=diffs) for drift in self.drifts if drift.fate == MERGED],
            "kept_aside": [drift.told(diffs=diffs) for drift in self.drifts if drift.fate == ASIDE],
            "gone": [{"path": path, "what": what, "kept": where} for path, what, where in self.passengers[:shown]],
            "gone_count": len(self.passengers),
            "clock_set_back_seconds": round(self.clock_set_back_ns / 1e9, 3),
        }
        return {key: value for key, value in data.items() if value}

    def to_json(self) -> dict[str, t.Any]:
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["drifts"] = [dataclasses.asdict(drift) for drift in self.drifts]
        data["places"] = _dump(self.places)
        data["inodes"] = _dump(self.inodes)
        data["around"] = _dump(self.around)
        data["times"] = [[*pair, *times] for pair, times in zip(_dump(self.times), self.times.values())]
        data["merges"] = [plan.to_json() for plan in self.merges]
        return data

    @classmethod
    def from_json(cls, data: dict[str, t.Any]) -> Verdict:
        known = dict(data)
        known["places"] = set(_load(known["places"]))
        known["inodes"] = set(_load(known["inodes"]))
        known["around"] = set(_load(known["around"]))
        known["times"] = {(fs, base64.b64decode(handle)): (atime, mtime) for fs, handle, atime, mtime in known["times"]}
        known["drifts"] = [Drift(**drift) for drift in known["drifts"]]
        known["merges"] = [MergePlan.from_json(plan) for plan in known["merges"]]
        return cls(**known)


def _of_inodes(wanted: Wanted) -> tuple[dict[Inode, t.Any], ...]:
    return wanted.basics, wanted.xattrs, wanted.flags, wanted.contents


def _dump(keys: collections.abc.Iterable[tuple[int, bytes]]) -> list[list[t.Any]]:
    return [[number, base64.b64encode(name).decode()] for number, name in keys]


def _load(rows: list[list[t.Any]]) -> list[tuple[int, bytes]]:
    return [(number, base64.b64decode(name)) for number, name in rows]


def passengers(directory: str) -> frozenset[bytes]:
    """What others put into directories that the transaction's undos take away: its path, and the one in quarantine."""
    found: set[bytes] = set()
    for name in os.listdir(directory):
        _drift, _dash, epoch = name.partition("-")
        if _drift == "drift" and epoch.isdigit() == bool(epoch):
            verdict = load(directory, int(epoch or 0))
            found.update(os.fsencode(path) for one in (verdict.passengers if verdict is not None else ()) for path in (one[0], one[2]))
    return frozenset(found)


def path_of(directory: str, epoch: int) -> str:
    return "%s/drift%s" % (directory, "-%d" % epoch if epoch else "")


def load(directory: str, epoch: int) -> Verdict | None:
    try:
        with open(path_of(directory, epoch), encoding="utf-8") as f:
            text = f.read()
        # Where nothing had drifted it was not synced (`save`), and a power cut may leave its name without its bytes.
        return Verdict.from_json(json.loads(text)) if text else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JournalDamaged(
            "%s: it is not a verdict (%s)" % (path_of(directory, epoch), error),
            hint="Nothing was touched since. Keep a copy of it and remove it: the undo then judges anew.",
        ) from error


def save(directory: str, epoch: int, verdict: Verdict, *, durable: bool = True) -> None:
    """Whole or not at all; `durable`: on the disk when it returns."""
    path = path_of(directory, epoch)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as f:
        json.dump(verdict.to_json(), f)
        f.flush()
        if durable:
            os.fsync(fd)
    os.rename(path + ".new", path)
    if not durable:
        return
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
