# SPDX-License-Identifier: GPL-3.0-or-later
"""A small version of `make fault`: each programme a little, other seeds each time; and that the programmes can fail at all."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report
from faults import ANSWERED, MADE_COPY, SYNCED_FILE, SYNCED_LOG, WROTE_HEAD, Event
from mutants import MUTANTS, catch
from programmes import ENGINE, PROGRAMMES, Result, Runner
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
        ("recovery", "ext4", 12),
        ("cut", "ext4", 16),
        ("cut", "xfs", 24),
        ("error", "ext4", 60),
        ("error", "xfs", 40),
        ("corrupt", "ext4", 250),
        ("random", "xfs", 60),
        ("alone", "ext4", 48),
        ("alone", "xfs", 24),
        ("order", "ext4", 20),
        ("others", "ext4", 20),
        ("process", "ext4", 16),
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
    ("programme", "fs", "seed", "count"),
    [
        ("cut", "xfs", 176647425, 8),
        ("error", "ext4", 122516457, 8),
        ("error", "ext4", 252834642, 8),
        ("full", "btrfs", 56429912, 1),  # no metadata for SQLite's shared memory: the recovery was ended by SIGBUS
    ],
)
def test_what_once_went_wrong(runner: Runner, programme: str, fs: str, seed: int, count: int) -> None:
    """Not each time it is tried, so four times."""
    for _attempt in range(4):
        result = runner.run(programme, fs, seed=seed, seconds=60, count=count)
        assert result.good, f"{result.died}" + "\n".join(json.dumps(wrong) for wrong in result.wrong)


@pytest.mark.parametrize("name", ["a call is let run before its records are on the disk", "HEAD is not asked", "drift is overwritten"])
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


@pytest.fixture
def long_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`python tests/fault`, whose results go into its list `recorded`."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    where = importlib.util.spec_from_file_location("long_run", Path(__file__).with_name("__main__.py"))
    assert where is not None
    assert where.loader is not None
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    module.recorded = []  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "record", lambda result, _engine: module.recorded.append(result))  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "engine_hash", lambda _engine: "e")
    yield module
    for number, handler in handlers.items():
        signal.signal(number, handler)


class PlayedRunner:
    """Each slice has 30 points out of 10 seeds. `signals`: what comes during which slice."""

    def __init__(self, **signals: int) -> None:
        self.copy, self.asked, self._signals = Path("copy"), list[tuple[int, float]](), signals

    def run(self, programme: str, fs: str, *, seed: int, seconds: float) -> Result:
        self.asked.append((seed, seconds))
        number = self._signals.get(f"slice_{len(self.asked)}")
        if number is not None:
            os.kill(os.getpid(), number)
        return Result(programme, fs, [], {"points": 30, "wrong": 0, "seed": seed, "seeds": 10, "fs": fs}, "")


def test_a_long_run_is_put_down_every_two_minutes(long_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner = PlayedRunner()
    assert long_run.run_programmes(runner, {"corrupt"}, 1000, 300, long_run.Ending())
    assert runner.asked == [(1000, 100.0), (1010, 100.0), (1020, 100.0)]
    assert len(long_run.recorded) == 3
    assert capsys.readouterr().out.splitlines()[-1] == "corrupt   ext4   seed 1020: 90 points, 0 wrong, less than 1 in 30 (95 %)"
    assert long_run.slices(7) == [7]
    assert max(long_run.slices(PROGRAMMES[0].share * 240 * 60)) <= 120


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_keeps_what_it_has(long_run: Any, number: int) -> None:
    runner, ending = PlayedRunner(slice_2=number), long_run.Ending()
    long_run.run_programmes(runner, {"corrupt", "others"}, 1000, 600, ending)
    assert ending.set
    assert len(long_run.recorded) == 2
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_what_was_not_found_is_bounded() -> None:
    """By the rule of three; slices are one run to the reader."""
    assert [report.bound(*one) for one in [(2, 0), (3000, 0), (3000, 1)]] == ["-", "1,000", "-"]
    results = [{"fs": fs, "counts": {"seed": seed, "seeds": 10}} for fs, seed in [("ext4", 5), ("xfs", 5), ("ext4", 15), ("ext4", 99)]]
    assert report._starts(results) == [5, 5, 99]
