# SPDX-License-Identifier: GPL-3.0-or-later
"""A small version of `make fault`: each programme a little, other seeds each time; and that the programmes can fail at all."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import ANSWERED, MADE_COPY, SYNCED_FILE, SYNCED_LOG, WROTE_HEAD, Event
from mutants import MUTANTS, catch
from programmes import ENGINE, Runner
from trials import out_of_order


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("fault") / "runner")


@pytest.mark.parametrize(
    ("programme", "fs", "count"),
    [
        ("kill", "ext4", 40),
        ("kill", "btrfs", 16),
        ("recovery", "xfs", 12),
        ("cut", "ext4", 16),
        ("cut", "xfs", 24),
        ("error", "ext4", 60),
        ("corrupt", "ext4", 250),
        ("random", "xfs", 60),
        ("order", "ext4", 20),
        ("others", "ext4", 20),
        ("full", "ext4", 10),
        ("full", "xfs", 6),
        ("full", "btrfs", 6),
        ("inodes", "ext4", 10),
    ],
)
def test_a_little_of_each_programme(runner: Runner, programme: str, fs: str, count: int) -> None:
    seed = random.SystemRandom().randrange(1, 1 << 28)
    result = runner.run(programme, fs, seed=seed, seconds=60, count=count)
    assert result.good, f"{programme} {fs} --seed {seed}: {result.died}" + "\n".join(json.dumps(wrong) for wrong in result.wrong)
    # Of these two every fifth meets nothing, by its seed: of so few, fewer than half would now and then.
    least = count // 4 if programme in ("inodes", "others") else count // 2
    assert result.counts["points"] >= least, f"too few faults were met to show anything: {result.counts}"


@pytest.mark.parametrize(
    ("programme", "fs", "seed"),
    [("cut", "xfs", 176647425), ("error", "ext4", 122516457), ("error", "ext4", 252834642)],
)
def test_what_once_went_wrong(runner: Runner, programme: str, fs: str, seed: int) -> None:
    """Not each time it is tried, so four times."""
    for _attempt in range(4):
        result = runner.run(programme, fs, seed=seed, seconds=60, count=8)
        assert result.good, f"{result.died}" + "\n".join(json.dumps(wrong) for wrong in result.wrong)


@pytest.mark.parametrize(
    "name", ["a call is let run before its records are on the disk", "HEAD is not asked", "drift is overwritten"]
)
def test_a_safeguard_taken_away_is_noticed(name: str, tmp_path: Path) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    assert catch(mutant, tmp_path).by


@pytest.mark.exact
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.invariant} {mutant.name}")
def test_each_safeguard_taken_away_is_noticed(mutant: object, tmp_path: Path) -> None:
    assert catch(mutant, tmp_path).by  # type: ignore[arg-type]


def test_mutants_still_fit_the_engine(tmp_path: Path) -> None:
    for number, mutant in enumerate(MUTANTS):
        shutil.copytree(ENGINE, tmp_path / str(number))
        mutant.apply(tmp_path / str(number))


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([(SYNCED_LOG, 10), (ANSWERED, 10)], 0),
        ([(SYNCED_LOG, 10), (ANSWERED, 11)], 1),
        ([(MADE_COPY, 0), (SYNCED_FILE, 0), (ANSWERED, 0)], 0),
        ([(MADE_COPY, 0), (ANSWERED, 0)], 1),
        ([(SYNCED_LOG, 10), (WROTE_HEAD, 10)], 0),
        ([(WROTE_HEAD, 10), (SYNCED_LOG, 10)], 1),
    ],
)
def test_the_order_checker(events: list[tuple[int, int]], wrong: int) -> None:
    assert len(out_of_order([Event(kind, 3, log, 7) for kind, log in events])) == wrong
