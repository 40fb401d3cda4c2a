# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from engine import boot

ENGINE = Path(boot.__file__).resolve().parents[1]
TOLD = "import sys; sys.path.insert(0, sys.argv[1]); from engine import boot; print(boot.began_ns())"


def test_a_machine_boots_when_its_clock_begins() -> None:
    """Or, where this test itself runs in a container, when its first process was started: the same is said by ps."""
    elapsed = int(subprocess.run(["ps", "-o", "etimes=", "-p", "1"], capture_output=True, text=True, check=True).stdout)
    assert abs(time.time_ns() - boot.began_ns() - elapsed * 10**9) < 2 * 10**9


def test_a_container_boots_later_than_its_machine() -> None:
    """A process namespace of its own, and the machine's clocks."""
    before = time.time_ns()
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", TOLD, str(ENGINE)]
    began = int(subprocess.run(inside, capture_output=True, text=True, check=True).stdout)
    assert before - 20_000_000 <= began <= time.time_ns()
