# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of run-time state on a real host: begin, the steps, rollback, and the oracle finds no difference.

One host for all: what a rollback leaves is what the next one starts from. `make test` runs a few, `make exact` all of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from acidlab.oracle.compare import compare

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from probe_scenarios import PREPARED, SCENARIOS, Scenario
from probehost import Host, encoded, lab

QUICK = (
    "nft: a table is replaced by a file",
    "ip: a link is deleted",
    "etc: a step and a daemon on the same files",
    "etc: a service registers an alternative when it starts",
    "everything at once",
)


class World:
    """The host, and what it looked like at last."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.last = host.state()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    lab("down")
    lab("up", "1")
    host = Host("h1")
    host.sh(PREPARED)
    host.install()
    yield World(host)
    lab("down")


def test_there_are_enough_and_each_has_a_name() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) >= 25
    assert set(QUICK) <= {scenario.name for scenario in SCENARIOS}
    groups = {scenario.name.partition(":")[0] for scenario in SCENARIOS}
    assert {"mount", "nft", "ip", "sysctl", "hostname", "time zone", "locale", "etc", "own"} <= groups


def exact(world: World, scenario: Scenario, *, control: bool) -> None:
    host, before = world.host, world.last
    host.begin(**({"probes": scenario.probes} if scenario.probes else {}))
    for script in scenario.steps:
        host.step(script)
    if control:
        assert compare(before, host.state()) != [], "it changes nothing, so that its undo shows nothing"
    summary = host.rollback()
    world.last = host.state()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    assert [str(found) for found in compare(before, world.last)] == []


@pytest.mark.parametrize("name", QUICK)
def test_a_few(world: World, name: str) -> None:
    exact(world, next(scenario for scenario in SCENARIOS if scenario.name == name), control=False)


@pytest.mark.exact
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_all(world: World, scenario: Scenario) -> None:
    exact(world, scenario, control=True)


KILLED = """
for moment in {moments}; do
    timeout -s KILL $moment acidctl rollback --json {tx} > /dev/null
    pkill -KILL -f '[a]cidctl agent'
    sleep 0.3
done
"""


def test_a_rollback_that_dies_again_and_again(world: World) -> None:
    host, before = world.host, world.last
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "everything at once")
    host.begin()
    for script in scenario.steps:
        host.step(script)
    host.sh(KILLED.format(moments="0.2 0.5 0.9 1.4", tx=host.tx), check=False)
    summary = host.rollback()
    world.last = host.state()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    assert [str(found) for found in compare(before, world.last)] == []


def test_after_the_commit_what_came_later_stays(world: World) -> None:
    host, before = world.host, world.last
    host.begin()
    host.step("ip addr add 10.99.0.9/24 dev dum0; ip route add 10.40.0.0/16 via 10.99.0.9; sysctl -qw net.ipv4.tcp_keepalive_time=60")
    host.step("nft add table ip ours; nft flush chain inet kept input; ip rule add from 10.99.0.9 table 40 priority 40; ip link del br0")
    host.step("ask 'echo ours > /etc/lab.d/a; echo ours > /etc/lab.d/ours'")
    assert host.commit()["state"] == "COMMITTED"
    later = (
        "ip addr add 10.99.0.10/24 dev dum0; ip route add 10.41.0.0/16 via 10.99.0.10; nft add table ip later;"
        "nft add rule inet kept side udp dport 1 drop; ip rule add from 10.99.0.10 table 41 priority 41; echo later > /etc/lab.d/later"
    )
    host.sh(later)
    summary = host.rollback()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    host.sh(
        "ip route del 10.41.0.0/16; ip addr del 10.99.0.10/24 dev dum0; nft delete table ip later; ip rule del priority 41;"
        "rm /etc/lab.d/later"
    )
    side = host.sh("nft list chain inet kept side")
    assert "udp dport 1 drop" in side, "somebody else's rule, though not in a chain that the transaction had changed"
    host.sh("nft delete rule inet kept side handle $(nft -a list chain inet kept side | sed -n 's/.*udp dport 1 drop # handle //p')")
    world.last = host.state()
    left = [str(found) for found in compare(before, world.last)]
    # The table was the transaction's and somebody else's: it is left as a whole, and named.
    assert all("table inet kept" in found or "/etc/lab.d" in found for found in left), left
    host.sh("nft delete table inet kept")


def test_a_savepoint_has_its_own_images(world: World) -> None:
    host = world.host
    host.begin()
    host.step("ip addr add 10.99.0.20/24 dev dum0; nft add table ip first")
    host.sh(f"acidctl savepoint --json --request {encoded({'tx': host.tx, 'token': host.token, 'name': 'here'})}")
    between = host.state()
    host.step("ip addr del 10.99.0.20/24 dev dum0; ip addr add 10.99.0.21/24 dev dum0; nft delete table ip first")
    host.sh(f"acidctl rollback --json --request {encoded({'tx': host.tx, 'token': host.token, 'to': 'here'})}")
    assert [str(found) for found in compare(between, host.state())] == []
    assert host.rollback()["state"] == "ABORTED"
    world.last = host.state()


def test_what_nobody_asked_a_daemon_for_is_left_and_named(world: World) -> None:
    """An admin edits while a step runs that talks to nobody."""
    host = world.host
    host.begin()
    host.step("sleep 3 & (echo start > /run/lab-started); wait")
    host.sh("echo admin > /etc/lab.d/admin")
    summary = host.rollback()
    assert summary["state"] == "ABORTED"
    assert host.sh("cat /etc/lab.d/admin") == "admin\n"
    assert any("/etc/lab.d/admin" in note for note in json.loads(host.sh(f"acidctl show --json {host.tx}"))["told"])
    host.sh("rm /etc/lab.d/admin")
    world.last = host.state()


def test_begin_fails_where_a_users_probe_fails(world: World) -> None:
    wish = {"name": "x", "owner": "x", "options": {"probes": [{"name": "app", "capture": "false", "restore": "true"}]}}
    answer = json.loads(world.host.sh(f"acidctl begin --json --request {encoded(wish)}", check=False))
    assert answer["error"]["class"] == "probe-failed"
    assert json.loads(world.host.sh("acidctl info --json"))["open"] is None
    wish["options"]["probes"][0]["restore"] = ""
    answer = json.loads(world.host.sh(f"acidctl begin --json --request {encoded(wish)}", check=False))
    assert "needs a restore" in answer["error"]["msg"]


def test_health_says_which_probes_apply(world: World) -> None:
    probes = json.loads(world.host.sh("acidctl health --json"))["probes"]
    assert probes["network"] == probes["nftables"] == probes["etc"] == "applies"
    health = "/usr/bin/python3 -IS /usr/local/lib/acid/current/acidctl health --json"
    probes = json.loads(world.host.sh(f"unshare -m sh -c 'mount -t tmpfs x /usr/sbin; {health}'"))["probes"]
    assert "neither nft" in probes["nftables"]


SWAPS = "awk '/lab-swap/ {print $1, $5}' /proc/swaps | sort"


def test_swap(world: World) -> None:
    """The oracle does not look: all hosts of a machine share its kernel's swap."""
    host = world.host
    make = "truncate -s 0 {0}; chattr -f +C {0} || true; fallocate -l 2M {0}; chmod 600 {0}; mkswap -q {0}\n"
    host.sh("".join(make.format(f"/srv/lab-swap-{name}") for name in ("one", "two", "three")))
    host.sh("swapon -p 7 /srv/lab-swap-one; swapon -p 8 /srv/lab-swap-two")
    try:
        world.last = host.state()
        before = host.sh(SWAPS)
        assert before == "/srv/lab-swap-one 7\n/srv/lab-swap-two 8\n"
        host.begin()
        host.step("swapoff /srv/lab-swap-one; rm /srv/lab-swap-one; swapon /srv/lab-swap-three")
        host.step(
            make.format("/srv/lab-swap-new") + "swapon -p 5 /srv/lab-swap-new; swapoff /srv/lab-swap-two; swapon -p 3 /srv/lab-swap-two"
        )
        assert [line.split()[0][-4:] for line in host.sh(SWAPS).splitlines()] == ["-new", "hree", "-two"]
        summary = host.rollback()
        assert (summary["state"], summary["differs"], summary["irreversible"]) == ("ABORTED", [], [])
        assert host.sh(SWAPS) == before
        assert [str(found) for found in compare(world.last, host.state())] == []
    finally:
        host.sh("awk '/lab-swap/ {print $1}' /proc/swaps | xargs -rn1 swapoff; rm -f /srv/lab-swap-*", check=False)
    world.last = host.state()
