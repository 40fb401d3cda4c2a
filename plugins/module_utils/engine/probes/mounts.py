# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mounts in PID 1's mount namespace: what was mounted since is unmounted, what was unmounted since is mounted again.

Both happen before the files go back, since files may lie on what was unmounted and beneath what was mounted; a mount whose mount point
is still missing then is mounted after them.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from ..commands import Output, run
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe
from .mountinfo import Changes, Mount, changes, parse, remount_options, settable, shown, super_options

_TIMEOUT = 60.0
# Their content is nowhere but in memory.
_VOLATILE = frozenset({"tmpfs", "ramfs"})


class Namespace:
    """The mount namespace of a process; PID 1's is meant, wherever the agent was started from."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def mounts(self) -> list[Mount]:
        with open(f"/proc/{self._pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return parse(file.read())

    def run(self, *argv: str) -> Output:
        inside = os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{self._pid}/ns/mnt")
        enter = [] if inside else ["nsenter", "--target", str(self._pid), "--mount", "--"]
        return run([*enter, *argv], timeout=_TIMEOUT)


class Mounts(Probe):
    name = "mounts"
    is_watched = True

    def __init__(self, *, pid: int = 1) -> None:
        self._space = Namespace(pid)

    def capture(self) -> Image:
        mounts = self._space.mounts()
        volatile = [mount.point for mount in mounts if mount.fstype in _VOLATILE and not mount.automatic]
        return {
            "mounts": [mount.to_json() for mount in mounts],
            "filled": [point for point in volatile if _has_entries(point)],
            # A file system in memory that is made anew has a new root directory.
            "mtimes": {point: os.stat(point).st_mtime_ns for point in volatile if os.path.isdir(point)},
        }

    def seen(self, image: Image) -> dict[str, object]:
        return dict(_named(_mounts(image)))

    def adopt(self, image: Image, keys: Collection[str], other: Image) -> Image:
        """New ones come last, as they came after what was there. What a mount in memory holds is known from the same look."""
        was, then = _named(_mounts(image)), _named(_mounts(other))
        mounts = [then.get(key) if key in keys else mount for key, mount in was.items()]
        mounts += [mount for key, mount in then.items() if key in keys and key not in was]
        points = {mount.point for name in keys for mount in [then.get(name)] if mount is not None}
        return {
            "mounts": [mount.to_json() for mount in mounts if mount is not None],
            "filled": sorted({point for point in image["filled"] if point not in points} | (points & set(other["filled"]))),
            "mtimes": {**image["mtimes"], **{point: ns for point, ns in other["mtimes"].items() if point in points}},
        }

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.at_boot:
            return []
        if circumstances.rebooted and circumstances.left is None:
            return []
        found = _ours(before, now, circumstances)
        return [
            *(f"{_name(mount)} is mounted, and was not." for mount in found.born),
            *(f"{_name(mount)} is not mounted, and was." for mount in found.gone),
            *(f"{_name(old)} has options {shown(new)}, and had {shown(old)}." for old, new in found.altered),
        ]

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted and circumstances.left is None:
            return NOTHING
        found, outcome = _ours(before, self.capture(), circumstances), NOTHING
        for mount in found.born:
            outcome += _unmount(self._space, mount)
        for mount in found.gone:
            if os.path.lexists(mount.point):
                outcome += _mount(self._space, mount, before)
        for old, new in found.altered:
            outcome += _alter(self._space, old, new)
        return outcome

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted and circumstances.left is None:
            return NOTHING
        found, outcome = _ours(before, self.capture(), circumstances), NOTHING
        for mount in found.gone:
            outcome += _mount(self._space, mount, before)
        return outcome


def _ours(before: Image, now: Image, circumstances: Circumstances) -> Changes:
    """After a commit, only what the transaction had left that way."""
    found = changes(_mounts(before), _mounts(now))
    if circumstances.left is None:
        return found
    meant = changes(_mounts(before), _mounts(circumstances.left))
    born, gone = {mount.same for mount in meant.born}, {mount.same for mount in meant.gone}
    altered = {old.same for old, dummy in meant.altered}
    return Changes(
        tuple(mount for mount in found.born if mount.same in born),
        tuple(mount for mount in found.gone if mount.same in gone),
        tuple(pair for pair in found.altered if pair[0].same in altered),
    )


def _named(mounts: list[Mount]) -> dict[str, Mount]:
    """By place, file system, and how many of the same lie beneath."""
    found: dict[str, Mount] = {}
    for mount in mounts:
        if not mount.automatic:
            name = " ".join(mount.same)
            found[f"{name} {sum(other.startswith(name + ' ') for other in found)}"] = mount
    return found


def _mounts(image: Image) -> list[Mount]:
    return [Mount(*data) for data in image["mounts"]]


def _has_entries(point: str) -> bool:
    try:
        with os.scandir(point) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _name(mount: Mount) -> str:
    return f"{mount.fstype} {mount.source!r} on {mount.point!r}"


def _unmount(space: Namespace, mount: Mount) -> Outcome:
    done = space.run("umount", "--", mount.point)
    if done.ok:
        return Outcome(actions=(f"unmounted {_name(mount)}",))
    lazy = space.run("umount", "--lazy", "--", mount.point)
    if lazy.ok:
        note = f"{_name(mount)} is in use and goes when its last user ends ({done.complaint})."
        return Outcome(actions=(f"unmounted {_name(mount)}",), notes=(note,))
    return Outcome(failures=(f"{_name(mount)} was mounted by the transaction and cannot be unmounted: {lazy.complaint}.",))


def _mount(space: Namespace, mount: Mount, before: Image) -> Outcome:
    if not os.path.lexists(mount.point):
        return Outcome(failures=(f"{_name(mount)} cannot be mounted again: its mount point is missing.",))
    # btrfs shows a subvolume's name as the root of its mount.
    whole = mount.root == "/" or f"subvol={mount.root}" in mount.super_options.split(",")
    done = _whole(space, mount) if whole else _bind(space, mount)
    if done is None:
        why = f"{mount.root!r} of {mount.device} is not reachable by any other mount"
        return Outcome(failures=(f"{_name(mount)} cannot be mounted again: {why}.",))
    if not done.ok:
        return Outcome(failures=(f"{_name(mount)} cannot be mounted again: {done.complaint}.",))
    outcome = Outcome(actions=(f"mounted {_name(mount)} again",)) + _propagate(space, mount)
    if mount.fstype in _VOLATILE and mount.point in before["mtimes"] and not _has_entries(mount.point):
        os.utime(mount.point, ns=(os.stat(mount.point).st_atime_ns, before["mtimes"][mount.point]))
    if mount.fstype in _VOLATILE and mount.point in before["filled"] and not _has_entries(mount.point):
        outcome += Outcome(failures=(f"{_name(mount)} was unmounted: what was in it is lost, since it lay in memory only.",))
    return outcome


def _whole(space: Namespace, mount: Mount) -> Output | None:
    others = [other for other in space.mounts() if other.device == mount.device and other.root == "/" and other.point != mount.point]
    if others and mount.fstype in _VOLATILE:
        # A second mount of a file system in memory: mounting it by type would make a new, empty one.
        return _bind(space, mount)
    options = ",".join(dict.fromkeys([*mount.options.split(","), *settable(mount.super_options)]))
    return space.run("mount", "-t", mount.fstype, "-o", options, "--", mount.source, mount.point)


def _bind(space: Namespace, mount: Mount) -> Output | None:
    for other in space.mounts():
        if other.device == mount.device and (other.root == "/" or mount.root == other.root or mount.root.startswith(other.root + "/")):
            inside = os.path.relpath(mount.root, other.root)
            source = other.point if inside == "." else os.path.join(other.point, inside)
            done = space.run("mount", "--bind", "--", source, mount.point)
            if done.ok:
                return space.run("mount", "-o", f"remount,bind,{remount_options(mount)}", "--", mount.point)
    return None


def _propagate(space: Namespace, mount: Mount) -> Outcome:
    peer = mount.peer.partition(",")[0]
    done = space.run("mount", f"--make-{peer}", "--", mount.point)
    return NOTHING if done.ok else Outcome(failures=(f"{_name(mount)} could not be made {peer}: {done.complaint}.",))


def _alter(space: Namespace, old: Mount, new: Mount) -> Outcome:
    outcome = NOTHING
    done = None
    if frozenset(old.super_options.split(",")) != frozenset(new.super_options.split(",")):
        own = super_options(old, new, pages=os.sysconf("SC_PHYS_PAGES"), page_size=os.sysconf("SC_PAGE_SIZE"))
        options = ",".join(dict.fromkeys([*old.options.split(","), *own]))
        done = space.run("mount", "-o", f"remount,{options}", "--", old.point)
    if old.flags != new.flags and (done is None or done.ok):
        done = space.run("mount", "-o", f"remount,bind,{remount_options(old)}", "--", old.point)
    if done is not None and not done.ok:
        return Outcome(failures=(f"{_name(old)} keeps options {shown(new)}; setting {shown(old)} failed: {done.complaint}.",))
    if old.peer != new.peer:
        outcome += _propagate(space, old)
    return outcome + Outcome(actions=(f"{_name(old)} has options {old.options} again",))
