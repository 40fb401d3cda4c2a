# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who changed run-time state that has no time of change of its own (mounts, links, addresses, routes, swap, ...): what was seen at the
begin and the end of each step, and whenever the kernel told of a change in between.

What differs between a step's end and the next one's begin is somebody else's doing. An undo goes back to the image of before the steps
with just that in it (`Sightings.goal`), so that it is neither taken back nor missed.

The file is one line of JSON for each event, appended by one write(2) each. It needs no sync: what it is about does not outlive a power
cut either. A line that was not written whole, and all after it, does not count: what nobody has seen is the steps'.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from .. import whole
from ..errors import AcidError
from .base import LATE_NS, Image, Probe

FILE = "/sightings"
#: Instead of a step's number: nobody's of the transaction; an undo's; a step whose end nobody has seen.
NOBODY, UNDO = 0, -1
#: Steps can change these only by calls that the trace tells of, or by somebody whom they ask. (A name of the host is also a setting.)
_BY_TRACED_CALLS = frozenset({"mounts", "swap"})

Acts = Callable[[int], tuple[bool, bool]]


def nothing_known(_step: int) -> tuple[bool, bool]:
    return True, True


class Sightings:
    """Of one transaction. One thread at a time. `acts` says of a step whether it has made a call that changes run-time state, and whether
    it has asked a daemon."""

    def __init__(self, directory: str, probes: Iterable[Probe], *, acts: Acts = nothing_known) -> None:
        self._path, self._acts = directory + FILE, acts
        self._probes = {probe.name: probe for probe in probes}
        self._last: dict[str, Image] = {}
        self._changes: list[tuple[int, str, int, Image]] = []  # epoch, probe, by, image
        self._asked_until = (0, 0)  # a step that asked a daemon, and until when that may act
        self._owed: dict[str, int] = {}
        self._blind = False
        self.epoch = 0
        self.running: set[int] = set()
        self.closed = False
        self._load()

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines[:-1]:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                self.running.add(UNDO)
                return

    def _take(self, line: dict[str, Any]) -> None:
        what = line["what"]
        if what == "image":
            self._last[line["probe"]] = line["image"]
            self._changes.append((line["epoch"], line["probe"], line["by"], line["image"]))
        elif what == "began":
            self.running.add(line["step"])
        elif what == "ended":
            self.running.discard(line["step"])
            self._asked_until = (line["step"], line["until"]) if line["until"] else self._asked_until
        elif what == "closed":
            self.closed = True

    # -- what happens ----------------------------------------------------------------------------------------------------

    def first(self, images: dict[str, Image]) -> None:
        """What was captured at the transaction's begin."""
        for name in self._probes:
            if name in images:
                self._write({"what": "image", "probe": name, "by": UNDO, "epoch": -1, "image": images[name]})

    def began(self, step: int, epoch: int) -> None:
        """A step's first process is about to run, or one more of it; or an undo begins."""
        self.epoch = epoch
        if step not in self.running:
            self.look()
            self._write({"what": "began", "step": step})

    def ended(self, step: int) -> None:
        """The last process of it has ended."""
        if step in self.running:
            self.look()
            asked = step != UNDO and self._acts(step)[1]
            self._write({"what": "ended", "step": step, "until": _now() + LATE_NS if asked else 0})

    def close(self) -> None:
        """The transaction is committed: what comes later is told by the images of the commit."""
        self.look()
        self._write({"what": "closed"})

    def look(self) -> None:
        for name, probe in self._probes.items():
            try:
                image = probe.capture()
            except (AcidError, OSError):  # it will be seen at the next look, and is the steps' then
                self._owed[name] = UNDO
                continue
            last, owed = self._last.get(name), self._owed.pop(name, NOBODY)
            if last is None or probe.seen(image) != probe.seen(last):
                by = UNDO if last is None else self._by(name) or owed
                self._write({"what": "image", "probe": name, "by": by, "epoch": self.epoch, "image": image})

    def _by(self, name: str) -> int:
        doers = [step for step in self.running if step == UNDO or name not in _BY_TRACED_CALLS or any(self._acts(step))]
        if doers:
            return max(doers)
        step, until = self._asked_until
        return step if _now() <= until else NOBODY

    def _write(self, line: dict[str, Any]) -> None:
        """A disk that takes no more: then nothing is known at all, which takes no room, and all that differs is the transaction's."""
        if self._blind:
            return
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                whole.write(fd, data)
            finally:
                os.close(fd)
        except OSError:
            self._blind = True
        if self._blind:
            self._changes.clear()
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            return
        self._take(line)

    # -- what it means ---------------------------------------------------------------------------------------------------

    def goal(self, probe: Probe, image: Image, epoch: int) -> Image:
        """What an undo to the start of `epoch` has to make true: `image`, from then, with what somebody else has done since."""
        was, goal = image, image
        for at, name, by, now in self._changes:
            if name != probe.name or at < epoch:
                continue
            if by == NOBODY:
                before, after = probe.seen(was), probe.seen(now)
                keys = {key for key in {*before, *after} if before.get(key) != after.get(key)}
                goal = probe.adopt(goal, keys, now)
            was = now
        return goal


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
