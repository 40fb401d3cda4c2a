# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether this host can have a transaction at all: asked before each begin, so that a play fails before its first task."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import struct

from . import kernel
from .errors import EngineTampered, JournalUnwritable, KernelTooOld, NotRoot, StoreFull, TraceUnavailable
from .filesystems import TRACED, policy
from .mount_table import mounts_of
from .paths import LIBRARY, STATE
from .reserve import STATE_AMOUNT
from .trace.calls import MACHINES

OLDEST = (5, 10)
#: what must be free on the file system of /var/lib/acid: half of it becomes the reserve
RESERVE = 2 * STATE_AMOUNT.size
INODES = 4 * STATE_AMOUNT.inodes
_GET_ACTION_AVAIL, _USER_NOTIF = 2, 0x7FC00000


def check() -> None:
    """Raises the first thing that forbids a transaction."""
    if os.geteuid() != 0:
        raise NotRoot("acidctl must be run as root, and this is user %d." % os.geteuid(), hint="Use become, or log in as root.")
    check_kernel(os.uname().release, os.uname().machine)
    _check_trace()
    _check_state()
    _check_root()
    check_engine(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def check_kernel(release: str, machine: str) -> None:
    numbers = tuple(int(part.split("-")[0].split("+")[0]) for part in release.split(".")[:2])
    if numbers < OLDEST:
        raise KernelTooOld(
            "The kernel here is %s, and acid.host needs Linux %d.%d or newer." % (release, *OLDEST),
            hint="Boot a newer kernel, or set acid_transaction: false for this host.",
        )
    if machine not in MACHINES:
        raise KernelTooOld(
            "The machine is %s, and acid.host knows the system calls of %s." % (machine, " and ".join(MACHINES)),
            hint="Set acid_transaction: false for this host.",
        )


def _check_trace() -> None:
    number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
    if kernel.libc.syscall(number, _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(_USER_NOTIF))) < 0:
        raise TraceUnavailable(
            "This kernel has no seccomp user notification: %s." % os.strerror(ctypes.get_errno()),
            hint="In a container: its own seccomp profile may forbid it.",
        )
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as f:
            scope = int(f.read())
    except OSError:
        scope = 0
    if scope >= 3:
        raise TraceUnavailable("kernel.yama.ptrace_scope is 3, so nobody can read a step's arguments.", hint="Boot with a lower value.")
    local, remote, source = ctypes.create_string_buffer(4), ctypes.create_string_buffer(16), ctypes.create_string_buffer(b"acid")
    struct.pack_into("<QQ", remote, 0, ctypes.addressof(source), 4)
    vector = ctypes.create_string_buffer(struct.pack("<QQ", ctypes.addressof(local), 4), 16)
    if kernel.libc.process_vm_readv(os.getpid(), vector, 1, remote, 1, 0) != 4:
        raise TraceUnavailable(
            "Reading another process's memory is forbidden here: %s." % os.strerror(ctypes.get_errno()),
            hint="SELinux: the boolean deny_ptrace must be off.",
        )


def _check_state() -> None:
    try:
        if not os.path.isdir(STATE):
            parent = os.stat(os.path.dirname(STATE))
            os.mkdir(STATE, 0o700)
            os.utime(os.path.dirname(STATE), ns=(parent.st_atime_ns, parent.st_mtime_ns))
        info = os.lstat(STATE)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != 0:
            raise JournalUnwritable("%s is not a directory of root." % STATE, hint="Move it away.")
        os.chmod(STATE, 0o700)
        for name in ("tx", "store"):
            os.makedirs(STATE + "/" + name, 0o700, exist_ok=True)
        probe = "%s/.probe-%d" % (STATE, os.getpid())
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(probe)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                "%s is full, so no before-image can be kept there." % STATE,
                hint="Free some space (`acidctl gc --days 0` drops the images of ended transactions).",
            ) from error
        raise JournalUnwritable("%s cannot be written: %s." % (STATE, error.strerror), hint="Mount it read-write.") from error
    check_room(STATE, os.statvfs(STATE))


def check_room(path: str, room: os.statvfs_result) -> None:
    """Raises StoreFull where the reserve (docs/adr/0015) would not leave room for journal, log and images."""
    if os.path.exists(path + "/reserve"):  # a transaction is open: whether there may be another one is the journal's business
        return
    if room.f_bavail * room.f_frsize < RESERVE or (room.f_files and room.f_favail < INODES):
        raise StoreFull(
            "%s has %d MiB free and %s inodes, and a transaction needs at least %d MiB and %d inodes there."
            % (path, room.f_bavail * room.f_frsize >> 20, room.f_favail if room.f_files else "enough", RESERVE >> 20, INODES),
            hint="Free some space on its file system (`acidctl gc --days 0` drops the images of ended transactions).",
        )


def _check_root() -> None:
    for mount in mounts_of():
        if mount.point == b"/" and policy(mount.fstype) != TRACED:
            raise TraceUnavailable(
                "The root file system is %s, which has no file handles: nothing on it could be undone." % mount.fstype.decode(),
                hint="Set acid_transaction: false for this host.",
            )


def check_engine(home: str) -> None:
    """The engine's files are as they were installed. Without a MANIFEST (a checkout) there is nothing to compare with."""
    try:
        with open(home + "/MANIFEST", encoding="utf-8") as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        if os.path.dirname(home) != LIBRARY:
            return
        lines = ["-  MANIFEST"]
    for line in lines:
        digest, _space, name = line.partition("  ")
        path = os.path.join(home, name)
        try:
            with open(path, "rb") as f:
                good = hashlib.sha256(f.read()).hexdigest() == digest
            info = os.stat(path)
        except OSError:
            good = False
        if not good or info.st_uid != 0 or info.st_mode & 0o022:
            raise EngineTampered(
                "The engine's file %s is not the one that was installed." % path,
                hint="Find out who changed it; remove %s and run the play again to install it anew." % home,
            )
