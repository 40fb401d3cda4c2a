# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of lines in which the changes of two people can both be right, and how each kind is merged."""

from __future__ import annotations

#: What a step leaves in one of these is kept with the log; what is larger is no list of lines that a person keeps.
LARGEST = 1 << 20

ROWS, LINES, SUDOERS = "rows", "lines", "sudoers"

ACCOUNTS = (b"passwd", b"group", b"shadow", b"gshadow", b"subuid", b"subgid")
#: The whole family, with the backups that its programs write beside them.
FAMILY = frozenset(b"/etc/" + name + end for name in ACCOUNTS for end in (b"", b"-"))

_FILES = {b"/etc/hosts": LINES, b"/etc/fstab": LINES, b"/etc/crontab": LINES, b"/etc/sudoers": SUDOERS, **dict.fromkeys(FAMILY, ROWS)}
_FOLDERS = {
    b"/etc/cron.d": LINES,
    b"/var/spool/cron/crontabs": LINES,
    b"/var/spool/cron": LINES,
    b"/etc/sudoers.d": SUDOERS,
}
_KEYS = (b"authorized_keys", b"authorized_keys2")
_FOLDERS_OF = frozenset(path.rpartition(b"/")[0] for path in _FILES)


def kind_of(path: bytes) -> str | None:
    """ROWS, LINES or SUDOERS; None: it cannot be merged."""
    known = _FILES.get(path)
    if known is not None:
        return known
    folder, _slash, name = path.rpartition(b"/")
    if folder.endswith(b"/.ssh"):
        return LINES if name in _KEYS else None
    return _FOLDERS.get(folder)


def may_hold_some(folder: bytes) -> bool:
    """Whether such a file can be in this directory: asked once for all the places that a step has touched there."""
    return folder in _FOLDERS_OF or folder in _FOLDERS or folder.endswith(b"/.ssh")
