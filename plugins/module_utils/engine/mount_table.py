# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The mount table of a process (proc_pid_mountinfo(5)), as far as the trace asks it."""

from __future__ import annotations

import typing as t


class Mount(t.NamedTuple):
    """A line of mountinfo (proc_pid_mountinfo(5)): dev as (major << 32) | minor, paths unescaped."""

    id: int
    dev: int
    root: bytes
    point: bytes
    fstype: bytes
    options: bytes
    source: bytes


def _unescape(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes((int(p[:3], 8),)) + p[3:] for p in parts[1:])


def parse_mountinfo(text: bytes) -> list[Mount]:
    mounts = []
    for line in text.splitlines():
        head, _sep, tail = line.partition(b" - ")
        fields, after = head.split(b" "), tail.split(b" ")
        major, minor = fields[2].split(b":")
        mounts.append(
            Mount(
                int(fields[0]),
                int(major) << 32 | int(minor),
                _unescape(fields[3]),
                _unescape(fields[4]),
                after[0],
                fields[5],
                _unescape(after[1]),
            )
        )
    return mounts


def mounts_of(process: str = "self") -> list[Mount]:
    with open("/proc/%s/mountinfo" % process, "rb") as f:
        return parse_mountinfo(f.read())
