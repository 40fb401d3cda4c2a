# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directories in which PID 1 and logind keep empty files, whose name and time say it all: stamps of timers, who lingers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

_STATE = "/var/lib/systemd"
TIMERS = _STATE + "/timers"
LINGER = _STATE + "/linger"
# Inner ones first: what happens in them changes the time of the outer one.
FOLDERS = (TIMERS, LINGER, _STATE)


class Shelf(NamedTuple):
    """A directory, with its own time and the times (ns) of what is in it."""

    mtime_ns: int
    names: dict[str, int]

    @classmethod
    def of(cls, folder: str) -> Shelf | None:
        try:
            names = {name: os.lstat(f"{folder}/{name}").st_mtime_ns for name in os.listdir(folder)}
            return cls(os.stat(folder).st_mtime_ns, names)
        except FileNotFoundError:
            return None


Shelves = dict[str, Any]


def look() -> Shelves:
    return {folder: None if shelf is None else list(shelf) for folder in FOLDERS for shelf in [Shelf.of(folder)]}


def stamps_back(was: Shelves, by_a_step: Callable[[int], bool]) -> list[str]:
    """A timer with Persistent=yes gets a stamp when it starts, and `systemctl clean` takes it away. OSError."""
    then, now = _shelf(was, TIMERS), Shelf.of(TIMERS)
    before = {} if then is None else then.names
    done = []
    for name in sorted(() if now is None else set(now.names) - set(before)):
        path = f"{TIMERS}/{name}"
        if name.startswith("stamp-") and by_a_step(os.lstat(path).st_ctime_ns):
            os.unlink(path)
            done.append(f"{path} is gone again")
    for name in sorted(set(before) - set({} if now is None else now.names)):
        if name.startswith("stamp-") and now is not None:
            path = f"{TIMERS}/{name}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
            os.utime(path, ns=(before[name], before[name]))
            done.append(f"{path} is back")
    return done


def mtime_ns(was: Shelves, folder: str, name: str) -> int | None:
    then = _shelf(was, folder)
    return None if then is None else then.names.get(name)


def lingering_since(was: Shelves, left: Shelves | None, by_a_daemon: Callable[[int], bool]) -> None:
    """loginctl(1): enable-linger for a user who lingers already touches the file. OSError."""
    then, now = _shelf(was, LINGER), Shelf.of(LINGER)
    if then is None or now is None:
        return
    at_commit = None if left is None else _shelf(left, LINGER)
    for name, before_ns in then.names.items():
        now_ns = now.names.get(name, before_ns)
        ours = by_a_daemon(now_ns) if left is None else at_commit is not None and at_commit.names.get(name) == now_ns
        if now_ns != before_ns and ours:
            os.utime(f"{LINGER}/{name}", ns=(before_ns, before_ns))


def settle(was: Shelves, left: Shelves | None) -> None:
    """Directories that were not there, and the times of those that were, where nothing else has changed in them."""
    for folder in FOLDERS:
        then, now = _shelf(was, folder), Shelf.of(folder)
        if now is None or folder not in was:
            continue
        if then is None:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            continue
        at_commit = None if left is None else _shelf(left, folder)
        untouched = left is not None and (at_commit is None or at_commit.mtime_ns == then.mtime_ns)
        if set(then.names) == set(now.names) and then.mtime_ns != now.mtime_ns and not untouched:
            os.utime(folder, ns=(os.stat(folder).st_atime_ns, then.mtime_ns))


def _shelf(shelves: Shelves, folder: str) -> Shelf | None:
    found = shelves.get(folder)
    return None if found is None else Shelf(*found)
