# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that change how later ones are to be read, and those that no image can undo."""

from __future__ import annotations

import os
import struct

from ..model import ACTED, ASKED, IRREVERSIBLE
from .caller import Arguments, Caller, signed
from .calls import NAMESPACE_MASK, Call
from .images import Images
from .names import Names
from .scope import below

# Sockets of daemons that only answer or write down, and so do nothing for a step.
_NOT_DOERS = (
    b"/dev/log",
    b"/run/nscd",
    b"/run/systemd/journal",
    b"/run/systemd/notify",
    b"/run/systemd/resolve",
    b"/run/systemd/userdb",
    b"/var/run/nscd",
)

# quotactl(2) subcommands that only read (linux/quota.h, dqblk_xfs.h)
_QUOTA_READS = (0x800001, 0x800004, 0x800005, 0x800007, 0x800009, 0x5803, 0x5805, 0x5808, 0x5809)


class Surroundings:
    """Handlers by the `does` of calls.py."""

    def __init__(self, images: Images, caller: Caller, names: Names) -> None:
        self._images, self._caller, self._names = images, caller, names

    def connect(self, arguments: Arguments, call: Call) -> None:
        self._connected(self._caller.socket_path(arguments[1], signed(arguments[2])))

    def _connected(self, path: bytes) -> None:
        """Whom a step asks to act: PID 1, docker, and so on, whose doings the trace does not see."""
        if path:
            self._caller.workplace.let_go()
        if path and not below(path, _NOT_DOERS):
            self._caller.newborn.forget()  # it may mount something there
            self._images.tell(ASKED, os.fsdecode(path))

    def socketcall(self, arguments: Arguments, call: Call) -> None:
        if arguments[0] in (2, 3):
            _socket, address, length = struct.unpack("<III", self._caller.memory(arguments[1], 12))
            (self._names.bound if arguments[0] == 2 else self._connected)(self._caller.socket_path(address, length))

    def mounts(self, arguments: Arguments, call: Call) -> None:
        """How paths resolve is about to change; the table itself is the mounts probe's."""
        self._caller.resolver.careful = True
        self._caller.workplace.let_go()
        self._images.tell(ACTED, "mounts")

    def leaves_root(self, arguments: Arguments, call: Call) -> None:
        self._caller.resolver.careful = True

    unshare = clone = leaves_root

    def clone3(self, arguments: Arguments, call: Call) -> None:
        (flags,) = struct.unpack("<Q", self._caller.memory(arguments[0], 8))
        if flags & NAMESPACE_MASK:
            self._caller.resolver.careful = True

    def irreversible(self, arguments: Arguments, call: Call) -> None:
        self._images.tell(IRREVERSIBLE, call.name)

    def quota(self, arguments: Arguments, call: Call) -> None:
        if arguments[call.at[0]] >> 8 & 0xFFFFFF not in _QUOTA_READS:
            self._images.tell(IRREVERSIBLE, call.name)

    def probed(self, arguments: Arguments, call: Call) -> None:
        """A probe captured it at begin."""
        self._images.tell(ACTED, call.name)

    def mq_open(self, arguments: Arguments, call: Call) -> None:
        if arguments[1] & os.O_CREAT:
            self._images.tell(IRREVERSIBLE, "POSIX message queue made")

    def adjtime(self, arguments: Arguments, call: Call) -> None:
        if self._caller.memory(arguments[call.at[0]], 4) != bytes(4):  # modes: 0 only reads the clock
            self._images.tell(IRREVERSIBLE, call.name)

    def bpf(self, arguments: Arguments, call: Call) -> None:
        if arguments[0] == 6:  # BPF_OBJ_PIN
            self._images.tell(IRREVERSIBLE, "bpf object pinned")

    def sysv(self, arguments: Arguments, call: Call) -> None:
        if arguments[call.at[0]] & 0o1000:  # IPC_CREAT
            self._images.tell(IRREVERSIBLE, "%s made a System V object" % call.name)
