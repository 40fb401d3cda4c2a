# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts at random moments of random transactions, and of their recovery.

    python tests/fault/power.py --fs ext4 --count 50 [--seed N] [--durability power|process]

After each cut the box boots, which recovers; the tree must be as before, or as committed. With up to DEPTH cuts in the recovery itself.
Prints one line of JSON for each seed that went wrong, and a last line with the counts.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "host" / "engine" / "onhost")]

from box import TOP, Box, enter_namespace
from tree import differences

DEPTH = 3


class Trial:
    """One seed in one box. `mean` is what the phases took in earlier trials, in seconds."""

    def __init__(self, box: Box, seed: int, durability: str, mean: dict[str, float]) -> None:
        self._box, self._seed, self._durability, self._mean = box, seed, durability, mean
        self._chosen = random.Random(seed ^ 0x5EED)
        self.cuts, self._errors = 0, ""
        self.said = 0
        self.seen: list[str] = []

    def run(self) -> list[str]:
        """What went wrong."""
        box = self._box
        box.fresh()
        events = self._until_cut(["python3", "-I", "/opt/inbox/workload.py", "run", str(self._seed), self._durability], "begun", "run")
        known = {event["event"]: event for event in events}
        if "begun" not in known:
            return [f"no transaction was begun: {events} {self._errors}"]
        for _again in range(self._chosen.randrange(DEPTH + 1)):
            self._until_cut(["python3", "-I", "/opt/inbox/workload.py", "recover"], "", "recover")
        process = box.boot(["python3", "-I", "/opt/inbox/workload.py", "recover"])
        out, err = process.communicate(timeout=60)
        final = {event["event"]: event for event in map(json.loads, out.splitlines())}
        if "tree" not in final:
            return [f"recovery printed no tree: {out[-500:]} {err[-1500:]}"]
        self.seen.append(events[-1]["event"])
        return self._judge(known, final)

    def _judge(self, known: dict[str, dict], final: dict[str, dict]) -> list[str]:
        now = final["tree"]["tree"]
        to_before = differences(known["before"]["tree"], now)
        if "committed" in known:
            wrong = _but_kept_links(differences(known["left"]["tree"], now))
            return [f"committed, and lost: {line}" for line in wrong[:6]]
        if not to_before and final["recovered"]["code"] == 0:
            return []
        said = final["recovered"]
        if self._durability == "process" and said["code"] == 25 and "without an orderly shutdown" in said["out"]:
            self.said += 1  # exactness is not claimed
            return []
        if "left" in known and not _but_kept_links(differences(known["left"]["tree"], now)):
            return []  # the commit row was on the disk, and nobody had heard of it
        return [f"{line}" for line in to_before[:6]] + [f"recover: {final['recovered']['code']} {final['recovered']['out'][-700:]}"]

    def _until_cut(self, argv: list[str], after: str, phase: str) -> list[dict]:
        """Run until a moment drawn from the phase's usual length, counted from the event `after`; then cut. The events so far."""
        process = self._box.boot(argv)
        events: list[dict] = []
        start = time.monotonic()
        assert process.stdout is not None and process.stderr is not None
        while after and not any(event["event"] == after for event in events):
            line = process.stdout.readline()
            if not line:
                break
            events.append(json.loads(line))
        if after:
            start = time.monotonic()
        time.sleep(self._chosen.random() * 1.1 * self._mean[phase])
        ended = process.poll() is not None
        out, self._errors = self._box.cut()
        self.cuts += 1
        if ended:
            self._mean[phase] += 0.2 * (time.monotonic() - start - self._mean[phase])
        return events + [json.loads(line) for line in out.splitlines() if line.endswith("}")]


def _but_kept_links(lines: list[str]) -> list[str]:
    """A commit keeps images for the retention, so that link counts of kept inodes differ."""
    return [line for line in lines if not any(f": {name}: " in line for name in ("nlink", "same inode as"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fs", choices=["ext4", "xfs"], default="ext4")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--durability", choices=["process", "power"], default="power")
    arguments = parser.parse_args()
    first = arguments.seed or random.SystemRandom().randrange(1, 1 << 30)
    enter_namespace()
    start, failed, cuts, said, mean = time.monotonic(), 0, 0, 0, {"run": 0.4, "recover": 0.4}
    phases: collections.Counter[str] = collections.Counter()
    (TOP / ".build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOP / ".build") as folder, Box(Path(folder) / "box", arguments.fs) as box:
        for seed in range(first, first + arguments.count):
            trial = Trial(box, seed, arguments.durability, mean)
            problems = trial.run()
            cuts += trial.cuts
            said += trial.said
            phases.update(trial.seen)
            if problems:
                failed += 1
                print(json.dumps({"seed": seed, "problems": problems, "last event": trial.seen}), flush=True)
    seconds = round(time.monotonic() - start, 1)
    total = {"fs": arguments.fs, "durability": arguments.durability, "seed": first, "trials": arguments.count, "cuts": cuts, "torn": failed}
    total["not claimed"] = said
    print(json.dumps({**total, "last event before the cut": phases, "seconds": seconds}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
