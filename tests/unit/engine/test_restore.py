# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents and metadata put back into a live inode: holes stay holes, what is equal is not written, the cut comes last."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from engine import restore
from engine.copying import copy_data
from engine.extents import extents, preallocate
from engine.records import Basic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BLOCK = 4096
LAYOUTS = st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.integers(0, 255)), max_size=6)


def make(path: Path, layout: list[tuple[bool, int, int]], tail: int = 0) -> Path:
    """Extents of data or hole, in blocks, and some bytes more."""
    with open(path, "wb") as f:
        for is_data, blocks, byte in layout:
            if is_data:
                f.write(bytes((byte,)) * blocks * BLOCK)
            else:
                f.seek(blocks * BLOCK, 1)
        f.truncate(f.tell() + tail)
    return path


def put(target: Path, source: Path) -> None:
    into, out_of = os.open(target, os.O_RDWR), os.open(source, os.O_RDONLY)
    restore.set_contents(into, out_of, os.fstat(out_of).st_size)
    os.close(into)
    os.close(out_of)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LAYOUTS, st.integers(0, 5000), LAYOUTS, st.integers(0, 5000))
def test_contents_are_equal_afterwards(
    sandbox: Path, one: list[tuple[bool, int, int]], one_tail: int, two: list[tuple[bool, int, int]], two_tail: int
) -> None:
    source, target = make(sandbox / "source", one, one_tail), make(sandbox / "target", two, two_tail)
    put(target, source)
    assert target.read_bytes() == source.read_bytes()
    put(target, source)
    assert target.read_bytes() == source.read_bytes()


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LAYOUTS, st.integers(0, 5000))
def test_a_copy_is_equal_and_has_the_holes(sandbox: Path, layout: list[tuple[bool, int, int]], tail: int) -> None:
    source, target = make(sandbox / "source", layout, tail), sandbox / "target"
    out_of, into = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    copy_data(out_of, into, os.fstat(out_of).st_size)
    os.close(out_of)
    os.close(into)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 8


def test_300_gb_of_hole_take_no_time_and_no_space(sandbox: Path) -> None:
    source, target, kept = sandbox / "source", sandbox / "target", sandbox / "kept"
    with open(source, "wb") as f:
        f.truncate(300 << 30)
        f.seek(200 << 30)
        f.write(b"island")
    try:
        os.truncate(target, 0) if target.exists() else target.touch()
        out_of, into = os.open(source, os.O_RDONLY), os.open(kept, os.O_WRONLY | os.O_CREAT)
        copy_data(out_of, into, 300 << 30)
        os.close(into)
        put(target, kept)
        assert target.stat().st_size == 300 << 30
        assert target.stat().st_blocks * 512 < 1 << 20
        with open(target, "rb") as f:
            f.seek(200 << 30)
            assert f.read(6) == b"island"
        os.close(out_of)
    finally:
        for path in (source, target, kept):
            path.unlink(missing_ok=True)


def test_data_over_a_hole_becomes_a_hole_again(sandbox: Path) -> None:
    source, target = make(sandbox / "source", [(True, 1, 1), (False, 500, 0), (True, 1, 2)]), make(sandbox / "target", [(True, 502, 3)])
    put(target, source)
    assert target.read_bytes() == source.read_bytes()
    os.sync()
    assert target.stat().st_blocks * 512 <= 16 * BLOCK


def allocated(path: Path) -> list[tuple[int, int]]:
    """Whatever the file system calls its extents: ranges of blocks, next to each other put together."""
    os.sync()
    fd = os.open(path, os.O_RDONLY)
    found: list[tuple[int, int]] = []
    for extent in extents(fd, 0, 1 << 40) or ():
        if found and found[-1][1] >= extent.start:
            found[-1] = found[-1][0], extent.end
        else:
            found.append((extent.start, extent.end))
    os.close(fd)
    return found


@pytest.mark.parametrize("now", [(True, 502, 3), (False, 502, 0), None])
def test_what_was_preallocated_is_so_again_and_what_was_not_is_not(sandbox: Path, now: tuple[bool, int, int] | None) -> None:
    """`now`: all data, all hole, or preallocated where the hole was."""
    source, target, kept = make(sandbox / "source", [(True, 1, 1), (False, 500, 0), (True, 1, 2)]), sandbox / "target", sandbox / "kept"
    with open(source, "r+b") as f:
        assert preallocate(f.fileno(), 100 * BLOCK, 300 * BLOCK)
    before = allocated(source)
    assert before == [(0, BLOCK), (100 * BLOCK, 300 * BLOCK), (501 * BLOCK, 502 * BLOCK)]
    out_of, into = os.open(source, os.O_RDONLY), os.open(kept, os.O_WRONLY | os.O_CREAT)
    copy_data(out_of, into, 502 * BLOCK)
    os.close(into)
    os.close(out_of)
    assert allocated(kept) == before
    if now is None:
        with open(make(target, [(False, 502, 0)]), "r+b") as f:
            assert preallocate(f.fileno(), 0, 502 * BLOCK)
    else:
        make(target, [now])
    put(target, kept)
    assert target.read_bytes() == source.read_bytes()
    assert allocated(target) == before
    assert target.stat().st_blocks == source.stat().st_blocks


def test_written_zeros_are_not_left_a_hole(sandbox: Path) -> None:
    source, target = make(sandbox / "source", [(True, 400, 0), (False, 50, 0), (True, 3, 1)]), make(sandbox / "target", [(False, 453, 0)])
    put(target, source)
    assert allocated(target) == allocated(source) == [(0, 400 * BLOCK), (450 * BLOCK, 453 * BLOCK)]


def test_those_who_have_it_mapped_live_on(sandbox: Path) -> None:
    """Longer than the image: the pages that stay are never cut away in between."""
    source, target = make(sandbox / "source", [(True, 10, 1)]), make(sandbox / "target", [(True, 20, 2)])
    with open(target, "r+b") as f, mmap.mmap(f.fileno(), 10 * BLOCK) as m:
        put(target, source)
        assert m[:] == b"\1" * 10 * BLOCK


def test_what_is_equal_is_not_written(sandbox: Path) -> None:
    source, target = make(sandbox / "source", [(True, 3, 1)], 10), make(sandbox / "target", [(True, 3, 1)], 10)
    os.utime(target, ns=(5, 5))
    put(target, source)
    assert target.stat().st_mtime_ns == 5


def basic_of(path: Path, **changes: int) -> Basic:
    info = os.lstat(path)
    found = Basic(1, 1, b"", info.st_mode, info.st_uid, info.st_gid, 0, info.st_size, info.st_atime_ns, info.st_mtime_ns, bytes(path))
    return found._replace(**changes)


def test_owner_mode_and_times(sandbox: Path) -> None:
    """chown drops suid, so the mode comes after it."""
    path = sandbox / "f"
    path.write_text("x", encoding="ascii")
    os.chown(path, 5, 6)
    os.chmod(path, 0o6755)
    os.utime(path, ns=(123456789, 987654321))
    want = basic_of(path)
    os.chown(path, 0, 0)
    os.chmod(path, 0o600)
    fd = os.open(path, os.O_PATH)
    assert set(restore.differences(fd, want, None, sized=True)) >= {"mode", "owner"}
    restore.set_basic(fd, want)
    restore.set_times(fd, want)
    assert restore.differences(fd, want, None, sized=True) == []
    assert (os.stat(path).st_mode & 0o7777, os.stat(path).st_uid, os.stat(path).st_gid) == (0o6755, 5, 6)
    os.close(fd)


def test_a_symlinks_owner_and_times(sandbox: Path) -> None:
    path, other = sandbox / "link", sandbox / "other"
    other.touch()
    os.symlink("other", path)
    os.lchown(path, 7, 8)
    want = basic_of(path, mtime=77, atime=66)
    os.lchown(path, 0, 0)
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    restore.set_basic(fd, want)
    restore.set_times(fd, want)
    os.close(fd)
    info = os.lstat(path)
    assert (info.st_uid, info.st_gid, info.st_mtime_ns) == (7, 8, 77)
    assert other.stat().st_uid == 0


def test_xattrs_are_those_and_no_other(sandbox: Path) -> None:
    path = sandbox / "f"
    path.touch()
    try:
        os.setxattr(path, "user.keep", b"1")
    except OSError:
        pytest.fail("the sandbox's file system has no user xattrs: this cannot be tested here")
    os.setxattr(path, "user.gone", b"2")
    fd = os.open(path, os.O_PATH)
    restore.set_xattrs(fd, ((b"user.back", b"3"), (b"user.keep", b"4")))
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {"user.back": b"3", "user.keep": b"4"}
    os.close(fd)
