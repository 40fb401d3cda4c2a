# SPDX-License-Identifier: GPL-3.0-or-later
"""The btrfs file system on a sparse loop file that holds images, roots and snapshots."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .model import CACHE, POOL, RUN
from .run import run, text

POOL_FILE = CACHE / "pool.btrfs"
POOL_SIZE = 60 << 30


@contextmanager
def lock(name: str) -> Iterator[None]:
    """A lock between lab commands; the kernel drops it when its holder dies."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    with open(RUN / f"{name}.lock", "w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def mounted(path: Path) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        return any(line.split()[4] == str(path) for line in mounts)


def open_pool() -> None:
    """Mount the pool; make it on first use."""
    with lock("pool"):
        if mounted(POOL):
            return
        POOL.mkdir(parents=True, exist_ok=True)
        CACHE.chmod(0o755)
        if not POOL_FILE.exists():
            fresh = POOL_FILE.with_suffix(".new")
            with open(fresh, "wb") as sparse:
                sparse.truncate(POOL_SIZE)
            # --nodiscard: the file is sparse already. Metadata single: it is a cache.
            run(["mkfs.btrfs", "-q", "-K", "-m", "single", "-L", "acid-lab", str(fresh)])
            fresh.rename(POOL_FILE)
        run(["mount", "-o", "loop,noatime,discard=async", str(POOL_FILE), str(POOL)])
        for name in ("images", "labs"):
            (POOL / name).mkdir(exist_ok=True)


def close_pool() -> None:
    with lock("pool"):
        if mounted(POOL):
            run(["umount", "-d", str(POOL)], check=False)


def create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run(["btrfs", "-q", "subvolume", "create", str(path)])


def snapshot(source: Path, target: Path, *, read_only: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    run(["btrfs", "-q", "subvolume", "snapshot", *(["-r"] if read_only else []), str(source), str(target)])


def inner_subvolumes(top: Path) -> list[Path]:
    """Subvolumes below a subvolume, deepest first: a host may have made some."""
    listed = text(["btrfs", "subvolume", "list", "-o", str(top)]).splitlines()
    found: list[Path] = []
    for line in listed:
        path = POOL / line.partition(" path ")[2]
        found += [*inner_subvolumes(path), path]
    return found


def delete(path: Path) -> None:
    if not path.exists():
        return
    for inner in inner_subvolumes(path):
        run(["btrfs", "property", "set", "-ts", str(inner), "ro", "false"], check=False)
        run(["btrfs", "-q", "subvolume", "delete", str(inner)])
    run(["btrfs", "-q", "subvolume", "delete", str(path)])
