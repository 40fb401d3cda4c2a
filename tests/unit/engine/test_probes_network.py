# SPDX-License-Identifier: GPL-3.0-or-later
"""Links, addresses, routes, rules and the packet filter: recorded messages, and random changes in a network namespace of its own."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from engine.probes.base import Circumstances
from engine.probes.netlink import Message, pack, unpack
from engine.probes.netlinks import Link, changes, creations
from engine.probes.netobjects import ADDRESS, KINDS, NEIGHBOUR, ROUTE, RULE, describe, identity, link_of
from engine.probes.network import Network, _load

FIXTURES = Path(__file__).parent / "fixtures"
WORLDS = Path(__file__).parent / "network_worlds.py"


@pytest.fixture
def recorded() -> dict:
    return json.loads((FIXTURES / "netlink" / "lab.json").read_text())


def test_attributes_go_there_and_back() -> None:
    pairs = ((1, b"abc"), (2, b""), (3, b"\0\0\0\7"))
    assert unpack(pack(pairs)) == pairs
    assert unpack(b"\2\0\1\0") == (), "a length that is too short ends it"
    assert unpack(pack(pairs)[:-2])[:2] == pairs[:2]
    assert Message(b"", pairs).number(3) == int.from_bytes(b"\0\0\0\7", sys.byteorder)
    assert Message(b"", pairs).number(1) == Message(b"", pairs).number(9) == 0


def test_recorded_objects_have_names_for_people(recorded) -> None:
    links = {link.ifindex: link.name for link in (Link(*data) for data in recorded["links"])}
    said = {describe(kind, message, links) for kind in KINDS for message in _load(kind, recorded)}
    assert {
        "address 10.99.0.2/24 on dum0",
        "route default via 10.213.16.1 on host0 in table main",
        "route 10.52.0.0/16 via 10.99.0.9 on dum0 in table 100",
        "route 2001:db8:2::/48 via 2001:db8:1::9 on dum0 in table main",
        "rule 500 to table 100",
        "rule 0 to table local",
        "neighbour 10.99.0.77 on dum0",
    } <= said


def test_an_identity_is_one_of_its_own(recorded) -> None:
    """So that what was read back from the kernel is compared with what was asked of it."""
    for kind in KINDS:
        for message in _load(kind, recorded):
            assert identity(kind, message) == message


def test_what_the_kernel_counts_is_no_setting(recorded) -> None:
    probe = Network()
    later = json.loads(json.dumps(recorded))
    lifetime = [6, "/////w8nAAAAAAAAAAAAAA=="]
    for kind in (ADDRESS, ROUTE):
        for _fixed, attributes in later[kind.name]:
            attributes[:] = [pair for pair in attributes if pair[0] != (6 if kind is ADDRESS else 12)]
            attributes.append(lifetime if kind is ADDRESS else [12, lifetime[1]])
            attributes.reverse()
    assert probe.compare(recorded, later) == []
    gone = json.loads(json.dumps(recorded))
    for kind in (ADDRESS, ROUTE, RULE, NEIGHBOUR):
        gone[kind.name].pop()
    gone["links"].pop()
    assert len(probe.compare(recorded, gone)) == 5
    assert len(probe.compare(gone, recorded)) == 5
    assert probe.compare(recorded, gone, Circumstances(rebooted=True)) == []
    assert probe.compare(recorded, gone, Circumstances(left=recorded)) == [], "it went after the commit"
    assert len(probe.compare(recorded, gone, Circumstances(left=gone))) == 5


def test_a_link_is_made_with_its_own_index(recorded) -> None:
    links = {link.name: link for link in (Link(*data) for data in recorded["links"])}
    messages = list(creations(links["dum0"], links["dum0p"]))
    assert all(int.from_bytes(message.fixed[4:8], sys.byteorder) == links["dum0"].ifindex for message in messages)
    assert len(list(creations(links["dum0.7"], None))) >= 2, "with fewer settings where the kernel does not take all of them"
    assert list(changes(links["br0"], links["br0"])) == []
    assert not links["host0"].removable and links["br0"].removable and not links["lo"].removable


def test_settings_that_are_off_are_left_out_before_others(recorded) -> None:
    """vxlan shows flags that are off and takes none of them; its port can only be given when it is made (found by a random world)."""
    link = Link(*next(data for data in recorded["links"] if data[1] == "br0"))._replace(
        kind="vxlan", data=pack(((1, b"\5"), (7, b"\0"), (15, b"\x12\xb5"))).hex()
    )
    tried = [message.encode() for message in creations(link, None)]
    both = pack(((1, b"\5"), (15, b"\x12\xb5")))
    assert both not in tried[0] and both in tried[1]


def worlds(seed: int, rounds: int) -> list[dict]:
    command = ["unshare", "--net", sys.executable, str(WORLDS), str(seed), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == rounds
    return found


def test_random_changes_come_back() -> None:
    for world in worlds(7, 6):
        assert (world["said"], world["wrong"]) == ([], []), world["done"]


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(100, 108))
def test_many_random_changes_come_back(seed: int) -> None:
    for world in worlds(seed, 50):
        assert (world["said"], world["wrong"]) == ([], []), world["done"]


def test_what_was_on_a_containers_link_went_with_it(recorded) -> None:
    """Its other end was in a namespace of the container's: nobody makes it again, nor the addresses and routes that were on it."""
    away = next(link for link in recorded["links"] if link[1] == "dum0")
    away[Link._fields.index("away")] = True
    gone = json.loads(json.dumps(recorded))
    gone["links"] = [link for link in gone["links"] if link[1] != "dum0"]
    for kind in KINDS:
        on_it = [message for message in _load(kind, recorded) if link_of(kind, message) == away[0]]
        gone[kind.name] = [raw for raw in gone[kind.name] if identity(kind, _raw(raw)) not in on_it]
    assert any(len(gone[kind.name]) < len(recorded[kind.name]) for kind in KINDS), "this shows nothing"
    assert Network().compare(recorded, gone) == []
    away[Link._fields.index("away")] = False
    assert len(Network().compare(recorded, gone)) > 1


def _raw(data: list) -> Message:
    return Message(bytes.fromhex(data[0]), tuple((number, base64.b64decode(value)) for number, value in data[1]))
