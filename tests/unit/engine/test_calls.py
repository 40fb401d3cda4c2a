# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of system calls against the C library's headers on this machine, and against what the documentation promises."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from engine.trace import calls, capture
from engine.trace.calls import AARCH64, CALLS, I386, X86_64

HEADERS = {
    "x86_64": ("asm/unistd_64.h",),
    "i386": ("asm/unistd_32.h",),
    "aarch64": ("asm-generic/unistd.h",),
}
# What arch/arm64/include/uapi/asm/unistd.h asks the generic header for
WANTED = [
    "-D__BITS_PER_LONG=64",
    *(f"-D__ARCH_WANT_{name}" for name in ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3")),
]
PROMISED = [
    "open",
    "openat",
    "openat2",
    "creat",
    "open_by_handle_at",
    "truncate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "bind",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
    "file_setattr",
    "ioctl",
    "mount",
    "umount2",
    "move_mount",
    "fsmount",
    "mount_setattr",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "fsconfig",
    "fsopen",
    "fspick",
    "swapon",
    "swapoff",
    "quotactl",
    "quotactl_fd",
    "acct",
    "mq_open",
    "mq_unlink",
    "sethostname",
    "setdomainname",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "clock_settime",
    "settimeofday",
    "clock_adjtime",
    "adjtimex",
    "kexec_load",
    "kexec_file_load",
    "bpf",
    "pidfd_getfd",
    "shmget",
    "msgget",
    "semget",
    "io_uring_setup",
    "connect",
    "chroot",
    "unshare",
    "setns",
]


def known(abi: str) -> dict[str, int]:
    """Numbers by name, as the preprocessor sees the header."""
    source = "".join(f"#include <{name}>\n" for name in HEADERS[abi])
    text = subprocess.run(["gcc", "-E", "-dM", *WANTED, "-"], input=source, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\w+)", text))
    return {name: int(value) for name, value in found.items() if value.isdigit()}


@pytest.mark.parametrize("abi", [X86_64, I386, AARCH64], ids=lambda abi: abi.name)
def test_numbers_are_those_of_the_headers(abi: calls.Abi) -> None:
    header = known(abi.name)
    compared = 0
    for number, call in abi.calls.items():
        if call.name in header:
            assert header[call.name] == number, call
            compared += 1
        else:
            assert number >= 450, f"{call.name} is not in this machine's headers, and is not new"
    assert compared > 60


def test_aarch64_has_no_numbers_that_it_should_not_have() -> None:
    header = known("aarch64")
    assert [call.name for call in CALLS if call.aarch64 is None and call.name in header] == []


def test_no_call_that_was_promised_is_missing() -> None:
    assert [name for name in PROMISED if name not in {call.name for call in CALLS}] == []


def test_a_number_stands_for_one_call() -> None:
    for abi in (X86_64, AARCH64, I386):
        numbers = [getattr(call, abi.name) for call in CALLS if getattr(call, abi.name) is not None]
        assert len(numbers) == len(set(numbers)) == len(abi.calls)
        assert max(numbers) <= calls.NEWEST


def test_each_ioctl_request_has_its_type_and_size() -> None:
    """_IOC: the size field is what the header's structure says; 0 for the old ones without."""
    sizes = {0x40086602: 8, 0x401C5820: 28, 0x5000940E: 4096, 0x50009417: 4096, 0x40806685: 128, 0xC0C0586D: 192}
    for request, size in sizes.items():
        assert request in calls.IOCTLS
        assert (request >> 16) & 0x3FFF == size


def test_the_folder_has_the_source_of_each_handler() -> None:
    """Every `does` that needs the caller is handled: a name that nobody knows would answer EIO to each such call."""
    source = "".join(path.read_text(encoding="utf-8") for path in Path(capture.__file__).parent.glob("*.py") if path.name != "calls.py")
    missing = [call.does for call in CALLS if call.does != "refuse" and not re.search(rf"\b_?{call.does}\b", source)]
    assert missing == []
