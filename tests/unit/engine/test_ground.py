# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding again what the log speaks of."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import kernel
from engine.filesystems import FileSystem
from engine.records import Basic, DirectorySeen, FileSystemSeen
from engine.store import Store
from engine.undo import undo
from engine.undoing.ground import Ground, Outcome
from engine.undolog import Writer
from engine.wanted import Wanted


@pytest.mark.parametrize(("made", "found"), [("directory", True), ("file", False), ("nothing", False)])
def test_a_directory_is_found_by_its_handle(sandbox: Path, made: str, found: bool) -> None:
    """A power cut can take the directory, and XFS gives its number and generation to a file."""
    (sandbox / "state").mkdir()
    place, reader = sandbox / "place", kernel.Reader()
    place.touch() if made == "file" else place.mkdir()
    handle = reader.handle(kernel.AT_FDCWD, os.fsencode(place))
    if made == "nothing":
        place.rmdir()
    images = Store("tx", state=str(sandbox / "state"))
    fs = images.file_system(reader.stat(kernel.AT_FDCWD, os.fsencode(sandbox)).dev)
    assert fs is not None
    wanted = Wanted(
        file_systems={fs.number: FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point)},
        directories={1: DirectorySeen(1, fs.number, handle, os.fsencode(place))},
    )
    ground = Ground(images, None, wanted)  # type: ignore[arg-type]  # nothing is written
    assert (ground.directory(1) is not None) == found
    ground.close()
    images.close()


@pytest.fixture
def images(sandbox: Path) -> Iterator[Store]:
    (sandbox / "state").mkdir()
    made = Store("tx", state=str(sandbox / "state"))
    yield made
    made.close()


def of(images: Store, path: Path, monkeypatch: pytest.MonkeyPatch, *, like: str) -> FileSystem:
    """Its file system, played: no handle opens anything any more."""
    fs = images.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(path)).dev)
    assert fs is not None

    def stale(_handle: bytes, _flags: int = 0) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(fs, "open", stale)
    monkeypatch.setattr(fs, "fstype", like.encode())
    monkeypatch.setattr(fs, "links", like != "vfat")
    return fs


@pytest.mark.parametrize("made", ["directory", "file", "link to nothing", "nothing"])
@pytest.mark.parametrize("like", ["vfat", "ext4"])
def test_a_directory_whose_handle_holds_no_more(
    sandbox: Path, images: Store, monkeypatch: pytest.MonkeyPatch, like: str, made: str
) -> None:
    """Where handles last, one that is stale tells that the inode is gone. vfat forgets them, so there only the path tells."""
    place = sandbox / "place"
    {"directory": place.mkdir, "file": place.touch, "link to nothing": lambda: place.symlink_to("none"), "nothing": lambda: None}[made]()
    fs = of(images, sandbox, monkeypatch, like=like)
    wanted = Wanted(
        file_systems={fs.number: FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point)},
        directories={1: DirectorySeen(1, fs.number, b"\1\0\0\0handle", os.fsencode(place))},
    )
    ground = Ground(images, None, wanted)  # type: ignore[arg-type]  # nothing is written
    assert ground.directory(1) is None and ground.directory(1) is None
    told = [f"{place}: not looked at: vfat cannot tell any more whether it is the same"]
    assert ground.outcome.differs == (told if like == "vfat" and made != "nothing" else [])
    assert ground.outcome.moot == []
    ground.close()


def undone(sandbox: Path, images: Store, fs: FileSystem, place: Path) -> Outcome:
    """Of a transaction that has changed the file's mode."""
    (sandbox / "tx").mkdir()
    log = Writer.create(str(sandbox / "tx"))
    basic = Basic(1, fs.number, b"\1\0\0\0handle", stat.S_IFREG | 0o600, 0, 0, 0, 0, 1, 1, os.fsencode(place))
    wanted = Wanted(
        file_systems={fs.number: FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point)},
        basics={(fs.number, basic.handle): basic},
    )
    try:
        return undo(images, log, wanted, epoch=0)
    finally:
        log.close()


@pytest.mark.parametrize("like", ["vfat", "ext4"])
def test_a_file_whose_handle_holds_no_more(sandbox: Path, images: Store, monkeypatch: pytest.MonkeyPatch, like: str) -> None:
    place = sandbox / "file"
    place.touch()
    outcome = undone(sandbox, images, of(images, sandbox, monkeypatch, like=like), place)
    if like == "vfat":
        assert len(outcome.differs) == 1 and outcome.differs[0].startswith(f"{place}: not looked at") and outcome.moot == []
    else:  # it stands there, and is another one: the transaction's mode may have come along
        assert len(outcome.differs) == 1 and outcome.differs[0].startswith(f"{place}: was replaced since") and outcome.moot == []


def test_a_file_that_is_gone_is_moot_everywhere(sandbox: Path, images: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place = sandbox / "file"
    outcome = undone(sandbox, images, of(images, sandbox, monkeypatch, like="vfat"), place)
    assert outcome.differs == [] and outcome.moot == [str(place)]


def test_another_file_system_on_the_way_is_no_stale_handle(sandbox: Path) -> None:
    """Its directory's handle says nothing on this one, and must not stop the undo."""
    place, reader = sandbox / "disk", kernel.Reader()
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    root = FileSystem(1, reader.stat(kernel.AT_FDCWD, b"/").dev, b"ext4", b"/")
    root.open_mount()
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = root.by_own_mount(os.open(place, flags), flags)
    assert os.readlink(f"/proc/self/fd/{fd}") == str(place)
    os.close(fd)
    root.close()
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("durable", [True, False])
def test_flags_that_an_undo_takes_off_are_on_the_disk_first(
    sandbox: Path, images: Store, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    monkeypatch.setattr(images, "durable", durable)
    fs = images.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(sandbox)).dev)
    assert fs is not None
    (sandbox / "log").mkdir()
    log = Writer.create(str(sandbox / "log"))
    ground = Ground(images, log, Wanted(file_systems={fs.number: FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point)}))
    locked = sandbox / "locked"
    locked.touch()
    fd = os.open(locked, os.O_RDONLY)
    kernel.set_flags(fd, kernel.FS_APPEND_FL)
    seen: list[bool] = []
    monkeypatch.setattr(os, "fdatasync", lambda _fd: seen.append(bool(kernel.get_flags(fd) & kernel.FS_APPEND_FL)))
    folder = os.open(sandbox, os.O_RDONLY | os.O_DIRECTORY)
    ground.unlock(folder, b"locked")
    assert not kernel.get_flags(fd) & kernel.FS_APPEND_FL
    assert seen == ([True] if durable else [])
    for one in (fd, folder):
        os.close(one)
    ground.close()
    log.close()
