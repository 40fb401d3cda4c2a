# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab hosts in the state that plays start from: prepared once, kept as a snapshot, cloned for each play."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "lab"))

from acidlab import hosts, image, lifecycle, pool, recipe, registry, ssh
from acidlab.errors import LabError
from acidlab.machine import this_codename
from acidlab.model import Host, Lab

LAB = os.environ.get("ACID_LAB", "scenarios")
COLLECTIONS = Path(os.environ.get("SCENARIO_COLLECTIONS", ROOT / ".build/collections"))


@dataclass(frozen=True)
class World:
    """One way to prepare hosts. prefix: of the hosts' names; script: run on the host as root, with its folder's src/ in /root/src."""

    prefix: str
    image: str
    script: Path
    args: tuple[str, ...] = ()

    @property
    def sources(self) -> list[Path]:
        return sorted(path for path in (self.script.parent / "src").glob("*") if path.is_file())

    @cache  # noqa: B019 - one reading for a whole programme, even if somebody changes an image meanwhile; there are four worlds
    def prepared(self) -> str:
        """The snapshot's name: another one for another preparation or image."""
        parts = [self.script.read_bytes(), " ".join(self.args).encode(), *(path.read_bytes() for path in self.sources)]
        return f"prepared-{_key(*parts, recipe.image_key(self.image, this_codename()).encode())}"

    @cache  # noqa: B019
    def warm(self) -> str:
        """The snapshot with the engine on it: another one for another engine, too."""
        plugins = COLLECTIONS / "ansible_collections/acid/host/plugins"
        code = [part for path in sorted(plugins.rglob("*.py")) for part in (str(path.relative_to(plugins)).encode(), path.read_bytes())]
        return f"warm-{_key(self.prepared().encode(), *code)}"


ORDINARY = World(prefix="n", image="base", script=HERE / "prepare.sh")
BIG = World(prefix="big", image="base", script=HERE / "prepare.sh", args=("big",))
PROGRAMS = World(prefix="prog", image="big", script=HERE / "programs/prepare.sh")
JOBS = World(prefix="job", image="base", script=HERE / "prepare-jobs.sh")


class Stage:
    """The hosts of one runner, by the prefix of their world: n1, n2, n3, big1, prog1."""

    def __init__(self, lab: str = LAB) -> None:
        self.name = lab
        # Two runners in one lab would take each other's hosts away: the second one waits. The kernel drops it with the process.
        self._lock = open(f"/run/acid-scenarios-{lab}.lock", "w", encoding="ascii")  # noqa: SIM115
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def lab(self) -> Lab:
        return registry.find_lab(self.name)

    def open(self, world: World = ORDINARY) -> str:
        """Bring the first host up; returns the address of this machine on the lab's bridge."""
        image.build(world.image)
        self._host(world, 1)
        return self.lab.gateway

    def close(self) -> None:
        """Remove the lab's hosts."""
        lifecycle.down(self.name)

    def clones(self, world: World, count: int, *, user: str = "root", warm: Callable[[Host], None] | None = None) -> list[Host]:
        """Hosts in the prepared state, booted, with one login behind them.

        warm: puts the engine on a prepared host. What it leaves is a snapshot too, so that installing the engine is no part of a play.
        """
        found = [self._host(world, number) for number in range(1, count + 1)]
        for host in found:
            self._prepare(host, world, warm)
        ready = lifecycle.wait([hosts.restore(host, world.warm() if warm else world.prepared()) for host in found])
        for host in ready:
            _log_in(host, user)
        return ready

    def inventory(self, chosen: list[Host], variables: dict[str, str]) -> dict[str, object]:
        """The lab's inventory, of these hosts alone."""
        whole = lifecycle.inventory(self.lab)["all"]
        assert isinstance(whole, dict)
        return {"all": {"hosts": {host.name: whole["hosts"][host.name] for host in chosen}, "vars": {**whole["vars"], **variables}}}

    def _host(self, world: World, number: int) -> Host:
        while True:
            try:
                return registry.find_host(self.lab, f"{world.prefix}{number}")
            except LabError:
                lifecycle.up(self.name, count=1, fs="btrfs", prefix=world.prefix, image_name=world.image)

    def _prepare(self, host: Host, world: World, warm: Callable[[Host], None] | None) -> None:
        if not host.snapshot(world.prepared()).exists():
            image.build(world.image)
            host = lifecycle.wait([hosts.restore(host, None)])[0]
            _run(host, ["tar", "-C", "/root", "-xf", "-"], stdin=_archive(world.sources))
            _run(host, ["bash", "-s", "--", *world.args], stdin=world.script.read_bytes())
            _keep(host, world.prepared())
        if warm and not host.snapshot(world.warm()).exists():
            host = lifecycle.wait([hosts.restore(host, world.prepared())])[0]
            warm(host)
            _keep(host, world.warm())


def _run(host: Host, command: list[str], *, stdin: bytes) -> None:
    done = ssh.inside(host, command, stdin=stdin)
    if done.returncode:
        raise LabError(f"{command[0]} failed on {host.name}: {done.stderr.decode(errors='replace')[-2000:]}")


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _archive(sources: list[Path]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sources:
            archive.add(path, arcname=f"src/{path.name}", filter=_of_root)
    return out.getvalue()


def _keep(host: Host, name: str) -> None:
    """A snapshot, and none of the same kind with another key: nobody would come back to it."""
    kind = name.partition("-")[0]
    for old in host.snapshot(name).parent.glob(f"{kind}-*"):
        pool.delete(old)
    hosts.snapshot(host, name)


def _log_in(host: Host, user: str) -> None:
    """One login by hand since the boot: pam's message of the day and sudo's time stamp directory are there."""
    command = ["sudo", "-S", "-p", "''", "true"] if user == "pwuser" else ["true"]
    subprocess.run(ssh.argv(host, command, user=user), input=b"lab-secret\n", capture_output=True, check=True, timeout=30)


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:10]


def write_inventory(path: Path, inventory: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(inventory, indent=1), encoding="utf-8")
    return path


__all__ = ["BIG", "COLLECTIONS", "JOBS", "LAB", "ORDINARY", "PROGRAMS", "Host", "LabError", "Stage", "World", "ssh", "write_inventory"]
