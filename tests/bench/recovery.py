# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a host takes to undo what a crash left open: `acidctl recover --boot`, from the start of its interpreter to its end.

    python tests/bench/recovery.py [--files 100] [--runs 100] [--durability process] [--fs ext4]

A step makes, writes in place, removes and chmods a quarter of the files each, of 1 to 4 KiB. Then all processes are killed, the file system
is mounted anew, and recovery runs in another boot of a small host (tests/fault/small.py), without systemd. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
FAULT = TOP / "tests" / "fault"
sys.path.insert(0, str(FAULT))
sys.dont_write_bytecode = True

import acts
import tree
from acts import ask
from faults import Faults
from programmes import PYTHON, Runner
from small import Say, SmallHost, enter_namespace
from tree import differences

START = "import sys; sys.path.insert(0, '/opt/acid'); from engine.cli import main; sys.exit(main(sys.argv[1:]))"


class Bench:
    """`files` is a multiple of four."""

    def __init__(self, host: SmallHost, faults: Faults, files: int, durability: str) -> None:
        self._host, self._faults, self._files, self._durability = host, faults, files, durability

    def run(self) -> dict[str, Any]:
        said = self._host.boot(self._crash, seconds=300)
        self._host.cycle()
        after = self._host.boot(self._recover, seconds=300)
        before, left, now = said.get("before"), said.get("left"), after.get("recovered")
        if before is None or left is None or now is None:
            raise SystemExit(f"{said.events[-1:]} {said.errors[-2000:]} {after.errors[-2000:]}")
        changed = len(differences(before["tree"], left["tree"]))
        return {"seconds": now["seconds"], "code": now["code"], "changed": changed, "wrong": differences(before["tree"], now["tree"])[:3]}

    def _crash(self, say: Say) -> None:
        base, quarter = acts.undo_random.BASE, self._files // 4
        acts.undo_random.clear()
        shutil.rmtree("/var/lib/acid", ignore_errors=True)
        os.makedirs(base + "/t")
        for number in range(3 * quarter):
            folder = f"{base}/t/{number % 20}"
            os.makedirs(folder, exist_ok=True)
            with open(f"{folder}/{number}", "wb") as f:
                f.write(b"x" * (1024 + number % 4 * 1024))
        os.sync()
        say(event="before", tree=tree.look(base))
        acts.start_agent(self._faults)
        begun = ask(op="begin", name="bench", owner="bench", options={"probes": ["hostname"], "durability": self._durability})
        acts.undo_random.LONGEST = 280
        acts.undo_random.step(begun["tx"], begun["token"], [[["spread", quarter]]])
        say(event="left", tree=tree.look(base))

    def _recover(self, say: Say) -> None:
        start = time.monotonic()
        done = subprocess.run([PYTHON, "-IS", "-c", START, "recover", "--boot", "--json"], check=False, capture_output=True)
        seconds = time.monotonic() - start
        say(event="recovered", seconds=seconds, code=done.returncode, tree=tree.look(acts.undo_random.BASE))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, with the fault programme's library preloaded."""
    acts.load_engine(arguments.engine)
    enter_namespace()
    host = SmallHost(arguments.engine.parent / "host", arguments.fs)
    place = host.root / "opt" / "acid"
    shutil.copytree(arguments.engine / "engine", place / "engine")
    subprocess.run([PYTHON, "-m", "compileall", "-q", str(place)], check=True)
    bench = Bench(host, Faults(), arguments.files, arguments.durability)
    try:
        runs = [bench.run() for _run in range(arguments.runs)]
    finally:
        host.close()
    seconds = sorted(run["seconds"] for run in runs)
    return {
        "files": arguments.files,
        "durability": arguments.durability,
        "fs": arguments.fs,
        "runs": len(runs),
        "median": round(statistics.median(seconds), 2),
        "p99": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 2),
        "longest": round(seconds[-1], 2),
        "not as before": sum(bool(run["wrong"]) for run in runs),
        "exact, and said so": sum(run["code"] == 0 for run in runs),
        "least that a step changed": min(run["changed"] for run in runs),
        "first difference": next((run["wrong"] for run in runs if run["wrong"]), []),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--durability", choices=["process", "power"], default="process")
    parser.add_argument("--fs", choices=["ext4", "xfs", "btrfs"], default="ext4")
    parser.add_argument("--engine", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine is not None:
        print(json.dumps(measure(arguments)))
        return 0
    with tempfile.TemporaryDirectory(dir=TOP / ".build") as folder:
        runner = Runner(Path(folder) / "runner")
        environment = {
            "LD_PRELOAD": str(Path(folder) / "runner" / "fault.so"),
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
        }
        command = [PYTHON, "-I", str(Path(__file__).resolve()), *sys.argv[1:], "--engine", str(runner.copy)]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
