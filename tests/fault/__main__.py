# SPDX-License-Identifier: GPL-3.0-or-later
"""All programmes within a budget, and what they have shown into docs/reliability.md (`make fault BUDGET=minutes`).

    python tests/fault [--minutes N] [--seed N] [--only NAME[,NAME]] [--no-mutants] [--shard K/N]

Runs of the same engine add up: its results are kept in .build/fault/<hash>.jsonl, so a long run can be stopped, gone on with, and spread
over machines (`--shard`), whose files are then put together. They are put down every two minutes: Ctrl-C and SIGTERM end the run after that
(a second one at once), and what has run until then counts. Seeds are printed, and drawn anew each time unless given.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mutants
import report
from programmes import BUILD, PROGRAMMES, Programme, Runner, engine_hash, record

#: seconds of a programme between two records of it
SLICE = 120.0
#: seeds that are passed over when a slice died, and did not say how many it had had
PASSED_OVER = 1000


class Ending:
    """Set by the first SIGINT or SIGTERM; the second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _frame: object) -> None:
        if self.set:
            raise KeyboardInterrupt
        self.set = True
        print(f"{signal.Signals(number).name}: ends after this slice", flush=True)


def slices(seconds: float) -> list[float]:
    count = max(1, math.ceil(seconds / SLICE))
    return [seconds / count] * count


def run_programmes(runner: Runner, only: set[str], first: int, seconds: float, ending: Ending) -> bool:
    engine = engine_hash(runner.copy / "engine")  # the sources may go on while this runs
    good, chosen = True, [one for one in PROGRAMMES if not only or one.name in only]
    shares = sum(one.share for one in chosen)
    for number, one in enumerate(chosen):
        for fs in one.file_systems:
            share = seconds * one.share / shares / len(one.file_systems)
            good &= _run_one(runner, one, fs, first + 100_000 * number, slices(share), engine, ending)
    return good


def _run_one(runner: Runner, one: Programme, fs: str, seed: int, parts: list[float], engine: str, ending: Ending) -> bool:
    """With each line the points so far, and that less than 1 in so many goes wrong (report.bound)."""
    points = wrong = 0
    for seconds in parts:
        if ending.set:
            break
        result = runner.run(one.name, fs, seed=seed, seconds=seconds)
        record(result, engine)
        points += result.counts.get("points", 0)
        wrong += len(result.wrong) + bool(result.died)
        less = report.bound(points, wrong)
        print(f"{one.name:9} {fs:6} seed {seed}: {points} points, {wrong} wrong, less than 1 in {less} (95 %)", flush=True)
        for told in result.wrong:
            print("  " + json.dumps(told))
        if result.died:
            print(f"  died: {result.died}")
        seed += result.counts.get("seeds", PASSED_OVER)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--shard", default="1/1")
    arguments = parser.parse_args()
    part, parts = (int(number) for number in arguments.shard.split("/"))
    first = arguments.seed or random.SystemRandom().randrange(1, 1 << 28)
    first += (part - 1) * (1 << 29) // parts
    BUILD.mkdir(parents=True, exist_ok=True)
    start, only = time.monotonic(), set(filter(None, arguments.only.split(",")))
    print(f"engine {engine_hash()}, first seed {first}, shard {part} of {parts}", flush=True)
    ending = Ending()
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        good = run_programmes(Runner(Path(folder) / "engine", apart=True), only, first, arguments.minutes * 60, ending)
    if not arguments.no_mutants and not ending.set:
        caught = [mutants.catch(mutant, BUILD) for mutant in mutants.MUTANTS]
        mutants.save(BUILD, caught)
        for one in caught:
            print(f"mutant {one.invariant} {one.name}: {'caught by ' + one.by if one.by else 'NOT CAUGHT'}", flush=True)
        good &= all(one.by for one in caught)
    report.write(BUILD)
    print(f"{time.monotonic() - start:.0f} s; docs/reliability.md is written")
    return 130 if ending.set else 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
