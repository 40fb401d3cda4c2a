# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's own pieces that need no host: names that a directory holds now, and removal of what chattr has locked."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import attributes, clearing, kernel, store
from engine.errors import NotOnDisk, StoreFull


def lock(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        kernel.set_flags(fd, flags)
    except OSError as error:
        pytest.fail(f"{path} takes no inode flags ({error.strerror}): this cannot be tested here")
    finally:
        os.close(fd)


def test_a_locked_tree_is_removed_whole(sandbox: Path) -> None:
    tree = sandbox / "tree"
    for number in range(3):
        (tree / f"d{number}" / "e").mkdir(parents=True)
        (tree / f"d{number}" / "f").write_text("x", encoding="ascii")
    os.symlink("nowhere", tree / "link")
    os.mkfifo(tree / "fifo")
    lock(tree / "d0" / "f", kernel.FS_IMMUTABLE_FL)
    lock(tree / "d1" / "f", kernel.FS_APPEND_FL)
    lock(tree / "d1", kernel.FS_IMMUTABLE_FL)
    lock(tree / "d2" / "e", kernel.FS_APPEND_FL)
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    clearing.remove_tree_contents(fd)
    os.close(fd)
    assert os.listdir(tree) == []


def test_a_locked_file_keeps_its_lock_at_its_other_name(sandbox: Path) -> None:
    one, other = sandbox / "one", sandbox / "other"
    one.write_text("x", encoding="ascii")
    os.link(one, other)
    lock(one, kernel.FS_IMMUTABLE_FL)
    folder = os.open(sandbox, os.O_RDONLY | os.O_DIRECTORY)
    clearing.unlink_locked(folder, b"one")
    os.close(folder)
    fd = os.open(other, os.O_RDONLY)
    try:
        assert not one.exists()
        assert kernel.get_flags(fd) & kernel.FS_IMMUTABLE_FL
    finally:
        clearing.unlock(fd)
        os.close(fd)


def test_names_are_those_of_now(sandbox: Path) -> None:
    fd = os.open(sandbox, os.O_RDONLY | os.O_DIRECTORY)
    assert clearing.names_in(fd) == []
    (sandbox / "new").touch()
    assert clearing.names_in(fd) == [b"new"]
    (sandbox / "new").unlink()
    assert clearing.names_in(fd) == []
    os.close(fd)


def test_only_what_a_user_may_set_counts_as_a_flag(sandbox: Path) -> None:
    path = sandbox / "f"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    before = kernel.get_flags(fd)
    kernel.set_flags(fd, before | kernel.FS_APPEND_FL)
    assert kernel.get_flags(fd) == before | kernel.FS_APPEND_FL
    kernel.set_flags(fd, before)
    assert kernel.get_flags(fd) == before
    os.close(fd)


@pytest.fixture
def crowded(sandbox: Path) -> Iterator[Path]:
    """The mount point of a file system with 48 inodes, of which the first 11 are its own."""
    image, place = sandbox / "image", sandbox / "crowded"
    with open(image, "wb") as f:
        f.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "48", str(image)], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_no_room_for_the_undo_on_another_file_system_is_named(sandbox: Path, crowded: Path) -> None:
    (sandbox / "state").mkdir()
    images = store.Store("tx", state=str(sandbox / "state"))
    for number in range(os.statvfs(crowded).f_ffree - 6):
        (crowded / str(number)).touch()
    found = images.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(crowded)).dev)
    assert found is not None
    for _again in range(2):
        with pytest.raises(StoreFull, match=rf"of {crowded} has .* MiB and \d inodes free, and a transaction holds .* 8 inodes") as raised:
            images.room.take_reserve(found)
        assert "Free some space there" in raised.value.hint
    assert [name for _folder, folders, files in os.walk(crowded / ".acid-store") for name in folders + files] == ["tx"]
    images.close()


def test_copies_may_not_take_what_was_freed_later(sandbox: Path, crowded: Path) -> None:
    """The undo needs it again."""
    state = sandbox / "state"
    state.mkdir()
    images = store.Store("tx", state=str(state))
    reader = kernel.Reader()
    found = images.file_system(reader.stat(kernel.AT_FDCWD, os.fsencode(crowded)).dev)
    assert found is not None
    files = [crowded / name for name in ("one", "two")]
    for path in files:
        path.write_bytes(b"x" * (2 << 20))
    handles = [reader.handle(kernel.AT_FDCWD, os.fsencode(path)) for path in files]
    free = os.statvfs(crowded).f_bfree * os.statvfs(crowded).f_frsize
    assert 2 << 20 < free < 4 << 20, free
    images.copy(found, handles[0], 2 << 20)
    os.truncate(files[0], 0)
    with pytest.raises(StoreFull, match=rf"{2 << 20} bytes on {crowded}: of what was free when the transaction began"):
        images.copy(found, handles[1], 2 << 20)
    assert os.listdir(crowded / ".acid-store" / "tx") == ["c1"]
    images.close()


@pytest.mark.parametrize("way", ["copy", "link"])
def test_an_image_that_did_not_reach_the_disk_is_said(sandbox: Path, crowded: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Not as a full disk is, for which a program may be refused one call: whatever else was written may be lost too."""
    (sandbox / "state").mkdir()
    images, reader = store.Store("tx", state=str(sandbox / "state"), durable=True), kernel.Reader()
    path = crowded / "one"
    path.write_bytes(b"x" * 9000)
    found = images.file_system(reader.stat(kernel.AT_FDCWD, os.fsencode(path)).dev)
    assert found is not None
    monkeypatch.setattr(type(found), "orders_metadata", False)

    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    handle = reader.handle(kernel.AT_FDCWD, os.fsencode(path))
    keep = {"copy": lambda: images.copy(found, handle, 9000), "link": lambda: images.keep_link(found, -1, b"", handle)}[way]
    with pytest.raises(NotOnDisk, match=f"{crowded} did not take a before-image: Input/output error"):
        keep()
    assert [name for name in os.listdir(crowded / ".acid-store" / "tx") if name.startswith("c")] == []
    images.close()


def test_a_store_that_cannot_be_made_takes_no_descriptor(sandbox: Path) -> None:
    (sandbox / "state").mkdir()
    place = sandbox / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], check=True)
    images = store.Store("tx", state=str(sandbox / "state"))
    found = images.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(place)).dev)
    assert found is not None
    before = len(os.listdir("/proc/self/fd"))
    for _again in range(3):
        with pytest.raises(OSError, match="Read-only"):
            images.directory(found)
    assert len(os.listdir("/proc/self/fd")) == before
    images.close()
    subprocess.run(["umount", str(place)], check=True)


def test_a_store_whose_maker_died_hands_on_no_project_id(sandbox: Path, crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sandbox / "state").mkdir()
    (crowded / ".acid-store" / "tx").mkdir(parents=True)
    images = store.Store("tx", state=str(sandbox / "state"))
    found = images.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(crowded)).dev)
    assert found is not None
    put: list[bytes] = []
    monkeypatch.setattr(attributes, "inherits", lambda _fd: True)
    monkeypatch.setattr(attributes, "put", lambda fd, _wanted: put.append(os.readlink(f"/proc/self/fd/{fd}".encode())))
    images.directory(found)
    assert put and all(path.endswith(b"/.acid-store/tx") for path in put)
    images.close()


def test_what_a_disk_said_first_counts(sandbox: Path, crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 turns read-only, so that not even the copy can be taken away: the transaction is to be doomed all the same."""
    (sandbox / "state").mkdir()
    images = store.Store("tx", state=str(sandbox / "state"), durable=True)
    path = crowded / "one"
    path.write_bytes(b"x" * 9000)
    found = images.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(path)).dev)
    assert found is not None

    def fails(number: int) -> Callable[..., None]:
        def call(*_arguments: object, **_more: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with monkeypatch.context() as now:
        now.setattr(os, "unlink", fails(errno.EROFS))
        with pytest.raises(NotOnDisk):
            images.copy(found, kernel.Reader().handle(kernel.AT_FDCWD, os.fsencode(path)), 9000)
    images.close()
