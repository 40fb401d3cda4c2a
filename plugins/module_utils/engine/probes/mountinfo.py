# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""/proc/PID/mountinfo (proc(5)) as values, and what differs between two of them. Pure."""

from __future__ import annotations

import fnmatch
import re
from typing import Any, NamedTuple

# systemd makes and removes these by itself, with logins, services and first use.
_AUTOMATIC = (
    "/run/user/*",
    "/run/credentials/*",
    "/run/systemd/*",
    "/dev/.#*",
    "/proc/sys/fs/binfmt_misc",
    "/proc/*",
    "/sys/fs/cgroup/*",
)
_PEERS = {"shared:": "shared", "master:": "slave", "unbindable": "unbindable"}
_FLAGS = ("ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow")


class Mount(NamedTuple):
    """Text with surrogate escapes. `options` are the mount's own, `super_options` the file system's. `peer` is "shared", "private",
    "slave", "shared,slave" or "unbindable"; group numbers differ from boot to boot and are left out."""

    id: int
    parent: int
    device: str
    root: str
    point: str
    options: str
    peer: str
    fstype: str
    source: str
    super_options: str

    @property
    def same(self) -> tuple[str, ...]:
        """What makes two mounts the same one; options are compared apart."""
        return (self.point, self.fstype, self.source, self.root)

    @property
    def automatic(self) -> bool:
        return self.fstype == "autofs" or any(fnmatch.fnmatchcase(self.point, pattern) for pattern in _AUTOMATIC)

    @property
    def flags(self) -> frozenset[str]:
        return frozenset(self.options.split(","))

    def to_json(self) -> list[Any]:
        return list(self)


def parse(text: str) -> list[Mount]:
    """In the kernel's order, that is of mounting, the parents first."""
    return [_mount(line) for line in text.splitlines() if line.strip()]


def _mount(line: str) -> Mount:
    left, right = line.split(" - ", 1)
    number, parent, device, root, point, options, *optional = left.split(" ")
    fstype, source, super_options = right.split(" ", 2)
    peers = [kind for tag, kind in _PEERS.items() if any(field.startswith(tag) for field in optional)]
    return Mount(
        int(number),
        int(parent),
        device,
        _plain(root),
        _plain(point),
        options,
        ",".join(peers) or "private",
        fstype,
        _plain(source),
        super_options,
    )


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), text)


class Changes(NamedTuple):
    """`born` in the order to unmount, `gone` in the order to mount, `altered` as (before, now)."""

    born: tuple[Mount, ...]
    gone: tuple[Mount, ...]
    altered: tuple[tuple[Mount, Mount], ...]


def changes(before: list[Mount], now: list[Mount]) -> Changes:
    """Mounts are paired by place and file system, in order where several of the same lie on one another."""
    left = [mount for mount in now if not mount.automatic]
    gone: list[Mount] = []
    altered: list[tuple[Mount, Mount]] = []
    for mount in before:
        if mount.automatic:
            continue
        # A mount's id outlives a change of its options, and no other one on the host has it.
        twin = next((other for other in left if other.same == mount.same and other.id == mount.id), None)
        twin = twin or next((other for other in left if other.same == mount.same), None)
        if twin is None:
            gone.append(mount)
            continue
        left.remove(twin)
        if _options(twin) != _options(mount):
            altered.append((mount, twin))
    return Changes(tuple(reversed(left)), tuple(gone), tuple(altered))


def _options(mount: Mount) -> tuple[frozenset[str], frozenset[str], str]:
    # A quota-less tmpfs made without size= has one by default; order of options is the kernel's affair.
    return mount.flags, frozenset(mount.super_options.split(",")), mount.peer


def remount_options(mount: Mount) -> str:
    """The options that bring the mount's own flags back, also those that are off now."""
    wanted = [flag for flag in mount.options.split(",") if flag in _FLAGS or flag == "rw"]
    opposites = {"nosuid": "suid", "nodev": "dev", "noexec": "exec"}
    wanted += [off for flag, off in opposites.items() if flag not in mount.flags]
    if not mount.flags & {"relatime", "noatime"}:
        wanted.append("strictatime")
    return ",".join(wanted)
