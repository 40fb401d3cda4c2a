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


#: What sets an option back that was not there before: a remount leaves alone what it is not told (proc(5), tmpfs(5), ext4(5), btrfs(5)).
#: A tmpfs has room for half of the memory; in per cent it would be rounded otherwise, and shown.
_DEFAULTS = {
    ("proc", "hidepid"): "hidepid=0",
    ("proc", "gid"): "gid=0",
    ("tmpfs", "size"): "size={half_of_memory}",
    ("tmpfs", "nr_inodes"): "nr_inodes={half_of_pages}",
    ("ext4", "commit"): "commit=0",
    ("btrfs", "compress"): "compress=no",
    ("btrfs", "compress-force"): "compress=no",
}


def super_options(old: Mount, new: Mount, *, pages: int, page_size: int) -> list[str]:
    """The options that bring the file system's own back, also where it has some now that it had not. `pages`: of the host's memory."""
    wanted = settable(old.super_options)
    names = {option.partition("=")[0] for option in wanted}
    for option in settable(new.super_options):
        name, is_value, _value = option.partition("=")
        if name in names or option in ("ro", "rw"):
            continue
        if is_value:
            default = _DEFAULTS.get((old.fstype, name), "")
            wanted += [default.format(half_of_memory=pages // 2 * page_size, half_of_pages=pages // 2)] if default else []
        else:
            wanted.append(name[2:] if name.startswith("no") else f"no{name}")
    return wanted


def settable(options: str) -> list[str]:
    """What the kernel reports but does not take: security labels of a mount without a policy, btrfs' subvolid beside subvol."""
    return [option for option in options.split(",") if option and not option.startswith(("seclabel", "subvolid="))]


def shown(mount: Mount) -> str:
    """All options of the mount and its file system, as mount(8) shows them."""
    return ",".join(dict.fromkeys([*mount.options.split(","), *mount.super_options.split(",")]))
