# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a service makes for itself at its first start, and no unit file names: docker's /var/lib/docker, the log file of php-fpm.

No step made it and PID 1 neither, so all that tells whose it is is the time of its birth: while a step ran that had asked a daemon for
something. An administrator may have been there in the same moment, so nothing is deleted: it is kept in the transaction's store, and told.
What a process has open stays, and what a file system is mounted in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from ..kernel import Reader, Stat
from .base import NOTHING, Circumstances, Outcome
from .leavings import Alive, alive

PLACES = ("/var/lib", "/var/cache", "/var/log")
_AT_FDCWD = -100


def set_aside(paths: list[str], circumstances: Circumstances, *, in_use: Callable[[], Alive] = alive) -> Outcome:
    """`paths`: names in PLACES that are new since begin, when their services are stopped."""
    ours = {path: inodes for path in paths for inodes in [_inodes(path)] if inodes and _is_ours(path, inodes[0], circumstances)}
    if not ours or not circumstances.attic:
        return NOTHING
    held = in_use().inodes
    outcome = NOTHING
    for path, inodes in ours.items():
        if not held.intersection((info.dev, info.ino) for info in inodes):
            outcome += _aside(path, circumstances.attic)
    return outcome


def _inodes(top: str) -> list[Stat]:
    """All of a tree, `top` first; nothing where it goes while it is looked at, or holds another file system."""
    reader, found, waiting = Reader(), list[Stat](), [top]
    try:
        while waiting:
            path = waiting.pop()
            info = reader.stat(_AT_FDCWD, os.fsencode(path))
            if stat.S_ISDIR(info.mode):
                if os.path.ismount(path):
                    return []
                waiting += [f"{path}/{name}" for name in os.listdir(path)]
            found.append(info)
    except OSError:
        return []
    return found


def _is_ours(path: str, top: Stat, circumstances: Circumstances) -> bool:
    spared = os.fsencode(path)
    if any(one == spared or one.startswith(spared + b"/") for one in circumstances.spared | circumstances.held):
        return False
    return bool(top.btime) and circumstances.by_a_daemon(top.btime)


def _aside(path: str, attic: str) -> Outcome:
    kept = os.path.join(attic, "q-" + path.strip("/").replace("/", "-") + "-" + os.urandom(4).hex())
    try:
        os.makedirs(attic, mode=0o700, exist_ok=True)
        os.rename(path, kept)
    except OSError as error:
        return Outcome(notes=(f"{path!r}, which a service made while a step asked a daemon, stays: {error.strerror}.",))
    return Outcome(
        actions=(f"{path} is gone again",), notes=(f"{path!r}, which a service made while a step asked a daemon, is kept as {kept}.",)
    )
