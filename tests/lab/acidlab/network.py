# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridge per lab, network namespace and veth per host. A host gets a new namespace at each boot, as a real kernel would give it."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import CommandFailed
from .model import Host, Lab
from .run import run


def _batch(*lines: str) -> None:
    run(["ip", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines).encode())


def add_bridge(lab: Lab) -> None:
    if Path("/sys/class/net", lab.bridge).exists():
        return
    _batch(f"link add {lab.bridge} type bridge forward_delay 0", f"addr add {lab.gateway}/24 dev {lab.bridge}", f"link set {lab.bridge} up")


def remove_bridge(lab: Lab) -> None:
    for port in Path("/sys/class/net").glob(f"acl{lab.subnet}v*"):
        run(["ip", "link", "del", port.name], check=False)
    if Path("/sys/class/net", lab.bridge).exists():
        run(["ip", "link", "del", lab.bridge])


def attach(host: Host) -> None:
    detach(host)
    run(["ip", "netns", "add", host.netns])
    _batch(f"link add {host.veth} type veth peer name host0 netns {host.netns}", f"link set {host.veth} master {host.lab.bridge} up")
    # dad off: an address that is tentative for a second would make two states of one host differ.
    inside = ["ip", "-n", host.netns, "-batch", "-"]
    run(
        [
            "ip",
            "netns",
            "exec",
            host.netns,
            "sh",
            "-c",
            "cd /proc/sys/net/ipv6/conf/host0; for quiet in accept_dad accept_ra router_solicitations; do echo 0 > $quiet; done",
        ],
        check=False,
    )
    run(
        inside,
        stdin=(
            f"link set lo up\nlink set host0 address 02:ac:1d:{host.lab.subnet:02x}:00:{host.index:02x}\n"
            f"addr add {host.ip}/24 dev host0\nlink set host0 up\nroute add default via {host.lab.gateway}\n"
        ).encode(),
    )


def detach(host: Host) -> None:
    if Path("/sys/class/net", host.veth).exists():
        run(["ip", "link", "del", host.veth], check=False)
    if os.path.lexists(f"/run/netns/{host.netns}"):
        try:
            run(["ip", "netns", "del", host.netns])
        except CommandFailed:
            # A crash between the creation of the name and the mount on it leaves a plain file.
            Path("/run/netns", host.netns).unlink(missing_ok=True)
