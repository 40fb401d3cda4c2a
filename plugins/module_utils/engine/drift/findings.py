# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the look at the host has found: values only."""

from __future__ import annotations

import dataclasses
import typing as t

from ..wanted import Inode, Place
from .ends import LATER

CHANGED, REPLACED, REMOVED, APPEARED = "changed", "replaced", "removed", "put there"
#: an error: nobody is said to have done it
UNSEEN = "cannot be looked at"


class Finding(t.NamedTuple):
    """Somebody else's change of `path` (I5). `when`: ends.DURING or LATER. `inside`: of a directory born in the transaction, the path below
    it that was changed; `between`: two steps."""

    path: bytes
    what: str
    when: str
    inside: bytes = b""
    between: bool = False


def unseen(path: bytes, error: OSError) -> Finding:
    """Of what cannot be looked at nobody can say that it is nobody else's: it is held back, and the rest is judged."""
    return Finding(path, "%s (%s)" % (UNSEEN, error.strerror), LATER)


class Passenger(t.NamedTuple):
    """Something in a directory born in the transaction that no step left so: it goes with the directory."""

    path: bytes
    what: str


@dataclasses.dataclass
class Findings:
    """`times`: directories whose entries others have changed: their times (atime, mtime) stay. `stands`: touched places that are not as
    before, by the inode there. `clock_set_back_ns`: see ends.py."""

    places: dict[Place, Finding] = dataclasses.field(default_factory=dict)
    inodes: dict[Inode, Finding] = dataclasses.field(default_factory=dict)
    times: dict[Inode, tuple[int, int]] = dataclasses.field(default_factory=dict)
    passengers: dict[Place, list[Passenger]] = dataclasses.field(default_factory=dict)
    stands: dict[Inode, list[Place]] = dataclasses.field(default_factory=dict)
    clock_set_back_ns: int = 0
