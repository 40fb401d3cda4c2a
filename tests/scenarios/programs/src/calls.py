#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that no ordinary tool makes, on /srv/w/calls: O_TMPFILE, magic links, handles, exchange, whiteout, the newest numbers."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
AT = -100


def call(number, *args, allow=()):
    result = LIBC.syscall(number, *args)
    if result < 0 and ctypes.get_errno() not in (errno.ENOSYS, *allow):
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


os.chdir("/srv/w/calls")
nameless = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(nameless, b"born without a name\n")
call(265, AT, b"/proc/self/fd/%d" % nameless, AT, b"from-tmpfile", 0x400)  # linkat, AT_SYMLINK_FOLLOW

with open("/proc/self/cwd/one", "w", encoding="ascii") as f:
    f.write("through /proc/self/cwd\n")
opened = os.open("two", os.O_RDONLY)
os.chmod(f"/proc/self/fd/{opened}", 0o600)
with open(f"/proc/self/fd/{opened}", "r+", encoding="ascii") as f:
    f.write("TWO")

handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
mount = ctypes.c_int()
call(303, AT, b"three", handle, ctypes.byref(mount), 0)  # name_to_handle_at
here = os.open(".", os.O_RDONLY)
by_handle = call(304, here, handle, os.O_WRONLY | os.O_TRUNC)  # open_by_handle_at
if by_handle >= 0:
    os.write(by_handle, b"through a handle\n")

call(316, AT, b"one", AT, b"four", 2)  # renameat2, exchange
call(316, AT, b"two", AT, b"two-moved", 4, allow=(errno.EINVAL,))  # renameat2, whiteout: not on every file system
how = struct.pack("QQQ", os.O_WRONLY | os.O_CREAT, 0o644, 0x10)  # openat2, RESOLVE_IN_ROOT
made = call(437, here, b"/by-openat2", how, len(how))
if made >= 0:
    os.write(made, b"openat2\n")
call(452, AT, b"one", 0o611, 0x100)  # fchmodat2
call(132, b"four", struct.pack("qq", 1000000, 2000000))  # utime
call(261, AT, b"four", struct.pack("qqqq", 1000000, 5, 1000001, 7))  # futimesat
with open("sparse", "wb") as f:
    f.truncate(1 << 20)
    call(285, f.fileno(), 0, ctypes.c_long(0), ctypes.c_long(65536))  # fallocate
source, target = os.open("one", os.O_RDONLY), os.open("copied", os.O_CREAT | os.O_RDWR, 0o600)
os.copy_file_range(source, target, 100)
