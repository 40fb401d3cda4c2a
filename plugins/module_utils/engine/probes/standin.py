# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A service that had failed before is made failed again: a stand-in for its command is started, and fails at once.

The unit's own command does not run, nothing that it depends on is started, and no directory is made for it: a drop-in says all that,
for the moment. Not where OnFailure= names a unit, which no drop-in can take back. A death in between leaves the drop-in until `clear`,
which the same undo calls when it is run again, or until the next boot, since it lies in /run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from .systemctl import Systemctl

_FILE = "zzzz-acid-failed.conf"
# An empty assignment takes all back that was assigned before (systemd.service(5), systemd.unit(5)).
_EMPTIED = (
    "ExecCondition ExecStartPre ExecStart ExecStartPost ExecStop ExecStopPost User Group PAMName EnvironmentFile WorkingDirectory "
    "RuntimeDirectory StateDirectory CacheDirectory LogsDirectory ConfigurationDirectory"
)
_TEXT = (
    "[Unit]\nConditionPathExists=\nAssertPathExists=\nFailureAction=none\nSuccessAction=none\nStartLimitIntervalSec=0\n[Service]\n"
    + "".join(f"{name}=\n" for name in _EMPTIED.split())
    + "Type=oneshot\nRemainAfterExit=no\nRestart=no\nDynamicUser=no\nPrivateTmp=no\nExecStart=/bin/false\n"
)


def fail_again(manager: Systemctl, names: Iterable[str]) -> None:
    """What became of each is for the caller to see."""
    known = manager.properties((name for name in names if name.endswith(".service")), "LoadState", "OnFailure")
    fit = sorted(name for name, unit in known.items() if unit["LoadState"] == "loaded" and not unit["OnFailure"])
    if not fit:
        return
    try:
        for name in fit:
            _put(manager.transient, name)
        manager.ask("daemon-reload")
        manager.ask("start", "--job-mode=ignore-dependencies", "--", *fit)
    finally:
        clear(manager, fit)


def clear(manager: Systemctl, names: Iterable[str]) -> None:
    taken = [name for name in names if _take(manager.transient, name)]
    if taken:
        manager.ask("daemon-reload")


def _put(folder: str, name: str) -> None:
    with _times_kept(os.path.dirname(folder)), _times_kept(folder), _times_kept(f"{folder}/{name}.d"):
        os.makedirs(f"{folder}/{name}.d", exist_ok=True)
        with open(f"{folder}/{name}.d/{_FILE}", "w", encoding="ascii") as file:
            file.write(_TEXT)


def _take(folder: str, name: str) -> bool:
    with _times_kept(os.path.dirname(folder)), _times_kept(folder), _times_kept(f"{folder}/{name}.d"):
        try:
            os.unlink(f"{folder}/{name}.d/{_FILE}")
        except OSError:
            return False
        with contextlib.suppress(OSError):  # somebody's drop-ins are in it
            os.rmdir(f"{folder}/{name}.d")
            os.rmdir(folder)
        return True


@contextlib.contextmanager
def _times_kept(folder: str) -> Iterator[None]:
    """Of a directory that was there before and is after."""
    try:
        state = os.stat(folder)
    except OSError:
        yield
        return
    yield
    with contextlib.suppress(OSError):
        os.utime(folder, ns=(state.st_atime_ns, state.st_mtime_ns))
