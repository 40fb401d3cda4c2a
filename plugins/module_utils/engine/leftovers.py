# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processes of a transaction that outlived their step or their agent, found again and killed before an undo.

    kill_leftovers(journal, tx)     by the names of their cgroups, and by descent from the first process of a step that never ended
    kill_traced(thread)             one that was seen to make a call

By descent, since not every host has cgroups that can be written to, and some programs move to another one (su, by pam_systemd). Whoever is
killed has a filter: that is what tells it from another process that was given its number since.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from . import cgroups, states
from .afterdigest import clock_offset_ns
from .journal import Journal

_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_PATIENCE = 10.0
#: The kernel tells a process's start in ticks.
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def kill_leftovers(journal: Journal, tx: str) -> None:
    prefix = "acid-%s-" % tx
    for root in _ROOTS:
        for folder, folders, _files in os.walk(root):
            for name in [name for name in folders if name.startswith(prefix)]:
                cgroups.kill(os.path.join(folder, name))
    for step in journal.steps(tx):
        if step.state == states.STARTED and step.pid is not None and _started_before(step.pid, step.started_ns):
            _kill_family(step.pid)


def kill_traced(thread: int) -> bool:
    """Kill the thread's process, unless the number has gone to another one since: False when there is none of ours."""
    try:
        with open("/proc/%d/status" % thread, encoding="utf-8", errors="surrogateescape") as f:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    except OSError:
        return False
    if fields.get("Seccomp") != "2" or int(fields.get("Seccomp_filters", "1")) <= _own_filters() or fields["State"].startswith("Z"):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(fields["Tgid"]), 9)
    return True


def _kill_family(first: int) -> None:
    """The process and all its descendants, also those that are being forked, until none is left."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        killed = [kill_traced(process) for process in _family(first)]
        if not any(killed):
            return
        time.sleep(0.005)


def _family(first: int) -> list[int]:
    """Descendants first: whose parent has died is nobody's descendant any more."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields is not None:
                children.setdefault(int(fields[1]), []).append(int(name))
    found = [first]
    for process in found:
        found += children.get(process, [])
    return found[::-1]


def _started_before(process: int, when_ns: int) -> bool:
    """Whether it is older than that moment on CLOCK_REALTIME: a step's first process is older than its step."""
    fields = _stat(process)
    return fields is not None and int(fields[19]) * _TICK_NS <= when_ns - clock_offset_ns() + _TICK_NS


def _stat(process: int) -> t.Sequence[str] | None:
    """Fields of /proc/<pid>/stat from the state on (proc(5): 1 the parent, 19 the start in ticks)."""
    try:
        with open("/proc/%d/stat" % process, encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except OSError:
        return None


def _own_filters() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:
        return next((int(line.split()[1]) for line in f if line.startswith("Seccomp_filters:")), 0)
