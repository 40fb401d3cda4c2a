# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded output of the tools that the oracle asks, as state."""

from __future__ import annotations

import json

from acidlab.oracle import mounts, net, packages, units
from acidlab.oracle.model import Key

MOUNTINFO = """\
101 99 0:31 /labs/m/h1/root / rw,noatime shared:90 master:1 - btrfs /dev/loop0 rw,subvolid=300,subvol=/labs/m/h1/root
102 101 0:31 /labs/m/h1/root/srv/data /mnt/with\\040space rw,noatime shared:90 - btrfs /dev/loop0 rw,subvolid=300,subvol=/labs/m/h1/root
103 101 0:40 / /proc rw,nosuid shared:91 - proc proc rw
104 101 0:41 / /run/user/0 rw - tmpfs tmpfs rw,size=1k
105 101 0:42 / /mnt rw - tmpfs one rw
106 105 0:43 / /mnt ro,nodev - tmpfs two rw
107 101 0:44 / /remote rw - fuse.sshfs a:/ rw
"""

SHOW = """\
Type=simple
ExecStart={ path=/usr/sbin/cron ; argv[]=/usr/sbin/cron -f ; ignore_errors=no ; start_time=[n/a] ; pid=31 ; code=(null) ; status=0/0 }
ExecReload={ path=/a ; argv[]=/a ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
ExecReload={ path=/b ; argv[]=/b ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
Id=cron.service
Wants=b.service acid-agent.service a.service
ActiveState=active
Environment=

Id=never-started.service
ActiveState=inactive

Id=broken.service
ActiveState=failed

Id=session-2.scope
ActiveState=active
"""


def test_mounts_without_ids_and_without_the_labs_own_names() -> None:
    state = mounts.state(mounts.parse(MOUNTINFO))
    assert state[Key("mount", "/#1")] == {
        "root": "/",
        "options": "rw,noatime",
        "propagation": "shared master",
        "type": "btrfs",
        "source": "ROOT",
        "super": "rw,subvolid,subvol",
    }
    assert state[Key("mount", "/mnt/with space#1")]["root"] == "/srv/data"
    assert state[Key("mount", "/mnt#1")]["source"] == "one"
    assert state[Key("mount", "/mnt#2")]["options"] == "ro,nodev"
    assert Key("mount", "/run/user/0#1") not in state


def test_invented_and_remote_file_systems_are_not_walked() -> None:
    assert mounts.skipped(mounts.parse(MOUNTINFO)) == {"/proc", "/remote"}


def test_units() -> None:
    state = units.parse_show(SHOW)
    assert set(state) == {Key("unit", "cron.service"), Key("unit", "broken.service")}
    cron = state[Key("unit", "cron.service")]
    assert cron["Wants"] == "a.service b.service"
    assert "pid=" not in str(cron["ExecStart"])
    assert str(cron["ExecReload"]).count("path=") == 2
    assert "Environment" not in cron


def test_unit_files() -> None:
    output = "cron.service enabled enabled\nacid-recover.service enabled enabled\nrun-x.scope transient -\nold.service masked enabled\n"
    assert units.parse_files(output) == {
        Key("unit-file", "cron.service"): {"state": "enabled"},
        Key("unit-file", "old.service"): {"state": "masked"},
    }


def test_packages() -> None:
    state = packages.parse_dpkg("cron:amd64\t3.0\thold\tinstalled\tok\n")
    assert state == {Key("dpkg", "cron:amd64"): {"version": "3.0", "want": "hold", "status": "installed", "error": "ok"}}
    assert packages.parse_pacman("explicit", "pac-base 1.0-1\n") == {Key("pacman", "pac-base"): {"version": "1.0-1", "reason": "explicit"}}
    assert packages.parse_lines("apt-hold", "cron\n\n") == {Key("apt-hold", "cron"): {}}


def test_addresses_do_not_age() -> None:
    def link(life: int) -> str:
        return json.dumps(
            [
                {
                    "ifname": "host0",
                    "mtu": 1500,
                    "flags": ["UP"],
                    "stats": {"rx": life},
                    "addr_info": [{"family": "inet", "local": "10.0.0.2", "prefixlen": 24, "valid_life_time": life}],
                }
            ]
        )

    assert net.parse_links(link(10)) == net.parse_links(link(9))
    assert Key("address", "host0 10.0.0.2/24") in net.parse_links(link(9))


def test_routes_are_their_own_names() -> None:
    route = {"dst": "default", "gateway": "10.0.0.1", "dev": "host0", "expires": 7}
    assert net.parse_objects("route", json.dumps([route, {}])) == net.parse_objects("route", json.dumps([{**route, "expires": 6}]))
    assert net.parse_objects("route", "") == {}


def test_nftables_by_table() -> None:
    ruleset = "table inet a {\n\tchain c {\n\t\ttcp dport 1 drop\n\t}\n}\ntable ip b {\n}\n"
    state = net.parse_nft(ruleset)
    assert set(state) == {Key("nftables", "table inet a"), Key("nftables", "table ip b")}
    assert "drop" in str(state[Key("nftables", "table inet a")]["rules"])
    assert net.parse_nft("") == {}
