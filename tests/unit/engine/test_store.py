# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's own pieces that need no host: names that a directory holds now, and removal of what chattr has locked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine import kernel, store


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
    store.remove_tree_contents(fd)
    os.close(fd)
    assert os.listdir(tree) == []


def test_a_locked_file_keeps_its_lock_at_its_other_name(sandbox: Path) -> None:
    one, other = sandbox / "one", sandbox / "other"
    one.write_text("x", encoding="ascii")
    os.link(one, other)
    lock(one, kernel.FS_IMMUTABLE_FL)
    folder = os.open(sandbox, os.O_RDONLY | os.O_DIRECTORY)
    store.unlink_locked(folder, b"one")
    os.close(folder)
    fd = os.open(other, os.O_RDONLY)
    try:
        assert not one.exists()
        assert kernel.get_flags(fd) & kernel.FS_IMMUTABLE_FL
    finally:
        store.unlock(fd)
        os.close(fd)


def test_names_are_those_of_now(sandbox: Path) -> None:
    fd = os.open(sandbox, os.O_RDONLY | os.O_DIRECTORY)
    assert store.names_in(fd) == []
    (sandbox / "new").touch()
    assert store.names_in(fd) == [b"new"]
    (sandbox / "new").unlink()
    assert store.names_in(fd) == []
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
