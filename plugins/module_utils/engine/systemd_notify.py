# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""sd_notify(3) and the file descriptor store: what is put there survives the agent's death and comes back at its next start."""

from __future__ import annotations

import array
import os
import socket
import typing as t

_FIRST = 3  # SD_LISTEN_FDS_START


def notify(text: str, fds: t.Sequence[int] = ()) -> bool:
    """Tell the service manager; False when there is none."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([text.encode()], ancillary, 0, "\0" + path[1:] if path.startswith("@") else path)
    return True


def store(name: str, fds: t.Sequence[int]) -> bool:
    return notify("FDSTORE=1\nFDNAME=%s" % name, fds)


def drop(name: str) -> None:
    notify("FDSTOREREMOVE=1\nFDNAME=%s" % name)


def stored() -> dict[str, list[int]]:
    """Descriptors that the manager kept, by name."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for at, name in enumerate(names[: int(os.environ.get("LISTEN_FDS", "0"))]):
        os.set_inheritable(_FIRST + at, False)
        found.setdefault(name, []).append(_FIRST + at)
    return found
