# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directories that PID 1 makes for a service at its first start (StateDirectory= and the like, systemd.exec(5)).

No step made them, so no trace saw it. Those that were born in the transaction go, once their service is stopped; with a place to
keep them (`Circumstances.attic`) they are moved there whole, since the service may have put data into them. What services leave
in /run is in `leavings`, what they make for themselves in `servicedata`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

from ..commands import run
from ..mount_table import mounts_of
from . import leavings, servicedata
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe

_ROOTS = {
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
    "ConfigurationDirectory": "/etc",
}
# DynamicUser= puts the directory in here, and a symlink to it at its usual place.
_PRIVATE = "private"
_UNIT_PATHS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


class ServiceDirectories(Probe):
    name = "service_directories"

    def __init__(self) -> None:
        # In /run, when the files were back. A socket is let go only when its service has been stopped once more, and what is made
        # after this look is a service's that was there before.
        self._born: frozenset[str] | None = None

    def capture(self) -> Image:
        folders = [root + below for root in _ROOTS.values() for below in ("", f"/{_PRIVATE}")]
        return {"folders": {folder: _look(folder) for folder in folders}, "run": leavings.look()}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        # Only with systemd's help is it known which of the new names are a service's: before_files has reported what it could not remove.
        return []

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        born = self._born_since(before, circumstances)
        if not born:
            return NOTHING
        outcome = NOTHING
        for path in sorted(born & _of_services()):
            mounted = _mounts_below(path)
            if mounted:  # and could not be unmounted: what lies there is anybody's
                outcome += Outcome(
                    failures=(f"{path!r} was made for a service of the transaction and is left: {mounted[0]!r} is mounted.",)
                )
                continue
            try:
                _remove(path, circumstances.attic)
            except OSError as error:
                outcome += Outcome(
                    failures=(f"{path!r} was made for a service of the transaction and cannot be removed: {error.strerror}.",)
                )
            else:
                outcome += Outcome(actions=(f"{path} is gone again",))
        return outcome

    @staticmethod
    def _born_since(before: Image, circumstances: Circumstances) -> set[str]:
        """Names that are new since begin; after a commit, of those that were there then."""
        born = {path for folder, was in before["folders"].items() for path in _born(folder, was)}
        if circumstances.left is None:
            return born
        folders = circumstances.left["folders"]
        return born & {f"{folder}/{name}" for folder, left in folders.items() for name in (left or {"names": ()})["names"]}

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        outcome = NOTHING
        if self._born is None:  # their services are stopped, and not yet started again
            own = sorted(filter(_may_be_own, self._born_since(before, circumstances)))
            outcome = servicedata.set_aside(own, circumstances)
        for folder, was in before["folders"].items():
            now = _look(folder)
            if was is None and now is not None and folder.endswith(_PRIVATE) and not now["names"]:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        for folder, was in before["folders"].items():
            now = _look(folder)
            # Not where somebody else's entries remain: the time is theirs then.
            if was is not None and now is not None and was["names"] == now["names"] and was["mtime_ns"] != now["mtime_ns"]:
                left = (circumstances.left or {"folders": {}})["folders"].get(folder)
                if circumstances.left is None or (left is not None and left["names"] != was["names"]):
                    os.utime(folder, ns=(os.stat(folder).st_atime_ns, was["mtime_ns"]))
        if circumstances.rebooted or "run" not in before:  # another boot's, or an older engine's image
            return outcome
        born = leavings.born(before["run"], None if circumstances.left is None else circumstances.left.get("run"))
        born = [path for path in born if self._born is None or path in self._born]
        self._born = frozenset(born)
        return outcome + leavings.gone_again(born, circumstances)


def _may_be_own(path: str) -> bool:
    folder, name = os.path.split(path)
    return folder in servicedata.PLACES and name != _PRIVATE


def _look(folder: str) -> Image | None:
    try:
        return {"names": sorted(os.listdir(folder)), "mtime_ns": os.stat(folder).st_mtime_ns}
    except FileNotFoundError:
        return None


def _born(folder: str, was: Image | None) -> list[str]:
    now = _look(folder)
    names = set() if now is None else set(now["names"])
    return [f"{folder}/{name}" for name in names - set(() if was is None else was["names"])]


def _of_services() -> set[str]:
    """Directories that belong to a service which does not run, by all unit files there are and all units in memory."""
    names = {name for folder in _UNIT_PATHS if os.path.isdir(folder) for name in os.listdir(folder)}
    services = sorted(name for name in names if name.endswith(".service") and "@." not in name)
    shown = run(["systemctl", "show", "--property=ActiveState," + ",".join(_ROOTS), "--", *services, "*.service"], timeout=60)
    return parse(shown.out)


def parse(text: str) -> set[str]:
    """Paths that only units which are down name, from `systemctl show`: one paragraph a unit."""
    free: set[str] = set()
    used: set[str] = set()
    for paragraph in text.split("\n\n"):
        found = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        paths = used if found.get("ActiveState") not in ("inactive", "failed") else free
        for key, root in _ROOTS.items():
            for name in found.get(key, "").split():
                # Since systemd 251 a directory may come with names of symlinks to it, after colons.
                for one in name.split(":"):
                    top = one.split("/")[0]
                    paths |= {f"{root}/{top}", f"{root}/{_PRIVATE}/{top}"}
    return free - used


def _remove(path: str, attic: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    if attic:
        try:
            os.makedirs(attic, mode=0o700, exist_ok=True)
            os.rename(path, os.path.join(attic, "q-" + path.strip("/").replace("/", "-")))
        except OSError as error:
            # Another file system, or an earlier attempt's tree is there.
            if error.errno not in (errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
    shutil.rmtree(path)


def _mounts_below(path: str) -> list[str]:
    """Mount points at the path and below it."""
    top = os.fsencode(os.path.realpath(path))
    return [os.fsdecode(mount.point) for mount in mounts_of() if mount.point == top or mount.point.startswith(top + b"/")]
