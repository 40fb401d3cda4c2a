# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What images are taken of: directories and inodes, what of an inode a call changes; and what the trace has to tell besides."""

from __future__ import annotations

import typing as t

from ..errors import StepRefused
from ..filesystems import FileSystem
from ..kernel import Stat

#: Identity of an inode within an epoch: (device, number, birth time), or the handle for the last where there is no birth time.
Key = tuple[int, int, t.Union[int, bytes]]
Where = tuple[int, bytes]


class Directory(t.NamedTuple):
    """A directory in which a step changes places; `outside`: no images are taken there; `in_store`: images lie there."""

    number: int
    fs: FileSystem
    path: bytes
    outside: bool
    in_store: bool
    contents_left: bool
    handle: bytes


class InStore(StepRefused):
    """A step is about to change something in the store."""


class Pretended(Exception):
    """The call is not to be made, and its caller to be told that it has succeeded."""


class Answered(Exception):
    """The call is not to be made, and its caller to be told this error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Observed(t.NamedTuple):
    """Something that the trace saw: kind is one of model's note kinds."""

    kind: str
    text: str
    step: int


class Aspects(t.NamedTuple):
    """What of an inode a call changes, besides owner, mode and times."""

    xattrs: bool = False
    flags: bool = False


#: owner, mode and times alone
BASIC = Aspects()


class Inode(t.NamedTuple):
    """An inode under way to a place."""

    fs: FileSystem
    handle: bytes
    state: Stat
    path: bytes
