# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Random programs of file operations, with savepoints, rollbacks to them and commits: a tree comparison after each undo
(engine/onhost/undo_random.py).

A seed that fails is in the message; smaller, on a host that the rig has set up: python3 -I /opt/rig/undo_random.py SEED 1 --minimise 30
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import any_rig, ext4, rig, rigs  # noqa: F401
from rig import Rig

FIRST = 100_000


def play(rig: Rig, first: int, count: int, *options: str) -> None:
    done = rig.run("python3", "-I", "/opt/rig/undo_random.py", str(first), str(count), *options, seconds=30 + count * 5)
    assert done.code == 0, done
    *failures, total = [json.loads(line) for line in done.out.splitlines()]
    assert total["changes"] > count, f"the programs changed too little to show anything: {total}"
    assert not failures, "\n".join(f"seed {failure['seed']} {' '.join(options)}: {failure['problems']}" for failure in failures)


def test_the_same_programs_each_time(ext4: Rig) -> None:
    play(ext4, 1, 60)


def test_the_same_programs_on_btrfs(rig: Rig) -> None:
    play(rig, 1, 40)


def test_processes_that_race(ext4: Rig) -> None:
    """Each step is four processes over the same names. What happens is another thing each time."""
    play(ext4, 300_000, 60, "--processes", "4")


@pytest.mark.exact
def test_other_programs_each_time(any_rig: Rig) -> None:
    play(any_rig, random.SystemRandom().randrange(FIRST, 1 << 30), 300)


@pytest.mark.exact
def test_longer_programs(any_rig: Rig) -> None:
    play(any_rig, random.SystemRandom().randrange(FIRST, 1 << 30), 60, "--length", "150")


@pytest.mark.exact
@pytest.mark.parametrize("processes", ["4", "8"])
def test_more_processes_that_race(any_rig: Rig, processes: str) -> None:
    play(any_rig, random.SystemRandom().randrange(FIRST, 1 << 30), 150, "--processes", processes)
