# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding again what the log speaks of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine import kernel
from engine.records import DirectorySeen, FileSystemSeen
from engine.store import Store
from engine.undoing.ground import Ground
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
