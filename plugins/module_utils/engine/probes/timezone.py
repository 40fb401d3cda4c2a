# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's own time zone (settimeofday(2): FAT and the real-time clock go by it), and what timedated remembers of the system's.

/etc/localtime, /etc/timezone and /etc/adjtime are files, and whether the clock is synchronized is a unit's affair: other probes'.
"""

from __future__ import annotations

import ctypes
import os

from ..commands import run
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe

_LOCALTIME = "/etc/localtime"
_TIMEDATED = "systemd-timedated.service"
# The system calls: the C library's gettimeofday does not say the zone any more.
_NUMBERS = {"x86_64": (96, 164), "aarch64": (169, 170)}


class Timezone(Probe):
    name = "timezone"

    def __init__(self) -> None:
        self._changed = False

    def check(self) -> str:
        return "" if os.uname().machine in _NUMBERS else f"The system calls of {os.uname().machine} are not known."

    def capture(self) -> Image:
        return {"kernel": list(_kernel_zone()), "link": _link()}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if not _is_ours(before, now, circumstances):
            return []
        return [f"The kernel's time zone is {_shown(now)}, and was {_shown(before)}."]

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        self._changed = _link() != before["link"]
        return NOTHING

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        outcome, now = NOTHING, self.capture()
        # Where it fails, compare says so.
        if _is_ours(before, now, circumstances) and _set_kernel_zone(*before["kernel"]):
            outcome += Outcome(actions=(f"the kernel's time zone is {_shown(before)} again",))
        if self._changed and not circumstances.at_boot and run(["systemctl", "is-active", "--quiet", _TIMEDATED], timeout=30).ok:
            # It reads the link at its start only; whoever asks it next starts it again.
            run(["systemctl", "stop", _TIMEDATED], timeout=60)
        return outcome


def _is_ours(before: Image, now: Image, circumstances: Circumstances) -> bool:
    if circumstances.rebooted or now["kernel"] == before["kernel"]:
        return False
    left = circumstances.left
    return left is None or (left["kernel"] == now["kernel"] and left["kernel"] != before["kernel"])


def _link() -> str:
    try:
        return os.readlink(_LOCALTIME)
    except OSError:
        return ""


def _shown(image: Image) -> str:
    return f"{image['kernel'][0]} minutes west of UTC"


class _Zone(ctypes.Structure):
    _fields_ = (("minutes_west", ctypes.c_int), ("dst", ctypes.c_int))


def _kernel_zone() -> tuple[int, int]:
    zone = _Zone()
    ctypes.CDLL(None, use_errno=True).syscall(_NUMBERS[os.uname().machine][0], None, ctypes.byref(zone))
    return zone.minutes_west, zone.dst


def _set_kernel_zone(minutes_west: int, dst: int) -> bool:
    zone = _Zone(minutes_west, dst)
    return bool(ctypes.CDLL(None, use_errno=True).syscall(_NUMBERS[os.uname().machine][1], None, ctypes.byref(zone)) == 0)
