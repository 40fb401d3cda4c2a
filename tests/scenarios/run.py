# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the scenario plays over ssh against lab hosts, and lets the oracle judge. As root.

run.py                         control, exact, commit and later for every play; sigint, sigterm and agent 20 times each
run.py exact 16 20 44          one mode, some plays
run.py sigint --rounds 5 --seed 7
run.py jobs                    whole jobs (or those named), each broken at its five places
run.py jobs-control            without the collection, at the last place
run.py --resume                go on where a run stopped, as long as plugins and scenarios are the same
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from scenario import built, catalog, jobs, modes
from scenario.outcome import PLUGINS, Outcome, Results, decides, measured, table
from scenario.player import BUILD, Player
from scenario.stage import JOBS, LAB, ORDINARY, LabError, Stage

FOLDER = BUILD / "scenarios"
JOB_MODES = {"jobs": "exact", "jobs-control": "control"}


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=[*modes.MODES, *JOB_MODES, "all"], default="all")
    parser.add_argument("plays", nargs="*", help="numbers or names; all without")
    parser.add_argument("--quick", action="store_true", help="the plays, or places, of `make test`")
    parser.add_argument("--resume", action="store_true", help="keep what went well with the same sources")
    parser.add_argument("--rounds", type=int, default=modes.REPEATED, help="how often a signal or kill is tried (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments; 0 takes one from the clock")
    parser.add_argument("--lab", default=LAB, help="name of the lab (default: %(default)s)")
    parser.add_argument("--part", default="1/1", help="N/M: every M-th play beginning with the N-th")
    return parser.parse_intermixed_args(argv)


def _programme(mode: str, scenarios: list[catalog.Scenario], rounds: int, seed: int) -> list[tuple[catalog.Scenario, int, int]]:
    """(scenario, round, seed) in order. Random moments go over the plays in turn."""
    if mode not in modes.RANDOM:
        return [(scenario, 0, 0) for scenario in scenarios]
    chosen = random.Random(seed)
    small = [scenario for scenario in scenarios if not scenario.big] or scenarios
    return [(small[chosen.randrange(len(small))], number, chosen.randrange(1, 1 << 30)) for number in range(1, rounds + 1)]


def _run(mode: str, player: Player, scenarios: list[catalog.Scenario], arguments: argparse.Namespace, seed: int) -> bool:
    results = Results(FOLDER / "results" / arguments.lab, mode, resume=arguments.resume, decides=decides(plain=mode == "control"))
    for scenario, number, moment in _programme(mode, scenarios, arguments.rounds, seed):
        if not results.has(scenario.name, number):
            _try(mode, player, scenario, results, number=number, moment=moment)
    return _summary(mode, results)


def _run_job(mode: str, player: Player, job: jobs.Job, arguments: argparse.Namespace) -> bool:
    """All places with the collection; the last one alone without."""
    tops = (*jobs.decides(job), *([PLUGINS] if mode == "jobs" else []))
    results = Results(FOLDER / "results" / arguments.lab, f"{mode}-{job.name}", resume=arguments.resume, decides=tops)
    for place in job.places if mode == "jobs" else job.places[-1:]:
        scenario = job.broken(place)
        if not results.has(scenario.name) and (place.quick or not arguments.quick):
            print(f"---- {scenario.name}: {place.text}", flush=True)
            _try(JOB_MODES[mode], player, scenario, results)
    return _summary(f"{mode} {job.name}", results)


def _try(mode: str, player: Player, scenario: catalog.Scenario, results: Results, *, number: int = 0, moment: int = 0) -> None:
    try:
        outcome = modes.MODES[mode](player, scenario, moment)
    except LabError as error:
        outcome = Outcome(mode, scenario.name, (f"lab: {error}",), seed=moment)
    outcome = replace(outcome, round=number, key=results.key)
    results.add(outcome)
    print(table([outcome]), flush=True)


def _summary(what: str, results: Results) -> bool:
    bad = [outcome for outcome in results.outcomes if not outcome.good]
    print(f"---- {what}: {len(results.outcomes)} runs, {len(bad)} not as wanted; {results.file}", flush=True)
    return not bad


def main(argv: list[str]) -> int:
    arguments = _arguments(argv)
    seed = arguments.seed or time.time_ns() % (1 << 30)
    first, _separator, step = arguments.part.partition("/")
    whole = arguments.mode in JOB_MODES
    chosen = jobs.choose(arguments.plays) if whole else catalog.choose(arguments.plays)
    scenarios = [item for item in chosen if item.quick or not arguments.quick][int(first) - 1 :: int(step)]
    stage = Stage(arguments.lab)
    print(f"---- {len(scenarios)} plays, seed {seed}, lab {arguments.lab}", flush=True)
    address = stage.open(JOBS if whole else ORDINARY)
    if whole:
        jobs.serve_packages()
    with built.mirror(address) as url:
        player = Player(stage, url, FOLDER / "logs" / arguments.lab, measured(FOLDER / "results" / arguments.lab))
        if whole:
            good = [_run_job(arguments.mode, player, job, arguments) for job in scenarios]
        else:
            wanted = list(modes.MODES) if arguments.mode == "all" else [arguments.mode]
            good = [_run(mode, player, scenarios, arguments, seed) for mode in wanted]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
