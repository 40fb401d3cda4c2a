# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab hosts in the state that the plays start from: prepared once, kept as a snapshot, cloned for each play."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .catalog import HERE, Scenario

sys.path.insert(0, str(HERE.parent / "lab"))

from acidlab import hosts, image, lifecycle, pool, recipe, registry, ssh
from acidlab.errors import LabError
from acidlab.machine import this_codename
from acidlab.model import Host, Lab

LAB = os.environ.get("ACID_LAB", "scenarios")
ROOT = HERE.parent.parent
PREPARE = HERE / "prepare.sh"


class Stage:
    """The hosts of one runner. Names: n1, n2, n3, and big1 for the plays with huge files."""

    def __init__(self, lab: str = LAB) -> None:
        self.name = lab

    @property
    def lab(self) -> Lab:
        return registry.find_lab(self.name)

    def open(self) -> str:
        """Bring the first host up; returns the address of this machine on the lab's bridge."""
        image.build("base")
        self._host("n1", "n")
        return self.lab.gateway

    def clones(self, scenario: Scenario, *, warm: Callable[[Host], None] | None = None) -> list[Host]:
        """The hosts of a play, in the prepared state, booted, with one login behind them.

        warm: puts the engine on a prepared host. What it leaves is a snapshot too, so that installing the engine is no part of a play.
        """
        names = ["big1"] if scenario.big else [f"n{number}" for number in range(1, scenario.hosts + 1)]
        found = [self._host(name, name.rstrip("123456789")) for name in names]
        for host in found:
            self._prepare(host, big=scenario.big, warm=warm)
        ready = lifecycle.wait([hosts.restore(host, warm_name() if warm else prepared_name()) for host in found])
        for host in ready:
            _log_in(host, scenario.vars)
        return ready

    def _host(self, name: str, prefix: str) -> Host:
        while True:
            try:
                return registry.find_host(self.lab, name)
            except LabError:
                lifecycle.up(self.name, count=1, fs="btrfs", prefix=prefix, image_name="base")

    def _prepare(self, host: Host, *, big: bool, warm: Callable[[Host], None] | None) -> None:
        if not host.snapshot(prepared_name()).exists():
            host = lifecycle.wait([hosts.restore(host, None)])[0]
            done = ssh.inside(host, ["bash", "-s", "--", *(["big"] if big else [])], stdin=PREPARE.read_bytes())
            if done.returncode:
                raise LabError(f"prepare.sh failed on {host.name}: {done.stderr.decode(errors='replace')[-2000:]}")
            _keep(host, prepared_name())
        if warm and not host.snapshot(warm_name()).exists():
            host = lifecycle.wait([hosts.restore(host, prepared_name())])[0]
            warm(host)
            _keep(host, warm_name())

    def inventory(self, chosen: list[Host], variables: dict[str, str]) -> dict[str, object]:
        """The lab's inventory, of these hosts alone."""
        whole = lifecycle.inventory(self.lab)["all"]
        assert isinstance(whole, dict)
        return {"all": {"hosts": {host.name: whole["hosts"][host.name] for host in chosen}, "vars": {**whole["vars"], **variables}}}


def _keep(host: Host, name: str) -> None:
    """A snapshot, and none of the same kind with another key: nobody would come back to it."""
    kind = name.partition("-")[0]
    for old in host.snapshot(name).parent.glob(f"{kind}-*"):
        pool.delete(old)
    hosts.snapshot(host, name)


def _log_in(host: Host, variables: dict[str, str]) -> None:
    """One login by hand since the boot: pam's message of the day and sudo's time stamp directory are there."""
    user = variables.get("ansible_user", "root")
    command = ["sudo", "-S", "-p", "''", "true"] if user == "pwuser" else ["true"]
    subprocess.run(ssh.argv(host, command, user=user), input=b"lab-secret\n", capture_output=True, check=True, timeout=30)


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:10]


def prepared_name() -> str:
    """Changes with the preparation and with the image."""
    return f"prepared-{_key(PREPARE.read_bytes(), recipe.image_key('base', this_codename()).encode())}"


def warm_name() -> str:
    """Changes with the engine too."""
    plugins = Path(os.environ.get("SCENARIO_COLLECTIONS", ROOT / ".build/collections")) / "ansible_collections/acid/host/plugins"
    code = [part for path in sorted(plugins.rglob("*.py")) for part in (str(path.relative_to(plugins)).encode(), path.read_bytes())]
    return f"warm-{_key(prepared_name().encode(), *code)}"


def write_inventory(path: Path, inventory: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(inventory, indent=1), encoding="utf-8")
    return path


__all__ = ["Host", "LabError", "Stage", "image", "prepared_name", "ssh", "warm_name", "write_inventory"]
