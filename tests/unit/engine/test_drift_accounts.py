# SPDX-License-Identifier: GPL-3.0-or-later
"""The password lock leaves nothing of itself."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import packagelocks
from engine.drift import accounts
from engine.records import DirectorySeen
from engine.wanted import Wanted


@pytest.mark.parametrize("undone", [False, True])
def test_a_lock_file_that_was_not_there_goes_again(tmp_path: Path, undone: bool) -> None:
    """Also where the undo that runs under the lock has removed it, since a step's useradd had made it."""
    lock, when = tmp_path / ".pwd.lock", tmp_path.stat().st_mtime_ns
    with accounts.locked(str(lock)) as had:
        assert had
        if undone:
            lock.unlink()
    assert (list(tmp_path.iterdir()), tmp_path.stat().st_mtime_ns) == ([], when)


def test_a_lock_file_that_was_there_stays(tmp_path: Path) -> None:
    lock = tmp_path / ".pwd.lock"
    lock.touch(0o600)
    with accounts.locked(str(lock)) as had:
        assert had
    assert lock.exists()


def taken_by_another_program(lock: Path) -> bool:
    """As lckpwdf(3) does it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fcntl.lockf(os.open(lock, os.O_WRONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_closing_another_descriptor_of_the_lock_file_does_not_drop_the_lock(tmp_path: Path) -> None:
    """A step's useradd has opened it for writing, so the undo puts its contents back, before those of passwd."""
    lock = tmp_path / ".pwd.lock"
    lock.touch(0o600)
    with accounts.locked(str(lock)) as had:
        assert had
        lock.write_bytes(b"")
        assert not taken_by_another_program(lock)
    assert taken_by_another_program(lock)


@pytest.fixture
def held_by_another(tmp_path: Path) -> Iterator[Path]:
    lock = tmp_path / ".pwd.lock"
    lock.touch(0o600)
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            fcntl.lockf(os.open(lock, os.O_WRONLY), fcntl.LOCK_EX)
            os.write(told, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    yield lock
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_lock_that_somebody_keeps_is_said_to_be_his(held_by_another: Path) -> None:
    with accounts.locked(str(held_by_another), patience=0.1) as had:
        assert not had
    assert held_by_another.exists()


def test_a_package_lock_that_somebody_keeps_is_named(held_by_another: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.fsencode(held_by_another.parent) + b"/"
    free = held_by_another.parent / "free"
    free.touch()
    monkeypatch.setattr(packagelocks, "_LOCKS", {folder: (os.fsencode(held_by_another), os.fsencode(free))})
    wanted = Wanted()
    wanted.directories[1] = DirectorySeen(1, 1, b"h", folder.rstrip(b"/"))
    with packagelocks.held(wanted, patience=0.1) as taken:
        assert taken == [str(held_by_another)]
        assert not taken_by_another_program(free)
