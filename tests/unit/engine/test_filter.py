# SPDX-License-Identifier: GPL-3.0-or-later
"""The generated seccomp filter, run by an interpreter of its own on every call number of every ABI."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from engine.trace import calls
from engine.trace import filter as trace_filter
from engine.trace.calls import AARCH64, I386, X86_64, Abi, Call

ALLOW, NOTIFY, ENOSYS = 0x7FFF0000, 0x7FC00000, 0x00050000 | errno.ENOSYS
X32 = 0x40000000


def run(code: bytes, number: int, audit: int, arguments: tuple[int, ...] = ()) -> int:
    """Classic BPF on struct seccomp_data (linux/filter.h, linux/seccomp.h), as the kernel does it; no jump beyond the end."""
    data = struct.pack("<iIQ6Q", number - (1 << 32) if number >> 31 else number, audit, 0, *(arguments + (0,) * 6)[:6])
    program = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    at = accumulator = 0
    while True:
        operation, when_true, when_false, k = program[at]
        at += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert k % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif operation == 0x06:  # BPF_RET | BPF_K
            return k
        else:
            test = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            at += when_true if test else when_false
        assert at < len(program), "a jump beyond the end"


def expected(call: Call | None, arguments: tuple[int, ...]) -> int:
    """What the table asks for."""
    if call is None:
        return ALLOW
    if call.does == "refuse":
        return ENOSYS
    if call.name in ("open", "openat"):
        return NOTIFY if arguments[1 if call.name == "open" else 2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else ALLOW
    if call.does in ("clone", "unshare"):
        return NOTIFY if arguments[0] & 0x10020000 else ALLOW
    if call.does == "ioctl":
        return NOTIFY if arguments[1] & 0xFFFFFFFF in calls.IOCTLS else ALLOW
    return NOTIFY


ARGUMENTS = (
    (0, 0, 0),
    (os.O_WRONLY,) * 3,
    (os.O_RDWR | os.O_CLOEXEC,) * 3,
    (os.O_CREAT,) * 3,
    (os.O_TRUNC,) * 3,
    (os.O_DIRECTORY | os.O_CLOEXEC,) * 3,
    (os.O_PATH | os.O_NOFOLLOW,) * 3,
    (0x00020000, 0x40086602, 0),
    (0x10000000, 0x5000940E, 0),
    (0x01200011, 0x5401, 0),
    (0xDEAD_00000000, 0xDEAD_40086602, 0xDEAD_00000000),
    (0xDEAD_00020001, 0xDEAD_00000001, 0xDEAD_00000241),
)
MACHINES = [("x86_64", X86_64), ("x86_64", I386), ("aarch64", AARCH64)]


@pytest.mark.parametrize(("machine", "abi"), MACHINES, ids=lambda value: getattr(value, "name", value))
def test_every_number_gets_what_the_table_says(machine: str, abi: Abi) -> None:
    code = trace_filter.build(machine).code
    for number in range(calls.NEWEST + 1):
        for arguments in ARGUMENTS:
            got, want = run(code, number, abi.audit, arguments), expected(abi.calls.get(number), arguments)
            assert got == want, (abi.name, number, abi.calls.get(number), [hex(word) for word in arguments], hex(got))


@pytest.mark.parametrize(("machine", "abi"), MACHINES, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("number", [calls.NEWEST + 1, 500, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
def test_numbers_beyond_the_newest_are_unknown_to_programs(machine: str, abi: Abi, number: int) -> None:
    assert run(trace_filter.build(machine).code, number, abi.audit) == ENOSYS


@pytest.mark.parametrize("number", [0, 2, 82, 87, 257, 512, 520, 547])
def test_x32_is_refused(number: int) -> None:
    assert run(trace_filter.build("x86_64").code, number | X32, calls.AUDIT_X86_64, (os.O_WRONLY,) * 6) == ENOSYS


@pytest.mark.parametrize(
    ("machine", "audit"),
    [
        ("x86_64", calls.AUDIT_AARCH64),
        ("aarch64", calls.AUDIT_X86_64),
        ("aarch64", 0x40000028),
        ("aarch64", calls.AUDIT_I386),
        ("x86_64", 0),
    ],
)
def test_foreign_abis_are_refused_not_misread(machine: str, audit: int) -> None:
    code = trace_filter.build(machine).code
    assert {run(code, number, audit, (os.O_WRONLY,) * 6) for number in range(calls.NEWEST + 1)} == {ENOSYS}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_kernel_would_take_it(machine: str) -> None:
    program = trace_filter.build(machine)
    assert len(program.code) == 8 * program.length <= 8 * 4096  # BPF_MAXINSNS


def test_an_unknown_machine_is_no_machine() -> None:
    with pytest.raises(KeyError):
        trace_filter.build("riscv64")
