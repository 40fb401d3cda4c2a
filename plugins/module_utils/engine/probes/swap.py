# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Swap areas: what was switched on since is switched off before its file goes, what was switched off is switched on again."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import NamedTuple

from ..commands import run
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe, ours

SWAPS = "/proc/swaps"
# Switching off reads all that was swapped out.
_TIMEOUT = 600.0


class Area(NamedTuple):
    path: str
    priority: int


def parse(text: str) -> list[Area]:
    """/proc/swaps (proc(5)): a heading, then file name, type, size, used, priority; a deleted file says so after its name."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= 5:
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), words[0])
            found.append(Area(path, int(words[-1])))
    return found


class Swap(Probe):
    name = "swap"
    is_watched = True

    def __init__(self) -> None:
        self._why: dict[str, str] = {}

    def check(self) -> str:
        return "" if os.path.exists(SWAPS) else "This kernel has no swap."

    def capture(self) -> Image:
        with open(SWAPS, encoding="utf-8", errors="surrogateescape") as file:
            # What is not here is another container's.
            return {"areas": {area.path: area.priority for area in parse(file.read()) if os.path.exists(area.path)}}

    def seen(self, image: Image) -> dict[str, object]:
        return dict(image["areas"])

    def adopt(self, image: Image, keys: Collection[str], other: Image) -> Image:
        kept = {path: priority for path, priority in image["areas"].items() if path not in set(keys)}
        return {"areas": {**kept, **{key: other["areas"][key] for key in keys if key in other["areas"]}}}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.rebooted and circumstances.left is None:
            return []
        was, is_now = before["areas"], now["areas"]
        return [
            f"Swap on {path!r} {_what(was.get(path), is_now.get(path))}{self._reason(path)}." for path in _ours(before, now, circumstances)
        ]

    def _reason(self, path: str) -> str:
        return f": {self._why[path]}" if path in self._why else ""

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        """Also those whose priority has changed: only switching off and on changes it."""
        if circumstances.rebooted and circumstances.left is None:
            return NOTHING
        now = self.capture()
        wanted = [path for path in _ours(before, now, circumstances) if path in now["areas"]]
        done = [path for path in wanted if self._run(path, ["swapoff", "--", path])]
        return Outcome(actions=tuple(f"swap on {path} is off" for path in done))

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted and circumstances.left is None:
            return NOTHING
        was, now = before["areas"], self.capture()
        done = []
        for path in _ours(before, now, circumstances):
            if path in was and path not in now["areas"]:
                priority = [] if was[path] < 0 else ["-p", str(was[path])]
                done += [path] if self._run(path, ["swapon", *priority, "--", path]) else []
        return Outcome(actions=tuple(f"swap on {path} is on again" for path in done))

    def _run(self, path: str, command: list[str]) -> bool:
        ran = run(command, timeout=_TIMEOUT)
        if ran.ok:
            self._why.pop(path, None)
        else:
            self._why[path] = ran.complaint
        return ran.ok


def _ours(before: Image, now: Image, circumstances: Circumstances) -> tuple[str, ...]:
    def settings(image: Image) -> dict[str, object]:
        # The kernel counts priorities down by itself where none was asked for.
        return {path: max(priority, -1) for path, priority in image["areas"].items()}

    left = circumstances.left
    return ours(settings(before), settings(now), None if left is None else settings(left)).ours


def _what(old: int | None, new: int | None) -> str:
    if old is None or new is None:
        return "is on, and was not" if old is None else "is off, and was on"
    return f"has priority {new}, and had {old}"
