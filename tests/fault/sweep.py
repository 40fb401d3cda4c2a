# SPDX-License-Identifier: GPL-3.0-or-later
"""Trials of one programme, one after the other, in this process (programmes.py starts it, with the library preloaded).

    LD_PRELOAD=fault.so python3 -I sweep.py --engine FOLDER --folder FOLDER --programme kill --fs ext4 --seed 1 --seconds 60 [--count N]

Prints a line of JSON for each trial that went wrong and a last one with the counts.
"""

from __future__ import annotations

import argparse
import collections
import errno
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import acts
import faults as f
from alone import TRANSACTIONS, Alone
from company import Company, grown_with_tool
from corrupt import Corruption
from faults import Fault, Faults
from fullness import Filled
from programmes import PROGRAMMES
from small import GROWN, MEGABYTES, SmallHost, enter_namespace
from trials import GoesWrong, Outcome, Trial

#: faults for each seed: the seed's own calls are counted once for all of them
PER_SEED = 8
DEPTH = 3
SEQUENCES = 20
#: calls of a recovery, and of a transaction with its undo, about
RECOVERY, COMPANY_CALLS = 60, 900
MODES = {
    "kill": (f.KILL_ALL, f.KILL_ALL, f.KILL_SELF, f.HALF_KILL),
    "recovery": (f.KILL_ALL, f.HALF_KILL),
    "cut": (f.POWER, f.POWER, f.HALF_POWER),
    "process": (f.POWER,),
}
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EINTR)
#: a call that is interrupted is made again by Python and SQLite: for ever, if it always is
INTERRUPTED, STICKY = 30, 1 << 40


class Sweep:
    """Counts what it did in `total`."""

    def __init__(self, host: SmallHost, faults: Faults, programme: str) -> None:
        self._host, self._faults, self._programme = host, faults, programme
        self.total: collections.Counter[str] = collections.Counter()
        self.at: collections.Counter[str] = collections.Counter()
        self.scenarios: collections.Counter[str] = collections.Counter()

    def seed(self, seed: int, points: int) -> list[dict[str, Any]]:
        """What went wrong."""
        if self._programme == "random":
            return self._sequences(seed)
        if self._programme == "alone":
            return self._alone(seed)
        if self._programme == "corrupt":
            counts, wrong = Corruption(self._host, self._faults).batch(seed)
            self.total.update({**counts, "points": counts["trials"], "wrong": len(wrong)})
            return wrong
        scenario = acts.SCENARIOS[seed % len(acts.SCENARIOS)]
        if self._programme == "others":
            scenario = f"others/{('anything', 'contents')[seed % 2]}"
        if self._programme in ("full", "inodes"):
            return self._full(seed)
        if self._programme == "company":
            return self._company(seed)
        if self._programme in ("order", "others"):
            return self._single(seed, scenario)
        chosen, wrong = random.Random(seed), []
        try:
            calls = self._trial(seed, scenario).calls()
        except GoesWrong as error:
            self.total["wrong"] += 1
            return [{"seed": seed, "scenario": scenario, "problems": [str(error)]}]
        self.total["transactions"] += 1
        for _point in range(points):
            fault, recoveries, boot = self._draw(chosen, calls, self._durability(seed))
            trial, start = self._trial(seed, scenario), time.monotonic()
            outcome = trial.error(fault, boot=boot) if fault.mode == f.ERRNO else trial.crash(fault, recoveries, boot=boot)
            if self._programme == "process":
                outcome = self._measured(outcome)
            self._add(outcome, scenario)
            if outcome.problems:
                wrong.append({"seed": seed, "scenario": scenario, "fault": fault._asdict(), "recoveries": [r.at for r in recoveries]})
                wrong[-1].update(boot=boot, at=outcome.at, problems=outcome.problems, seconds=round(time.monotonic() - start, 2))
        return wrong

    def _trial(self, seed: int, scenario: str) -> Trial:
        return Trial(self._host, self._faults, seed, scenario, durability=self._durability(seed))

    def _durability(self, seed: int) -> str:
        """A host that comes up again without having been shut down says, with `process`, that its undo may not be exact: what is to be
        exact after a boot has `power`, and what has `process` goes on in the same boot."""
        if self._programme in ("cut", "order"):
            return "power"
        strikes = self._programme in ("kill", "recovery", "error")
        return "power" if strikes and random.Random(f"durability {seed}").random() < 0.6 else "process"

    def _draw(self, chosen: random.Random, calls: list[str], durability: str) -> tuple[Fault, list[Fault], bool]:
        at = chosen.randint(1, len(calls))
        if chosen.random() < 0.6:  # SQLite makes most of the calls: the others shall have their turn
            kind = chosen.choice(sorted(set(calls)))
            at = chosen.choice([number for number, name in enumerate(calls, 1) if name == kind])
        if chosen.random() < 0.08:
            at = len(calls)  # of a commit, the first call after it was answered
        boot = durability == "power" and chosen.random() < 0.8
        if self._programme == "error":
            error = chosen.choice(ERRORS)
            length = chosen.choice((1, INTERRUPTED if error == errno.EINTR else STICKY))
            return Fault(f.ERRNO, chosen.randint(1, max(1, at)), length, error, f.ENGINE, f.FILES), [], boot
        mode = chosen.choice(MODES[self._programme])
        depth = DEPTH if self._programme == "recovery" else chosen.choice((0, 0, 0, 1))
        again = [Fault(mode, chosen.randint(1, RECOVERY), roles=f.ENGINE) for _time in range(depth)]
        roles = f.ENGINE if mode == f.KILL_SELF else f.ENGINE | f.STEP
        return Fault(mode, at, roles=roles), again, boot or self._programme in ("cut", "process")

    def _measured(self, outcome: Outcome) -> Outcome:
        """A power cut with `durability: process` breaks no promise: what becomes of it is counted."""
        said = any(problem.startswith("ends in") for problem in outcome.problems)
        self.total["inexact, and said so" if said else "inexact, and not said" if outcome.problems else "exact"] += 1
        return outcome._replace(problems=[])

    def _add(self, outcome: Outcome, scenario: str) -> None:
        self.total["trials"] += 1
        self.total["points"] += outcome.points
        self.total["points in recovery" if self._programme != "error" else "inexact, and said so"] += outcome.after
        if self._programme == "recovery":
            self.total["depth %d" % outcome.after] += 1
        self.total["wrong"] += bool(outcome.problems)
        self.at.update(outcome.at)
        self.scenarios[scenario] += outcome.points

    def _single(self, seed: int, scenario: str) -> list[dict[str, Any]]:
        trial = self._trial(seed, scenario)
        points, problems = trial.order() if self._programme == "order" else trial.others()
        self.total.update({"trials": 1, "points": points, "wrong": bool(problems)})
        return [{"seed": seed, "scenario": scenario, "problems": problems[:5]}] if problems else []

    def _company(self, seed: int) -> list[dict[str, Any]]:
        """In each boot one trial, whose files lie on the second disk."""
        grown = self._host.second_fs == GROWN
        if grown:
            with grown_with_tool(seed) as folder:
                self._host.grow_disks(folder)
        self._faults.arm(Fault(f.COMPANY, random.Random(f"at {seed}").randint(1, COMPANY_CALLS)))
        company = Company(self._faults, seed, self._host, grown=grown)
        said = self._host.boot(company, seconds=60)
        judged = said.get("judged")
        if judged is None:
            judged = {"problems": [f"it stopped: hung {said.hung}: {said.errors[-1500:]}"], "met": 0, "about": {"visits": []}}
        self.total.update({"trials": 1, "points": 1, "visits": judged["met"], "wrong": bool(judged["problems"])})
        self.scenarios.update(visit["kind"] for visit in judged["about"]["visits"] if not visit.get("failed"))
        return [{"seed": seed, "problems": judged["problems"], **judged["about"]}] if judged["problems"] else []

    def _full(self, seed: int) -> list[dict[str, Any]]:
        trial = Filled(self._host, self._faults, seed, inodes=self._programme == "inodes")
        points, problems = trial.run()
        self.total.update({"trials": 1, "points": points, "wrong": bool(problems)})
        self.scenarios[trial.name] += 1
        return [{"seed": seed, "scenario": trial.name, "problems": problems[:14]}] if problems else []

    def _alone(self, seed: int) -> list[dict[str, Any]]:
        counts, wrong = Alone(self._host, self._faults, seed).run()
        self.total.update({"trials": TRANSACTIONS, "points": 0, "wrong": len(wrong)})
        self.total.update(counts)
        return wrong

    def _sequences(self, seed: int) -> list[dict[str, Any]]:
        self._faults.arm(Fault())
        processes = 3 if seed % 4 == 0 else 1
        said = self._host.boot(acts.Sequences(self._faults, seed * SEQUENCES, SEQUENCES, processes), seconds=30.0 * SEQUENCES)
        wrong = [event for event in said.events if event["event"] == "wrong"]
        end = said.get("end")
        if end is None:
            wrong.append({"seed": seed * SEQUENCES, "problems": [f"it stopped: hung {said.hung}: {said.errors[-1500:]}"]})
        self.total.update({"trials": SEQUENCES, "points": SEQUENCES, "wrong": len(wrong), "changes": end["changes"] if end else 0})
        return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--programme", choices=[one.name for one in PROGRAMMES], required=True)
    parser.add_argument("--fs", choices=["ext4", "xfs", "btrfs", "tmpfs", GROWN], default="ext4")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=1 << 30, help="trials")
    parser.add_argument("--stop", action="store_true", help="at the first that goes wrong")
    arguments = parser.parse_args()
    faults = Faults()
    acts.load_engine(arguments.engine)
    enter_namespace()
    fullness = arguments.programme in ("full", "inodes")
    few = ("-N", {"inodes": "400", "full": "3000"}[arguments.programme]) if fullness and arguments.fs == "ext4" else ()
    company = arguments.programme == "company"
    first_fs = arguments.fs if arguments.fs in MEGABYTES else "ext4"
    host = SmallHost(arguments.folder, first_fs, options=few, with_second=fullness or company, second_fs=arguments.fs, with_third=company)
    if company:
        host.second = acts.undo_random.BASE.strip("/")
    start = time.monotonic()
    sweep, seed = Sweep(host, faults, arguments.programme), arguments.seed
    try:
        while time.monotonic() - start < arguments.seconds and sweep.total["trials"] < arguments.count:
            for wrong in sweep.seed(seed, min(PER_SEED, arguments.count - sweep.total["trials"])):
                print(json.dumps(wrong), flush=True)
            seed += 1
            if arguments.stop and sweep.total["wrong"]:
                break
    finally:
        host.close()
    report = {"programme": arguments.programme, "fs": arguments.fs, "seed": arguments.seed, "seeds": seed - arguments.seed, **sweep.total}
    print(json.dumps({**report, "at": sweep.at, "scenarios": sweep.scenarios, "seconds": round(time.monotonic() - start, 1)}))
    return 1 if sweep.total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
