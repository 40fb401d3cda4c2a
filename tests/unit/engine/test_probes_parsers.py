# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure parts of the probes nftables, swap, modules and sysctl, on recorded output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine.probes import modules, swap
from engine.probes.base import Circumstances
from engine.probes.ruleset import chains_of, emptied, iptables_tables, only_chains, restore_script, skeleton, stateless, tables
from engine.probes.sysctl import Sysctl

FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text()


def test_tables_are_whole_and_in_order() -> None:
    text = fixture("nft/full.txt")
    found = tables(text)
    assert list(found) == ["table inet kept", "table ip nat"]
    assert "".join(found.values()) == text
    assert list(tables(fixture("nft/stateless.txt"))) == list(found)
    assert tables("") == {}


def test_a_warning_belongs_to_its_table_and_braces_in_comments_to_none() -> None:
    first = '# Warning: table ip x is managed by iptables-nft, do not touch!\ntable ip x {\n\tchain c {\n\t\tcomment "}"\n\t}\n}\n'
    second = "table ip y {\n}\n"
    assert tables(first + second) == {"table ip x": first, "table ip y": second}


def test_the_script_removes_what_is_there_and_makes_what_was() -> None:
    now = {"table ip a": "x", "table ip new": "x"}
    script = restore_script({"table ip a": "table ip a {\n}\n", "table ip gone": "table ip gone {\n}\n", "table ip new": ""}, now)
    assert script == "delete table ip a\ndelete table ip new\ntable ip a {\n}\ntable ip gone {\n}\n"


def test_tables_of_iptables() -> None:
    found = iptables_tables(fixture("nft/iptables-save.txt"))
    assert list(found) == ["filter", "nat"]
    assert found["filter"].startswith("*filter\n:INPUT ACCEPT [") and "COMMIT" not in found["filter"]
    assert '--comment "hello \\"x\\" there"' in found["filter"]
    assert "[0:0] -A CUSTOM" in found["filter"]
    assert "-A CUSTOM" in stateless(found["filter"]) and "[0:0]" not in stateless(found["filter"])


def test_what_nft_shows_of_iptables_is_made_in_two_parts() -> None:
    shown = tables(fixture("nft/of-iptables.txt"))
    bare = skeleton(shown["table ip filter"])
    assert chains_of(shown["table ip filter"]) == chains_of(bare) == {"INPUT", "CUSTOM", "FORWARD"}
    assert "policy drop;" in bare and "tcp dport" not in bare
    rules = only_chains(iptables_tables(fixture("nft/iptables-save.txt"))["filter"], chains_of(bare))
    assert [line.split(" ")[0] for line in rules.splitlines() if line.startswith(":")] == [":INPUT", ":FORWARD", ":CUSTOM"]


def test_a_legacy_table_that_was_only_looked_at_is_empty() -> None:
    table = "*filter\n:INPUT DROP [1:2]\n:MINE - [0:0]\n[3:4] -A INPUT -j MINE\n"
    assert emptied(table) == "*filter\n:INPUT ACCEPT [0:0]\n"
    for text in iptables_tables(fixture("nft/legacy-save.txt")).values():
        assert (stateless(text) == stateless(emptied(text))) == ("-A " not in text and " DROP" not in text)


def test_swap_areas() -> None:
    found = swap.parse(fixture("kernel/swaps.txt"))
    assert found == [swap.Area("/dev/vda5", -2), swap.Area("/srv/swap file", 5), swap.Area("/swap (deleted)", -3)]


def test_modules_go_in_an_order_in_which_each_is_free() -> None:
    found = modules.parse(fixture("kernel/modules.txt"))
    assert len(found) == 12
    assert next(one for one in found if one.name == "floppy") == modules.Module("floppy", 0, ())
    assert modules.unloadable(found, {"vxlan", "udp_tunnel", "ip6_udp_tunnel", "nf_tables"}) == ["vxlan", "ip6_udp_tunnel", "udp_tunnel"]
    # nft_compat is in use, and was there before; nf_conntrack is used by one that was there.
    assert modules.unloadable(found, {"nf_tables", "nf_conntrack", "nf_conntrack_netlink"}) == ["nf_conntrack_netlink"]
    assert modules.unloadable(found, set()) == []


@pytest.fixture
def settings(sandbox: Path) -> Path:
    """A /proc/sys of files."""
    values = {
        "net/ipv4/ip_forward": "0",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/eth0.5/rp_filter": "2",
        "net/ipv4/tcp_rmem": "4096\t131072\t6291456",
        "fs/file-nr": "1 0 2",
        "kernel/ns_last_pid": "5",
    }
    for name, value in values.items():
        path = sandbox / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    (sandbox / "sys/net/ipv4/route").mkdir()
    (sandbox / "sys/net/ipv4/route/flush").touch(mode=0o200)
    return sandbox / "sys"


def test_settings_come_back_and_counters_are_none(settings: Path) -> None:
    probe = Sysctl(top=str(settings))
    before = json.loads(json.dumps(probe.capture()))
    assert sorted(before["values"]) == [
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/eth0.5/rp_filter",
        "net/ipv4/ip_forward",
        "net/ipv4/tcp_rmem",
    ]
    for path in settings.rglob("*"):
        if path.is_file():
            path.write_text("7\n")
    assert probe.compare(before, probe.capture())[1].startswith("The setting net.ipv4.conf.eth0/5.rp_filter is '7', and was '2'")
    probe.after_files(before, Circumstances())
    assert probe.compare(before, probe.capture()) == []
    assert (settings / "fs/file-nr").read_text() == "7\n"


def test_a_setting_that_cannot_be_written_is_said(settings: Path) -> None:
    probe = Sysctl(top=str(settings))
    before = probe.capture()
    path = settings / "net/ipv4/ip_forward"
    path.unlink()
    path.symlink_to("/dev/full")
    (settings / "net/ipv4/tcp_rmem").write_text("1\n")
    probe.after_files(before, Circumstances())
    assert probe.compare(before, probe.capture()) == [], "the link is not a setting any more"
    now = {"values": {**before["values"], "net/ipv4/ip_forward": "1"}}
    probe._why["net/ipv4/ip_forward"] = "No space left on device"
    assert probe.compare(before, now) == [
        "The setting net.ipv4.ip_forward is '1', and was '0'; setting it back failed: No space left on device."
    ]


def test_a_setting_that_came_back_with_its_interface_is_the_undos(settings: Path) -> None:
    probe = Sysctl(top=str(settings))
    before = probe.capture()
    left = {"values": {name: value for name, value in before["values"].items() if "eth0" not in name}}
    (settings / "net/ipv4/conf/eth0.5/rp_filter").write_text("0\n")
    (settings / "net/ipv4/ip_forward").write_text("1\n")
    probe.after_files(before, Circumstances(left=left))
    assert (settings / "net/ipv4/conf/eth0.5/rp_filter").read_text() == "2\n"
    assert (settings / "net/ipv4/ip_forward").read_text() == "1\n", "that was somebody else, after the commit"
