# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the box: a random transaction, and what the tree looks like before it and at its end. A line of JSON for each event.

    workload.py run SEED DURABILITY     grow a tree, begin, steps, then commit or roll back, as the seed says
    workload.py recover                 what a boot does
    workload.py look
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, "/usr/local/lib/acid/current"]
sys.dont_write_bytecode = True

import operations
import tree
import undo_random
from undo_random import BASE, answered, step

ACIDCTL = "/usr/local/sbin/acidctl"


class WithoutSystemd:
    """Where undo_random asks systemd for an agent, acidctl starts one."""

    @staticmethod
    def run(_command: object, **_options: object) -> object:
        return subprocess.run([ACIDCTL, "health", "--json"], capture_output=True, check=False)


undo_random.subprocess = WithoutSystemd  # type: ignore[assignment]


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def run(seed: int, durability: str) -> None:
    chosen = random.Random(seed)
    os.makedirs(BASE + "/t")
    os.chdir(BASE + "/t")
    operations.Program().run(operations.program(chosen, 25, locks=chosen.random() < 0.3))
    os.chdir("/")
    os.sync()
    say(event="before", tree=tree.look(BASE))
    begin = {"name": "cut", "owner": "cut", "options": {"probes": ["hostname"], "durability": durability}}
    request = base64.b64encode(json.dumps(begin).encode()).decode()
    done = subprocess.run([ACIDCTL, "begin", "--json", "--request", request], capture_output=True, text=True, check=False)
    begun = json.loads(done.stdout or "{}")
    if "tx" not in begun:
        raise SystemExit("begin: %s %s" % (done.stdout, done.stderr))
    say(event="begun")
    for _number in range(chosen.randint(1, 3)):
        step(begun["tx"], begun["token"], [operations.program(chosen, chosen.randint(5, 40))])
        say(event="step")
    if chosen.random() < 0.5:
        say(event="left", tree=tree.look(BASE))
        answered(op="commit", tx=begun["tx"], token=begun["token"], steps=[])
        say(event="committed")
    else:
        answered(op="rollback", tx=begun["tx"], token=begun["token"])
        say(event="rolled back")


def recover() -> None:
    done = subprocess.run([ACIDCTL, "recover", "--boot", "--json"], capture_output=True, text=True, check=False)
    listed = subprocess.run([ACIDCTL, "list", "--json"], capture_output=True, text=True, check=False)
    say(event="recovered", code=done.returncode, out=done.stdout[-2000:], err=done.stderr[-2000:], list=listed.stdout[-2000:])
    say(event="tree", tree=tree.look(BASE))


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "recover":
        recover()
    else:
        say(event="tree", tree=tree.look(BASE))
