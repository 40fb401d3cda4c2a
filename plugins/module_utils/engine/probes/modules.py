# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Loaded kernel modules. What was unloaded since is loaded again; what was loaded since is unloaded where nothing uses it.

A module that stays loaded is told and is no failure: many are in use from the moment that they are loaded, some cannot be unloaded, and the
kernel loads them by itself for anybody. What a module has done to the machine no probe can undo: the trace names its loading as
irreversible.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

from ..commands import run
from .base import UNKNOWN, Circumstances, Image, Outcome, Probe, ours

MODULES = "/proc/modules"
_TIMEOUT = 60.0
_CAP_SYS_MODULE = 16


class Module(NamedTuple):
    """`users`: modules that need it. `uses`: how often it is in use, by these and by others."""

    name: str
    uses: int
    users: tuple[str, ...]


def parse(text: str) -> list[Module]:
    """/proc/modules: name, size, uses, users with a comma after each or "-", state, address."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5:
            users = tuple(name for name in words[3].split(",") if name not in ("", "-") and not name.startswith("["))
            found.append(Module(words[0], int(words[2]) if words[2].isdigit() else 1, users))
    return found


def unloadable(now: list[Module], born: set[str]) -> list[str]:
    """The born modules that only born ones use, users first: in this order each is free when its turn comes."""
    left = {module.name: module for module in now}
    found: list[str] = []
    while True:
        free = [
            name
            for name in sorted(born - set(found))
            if name in left and set(left[name].users) <= set(found) and left[name].uses <= len(left[name].users)
        ]
        if not free:
            return found
        found += free


class Modules(Probe):
    name = "modules"
    is_watched = True

    def check(self) -> str:
        if not os.path.exists(MODULES):
            return "This kernel has no loadable modules."
        if not _may_load():
            return "Kernel modules cannot be loaded here: this is a container."
        return ""

    def capture(self) -> Image:
        return {"names": sorted(module.name for module in _loaded())}

    def seen(self, image: Image) -> dict[str, object]:
        return dict.fromkeys(image["names"], True)

    def adopt(self, image: Image, keys: Collection[str], other: Image) -> Image:
        return {"names": sorted((set(image["names"]) - set(keys)) | (set(other["names"]) & set(keys)))}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        was = before["names"]
        return [f"The kernel module {name} was loaded, and is not." for name in _ours(before, now, circumstances) if name in was]

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        was, now = set(before["names"]), self.capture()
        ours_now = _ours(before, now, circumstances)
        missing, born = [name for name in ours_now if name in was], {name for name in ours_now if name not in was}
        loaded = [name for name in missing if run(["modprobe", "--", name], timeout=_TIMEOUT).ok]
        unloaded = [name for name in unloadable(_loaded(), born) if run(["rmmod", "--", name], timeout=_TIMEOUT).ok]
        stay = sorted(born - set(unloaded))
        return Outcome(
            actions=(*(f"loaded module {name} again" for name in loaded), *(f"unloaded module {name}" for name in unloaded)),
            notes=tuple(f"The kernel module {name}, loaded since, is in use or cannot be unloaded, and stays." for name in stay),
        )


def _ours(before: Image, now: Image, circumstances: Circumstances) -> tuple[str, ...]:
    if circumstances.rebooted:
        return ()

    def settings(image: Image) -> dict[str, object]:
        return dict.fromkeys(image["names"], True)

    left = circumstances.left
    return ours(settings(before), settings(now), None if left is None else settings(left)).ours


def _loaded() -> list[Module]:
    with open(MODULES, encoding="ascii", errors="replace") as file:
        return parse(file.read())


def _may_load() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_MODULE & 1)
