# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's own command says of its transactions. Only to drive the tests: whether a host is as before is for the oracle to say."""

from __future__ import annotations

import fnmatch
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .stage import Host, ssh

ACIDCTL = "/usr/local/sbin/acidctl"


@dataclass(frozen=True)
class Done:
    code: int
    text: str
    seconds: float


def _acidctl(host: Host, *argv: str) -> Done:
    started = time.monotonic()
    done = ssh.inside(host, [ACIDCTL, *argv])
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    return Done(done.returncode, text, time.monotonic() - started)


def _installed(host: Host) -> bool:
    return ssh.inside(host, ["test", "-x", ACIDCTL]).returncode == 0


def open_transaction(host: Host) -> dict[str, Any] | None:
    """The host's open transaction; None also where the engine never came to."""
    if not _installed(host):
        return None
    done = _acidctl(host, "info", "--json")
    if done.code:
        return {"error": done.text}
    found: dict[str, Any] | None = json.loads(done.text).get("open")
    return found


def transactions(host: Host) -> dict[str, str]:
    """Transaction id -> state, oldest first."""
    if not _installed(host):
        return {}
    done = _acidctl(host, "list", "--json")
    listed = json.loads(done.text)
    return {item["tx"]: item["state"] for item in (listed["transactions"] if isinstance(listed, dict) else listed)}


def end_retention(host: Host) -> Done:
    """Drop the images of what is committed: until then kept inodes have one link more."""
    return _acidctl(host, "gc", "--days", "0", "--json")


def rollback(host: Host, tx: str) -> Done:
    return _acidctl(host, "rollback", tx, "--json")


def _members(host: Host, pattern: str) -> set[int]:
    """Processes, as this machine counts them, in the host's cgroups of that name and below. Cgroups come and go meanwhile."""
    found: set[int] = set()
    for folder, _folders, files in os.walk(host.cgroup):
        if "cgroup.procs" in files and any(fnmatch.fnmatchcase(part, pattern) for part in folder.split("/")):
            try:
                found |= {int(line) for line in Path(folder, "cgroup.procs").read_text(encoding="ascii").split()}
            except OSError:
                continue
    return found


def agent_pids(host: Host) -> set[int]:
    return _members(host, "acid-agent*.service")


def step_pids(host: Host) -> set[int]:
    """What runs in steps: each has a cgroup of its own."""
    return _members(host, "acid-[0-9]*")


class Memory:
    """The most memory that a host's agent has had, in MB (VmHWM), as far as samples tell."""

    def __init__(self) -> None:
        self.most = 0.0

    def sample(self, host: Host) -> None:
        for pid in agent_pids(host):
            try:
                lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            self.most = max([self.most, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))])


@contextmanager
def memory_of_the_agent(hosts: list[Host]) -> Iterator[Memory]:
    """Watches the agents of hosts while the block runs."""
    found, end = Memory(), threading.Event()

    def watch() -> None:
        while not end.wait(0.2):
            for host in hosts:
                found.sample(host)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()
