# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images are made of. The cache is keyed by this: a changed recipe is a new image."""

from __future__ import annotations

import hashlib
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OVERLAY = HERE / "image"
PACKAGES = HERE / "packages"

# What the outer machine needs. Command that proves it is there -> package.
OUTER = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.ext4": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "dpkg-scanpackages": "dpkg-dev",
    "fakeroot": "fakeroot",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "losetup": "util-linux",
    "nsenter": "util-linux",
    "zstd": "zstd",
}

BASE = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "python3",
    "python3-apt",
    "python3-venv",
    "sudo",
    "cron",
    "iproute2",
    "nftables",
    "acl",
    "attr",
    "libcap2-bin",
    "e2fsprogs",
    "rsync",
    "git",
    "patch",
    "logrotate",
    "curl",
    "ca-certificates",
    "procps",
    "kmod",
    "netbase",
    "tzdata",
    "unzip",
    "xz-utils",
    "bzip2",
    "zstd",
    "sqlite3",
    "strace",
    "adduser",
    "pacman-package-manager",
)
# Programs that the scenarios run in steps; apart, since they make the image three times as big.
BIG = (
    *BASE,
    "gcc",
    "libc6-dev",
    "gcc-multilib",
    "make",
    "nodejs",
    "npm",
    "default-jdk-headless",
    "golang-go",
    "bubblewrap",
    "fuse3",
    "sshfs",
    "python3-fusepy",
    "busybox-static",
    "inotify-tools",
)
IMAGES = {"base": BASE, "big": BIG}


def _digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def tree_key(image: str, codename: str) -> str:
    """Key of the untouched distribution tree: the slow part."""
    return _digest([codename.encode(), *(name.encode() for name in IMAGES[image])])


def files_under(*tops: Path) -> list[Path]:
    return sorted(path for top in tops for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def image_key(image: str, codename: str) -> str:
    """Key of the finished image: distribution tree, overlay, local packages, and the code that puts them together."""
    code = [HERE / "acidlab" / name for name in ("image.py", "recipe.py", "repositories.py", "debs.py", "pacmans.py")]
    files = [path for path in (*files_under(OVERLAY, PACKAGES), *code) if path.exists()]
    return _digest(
        [
            tree_key(image, codename).encode(),
            *(
                part
                for path in files
                for part in (str(path.relative_to(HERE)).encode(), oct(path.stat().st_mode).encode(), path.read_bytes())
            ),
        ]
    )
