# SPDX-License-Identifier: GPL-3.0-or-later
"""All programmes within a budget, and what they have shown into docs/reliability.md (`make fault BUDGET=minutes`).

    python tests/fault [--minutes N] [--seed N] [--only NAME[,NAME]] [--no-mutants] [--shard K/N]

Runs of the same engine add up: its results are kept in .build/fault/<hash>.jsonl, so a long run can be stopped, gone on with, and spread
over machines (`--shard`), whose files are then put together. Seeds are printed, and drawn anew each time unless given.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mutants
import report
from programmes import BUILD, PROGRAMMES, Runner, engine_hash, record


def run_programmes(runner: Runner, only: set[str], first: int, seconds: float) -> bool:
    engine = engine_hash(runner.copy / "engine")  # the sources may go on while this runs
    good, chosen = True, [one for one in PROGRAMMES if not only or one.name in only]
    shares = sum(one.share for one in chosen)
    for number, one in enumerate(chosen):
        for fs in one.file_systems:
            seed = first + 100_000 * number
            result = runner.run(one.name, fs, seed=seed, seconds=seconds * one.share / shares / len(one.file_systems))
            record(result, engine)
            good &= result.good
            counts = result.counts
            print(f"{one.name:9} {fs:6} seed {seed}: {counts.get('points', 0)} points, {counts.get('wrong', '?')} wrong", flush=True)
            for wrong in result.wrong:
                print("  " + json.dumps(wrong))
            if result.died:
                print(f"  died: {result.died}")
    return good


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
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        good = run_programmes(Runner(Path(folder) / "engine"), only, first, arguments.minutes * 60)
    if not arguments.no_mutants:
        caught = [mutants.catch(mutant, BUILD) for mutant in mutants.MUTANTS]
        mutants.save(BUILD, caught)
        for one in caught:
            print(f"mutant {one.invariant} {one.name}: {'caught by ' + one.by if one.by else 'NOT CAUGHT'}", flush=True)
        good &= all(one.by for one in caught)
    report.write(BUILD)
    print(f"{time.monotonic() - start:.0f} s; docs/reliability.md is written")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
