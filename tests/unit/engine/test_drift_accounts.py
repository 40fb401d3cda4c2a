# SPDX-License-Identifier: GPL-3.0-or-later
"""The password lock leaves nothing of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.drift import accounts


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
