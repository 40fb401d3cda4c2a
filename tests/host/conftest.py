# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of a lab, and ansible-playbook against them over ssh, with every ssh and sftp that it starts counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
LAB = TOP / "tests" / "lab" / "lab"
COLLECTIONS = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(TOP / ".build" / "collections"))

COUNTED = """#!/bin/sh
echo "$(basename "$0")" >> {log}
exec {program} "$@"
"""


@dataclass(frozen=True)
class PlayRun:
    """`remote_calls` counts the ssh and sftp processes."""

    rc: int
    stdout: str
    stderr: str
    remote_calls: int

    @property
    def recap(self) -> str:
        return self.stderr.partition("TRANSACTIONS ")[2]

    def outcome(self, host: str) -> str:
        found = re.search(rf"^{host} +: (committed|rolled back|not begun|left to the host|UNDO FAILED)", self.recap, re.M)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Hosts:
    """A lab of its own. `folder` is the test's."""

    name: str
    folder: Path

    def lab(self, *arguments: str, check: bool = True) -> str:
        command = [str(LAB), "--lab", self.name, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=check).stdout

    def ssh(self, host: str, command: str, *, check: bool = True) -> str:
        return self.lab("ssh", host, command, check=check)

    def journal(self, host: str) -> list[dict[str, Any]]:
        answer = json.loads(self.ssh(host, "acidctl list --json"))
        found: list[dict[str, Any]] = answer["transactions"] if isinstance(answer, dict) else answer
        return found

    def states(self, host: str) -> list[str]:
        return [transaction["state"] for transaction in self.journal(host)]

    def state(self, host: str, name: str) -> Path:
        path = self.folder / f"{name}-{host}"
        path.write_text(self.lab("state", host))
        return path

    def differences(self, before: Path, after: Path, *options: str) -> str:
        """What the oracle finds; empty when the host is as it was."""
        command = [str(LAB), "--lab", self.name, "diff", *options, str(before), str(after)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def command(self, play: str, *arguments: str) -> list[str]:
        (self.folder / "play.yml").write_text(play)
        inventory = self.folder / "inventory.json"
        inventory.write_text(self.lab("inventory"))
        return [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(self.folder / "play.yml"), *arguments]

    def environment(self, *, callback: bool, **extra: str) -> dict[str, str]:
        for program in ("ssh", "sftp"):
            wrapper = self.folder / program
            wrapper.write_text(COUNTED.format(log=self.folder / "calls", program=program))
            wrapper.chmod(0o755)
        settings = {
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_SSH_EXECUTABLE": str(self.folder / "ssh"),
            "ANSIBLE_SFTP_EXECUTABLE": str(self.folder / "sftp"),
        }
        if callback:
            settings["ANSIBLE_CALLBACKS_ENABLED"] = "acid.host.transaction"
        return {**os.environ, **settings, **extra}

    def play(self, play: str, *arguments: str, callback: bool = True, **extra: str) -> PlayRun:
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        command, environment = self.command(play, *arguments), self.environment(callback=callback, **extra)
        own = {"stdin": subprocess.DEVNULL, "cwd": self.folder, "env": environment}  # ssh makes one that it shares with us non-blocking
        done = subprocess.run(command, capture_output=True, text=True, check=False, **own)
        return PlayRun(done.returncode, done.stdout, done.stderr, len(calls.read_text().splitlines()) if calls.exists() else 0)


@pytest.fixture(scope="session")
def callback_lab() -> Iterator[str]:
    """Two hosts, in a lab that no other run of the tests takes for its own."""
    name = f"cb{os.getpid()}"
    subprocess.run([str(LAB), "--lab", name, "down"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    subprocess.run([str(LAB), "--lab", name, "up", "2"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    yield name
    subprocess.run([str(LAB), "--lab", name, "down"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


WARM = "- hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'true'\n      changed_when: false\n"


@pytest.fixture
def hosts(callback_lab: str, tmp_path: Path) -> Hosts:
    return Hosts(callback_lab, tmp_path)


@pytest.fixture
def hosts_of(tmp_path: Path) -> Callable[[str], Hosts]:
    """Hosts of a lab that the test has put up itself."""
    return lambda name: Hosts(name, tmp_path)


_warm: set[str] = set()


@pytest.fixture
def warm_hosts(hosts: Hosts) -> Hosts:
    """The engine is on them."""
    if hosts.name not in _warm:
        warmed = hosts.play(WARM)
        assert warmed.rc == 0, warmed.stdout + warmed.stderr
        _warm.add(hosts.name)
    return hosts
