# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What services leave in /run when they stop: empty directories, sockets at which nobody listens, files with the pid of a dead process.

RuntimeDirectory= PID 1 takes away itself (systemd.exec(5)). What a service or its start script makes otherwise stays until the next boot:
Debian's apache2ctl makes /run/apache2/socks and /run/lock/apache2, haproxy leaves a socket and its pid, dovecot 40 sockets and pipes. Only
what is dead goes, so that there is nothing to lose; a tree that holds anything else stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from ..commands import run
from ..kernel import Reader, Stat
from .base import NOTHING, Circumstances, Outcome

PLACES = ("/run", "/run/lock")
_AT_FDCWD = -100
# A pid, and the end of the line.
_LONGEST = 12

Names = dict[str, list[str]]


class Alive(NamedTuple):
    """What processes and units use: inodes, names of sockets, directories."""

    inodes: frozenset[tuple[int, int]]
    sockets: frozenset[str]
    directories: frozenset[str]


def look(places: tuple[str, ...] = PLACES) -> Names:
    """What there is at begin and at commit."""
    return {place: sorted(os.listdir(place)) for place in places if os.path.isdir(place)}


def born(before: Names, left: Names | None) -> list[str]:
    """What is new since begin. `left`: what there was at commit, for an undo after it."""
    new = [f"{place}/{name}" for place, names in look(tuple(before)).items() for name in names if name not in before[place]]
    return new if left is None else [path for path in new if os.path.basename(path) in left.get(os.path.dirname(path), ())]


def gone_again(paths: list[str], circumstances: Circumstances, *, in_use: Callable[[], Alive] | None = None) -> Outcome:
    """Remove of these what is the transaction's, and dead. `in_use`: for tests."""
    trees = {path: found for path in paths for found in [_dead(path)] if found and _ours(found[path], circumstances)}
    if not trees:
        return NOTHING
    used = (in_use or alive)()
    outcome = NOTHING
    for path, found in trees.items():
        # PID 1 names sockets as they are bound, which may be by the old name of /run.
        bound = {name for one in found for name in (one, "/var" + one)} & used.sockets
        if path in used.directories or bound or used.inodes & {(info.dev, info.ino) for info in found.values()}:
            continue
        with contextlib.suppress(OSError):  # somebody has just put something into it: then it is theirs
            _take_away(path, found)
            outcome += Outcome(actions=(f"{path} is gone again",))
    return outcome


def _take_away(top: str, found: dict[str, Stat]) -> None:
    """By directory handles: it may be a service's own directory, whose user can put a symlink where a directory was."""
    if stat.S_ISDIR(found[top].mode):
        for folder, folders, files, fd in os.fwalk(top, topdown=False):
            for name in files + folders:
                known = found.get(f"{folder}/{name}")
                if known is not None:
                    (os.rmdir if stat.S_ISDIR(known.mode) else os.unlink)(name, dir_fd=fd)
        os.rmdir(top)
    else:
        os.unlink(top)


def _dead(top: str) -> dict[str, Stat]:
    """All of a tree by path; nothing if it holds what may be of use to anybody, or another file system."""
    reader = Reader()
    found: dict[str, Stat] = {}
    waiting = [top]
    try:
        while waiting:
            path = waiting.pop()
            info = reader.stat(_AT_FDCWD, os.fsencode(path))
            if (found and info.dev != found[top].dev) or os.path.ismount(path):
                return {}
            if stat.S_ISDIR(info.mode):
                waiting += [f"{path}/{name}" for name in os.listdir(path)]
            elif not (stat.S_ISSOCK(info.mode) or (found and _is_passage(info)) or _of_a_dead_process(path, info)):
                return {}
            found[path] = info
    except OSError:
        return {}
    return found


def _is_passage(info: Stat) -> bool:
    """Symlinks and pipes hold nothing themselves. Alone they may be anybody's sign; in a directory they go with it."""
    return stat.S_ISLNK(info.mode) or stat.S_ISFIFO(info.mode)


def _of_a_dead_process(path: str, info: Stat) -> bool:
    if not stat.S_ISREG(info.mode) or info.nlink != 1 or not 0 < info.size <= _LONGEST:
        return False
    with open(path, "rb") as f:
        number = f.read(_LONGEST).strip()
    return path.endswith(".pid") and number.isdigit() and not os.path.exists(f"/proc/{int(number)}")


def _ours(top: Stat, circumstances: Circumstances) -> bool:
    """Whether it was made by what a step had asked for, or by what it had started and the undo has stopped. What is in it is as the
    directory: a service makes its sockets when it gets to it, and anew when somebody restarts it after the commit."""
    # tmpfs knows no time of birth before Linux 5.18; a directory's mtime is the time of its last new or removed name.
    ns = top.btime or top.mtime
    return circumstances.by_a_daemon(ns) or (0 < circumstances.since <= ns)


def alive() -> Alive:
    """A walk over all processes, and one question to systemd."""
    inodes: set[tuple[int, int]] = set()
    sockets: set[str] = set()
    namespaces: set[int] = set()
    reader = Reader()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            network = os.stat(f"/proc/{process}/ns/net").st_ino
            if network not in namespaces:
                with open(f"/proc/{process}/net/unix", encoding="utf-8", errors="surrogateescape") as f:
                    sockets |= bound(f.read())
                namespaces.add(network)
            links = [f"/proc/{process}/{name}" for name in ("cwd", "root")]
            links += [f"/proc/{process}/fd/{name}" for name in os.listdir(f"/proc/{process}/fd")]
            for link in links:
                with contextlib.suppress(OSError):
                    info = reader.stat(_AT_FDCWD, os.fsencode(link), 0)
                    inodes.add((info.dev, info.ino))
    shown = run(["systemctl", "show", "--property=ActiveState,RuntimeDirectory", "*.service", "*.socket", "*.mount"], timeout=60)
    return Alive(frozenset(inodes), frozenset(sockets), frozenset(kept(shown.out)))


def bound(text: str) -> set[str]:
    """Names of sockets that somebody holds, from /proc/net/unix."""
    return {line.split(None, 7)[7] for line in text.splitlines()[1:] if len(line.split(None, 7)) == 8}


def kept(text: str) -> set[str]:
    """What PID 1 keeps for units that are not down (of sshd it is an empty directory), from `systemctl show`: one paragraph a unit."""
    used = set()
    for paragraph in text.split("\n\n"):
        found = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if found.get("ActiveState") not in ("inactive", "failed"):
            # Since systemd 251 a directory may come with names of symlinks to it, after colons.
            names = [one for name in found.get("RuntimeDirectory", "").split() for one in name.split(":") if one]
            used |= {"/run/" + name.split("/")[0] for name in names}
            used |= {"/run/lock/" + name.split("/")[1] for name in names if name.startswith("lock/")}
    return used
