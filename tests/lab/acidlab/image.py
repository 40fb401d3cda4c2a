# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the images: distribution tree by mmdebstrap (slow, keyed by package list), then overlay, users, local repositories (seconds)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from . import machine, pool
from .errors import LabError
from .model import CACHE, KEY, MOUNT_OPTIONS, POOL
from .recipe import IMAGES, OVERLAY, image_key, tree_key
from .repositories import build_repositories
from .run import run

IMAGE_DISK_SIZE = 12 << 30


def image_path(image: str) -> Path:
    return POOL / "images" / f"{image}-{image_key(image, machine.this_codename())}"


def ready(image: str) -> Path:
    """The finished image's subvolume; LabError when it has to be built first."""
    path = image_path(image)
    if not path.exists():
        raise LabError(f"image {image} is not built (or its recipe changed): run `lab build --image {image}`")
    return path


def build(image: str) -> Path:
    """Build what is missing; a build that died leaves nothing that a later one would take for finished."""
    if image not in IMAGES:
        raise LabError(f"no image {image}: one of {', '.join(IMAGES)}")
    machine.install_missing()
    pool.open_pool()
    with pool.lock(f"build-{image}"):
        path = image_path(image)
        if path.exists():
            return path
        tree = POOL / "images" / f"tree-{image}-{tree_key(image, machine.this_codename())}"
        if not tree.exists():
            _distribution(image, tree)
        fresh = path.with_name(path.name + ".new")
        pool.delete(fresh)
        pool.snapshot(tree, fresh)
        _finish(fresh)
        run(["btrfs", "property", "set", "-ts", str(fresh), "ro", "true"])
        fresh.rename(path)
        _forget_older(image, keep=(path, tree))
    return path


def _distribution(image: str, tree: Path) -> None:
    fresh = tree.with_name(tree.name + ".new")
    pool.delete(fresh)
    pool.create(fresh)
    with tempfile.NamedTemporaryFile("w", suffix=".list") as sources, tempfile.NamedTemporaryFile("w", suffix=".conf") as options:
        sources.write("".join(f"{line}\n" for line in machine.sources()))
        options.write("".join(f"{line}\n" for line in machine.options()))
        sources.flush()
        options.flush()
        run(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                "--skip=output/dev,check/empty",
                f"--aptopt={options.name}",
                f"--include={','.join(IMAGES[image])}",
                machine.this_codename(),
                str(fresh),
                sources.name,
            ]
        )
    fresh.rename(tree)


def _key_pair() -> None:
    if not KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "acid-lab", "-f", str(KEY)])


def _finish(root: Path) -> None:
    """Overlay, repositories and setup.sh, in a mount namespace of its own so that no mount outlives a crash."""
    _key_pair()
    run(["cp", "-R", "--no-preserve=ownership", f"{OVERLAY}/overlay/.", str(root)])
    shutil.copy(f"{KEY}.pub", root / "tmp/lab-key.pub")
    shutil.copy(OVERLAY / "setup.sh", root / "tmp/setup.sh")
    build_repositories(root)
    run(
        [
            "unshare",
            "-m",
            "sh",
            "-ec",
            'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; exec chroot "$1" sh /tmp/setup.sh',
            "-",
            str(root),
        ]
    )
    (root / "etc/machine-id").write_text("0" * 31 + "1\n", encoding="ascii")


def _forget_older(image: str, *, keep: tuple[Path, ...]) -> None:
    for path in [*(POOL / "images").glob(f"{image}-*"), *(POOL / "images").glob(f"tree-{image}-*")]:
        if path not in keep:
            run(["btrfs", "property", "set", "-ts", str(path), "ro", "false"], check=False)
            pool.delete(path)


def disk(image: str, fs: str) -> Path:
    """A file system image (ext4 or xfs) with the image's tree, made on first use, to be copied per host."""
    source = ready(image)
    path = CACHE / "disks" / f"{source.name}.{fs}"
    with pool.lock(f"disk-{fs}"):
        if path.exists():
            return path
        path.parent.mkdir(exist_ok=True)
        for old in path.parent.glob(f"{image}-*.{fs}"):
            old.unlink()
        fresh = path.with_suffix(".new")
        with open(fresh, "wb") as sparse:
            sparse.truncate(IMAGE_DISK_SIZE)
        if fs == "ext4":
            # Lazy initialisation would go on writing to the disk of an idle host.
            run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-m", "1", str(fresh)])
        else:
            run(["mkfs.xfs", "-q", "-K", "-m", "bigtime=1", str(fresh)])
        with tempfile.TemporaryDirectory(prefix="acl-") as point:
            run(
                [
                    "unshare",
                    "-m",
                    "sh",
                    "-ec",
                    'mount -o "$3" "$1" "$4"; cp -a "$2/." "$4"; umount "$4"',
                    "-",
                    str(fresh),
                    str(source),
                    MOUNT_OPTIONS[fs],
                    point,
                ]
            )
        os.rename(fresh, path)
    return path
