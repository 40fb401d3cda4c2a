# SPDX-License-Identifier: GPL-3.0-or-later
"""What programmes on real hosts of a lab share: a play against one host, and trials one after the other on each host, all at the same time.

    hosts = hosts_of("NAME", 2)
    controller = start_play(host, folder, play)        writes into folder/output
    each(hosts, trials)                                trials(number, host, folder) in a thread for each host
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests" / "lab"))

from acidlab import lifecycle, registry
from acidlab.model import Host


def hosts_of(lab: str, count: int) -> list[Host]:
    return registry.hosts(registry.find_lab(lab))[:count]


def start_play(host: Host, folder: Path, play: str, **environment: str) -> subprocess.Popen[str]:
    """ansible-playbook with the callback, in a session of its own, against this host alone."""
    (folder / "play.yml").write_text(play)
    found: Any = lifecycle.inventory(host.lab)
    found["all"]["hosts"] = {host.name: found["all"]["hosts"][host.name]}
    (folder / "inventory.json").write_text(json.dumps(found))
    settings = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".build" / "collections"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_CALLBACKS_ENABLED": "acid.host.transaction",
        **environment,
    }
    argv = [str(TOP / ".build/venv/bin/ansible-playbook"), "-i", str(folder / "inventory.json"), str(folder / "play.yml")]
    with open(folder / "output", "w", encoding="utf-8") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=settings,
            start_new_session=True,
        )


def each(hosts: list[Host], trials: Callable[[int, Host, Path], None]) -> None:
    with tempfile.TemporaryDirectory() as base:
        threads = []
        for number, host in enumerate(hosts):
            folder = Path(base) / host.name
            folder.mkdir()
            threads.append(threading.Thread(target=trials, args=(number, host, folder)))
            threads[-1].start()
        for thread in threads:
            thread.join()
