# SPDX-License-Identifier: GPL-3.0-or-later
"""An inode is the one that its handle was made of, and a file system the one that the log saw: nothing else is ever opened in their stead."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import kernel
from engine.filesystems import FileSystem

Mount = Callable[..., Path]

MAKE = {
    "ext4 by mke2fs -d": ("mkfs.ext4", "-q", "-F", "-N", "400", "-d"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-N", "400"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


@pytest.fixture
def tree(sandbox: Path) -> Path:
    tree = sandbox / "tree"
    for number in range(40):
        (tree / "old" / f"d{number}").mkdir(parents=True)
        (tree / "old" / f"f{number}").write_text("x", encoding="ascii")
        (tree / "old" / f"l{number}").symlink_to("nowhere")
    return tree


@pytest.fixture
def disk(sandbox: Path, tree: Path) -> Iterator[Callable[[str, str], Path]]:
    """disk(kind, name): a file system of its own with the tree in it, made in one of the ways of MAKE, mounted."""
    mounted: list[Path] = []

    def make(kind: str, name: str) -> Path:
        image, place = sandbox / f"{name}.img", sandbox / name
        with open(image, "wb") as f:
            f.truncate(320 << 20)
        words = MAKE[kind]
        subprocess.run([*words, *([str(tree)] if words[-1] == "-d" else []), str(image)], check=True, stdout=subprocess.DEVNULL)
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        mounted.append(place)
        if words[-1] != "-d":
            subprocess.run(["cp", "-a", f"{tree}/.", str(place)], check=True)
        return place

    yield make
    for place in reversed(mounted):
        subprocess.run(["umount", "-R", str(place)], check=True)


def opened(place: Path, number: int = 1) -> FileSystem:
    state = kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(place))
    fs = FileSystem(number, state.dev, b"ext4", os.fsencode(place))
    fs.open_mount()
    return fs


@pytest.mark.parametrize("kind", MAKE)
def test_a_handle_never_opens_what_has_the_number_now(disk: Callable[[str, str], Path], kind: str) -> None:
    """ext4 takes a handle of generation 0, as mke2fs -d leaves it everywhere, for whatever inode has that number (ext4_nfs_get_inode)."""
    place = disk(kind, "place")
    reader, fs = kernel.Reader(), opened(place)
    try:
        old = {path: reader.handle(kernel.AT_FDCWD, os.fsencode(path)) for path in sorted((place / "old").iterdir())}
        for path, handle in old.items():
            os.close(fs.open(handle))
        numbers = {path.lstat().st_ino for path in old}
        subprocess.run(["rm", "-r", str(place / "old")], check=True)
        new = place / "new"
        new.mkdir()
        for number in range(120):
            (new / f"l{number}").symlink_to("somewhere")
            (new / f"d{number}").mkdir()
        if "ext4" in kind:
            assert numbers & {path.lstat().st_ino for path in new.iterdir()}, "no number was used again: this shows nothing"
        for path, handle in old.items():
            with pytest.raises(OSError) as raised:
                os.close(fs.open(handle))
            assert raised.value.errno == errno.ESTALE, path
    finally:
        fs.close()
