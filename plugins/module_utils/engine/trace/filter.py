# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The seccomp filter: a classic BPF program that sends the calls of `calls.py` to the listener and lets the rest run.

Shape: test the ABI (and x32's bit) first, so that one ABI's numbers are never read as another's (TRACE.md 2); then a binary search over
ranges of numbers with the same answer. Conditional jumps reach 255 instructions, so the far branch goes through a JA.
"""

from __future__ import annotations

import errno
import struct
import typing as t

from .calls import FIXED, IOCTLS, MACHINES, NAMESPACE_MASK, NEWEST, OPEN_MASK, X32_BIT, Abi

_LOAD, _JUMP, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
#: offsets in struct seccomp_data; arguments are little-endian 64 bit, so the low word comes first
_NR, _ARCH, _ARGS = 0, 4, 16

_Code = list[tuple[int, int, int, int]]  # code, jt, jf, k


class Program(t.NamedTuple):
    """A filter as the kernel takes it: `length` instructions in `code`."""

    length: int
    code: bytes


def _leaf(answer: str) -> _Code:
    if answer == "allow":
        return [(_RETURN, 0, 0, _ALLOW)]
    if answer == "notify":
        return [(_RETURN, 0, 0, _NOTIFY)]
    if answer == "enosys":
        return [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    kind, position = answer.split(":")
    load = [(_LOAD, 0, 0, _ARGS + 8 * int(position))]
    if kind in ("write", "namespace"):
        return load + [(_JSET, 0, 1, OPEN_MASK if kind == "write" else NAMESPACE_MASK), (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)]
    requests = sorted(IOCTLS)  # kind == "ioctl"
    tests = [(_JEQ, len(requests) - i, 0, request) for i, request in enumerate(requests)]
    return load + tests + [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]


def _answer(abi: Abi, number: int) -> str:
    call = abi.calls.get(number)
    if call is None:
        return "allow"
    if call.does == "refuse":
        return "enosys"
    if call.does == "open" and not isinstance(call.at[2], FIXED):
        return "write:%d" % call.at[2]
    if call.does in ("clone", "unshare"):
        return "namespace:0"
    if call.does == "ioctl":
        return "ioctl:1"
    return "notify"


def _ranges(abi: Abi) -> list[tuple[int, str]]:
    ranges: list[tuple[int, str]] = []
    for number in range(NEWEST + 1):
        answer = _answer(abi, number)
        if not ranges or ranges[-1][1] != answer:
            ranges.append((number, answer))
    ranges.append((NEWEST + 1, "enosys"))
    return ranges


def _search(ranges: list[tuple[int, str]]) -> _Code:
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    return [(_JGE, 0, 1, ranges[middle][0]), (_JUMP, 0, 0, len(low))] + low + high


def _abi_part(abi: Abi) -> _Code:
    code: _Code = [(_LOAD, 0, 0, _NR)]
    if abi.name == "x86_64":
        code += [(_JSET, 0, 1, X32_BIT), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    return code + _search(_ranges(abi))


def build(machine: str) -> Program:
    """The filter for `machine` (os.uname().machine). KeyError for a machine that is not covered."""
    code: _Code = [(_LOAD, 0, 0, _ARCH)]
    for abi in MACHINES[machine]:
        part = _abi_part(abi)
        code += [(_JEQ, 1, 0, abi.audit), (_JUMP, 0, 0, len(part))] + part
    code.append((_RETURN, 0, 0, _ERRNO | errno.ENOSYS))
    return Program(len(code), b"".join(struct.pack("<HBBI", op, jt, jf, k) for op, jt, jf, k in code))
