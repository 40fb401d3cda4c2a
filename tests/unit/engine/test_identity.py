# SPDX-License-Identifier: GPL-3.0-or-later
"""An inode is the one that its handle was made of, and a file system the one that the log saw: nothing else is opened for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import kernel
from engine.filesystems import FileSystem
from engine.records import FileSystemSeen, decode, encode
from engine.storedirs import Directories

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

    def make(kind: str, name: str) -> Path:
        image, place = sandbox / f"{name}.img", sandbox / name
        with open(image, "wb") as f:
            f.truncate(320 << 20)
        words = MAKE[kind]
        subprocess.run([*words, *([str(tree)] if words[-1] == "-d" else []), str(image)], check=True, stdout=subprocess.DEVNULL)
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        if words[-1] != "-d":
            subprocess.run(["cp", "-a", f"{tree}/.", str(place)], check=True)
        return place

    yield make
    for place in sandbox.iterdir():
        while os.path.ismount(place):
            subprocess.run(["umount", str(place)], check=True)


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
        for handle in old.values():
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
            with pytest.raises(OSError, match="Stale file handle"):
                pytest.fail(f"{path} opened {os.readlink(f'/proc/self/fd/{fs.open(handle)}')}")
    finally:
        fs.close()


# -- file systems ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(sandbox: Path) -> str:
    (sandbox / "state").mkdir()
    return str(sandbox / "state")


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """mount(words of mount(8)): undone at the end, last first."""
    points: list[str] = []

    def do(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)
        points.append(words[-1])

    yield do
    for point in reversed(points):
        subprocess.run(["umount", point], check=False, stderr=subprocess.DEVNULL)


def umount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


def see(place: Path, state: str) -> FileSystemSeen:
    """What the log says of the file system that is mounted there."""
    directories = Directories("tx", state=state)
    fs = directories.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(place)).dev)
    assert fs is not None
    seen = FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point, fs.identity)
    directories.close()
    assert decode(*encode(seen)) == seen
    return seen


def found(seen: FileSystemSeen, state: str) -> list[str]:
    """Names in the file system that an undo would take for it; none: it takes none."""
    directories = Directories("tx", state=state)
    fs = directories.adopt(seen)
    try:
        return [] if fs is None else sorted(os.listdir(fs.mount_fd))
    finally:
        directories.close()


def test_a_file_system_under_another_mount_of_its_type_is_reached(sandbox: Path, state: str, mount: Callable[..., None]) -> None:
    """Two tmpfs at one place, and one over the directory above both."""
    place = sandbox / "above" / "place"
    place.mkdir(parents=True)
    mount("-t", "tmpfs", "none", str(place))
    (place / "ours").touch()
    seen = see(place, state)
    mount("-t", "tmpfs", "none", str(place))
    (place / "theirs").touch()
    assert found(seen, state) == ["ours"]
    mount("-t", "tmpfs", "none", str(place.parent))
    assert found(seen, state) == ["ours"]
    assert os.listdir(place.parent) == []  # for everybody else all lies where it lay
    umount(place.parent)
    assert os.listdir(place) == ["theirs"]


def test_a_covered_file_system_is_not_taken_for_the_one_on_top(sandbox: Path, state: str, mount: Callable[..., None]) -> None:
    """A step's process may still work in there, by its working directory."""
    place = sandbox / "place"
    place.mkdir()
    mount("-t", "tmpfs", "none", str(place))
    (place / "ours").touch()
    dev = kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(place)).dev
    mount("-t", "tmpfs", "none", str(place))
    directories = Directories("tx", state=state)
    fs = directories.file_system(dev)
    assert fs is not None
    assert os.listdir(fs.mount_fd) == ["ours"]
    directories.close()


def test_what_is_gone_has_no_successor(sandbox: Path, state: str, mount: Callable[..., None]) -> None:
    """tmpfs is handed the device number of the last one."""
    place = sandbox / "place"
    place.mkdir()
    mount("-t", "tmpfs", "none", str(place))
    seen = see(place, state)
    umount(place)
    mount("-t", "tmpfs", "none", str(place))
    (place / "theirs").touch()
    assert found(seen, state) == []


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_disks_that_changed_places_are_told_apart(
    disk: Callable[[str, str], Path], sandbox: Path, state: str, mount: Callable[..., None], kind: str
) -> None:
    one, two = disk(kind, "one"), disk(kind, "two")
    (one / "1").touch()
    (two / "2").touch()
    seen = {place: see(place, state) for place in (one, two)}
    for place in (one, two):
        umount(place)
    mount("-o", "loop", str(sandbox / "one.img"), str(two))
    assert "1" in found(seen[one], state)  # wherever it is mounted
    assert found(seen[two], state) == []
    mount("-o", "loop", str(sandbox / "two.img"), str(one))
    assert "1" in found(seen[one], state)
    assert "2" in found(seen[two], state)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_clone_of_a_disk_is_not_taken_for_it(
    disk: Callable[[str, str], Path], sandbox: Path, state: str, mount: Callable[..., None], kind: str
) -> None:
    """It has the same UUID, and inodes with the same handles. (The kernel mounts no second btrfs with a UUID that it knows.)"""
    one, nouuid = disk(kind, "one"), ["nouuid"] if kind == "xfs" else []
    seen = see(one, state)
    umount(one)
    subprocess.run(["cp", "--sparse=always", str(sandbox / "one.img"), str(sandbox / "clone.img")], check=True)
    (sandbox / "elsewhere").mkdir()
    # The original first, so that it gets its old device again.
    mount("-o", ",".join(["loop", *nouuid]), str(sandbox / "one.img"), str(sandbox / "elsewhere"))
    (sandbox / "elsewhere" / "original").touch()
    mount("-o", ",".join(["loop", *nouuid]), str(sandbox / "clone.img"), str(one))
    assert "original" in found(seen, state)
    umount(sandbox / "elsewhere")
    assert found(seen, state) == []
    (one / ".acid-store" / "tx").mkdir(parents=True)  # it is the disk that the transaction has changed, at another loop device
    assert "old" in found(seen, state)


def test_in_another_boot_a_uuid_tells_and_nothing_else_does(disk: Callable[[str, str], Path], state: str) -> None:
    one = disk("ext4", "one")
    seen = see(one, state)
    assert seen.identity is not None
    assert seen.identity.sure
    earlier = seen._replace(dev=7 << 32 | 99, identity=seen.identity._replace(boot=b"another"))
    assert "old" in found(earlier, state)
    assert earlier.identity is not None
    assert found(earlier._replace(identity=earlier.identity._replace(own=b"unlike")), state) == []
    assert found(earlier._replace(identity=earlier.identity._replace(own=b"")), state) == []


def test_logs_of_the_first_format_go_by_mount_point_and_type(disk: Callable[[str, str], Path], state: str) -> None:
    seen = see(disk("ext4", "one"), state)._replace(identity=None)
    assert decode(*encode(seen)) == seen
    assert "old" in found(seen, state)
