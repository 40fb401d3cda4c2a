# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The password lock (lckpwdf(3)): who holds it is the only one to write the password files. useradd, passwd and vipw all take it.

It is held by a description of its own (filelocks.py): the undo in here puts the contents of the lock file back too, and closes it.
"""

from __future__ import annotations

import collections.abc
import contextlib
import os
import time

from .. import filelocks

LOCK = "/etc/.pwd.lock"
#: lckpwdf(3) gives up after this many seconds
_PATIENCE = 15.0


@contextlib.contextmanager
def locked(path: str = LOCK, *, patience: float = _PATIENCE) -> collections.abc.Iterator[bool]:
    """Whether it could be had: where not, its files are somebody else's for now. A lock file that was not there goes again."""
    before = None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        before = os.stat(os.path.dirname(path))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield filelocks.take(fd, time.monotonic() + patience)
    finally:
        if before is not None:
            with contextlib.suppress(FileNotFoundError):  # the undo in here has removed it: a step's useradd had made it
                os.unlink(path)
            os.utime(os.path.dirname(path), ns=(before.st_atime_ns, before.st_mtime_ns))
        os.close(fd)
