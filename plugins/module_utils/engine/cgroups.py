# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One cgroup per step, so that what it left running can be found, named and killed.

It is a child of the cgroup that the step would be in anyway: logind's and systemd's view of session and service stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import time

_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def _root() -> str | None:
    return next((root for root in _ROOTS if os.path.exists(root + "/cgroup.procs")), None)


def join(process: int, name: str) -> str | None:
    """Move `process` into a new cgroup `name` below its own; its path, or None where there is no cgroup v2 to write to."""
    root = _root()
    if root is None:
        return None
    with open("/proc/%d/cgroup" % process, encoding="utf-8", errors="surrogateescape") as f:
        own = next((line.rstrip("\n")[3:] for line in f if line.startswith("0::")), None)
    if own is None:
        return None
    parent = own.split("/acid-")[0]
    path = "%s%s/%s" % (root, parent.rstrip("/"), name)
    try:
        os.makedirs(path, exist_ok=True)
        with open(path + "/cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(process))
    except OSError:
        return None
    return path


def processes(path: str) -> list[int]:
    """Processes in the cgroup and those below it."""
    found = []
    for folder, _folders, _files in os.walk(path):
        with contextlib.suppress(OSError), open(folder + "/cgroup.procs", encoding="ascii") as f:
            found += [int(line) for line in f]
    return found


def kill(path: str, *, timeout: float = 10.0) -> bool:
    """Kill all that is in it, also what is being forked; False when something is left after `timeout` seconds."""
    end = time.monotonic() + timeout
    while os.path.isdir(path):
        try:
            with open(path + "/cgroup.kill", "w", encoding="ascii") as f:  # Linux 5.14
                f.write("1")
        except OSError:
            for process in processes(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, 9)
        if not processes(path):
            break
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    remove(path)
    return True


def remove(path: str) -> None:
    """Remove the cgroup if nothing is in it."""
    with contextlib.suppress(OSError):
        for folder, _folders, _files in os.walk(path, topdown=False):
            os.rmdir(folder)


def command_of(process: int) -> str:
    """How people know a process: its command line, or its name."""
    try:
        with open("/proc/%d/cmdline" % process, "rb") as f:
            words = f.read().split(b"\0")
        with open("/proc/%d/comm" % process, "rb") as f:
            name = f.read().strip()
    except OSError:
        return ""
    return os.fsdecode(b" ".join(words).strip()[:120] or b"[" + name + b"]")
