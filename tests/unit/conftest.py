# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests run in a sandbox: the machine is read-only besides .build/sandbox/<pid> (see tests/run/sandbox.py).

`tmp_path`, TMPDIR and HOME lie in there. The fixture `sandbox` is that folder, for tests that want to say so.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import sandbox as machine

BUILD = Path(__file__).resolve().parents[2] / ".build"
PLACE = BUILD / "sandbox" / str(os.getpid())
REPORTS = BUILD / "reports"


def _remove_what_dead_runs_left() -> None:
    for old in PLACE.parent.iterdir():
        if old.name.isdigit() and not Path("/proc", old.name).exists():
            shutil.rmtree(old, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    REPORTS.mkdir(exist_ok=True)
    _remove_what_dead_runs_left()
    for name in ("home", "tmp"):
        (PLACE / name).mkdir(exist_ok=True)
    machine.enter([PLACE, REPORTS])
    os.environ.update(HOME=str(PLACE / "home"), TMPDIR=str(PLACE / "tmp"), ANSIBLE_HOME=str(PLACE / "home" / ".ansible"))
    config.option.basetemp = PLACE / "pytest"


def pytest_unconfigure() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A folder of the test's own; all of the machine around it is read-only."""
    assert machine.is_read_only(Path("/")), "the sandbox is not in force"
    assert not machine.is_read_only(tmp_path)
    return tmp_path
