# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host: transactions that take longer than their lease, with a word of the controller each third of it. None may end by itself.

python3 -I - SEED COUNT LEASE      ->  one line of JSON: {"committed": n, "false": [what became of the others]}
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import uuid


def encoded(value: dict) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def ctl(verb: str, **request: object) -> dict:
    done = subprocess.run(["acidctl", verb, "--json", "--request", encoded(request)], capture_output=True, text=True, check=False)
    return json.loads(done.stdout or "{}")


def step(tx: dict, script: str) -> int:
    info = encoded({"id": uuid.uuid4().hex, "task": "t", "module": "command", "position": "x:1"})
    argv = ["acidctl", "exec", "--tx", tx["tx"], "--token", str(tx["token"]), "--step", info, "--", "sh", "-c", script]
    return subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def healthy(chosen: random.Random, lease: int) -> dict:
    options = {"confirm_timeout": lease, "heartbeat": True, "probes": ["hostname"]}
    tx = ctl("begin", name="healthy", owner="healthy", options=options)
    if "tx" not in tx:
        return tx
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(lease / 3):
            ctl("confirm", tx=tx["tx"], token=tx["token"], beat=True)

    heart = threading.Thread(target=beat)
    if chosen.random() < 0.5:  # else its steps alone have to do
        heart.start()
        pauses = [chosen.uniform(0, lease * 1.2) for _step in range(2)]
    else:
        pauses = [chosen.uniform(0, lease * 0.6) for _step in range(3)]
    for pause in pauses:
        step(tx, "echo %d >> /srv/healthy; sleep %.2f" % (chosen.randrange(99), pause))
    ended.set()
    if heart.ident:
        heart.join()
    return ctl("commit", tx=tx["tx"], token=tx["token"], steps=[])


def main() -> None:
    seed, count, lease = map(int, sys.argv[1:4])
    chosen = random.Random(seed)
    answers = [healthy(chosen, lease) for _number in range(count)]
    bad = [answer for answer in answers if answer.get("state") != "COMMITTED"]
    with contextlib.suppress(FileNotFoundError):
        os.unlink("/srv/healthy")
    print(json.dumps({"committed": len(answers) - len(bad), "false": bad[:5]}))


if __name__ == "__main__":
    main()
