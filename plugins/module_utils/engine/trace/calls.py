# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The system calls that change the state of a host: their numbers, and what each argument means.

One row a call. `does` names the method of `capture.Capture` that takes its before-image; `at` are the positions of its arguments in
the order which that method wants (`CWD` where the call has no directory argument, `FIXED(n)` for a constant).
Numbers: syscall_64.tbl, syscall_32.tbl and asm-generic/unistd.h of Linux 6.17. How to add one: CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import typing as t

AUDIT_X86_64, AUDIT_AARCH64, AUDIT_I386 = 0xC000003E, 0xC00000B7, 0x40000003

#: No call beyond this number is known; programs get ENOSYS for it and fall back.
NEWEST = 469
X32_BIT = 0x40000000

CWD = -1
_CREATE_TRUNCATE = os.O_CREAT | os.O_TRUNC | os.O_WRONLY


class FIXED(int):
    """A constant in place of an argument."""


class Call(t.NamedTuple):
    name: str
    x86_64: int | None
    aarch64: int | None
    i386: int | None
    does: str
    at: tuple[int, ...] = ()


CALLS: tuple[Call, ...] = (
    # open: directory, path, flags
    Call("open", 2, None, 5, "open", (CWD, 0, 1)),
    Call("creat", 85, None, 8, "open", (CWD, 0, FIXED(_CREATE_TRUNCATE))),
    Call("openat", 257, 56, 295, "open", (0, 1, 2)),
    Call("openat2", 437, 437, 437, "openat2", (0, 1, 2)),
    Call("open_by_handle_at", 304, 265, 342, "open_by_handle", (0, 1, 2)),
    Call("truncate", 76, 45, 92, "truncate", (CWD, 0)),
    Call("truncate64", None, None, 193, "truncate", (CWD, 0)),
    # rename: directory, path, directory, path, flags
    Call("rename", 82, None, 38, "rename", (CWD, 0, CWD, 1, FIXED(0))),
    Call("renameat", 264, 38, 302, "rename", (0, 1, 2, 3, FIXED(0))),
    Call("renameat2", 316, 276, 353, "rename", (0, 1, 2, 3, 4)),
    # create: directory, path
    Call("link", 86, None, 9, "link", (CWD, 1)),
    Call("linkat", 265, 37, 303, "link", (2, 3)),
    Call("symlink", 88, None, 83, "symlink", (CWD, 1)),
    Call("symlinkat", 266, 36, 304, "symlink", (1, 2)),
    Call("mkdir", 83, None, 39, "create", (CWD, 0)),
    Call("mkdirat", 258, 34, 296, "create", (0, 1)),
    Call("mknod", 133, None, 14, "create", (CWD, 0)),
    Call("mknodat", 259, 33, 297, "create", (0, 1)),
    Call("bind", 49, 200, 361, "bind", (0, 1, 2)),
    # remove: directory, path, flags
    Call("unlink", 87, None, 10, "remove", (CWD, 0, FIXED(0))),
    Call("unlinkat", 263, 35, 301, "remove", (0, 1, 2)),
    Call("rmdir", 84, None, 40, "remove", (CWD, 0, FIXED(0x200))),
    # basic (mode, owner, times) and extended attributes: directory, path, flags
    Call("chmod", 90, None, 15, "mode", (CWD, 0, FIXED(0))),
    Call("fchmod", 91, 52, 94, "mode_fd", (0,)),
    Call("fchmodat", 268, 53, 306, "mode", (0, 1, FIXED(0))),
    Call("fchmodat2", 452, 452, 452, "mode", (0, 1, 3)),
    Call("chown", 92, None, 182, "owner", (CWD, 0, FIXED(0))),
    Call("chown32", None, None, 212, "owner", (CWD, 0, FIXED(0))),
    Call("lchown", 94, None, 16, "owner", (CWD, 0, FIXED(0x100))),
    Call("lchown32", None, None, 198, "owner", (CWD, 0, FIXED(0x100))),
    Call("fchown", 93, 55, 95, "owner_fd", (0,)),
    Call("fchown32", None, None, 207, "owner_fd", (0,)),
    Call("fchownat", 260, 54, 298, "owner", (0, 1, 4)),
    Call("utime", 132, None, 30, "basic", (CWD, 0, FIXED(0))),
    Call("utimes", 235, None, 271, "basic", (CWD, 0, FIXED(0))),
    Call("futimesat", 261, None, 299, "basic", (0, 1, FIXED(0))),
    Call("utimensat", 280, 88, 320, "basic", (0, 1, 3)),
    Call("utimensat_time64", None, None, 412, "basic", (0, 1, 3)),
    Call("setxattr", 188, 5, 226, "xattr", (CWD, 0, FIXED(0))),
    Call("lsetxattr", 189, 6, 227, "xattr", (CWD, 0, FIXED(0x100))),
    Call("fsetxattr", 190, 7, 228, "xattr_fd", (0,)),
    Call("setxattrat", 463, 463, 463, "xattr", (0, 1, 2)),
    Call("removexattr", 197, 14, 235, "xattr", (CWD, 0, FIXED(0))),
    Call("lremovexattr", 198, 15, 236, "xattr", (CWD, 0, FIXED(0x100))),
    Call("fremovexattr", 199, 16, 237, "xattr_fd", (0,)),
    Call("removexattrat", 466, 466, 466, "xattr", (0, 1, 2)),
    Call("file_setattr", 469, 469, 469, "flags", (0, 1, 4)),
    Call("ioctl", 16, 29, 54, "ioctl", (0, 1)),
    # mounts change how paths resolve; the probe `mounts` brings the table back
    Call("mount", 165, 40, 21, "mounts", (0, 2)),
    Call("umount", None, None, 22, "mounts"),
    Call("umount2", 166, 39, 52, "mounts"),
    Call("move_mount", 429, 429, 429, "mounts"),
    Call("fsmount", 432, 432, 432, "mounts"),
    Call("mount_setattr", 442, 442, 442, "mounts"),
    Call("open_tree", 428, 428, 428, "mounts"),
    Call("open_tree_attr", 467, 467, 467, "mounts"),
    Call("pivot_root", 155, 41, 217, "mounts"),
    Call("fsconfig", 431, 431, 431, "mounts"),
    Call("fsopen", 430, 430, 430, "mounts"),
    Call("fspick", 433, 433, 433, "mounts"),
    # a process that leaves the host's root or mount namespace: from then on paths are resolved the careful way
    Call("chroot", 161, 51, 61, "leaves_root"),
    Call("unshare", 272, 97, 310, "unshare", (0,)),
    Call("setns", 308, 268, 346, "leaves_root"),
    Call("clone", 56, 220, 120, "clone", (0,)),
    Call("clone3", 435, 435, 435, "clone3", (0,)),
    Call("connect", 42, 203, 362, "connect", (0, 1, 2)),
    Call("socketcall", None, None, 102, "socketcall", (0, 1)),  # i386 glibc still multiplexes bind and connect
    # no before-image is possible: named irreversible
    Call("swapon", 167, 224, 87, "probed"),
    Call("swapoff", 168, 225, 115, "probed"),
    Call("quotactl", 179, 60, 131, "quota", (0,)),
    Call("quotactl_fd", 443, 443, 443, "quota", (1,)),
    Call("acct", 163, 89, 51, "irreversible"),
    Call("mq_open", 240, 180, 277, "mq_open", (1,)),
    Call("mq_unlink", 241, 181, 278, "irreversible"),
    Call("sethostname", 170, 161, 74, "probed"),
    Call("setdomainname", 171, 162, 121, "probed"),
    Call("init_module", 175, 105, 128, "irreversible"),
    Call("finit_module", 313, 273, 350, "irreversible"),
    Call("delete_module", 176, 106, 129, "irreversible"),
    Call("reboot", 169, 142, 88, "irreversible"),
    Call("clock_settime", 227, 112, 264, "irreversible"),
    Call("clock_settime64", None, None, 404, "irreversible"),
    Call("settimeofday", 164, 170, 79, "irreversible"),
    Call("stime", None, None, 25, "irreversible"),
    Call("clock_adjtime", 305, 266, 343, "adjtime", (1,)),
    Call("clock_adjtime64", None, None, 405, "adjtime", (1,)),
    Call("adjtimex", 159, 171, 124, "adjtime", (0,)),
    Call("kexec_load", 246, 104, 283, "irreversible"),
    Call("kexec_file_load", 320, 294, None, "irreversible"),
    Call("bpf", 321, 280, 357, "bpf", (0,)),
    Call("pidfd_getfd", 438, 438, 438, "irreversible"),
    # SysV IPC outlives the process that made it
    Call("shmget", 29, 194, 395, "sysv", (2,)),
    Call("msgget", 68, 186, 399, "sysv", (1,)),
    Call("semget", 64, 190, 393, "sysv", (2,)),
    # a ring's operations are no system calls: nothing could be seen (TRACE.md 5)
    Call("io_uring_setup", 425, 425, 425, "refuse"),
    Call("io_uring_enter", 426, 426, 426, "refuse"),
    Call("io_uring_register", 427, 427, 427, "refuse"),
)

#: open flags without which a file cannot change
OPEN_MASK = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

#: clone and unshare flags after which /proc/<tid>/root may be another one: CLONE_NEWNS, CLONE_NEWUSER
NAMESPACE_MASK = 0x00020000 | 0x10000000

_FLAGS, _REFERS, SUBVOLUME, _IRREVERSIBLE = "flags_fd", "content_fd", "subvolume", "irreversible"
#: ioctl requests that change a file or a file system (linux/fs.h, btrfs.h, xfs_fs.h, ext4.h, loop.h, fscrypt.h, fsverity.h)
IOCTLS: dict[int, str] = {
    0x40086602: _FLAGS,
    0x40046602: _FLAGS,  # FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS
    0x401C5820: _FLAGS,  # FS_IOC_FSSETXATTR
    0x40087602: _IRREVERSIBLE,
    0x40047602: _IRREVERSIBLE,  # FS_IOC_SETVERSION, 32
    0x40806685: _IRREVERSIBLE,  # FS_IOC_ENABLE_VERITY
    0x800C6613: _IRREVERSIBLE,  # FS_IOC_SET_ENCRYPTION_POLICY
    0x5000940E: SUBVOLUME,
    0x50009418: SUBVOLUME,  # BTRFS_IOC_SUBVOL_CREATE, _V2
    0x50009401: SUBVOLUME,
    0x50009417: SUBVOLUME,  # BTRFS_IOC_SNAP_CREATE, _V2
    0x5000940F: _IRREVERSIBLE,
    0x5000943F: _IRREVERSIBLE,  # BTRFS_IOC_SNAP_DESTROY, _V2
    0x4008941A: _IRREVERSIBLE,
    0x40089413: _IRREVERSIBLE,  # BTRFS_IOC_SUBVOL_SETFLAGS, DEFAULT_SUBVOL
    0xC0C0586D: _REFERS,
    0x40285881: _REFERS,  # XFS_IOC_SWAPEXT, XFS_IOC_EXCHANGE_RANGE
    0x6611: _REFERS,
    0xC028660F: _REFERS,  # EXT4_IOC_SWAP_BOOT, EXT4_IOC_MOVE_EXT
    0xC0045877: _IRREVERSIBLE,  # FIFREEZE
    0x41009432: _IRREVERSIBLE,  # FS_IOC_SETFSLABEL
    0x4C00: _IRREVERSIBLE,
    0x4C01: _IRREVERSIBLE,
    0x4C0A: _IRREVERSIBLE,  # LOOP_SET_FD, LOOP_CLR_FD, LOOP_CONFIGURE
}
#: where the new name stands in the argument (struct btrfs_ioctl_vol_args, _v2)
SUBVOLUME_NAMES = {0x5000940E: 8, 0x50009401: 8, 0x50009418: 56, 0x50009417: 56}


class Abi(t.NamedTuple):
    """One calling convention: the AUDIT_ARCH number that seccomp reports, and its calls by number."""

    audit: int
    name: str
    calls: dict[int, Call]


def _abi(audit: int, name: str) -> Abi:
    calls = {}
    for call in CALLS:
        number = getattr(call, name)
        if number is not None:
            calls[number] = call
    return Abi(audit, name, calls)


X86_64, AARCH64, I386 = _abi(AUDIT_X86_64, "x86_64"), _abi(AUDIT_AARCH64, "aarch64"), _abi(AUDIT_I386, "i386")
#: The conventions that a machine's kernel runs and we cover; the first is its own. Others get ENOSYS for each call.
MACHINES: dict[str, tuple[Abi, ...]] = {"x86_64": (X86_64, I386), "aarch64": (AARCH64,)}
