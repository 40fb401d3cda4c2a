# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's boot: which one it is, and when it began. A host may be a container, which shares the machine's clocks but not its boots."""

from __future__ import annotations

import os
import time

_START = 22 - 3  # of the fields that follow the command's name, proc_pid_stat(5)


def boot_id() -> str:
    """Of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


def began_ns() -> int:
    """When PID 1 started, in CLOCK_REALTIME ns as the clock is now; of the last 10 ms the earliest."""
    with open("/proc/1/stat", encoding="utf-8", errors="replace") as f:
        ticks = int(f.read().rpartition(")")[2].split()[_START])
    up_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - up_ns
