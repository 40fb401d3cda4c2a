# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of an ext4 journal, read from superblocks that mkfs has written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from engine import ext4


@pytest.mark.parametrize(
    ("features", "ordered"),
    [("has_journal", True), ("^has_journal", False), ("has_journal,fast_commit", False)],
    ids=["journal", "none", "fast"],
)
def test_the_superblock_tells_whether_metadata_is_in_order(sandbox: Path, features: str, ordered: bool) -> None:
    image = sandbox / "image"
    with image.open("wb") as f:
        f.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", features, str(image)], check=True)
    assert ext4.superblock_says(image.read_bytes()[1024:2048]) is ordered


def test_what_is_no_ext4_is_not_in_order() -> None:
    assert not ext4.superblock_says(bytes(1024))
    assert not ext4.journals_in_order(0)
