# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services that the transaction has started write their files at any time: what is theirs is no administrator's change.

No time tells which process changed a file. It is taken for a service's when a process of it that was started while a step ran has the file
open, or when the file belongs to the user, not root, that such a process runs as.
"""

from __future__ import annotations

import contextlib
import os
import re

from ..kernel import Stat

#: A session without pam_systemd stays in the cgroup of the ssh server: that is a person, or the play itself.
_SERVICE = re.compile(r"/(?!sshd?[@.])[^/]+\.service")
#: systemd starts a unit a little after the step that asked for it, which may have ended.
_LATE_NS = 2_000_000_000
_TICKS = os.sysconf("SC_CLK_TCK")


class Daemons:
    """`windows`: when steps ran, CLOCK_REALTIME ns; `offset_ns`: CLOCK_REALTIME less CLOCK_BOOTTIME. Looks at the first question."""

    def __init__(self, windows: tuple[tuple[int, int], ...], offset_ns: int) -> None:
        self._windows, self._offset = windows, offset_ns
        self._users: set[int] = set()
        self._open: set[tuple[int, int]] = set()
        self._looked = False

    def __call__(self, state: Stat) -> bool:
        if not self._looked:
            self._looked = True
            for process in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
                    self._look("/proc/" + process)
        return state.uid in self._users or (state.dev, state.ino) in self._open

    def _look(self, process: str) -> None:
        with open(process + "/cgroup", encoding="utf-8", errors="replace") as f:
            if not _SERVICE.search(f.read().rpartition(":")[2].partition("/user.slice")[0]):
                return
        with open(process + "/stat", encoding="utf-8", errors="replace") as f:
            ticks = int(f.read().rpartition(")")[2].split()[19])
        started = self._offset + ticks * 1_000_000_000 // _TICKS
        if not any(start <= started <= end + _LATE_NS for start, end in self._windows):
            return
        user = os.stat(process).st_uid
        if user:
            self._users.add(user)
        for fd in os.listdir(process + "/fd"):
            with contextlib.suppress(OSError):
                info = os.stat("%s/fd/%s" % (process, fd))
                self._open.add((os.major(info.st_dev) << 32 | os.minor(info.st_dev), info.st_ino))
