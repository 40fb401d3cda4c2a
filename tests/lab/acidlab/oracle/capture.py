# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole state of a running host."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from .. import ssh
from ..errors import LabError
from ..model import CACHE, Host
from . import enter, mounts, net, packages, processes, tree, units
from .hashes import Hashes, Token
from .model import Key, State

SEPARATOR = "\x1e"
DISK = ("btrfs", "ext4", "xfs", "ext3", "ext2")
# Reads one quoted command per line from stdin: one entry into the host for all. Their exit codes go with
# their output: a tool that is missing on both sides is no difference, one that fails on one side is.
RUNNER = r"""while IFS= read -r line; do eval "$line" </dev/null 2>/dev/null; printf '\036%s\036' "$?"; done"""


def _quote(argument: str) -> str:
    return "'" + argument.replace("'", "'\\''") + "'"


def _ask(host: Host, commands: dict[str, list[str]]) -> dict[str, str]:
    script = "".join(" ".join(_quote(argument) for argument in argv) + "\n" for argv in commands.values())
    done = ssh.inside(host, ["sh", "-c", RUNNER], stdin=script.encode())
    pieces = done.stdout.decode("utf-8", "surrogateescape").split(SEPARATOR)
    if len(pieces) != 2 * len(commands) + 1:
        raise LabError(
            f"{host.name}: the runner gave {len(pieces)} pieces for {len(commands)} commands: {done.stderr.decode(errors='replace')[-500:]}"
        )
    outputs = dict(zip(commands, pieces[0::2]))
    for name, code in zip(commands, pieces[1::2]):
        outputs[name + "!"] = code
    return outputs


def commands() -> dict[str, list[str]]:
    asked: dict[str, list[str]] = {
        "units": units.SHOW,
        "unit-files": units.LIST_FILES,
        "dpkg": packages.DPKG,
        "diversions": packages.DIVERSIONS,
        "overrides": packages.OVERRIDES,
        "alternatives": packages.ALTERNATIVES,
        "audit": packages.AUDIT,
        "pacman-groups": packages.PACMAN_GROUPS,
        "passwd": ["getent", "passwd"],
        "group": ["getent", "group"],
        "links": net.LINKS,
        "nftables": net.NFTABLES,
        "neighbours": net.NEIGHBOURS,
    }
    asked.update({f"mark-{mark}": argv for mark, argv in packages.MARKS.items()})
    asked.update({f"pacman-{reason}": argv for reason, argv in packages.PACMAN.items()})
    asked.update({f"route-{family}": argv for family, argv in net.ROUTES.items()})
    asked.update({f"rule-{family}": argv for family, argv in net.RULES.items()})
    return asked


def runtime(outputs: dict[str, str]) -> State:
    """The answers of the host's own tools as state."""
    found: State = {Key("command", name[:-1]): {"exit code": code} for name, code in outputs.items() if name.endswith("!")}
    found.update(units.parse_show(outputs["units"]))
    found.update(units.parse_files(outputs["unit-files"]))
    found.update(packages.parse_dpkg(outputs["dpkg"]))
    for mark in packages.MARKS:
        found.update(packages.parse_lines(f"apt-{mark}", outputs[f"mark-{mark}"]))
    for reason in packages.PACMAN:
        found.update(packages.parse_pacman(reason, outputs[f"pacman-{reason}"]))
    for kind in ("diversions", "overrides", "alternatives", "audit", "pacman-groups"):
        found.update(packages.parse_lines(kind, outputs[kind]))
    for kind in ("passwd", "group"):
        found.update({Key(kind, line.partition(":")[0]): {"row": line} for line in outputs[kind].splitlines()})
    found.update(net.parse_links(outputs["links"]))
    found.update(net.parse_nft(outputs["nftables"]))
    found.update(net.parse_objects("neighbour", outputs["neighbours"]))
    for family in net.ROUTES:
        found.update(net.parse_objects(f"route-{family}", outputs[f"route-{family}"]))
        found.update(net.parse_objects(f"rule-{family}", outputs[f"rule-{family}"]))
    return found


#: written for each clone when it is made
_IDENTITY = ("/etc/hostname", "/etc/hosts", "/etc/machine-id")


def _from_inside(known: list[mounts.Mount], hashes: Hashes, clone: str) -> tuple[State, dict[Token, bytes]]:
    root = os.stat("/").st_dev
    hashes.of_clone(clone, min((os.stat(path).st_ctime_ns for path in _IDENTITY if os.path.exists(path)), default=0))

    def place(device: int) -> str:
        return "disk" if device == root else ""

    found = tree.Walk(hashes=hashes, place=place, skip=mounts.skipped(known)).run()
    found.update(net.read_sysctls())
    name = os.uname()
    found[Key("hostname", "kernel")] = {
        "name": name.nodename,
        "domain": Path("/proc/sys/kernel/domainname").read_text(encoding="ascii").strip(),
    }
    return found, hashes.fresh


def _sync(points: list[str]) -> None:
    for point in points:
        try:
            descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        except OSError:
            continue
        enter.sync(descriptor)
        os.close(descriptor)


def _init(host: Host) -> int:
    pid = ssh.init_pid(host)
    if pid is None:
        raise LabError(f"{host.name} is not running: `lab start {host.name}`")
    return pid


def _mounts(pid: int) -> list[mounts.Mount]:
    return mounts.parse(Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))


@functools.cache
def _hashes() -> Hashes:
    """Read once per process; a test compares dozens of states."""
    return Hashes(CACHE / "hashes")


def capture_inside(host: Host) -> State:
    """Files, kernel host name and sysctls: read from outside in the host's namespaces, without any program of the host."""
    pid = _init(host)
    known = _mounts(pid)
    disks = [mount.point for mount in known if mount.type in DISK]
    enter.call(pid, lambda: _sync(disks))
    hashes = _hashes()
    state, fresh = enter.call(pid, lambda: _from_inside(known, hashes, f"{host.lab.name}/{host.name}"))
    hashes.learn(fresh)
    return state


def capture(host: Host) -> State:
    """All of it. What is not a file the host's own tools are asked for."""
    state = capture_inside(host)
    state.update(runtime(_ask(host, commands())))
    state.update(mounts.state(_mounts(_init(host))))
    state.update(processes.read(host.cgroup))
    return state
