# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""POSIX ACLs as text, as getfacl(1) writes them (include/uapi/linux/posix_acl_xattr.h)."""

from __future__ import annotations

import struct

NAMES = ("system.posix_acl_access", "system.posix_acl_default")
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_TAGS = {0x01: "user", 0x02: "user", 0x04: "group", 0x08: "group", 0x10: "mask", 0x20: "other"}
_NAMED = frozenset({0x02, 0x08})


def text(value: bytes) -> str | None:
    """As in user::rw-,user:5:r--; None when it is no ACL of version 2."""
    if len(value) < _HEADER.size or _HEADER.unpack_from(value)[0] != 2 or (len(value) - _HEADER.size) % _ENTRY.size:
        return None
    entries = []
    for tag, permissions, who in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _TAGS:
            return None
        bits = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        entries.append(f"{_TAGS[tag]}:{who if tag in _NAMED else ''}:{bits}")
    return ",".join(entries)
