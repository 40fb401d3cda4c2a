# SPDX-License-Identifier: GPL-3.0-or-later
"""Run in a network namespace of its own: `network_worlds.py SEED ROUNDS`. Random changes by `ip`, `nft` and `sysctl`, undone by the probes.

What `ip` and `nft` show afterwards must be what they showed before. One JSON object a round.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins" / "module_utils"))

from engine.probes.base import UNKNOWN
from engine.probes.network import Network
from engine.probes.nftables import Nftables
from engine.probes.sysctl import Sysctl

WORLD = """
link set lo up
link add name e5 type veth peer name e5p
link set e5p up
link set e5 up mtu 1400 txqueuelen 300 alias first
addr add 10.9.0.1/24 dev e5
addr add 10.9.0.2/24 dev e5 label a:2
addr add 10.8.0.1/24 dev e5 metric 50
-6 addr add 2001:db8::1/64 dev e5 nodad
route add 10.50.0.0/16 via 10.9.0.9
route add 10.50.0.0/16 via 10.9.0.8 metric 5
route add blackhole 10.51.0.0/16
route add unreachable 10.55.0.0/16 metric 9
route add 10.52.0.0/16 table 100 via 10.9.0.9 mtu lock 1300 advmss 1000
route add 10.53.0.0/16 nexthop via 10.9.0.7 weight 2 nexthop via 10.8.0.6
route add default via 10.9.0.254 onlink dev e5
-6 route add 2001:db8:2::/48 via 2001:db8::9 metric 300
-6 route add 2001:db8:3::/48 nexthop via 2001:db8::7 nexthop via 2001:db8::8
nexthop add id 3 via 10.9.0.3 dev e5
nexthop add id 4 via 10.9.0.4 dev e5
nexthop add id 5 group 3/4,2
route add 10.54.0.0/16 nhid 5
rule add from 10.9.0.0/24 table 100 priority 500
rule add not fwmark 0x7/0xff lookup 100 priority 501 suppress_prefixlength 0
rule add iif e5 uidrange 100-200 goto 32766 priority 499
-6 rule add to 2001:db8:2::/48 table 100 priority 502
neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev e5 nud permanent
link add name br type bridge stp_state 0 forward_delay 300
link set dev br up
addr add 10.7.0.1/24 dev br
link add name ve type veth peer name vp
link set ve master br
link set ve up
link set vp up
link add link e5 name e5.5 address 02:00:00:00:05:05 type macvlan mode private
link set e5.5 up
link add name vx type vxlan id 5 local 10.9.0.1 remote 10.9.0.40 dstport 4789 ttl 9
link set vx up
"""
RULES = """
table inet t {
    set s { type ipv4_addr; flags timeout; timeout 1h; elements = { 192.0.2.1 }; }
    map m { type ipv4_addr : mark; elements = { 192.0.2.1 : 0x00000007 }; }
    chain i { type filter hook input priority 0; policy accept; ct state established,related accept
        meta mark set ip saddr map @m; jump c; }
    chain c { ip daddr @s counter packets 7 bytes 70 drop; tcp dport { 22, 80-90 } accept; }
}
table bridge b { chain f { type filter hook forward priority -200; policy drop; ether type arp accept; }; }
table netdev n { chain e { type filter hook ingress device "e5" priority 10; policy accept; udp dport 53 drop; }; }
"""
LINKS = ("e5", "e5p", "br", "ve", "vp", "e5.5", "vx")
IP = (
    "link set dev {link} down",
    "link set dev {link} up",
    "link set dev {link} mtu {mtu}",
    "link set dev {link} alias x{n}",
    "link set dev {link} promisc on",
    "link set dev {link} address 02:00:00:00:01:{n}",
    "link set dev {link} txqueuelen {n}",
    "link set dev {link} name new{n}",
    "link set dev {link} nomaster",
    "link set dev {link} master br",
    "link set dev {link} group {n}",
    "link set dev br type bridge stp_state 1 ageing_time 1000",
    "link del {link}",
    "link add name new{n} type ifb",
    "link add link e5 name mv{n} type macvlan mode bridge",
    "link add name nv{n} type veth peer name nvp{n}",
    "addr flush dev {link}",
    "addr add 10.9.0.{n}/24 dev {link}",
    "addr del 10.9.0.1/24 dev e5",
    "addr del 10.9.0.2/24 dev e5",
    "addr add 10.8.0.1/24 dev br",
    "-6 addr add 2001:db8::{n}/64 dev {link} nodad",
    "-6 addr del 2001:db8::1/64 dev e5",
    "route flush table 100",
    "route flush table main",
    "-6 route flush table main",
    "route replace 10.50.0.0/16 via 10.9.0.{n}",
    "route add 10.{n}.0.0/16 via 10.9.0.{n}",
    "route del 10.53.0.0/16",
    "route del default",
    "route change 10.50.0.0/16 via 10.9.0.9 metric 5 mtu 900",
    "-6 route del 2001:db8:3::/48",
    "-6 route append 2001:db8:3::/48 via 2001:db8::{n}",
    "rule flush",
    "rule del priority 500",
    "rule add from 10.{n}.0.0/16 table {n} priority {n}",
    "-6 rule flush",
    "neigh flush all nud permanent",
    "neigh replace 10.9.0.77 lladdr 02:00:00:00:00:{n} dev e5 nud permanent",
    "neigh add 10.9.0.{n} lladdr 02:00:00:00:00:{n} dev e5 nud permanent",
    "nexthop flush",
    "nexthop replace id 3 via 10.9.0.{n} dev e5",
    "nexthop add id {n} blackhole",
)
NFT = (
    "flush ruleset",
    "delete table inet t",
    "flush chain inet t c",
    "add rule inet t c udp dport {n} accept",
    "insert rule bridge b f ether type ip6 accept",
    "add element inet t s {{ 192.0.2.{n} }}",
    "delete element inet t m {{ 192.0.2.1 }}",
    "add table ip x{n}",
    "add chain inet t i {{ policy drop; }}",
    "delete table netdev n",
    "rename chain inet t c d{n}",
)
SYSCTL = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.forwarding=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.a.rp_filter=2",
    "net.ipv6.conf.a.disable_ipv6=1",
    "net.ipv6.conf.br.accept_ra=0",
    "net.ipv4.conf.e5/5.arp_ignore=1",
    "net.ipv4.tcp_rmem=4096 5000 6000",
    "net.ipv4.ping_group_range=0 7",
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv4.neigh.a.gc_stale_time=77",
)
LOOKS = (
    ["ip", "-d", "-o", "addr", "show"],
    ["ip", "-4", "route", "show", "table", "all"],
    ["ip", "-6", "route", "show", "table", "all"],
    ["ip", "-4", "rule"],
    ["ip", "-6", "rule"],
    ["ip", "nexthop"],
    ["ip", "neigh", "show", "nud", "permanent"],
    ["nft", "-s", "list", "ruleset"],
)


def run(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def look() -> list[list[str]]:
    time.sleep(0.05)
    shown = []
    for command in LOOKS:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        lines = [" ".join(word for at, word in enumerate(line.split(" ")) if not _timer(line.split(" "), at)) for line in lines]
        if "ruleset" in command:
            lines = "\n".join(lines).replace("\n}\n", "\n}\0").split("\0")
        # The order of rules is a setting, and that of the first addresses; that of tables and routes is the kernel's own.
        shown.append(lines if "rule" in command else sorted(lines))
    return shown


def _timer(words: list[str], at: int) -> bool:
    return "." in words[at] and any("timer" in word for word in words[max(0, at - 5) : at])


def main() -> None:
    seed, rounds = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)
    for line in WORLD.strip().splitlines():
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    run("sysctl", "-qw", "net.ipv4.conf.a.rp_filter=1", "net.ipv4.conf.br.forwarding=1", "net.ipv6.conf.ve.accept_ra=2")
    time.sleep(2)
    network, sysctl, nftables = probes = (Network(), Sysctl(), Nftables())
    for number in range(rounds):
        before, images = look(), [json.loads(json.dumps(probe.capture())) for probe in probes]
        done = []
        while len(done) < chance.randint(1, 6):
            values = {"link": chance.choice(LINKS), "n": chance.randint(10, 99), "mtu": chance.randint(1280, 1390)}
            tool, what = chance.choice([("ip", IP)] * 3 + [("nft", NFT), ("sysctl", SYSCTL)])
            words = chance.choice(what).format(**values).split() if tool != "sysctl" else ["-qw", chance.choice(what)]
            if run(tool, *words):
                done.append(f"{tool} {' '.join(words)}")
        # In the registry's order.
        for probe in (sysctl, network, sysctl, nftables, network, sysctl, nftables):
            probe.after_files(images[probes.index(probe)], UNKNOWN)
        said = [sentence for probe, image in zip(probes, images) for sentence in probe.compare(image, probe.capture())]
        after = look()
        wrong = [
            [line for line in one if line not in other] + ["->"] + [line for line in other if line not in one]
            for one, other in zip(before, after)
            if one != other
        ]
        print(json.dumps({"round": number, "done": done, "said": said, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
