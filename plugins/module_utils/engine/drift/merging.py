# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take the transaction's lines out of a file that somebody else has changed since, and leave theirs.

Done again it changes nothing: what the transaction had done is no more there to be taken out.
"""

from __future__ import annotations

import contextlib
import os
import stat

from .. import restore, whole
from ..commands import MISSING, run
from ..xattrs import read_xattrs
from . import lines, rows
from .afresh import content_of
from .mergeable import ROWS, SUDOERS
from .verdict import MergePlan

_SETS = {b"group": 1, b"gshadow": 2}
#: With a dot: sudo and cron pass such names over.
_TEMPORARY = b".acid-merge"


def possible(plan: MergePlan) -> bool:
    now = content_of(plan.path)
    return now is not None and _merged(plan, now) is not None


def apply(plan: MergePlan) -> str:
    """Merge; a sentence where it could not be done, and the file is left as it is."""
    try:
        return _apply(plan)
    except OSError as error:
        return "could not be merged (%s)" % error.strerror


def _apply(plan: MergePlan) -> str:
    now = content_of(plan.path)
    data = None if now is None else _merged(plan, now)
    if now is None or data is None:
        return "was changed again, so that it could not be merged"
    if plan.owner is None and not data.strip():
        os.unlink(plan.path)
    elif data != now:
        return _replace(plan, data)
    return ""


def _merged(plan: MergePlan, now: bytes) -> bytes | None:
    """The newest change is taken out first."""
    found: bytes | None = now
    for left, before in ((plan.left, plan.before), *reversed(plan.earlier)):
        found = _without(plan, left, before, found) if found is not None else None
    return found


def _without(plan: MergePlan, left: bytes, before: bytes, now: bytes) -> bytes | None:
    if plan.kind != ROWS:
        return lines.merge(left, before, now)
    name = os.path.basename(plan.path)
    merged = rows.merge(left, before, now, sets=_SETS.get(name.rstrip(b"-"), 0))
    # a backup is older than its file, so that its rows differ from what the step left in that
    return merged.data if not merged.conflicts or name.endswith(b"-") else None


def _replace(plan: MergePlan, data: bytes) -> str:
    temporary = plan.path + _TEMPORARY
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    old = os.open(plan.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        info = os.fstat(old)
        mode, uid, gid = plan.owner or (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        whole.write(fd, data)
        os.fchown(fd, uid, gid)
        restore.set_xattrs(fd, read_xattrs(old))
        os.fchmod(fd, mode)
        os.fsync(fd)
        wrong = _invalid(plan, temporary)
        if wrong:
            os.unlink(temporary)
            return wrong
        os.rename(temporary, plan.path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
        os.close(old)
    folder = os.open(os.path.dirname(plan.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return ""


def _invalid(plan: MergePlan, path: bytes) -> str:
    """Why the merged file must not be used: a wrong sudoers locks everybody out."""
    if plan.kind != SUDOERS:
        return ""
    done = run(["visudo", "-c", "-q", "-f", os.fsdecode(path)], timeout=20)
    if done.code == MISSING:
        return "was not merged: there is no visudo to look at the result"
    return "" if done.ok else "was not merged: visudo refuses the result (%s)" % done.complaint
