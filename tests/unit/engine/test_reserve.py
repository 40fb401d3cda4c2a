# SPDX-License-Identifier: GPL-3.0-or-later
"""The reserve: whole or not at all, given back from wherever its holder died (docs/adr/0015). tests/fault has full file systems."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import health, reserve
from engine.errors import StoreFull
from engine.reserve import Amount


@pytest.fixture
def small(sandbox: Path) -> Iterator[int]:
    """A file system of 4 MiB and 64 inodes."""
    place = sandbox / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=64", "none", str(place)], check=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    subprocess.run(["umount", str(place)], check=True)


def free(fd: int) -> tuple[int, int]:
    room = os.fstatvfs(fd)
    return room.f_bfree * room.f_frsize, room.f_ffree


def test_it_holds_bytes_and_inodes_until_it_is_released(small: int) -> None:
    before = free(small)
    for _again in range(2):
        reserve.take(small, Amount(1 << 20, 8), "/x")
    held = free(small)
    assert before[0] - held[0] >= 1 << 20
    assert before[1] - held[1] >= 8
    assert reserve.free_when_taken(small) == before[0]
    for _again in range(2):
        reserve.release(small)
    assert free(small) == before
    assert os.listdir(small) == []


@pytest.mark.parametrize("amount", [Amount(8 << 20, 8), Amount(1 << 20, 100)])
def test_too_little_room_is_said_and_nothing_is_left(small: int, amount: Amount) -> None:
    before = free(small)
    with pytest.raises(StoreFull, match=r"/data has 4\.0 MiB and 6. inodes free, and a transaction holds") as raised:
        reserve.take(small, amount, "/data")
    assert "Free some space" in raised.value.hint
    assert free(small) == before


def test_one_that_was_half_taken_or_half_released_is_none(small: int) -> None:
    before = free(small)
    for torn in (b"reserve.new", b"reserve.old"):
        os.mkdir(torn, dir_fd=small)
        os.close(os.open(torn + b"/0", os.O_WRONLY | os.O_CREAT, dir_fd=small))
        assert reserve.free_when_taken(small) is None
        reserve.take(small, Amount(1 << 20, 2), "/x")
        assert os.listdir(small) == ["reserve"]
        os.mkdir(torn, dir_fd=small)
        reserve.release(small)
        assert free(small) == before


def test_begin_names_what_is_missing(sandbox: Path) -> None:
    room = os.statvfs(sandbox)
    values = list(room)
    values[4], values[5], values[6] = 100, 100_000, 10  # f_bavail, f_files, f_ffree as seen by statvfs(3)
    values[7] = 10
    with pytest.raises(StoreFull, match=r"10 inodes, and a transaction needs at least 32 MiB and 64 inodes"):
        health.check_room(str(sandbox), os.statvfs_result(values))
    assert health.check_room(str(sandbox), room) is None


def test_is_full_looks_at_causes() -> None:
    error = ValueError()
    error.__cause__ = OSError(28, "No space left on device")
    assert reserve.is_full(error)
    assert reserve.is_full(StoreFull("x"))
    assert not reserve.is_full(OSError(5, "x"))
