# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which paths are left out of the trace: of some the contents, of the engine's own all."""

from __future__ import annotations

import typing as t

from ..filesystems import FileSystem
from ..storedirs import HIDDEN

#: Contents here are left as they are, since other processes append to them; what is created or removed is undone all the same.
CONTENTS_LEFT = (b"/var/log",)
#: The engine's own paths. The remote temp directories of the play are added by begin.
OUTSIDE_PATHS = (b"/var/lib/acid", b"/run/acid", b"/run/acid-door", b"/usr/local/lib/acid")


_STORE = (b"/var/lib/acid/store",)


def is_in_store(fs: FileSystem, path: bytes) -> bool:
    """Whether before-images lie there, of this transaction or an earlier one."""
    return below(path, (*_STORE, fs.mount_point.rstrip(b"/") + b"/" + HIDDEN))


def below(path: bytes, roots: t.Iterable[bytes]) -> bool:
    return any(path == root or path.startswith(root + b"/") for root in roots)
