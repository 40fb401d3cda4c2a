# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the store's images an undo needs, and so looks at first (I7)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import copies, kernel
from engine.filesystems import FileSystem
from engine.records import COPY, LINK, DirectorySeen, Entry, FileSystemSeen, Keep
from engine.store import Store
from engine.wanted import Wanted

READER = kernel.Reader()


@pytest.fixture
def disk(sandbox: Path) -> Iterator[Path]:
    place = sandbox / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def images(sandbox: Path) -> Iterator[Store]:
    (sandbox / "state").mkdir()
    made = Store("tx", state=str(sandbox / "state"))
    yield made
    made.close()


def fs_of(images: Store, path: Path) -> FileSystem:
    found = images.file_system(READER.stat(kernel.AT_FDCWD, os.fsencode(path)).dev)
    assert found is not None
    return found


def handle_of(path: Path) -> bytes:
    return READER.handle(kernel.AT_FDCWD, os.fsencode(path))


def gone(path: Path) -> bytes:
    path.mkdir()
    handle = handle_of(path)
    path.rmdir()
    return handle


def test_a_tree_that_is_gone_may_be_deeper_than_python_recurses(disk: Path, images: Store) -> None:
    fs = fs_of(images, disk)
    depth = 3000
    top, handles = handle_of(disk), [gone(disk / "d") for _number in range(depth)]
    directories = {1: DirectorySeen(1, fs.number, top, os.fsencode(disk))}
    entries = {}
    for number, handle in enumerate(handles):
        entries[number + 1, b"d"] = Entry(1, number + 1, 0o040755, fs.number, handle, b"d")
        directories[number + 2] = DirectorySeen(number + 2, fs.number, handle, b"/d")
    entries[depth + 1, b"f"] = Entry(1, depth + 1, 0o100644, fs.number, b"\1\0\0\0file", b"f")
    wanted = Wanted(
        file_systems={fs.number: FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point)},
        directories=dict(reversed(directories.items())),
        entries=dict(reversed(entries.items())),
        keeps={(fs.number, b"\1\0\0\0file"): Keep(1, fs.number, b"\1\0\0\0file", LINK, 7, b"")},
    )
    assert copies.lost(images, wanted) == [f"7 on {disk} is missing"]


def test_a_directory_that_was_made_anew_and_went_again_is_to_be_too(disk: Path, images: Store) -> None:
    """Places go by the handle that an undo to a savepoint gave it, the directory by its first one."""
    fs = fs_of(images, disk)
    first, anew, file = gone(disk / "d"), gone(disk / "d"), b"\1\0\0\0file"
    assert images.directory(fs) >= 0
    wanted = Wanted(
        file_systems={fs.number: FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point)},
        directories={
            1: DirectorySeen(1, fs.number, handle_of(disk), os.fsencode(disk)),
            2: DirectorySeen(2, fs.number, first, os.fsencode(disk / "d")),
        },
        entries={
            (1, b"d"): Entry(1, 1, 0o040755, fs.number, anew, b"d"),
            (2, b"f"): Entry(1, 2, 0o100644, fs.number, file, b"f"),
        },
        keeps={(fs.number, file): Keep(1, fs.number, file, COPY, 7, b"x" * 16)},
        aliases={(fs.number, first): anew},
    )
    assert copies.damaged(images, wanted) == [f"copy c7 on {disk}: it cannot be read (No such file or directory)"]
