# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which files a manager of units has in memory: unit files, drop-ins, links to them, and what generators make units of.

systemd.unit(5) "Unit File Load Path", systemd.generator(7), systemd.environment-generator(7). A generator may read anything; those of
distributions read below /etc and /run.
"""

from __future__ import annotations

from .unitstate import KINDS

_BELOW = (b"/etc/", b"/run/", b"/var/run/")
# Where one of these is moved, all below it moves.
_ABOVE = frozenset({b"/etc", b"/run", b"/usr", b"/usr/lib", b"/usr/local", b"/usr/local/lib", b"/usr/share", b"/lib", b"/root", b"/home"})
_NAMES = (b"systemd", b"environment.d", b".config")
# A unit file may lie anywhere, and only a link to it in the load path (systemctl link).
_UNITS = tuple(b"." + kind.encode() for kind in (*KINDS, "mount"))


def is_read_by_systemd(path: bytes) -> bool:
    """Whether a manager may have read what is at the absolute `path`; more often true than it need be."""
    if path.startswith(_BELOW) or path in _ABOVE or path.endswith(_UNITS):
        return True
    return any(name in _NAMES for name in path.split(b"/"))
