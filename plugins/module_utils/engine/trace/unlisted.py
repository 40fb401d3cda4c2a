# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A device number that the host's own mount table does not show: what is known about it all the same (docs/adr/0022).

    about(reader, reached, thread, newer_than)

There are four kinds: a mount whose files have device numbers of their own (overlay's lower files); one that only the namespace of a step
shows; one that is mounted nowhere any more, and yet open; and the kernel's own, behind pipes and memfds. None of them is remembered by its
number: the kernel hands it out anew as soon as its file system is gone.
"""

from __future__ import annotations

import os
import stat
import typing as t

from .. import kernel
from ..filesystems import FOREIGN, OUTSIDE, TRACED, UNKNOWN, VALUES, policy
from ..kernel import AT_EMPTY_PATH, AT_FDCWD, AT_STATX_DONT_SYNC, AT_SYMLINK_NOFOLLOW, Reader
from ..mount_table import Mount, mounts_of
from .scope import below

#: Changes there outlive the step, and no undo can reach them.
OUT_OF_REACH = "out of reach"

# f_type (include/uapi/linux/magic.h, and the file system's own source) of what lives in descriptors and processes alone: pipes, sockets,
# anonymous inodes, namespaces, pidfds, dma-buf, memfd_secret, huge pages; and of devpts, cgroups, mqueue, ramfs, bpf (filesystems.py)
_OUTSIDE = frozenset(
    (
        0x50495045, 0x534F434B, 0x09041934, 0x6E736673, 0x50494446, 0x444D4142, 0x5345434D, 0x958458F6,
        0x1CD1, 0x27E0EB, 0x63677270, 0x19800202, 0x858458F6, 0xCAFE4A11,
    )
)  # fmt: skip
_PROC, _SYSFS = 0x9FA0, 0x62656572  # likewise


class Reached(t.NamedTuple):
    """An inode by a descriptor: of itself, or of the directory in which it has the name."""

    dev: int
    fd: int
    name: bytes = b""


class About(t.NamedTuple):
    """`policy`: OUTSIDE, VALUES, NAMED, FOREIGN, UNKNOWN or OUT_OF_REACH; `what` it is, for a sentence."""

    policy: str
    what: str


def about(reader: Reader, reached: Reached, thread: int, newer_than: int) -> About:
    """`thread`: whose call it is. `newer_than`: what was mounted in memory after that, in the step's own namespace, goes with it."""
    state = reader.stat(reached.fd, reached.name, (AT_SYMLINK_NOFOLLOW if reached.name else AT_EMPTY_PATH) | AT_STATX_DONT_SYNC)
    number = reader.mount_id()
    mount = next((mount for mount in mounts_of() if mount.id == number), None)
    if mount is not None:
        found = policy(mount.fstype)
        what = "%s file system at %s" % (mount.fstype.decode(), os.fsdecode(mount.point))
        return About(UNKNOWN if found == TRACED else found, what)
    theirs = mounts_of(str(thread))
    mount = next((mount for mount in theirs if mount.id == number), None)
    if mount is not None:
        found = policy(mount.fstype)
        what = "%s file system at %s, which only a step's own mount namespace shows" % (mount.fstype.decode(), os.fsdecode(mount.point))
        if found not in (TRACED, UNKNOWN):
            return About(found, what)
        return About(OUTSIDE if mount.fstype == b"tmpfs" and _is_newer(reader, mount, theirs, thread, newer_than) else OUT_OF_REACH, what)
    if state.nlink == 0 and stat.S_ISREG(state.mode):  # a memfd, or what has no name any more: it goes with its descriptors
        return About(OUTSIDE, "a file without a name")
    return _by_type(reached, state.dev)


def setting(reader: Reader, reached: Reached, thread: int) -> bytes:
    """Where /proc or /sys shows what was reached, by whatever mount of them."""
    path = os.readlink(b"/proc/self/fd/%d" % reached.fd) + (b"/" + reached.name if reached.name else b"")
    base = b"/proc" if kernel.file_system_type(reached.fd) == _PROC else b"/sys"
    if below(path, (base,)):
        return path
    reader.stat(reached.fd, b"", AT_EMPTY_PATH)
    number = reader.mount_id()
    mount = next((mount for mount in (*mounts_of(), *mounts_of(str(thread))) if mount.id == number), None)
    if mount is None or not below(path, (mount.point,)):  # mounted nowhere: the path begins at its root
        return base + path
    return base + mount.root.rstrip(b"/") + path[len(mount.point) :]


def policy_for(thread: int, dev: int) -> str | None:
    """Of what is mounted in the thread's namespace alone; None where it shows no such number."""
    return next((policy(mount.fstype) for mount in mounts_of(str(thread)) if mount.dev == dev), None)


def _is_newer(reader: Reader, mount: Mount, theirs: t.Sequence[Mount], thread: int, than: int) -> bool:
    """Whether the whole file system was made after that time. An older one belongs to a service, whose namespace the step has entered."""
    if any(other.dev != mount.dev and policy(other.fstype) == FOREIGN and below(mount.point, (other.point,)) for other in theirs):
        return False  # the way there is not to be asked
    try:
        root = reader.stat(AT_FDCWD, b"/proc/%d/root%s" % (thread, mount.point), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC)
    except OSError:
        return False
    return root.dev == mount.dev and root.btime > than


def _by_type(reached: Reached, dev: int) -> About:
    if os.path.exists("/sys/class/bdi/%d:%d-fuse" % (dev >> 32, dev & 0xFFFFFFFF)):  # fstatfs(2) would ask its server
        return About(FOREIGN, "FUSE file system that is mounted nowhere")
    fd = os.open(reached.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=reached.fd) if reached.name else reached.fd
    try:
        kind = kernel.file_system_type(fd)
    finally:
        if fd != reached.fd:
            os.close(fd)
    if kind in _OUTSIDE:
        return About(OUTSIDE, "the kernel's own")
    return About(VALUES if kind in (_PROC, _SYSFS) else OUT_OF_REACH, "file system of type %#x that is mounted nowhere" % kind)
