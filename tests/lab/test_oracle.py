# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle proves itself on real hosts: it finds each of the planted changes and nothing else, and nothing on an idle host."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from acidlab import hosts, lifecycle, registry, ssh
from acidlab.model import FILE_SYSTEMS, Host
from acidlab.oracle.capture import capture, capture_inside
from acidlab.oracle.compare import compare
from acidlab.oracle.model import Difference, State
from acidlab.plants import FILES, PREPARE, SHELL, Plant
from acidlab.plants_system import SYSTEM
from acidlab.run import run

LAB = f"oracletest{os.getpid()}"


def do(host: Host, script: str) -> None:
    done = ssh.inside(host, ["sh", "-c", SHELL + script])
    assert done.returncode == 0, (script, done.stdout, done.stderr)


def told(difference: Difference) -> str:
    what = difference.change if difference.change != "changed" else ", ".join(sorted(difference.fields))
    return f"{difference.key.kind} {difference.key.name}: {what}"


@pytest.fixture(scope="module", params=FILE_SYSTEMS)
def planted(request: pytest.FixtureRequest) -> Iterator[tuple[Host, State, str]]:
    """A host with things to change, its state, and its file system."""
    try:
        host = lifecycle.up(LAB, count=1, fs=request.param, prefix="o", image_name="base")[0]
        do(host, PREPARE + "find /opt/plant -exec touch -h -d 2020-01-01 {} +\n")
        before = capture(host)
        yield host, before, request.param
    finally:
        lifecycle.down(LAB)


def files(state: State) -> State:
    return {key: fields for key, fields in state.items() if key.kind == "path"}


def plant_and_tell(host: Host, plants: Sequence[Plant], before: State, look: Callable[[Host], State]) -> None:
    """Make the changes, compare, undo them; exactly the expected differences, and besides only paths that cannot help changing."""
    for plant in plants:
        do(host, plant.do)
    try:
        found = compare(before, look(host))
    finally:
        for plant in plants:
            do(host, plant.undo)
    architecture = run(["dpkg", "--print-architecture"]).stdout.decode().strip()
    expected = {line.replace(":ARCH:", f":{architecture}:") for plant in plants for line in plant.expect}
    also = "|".join(f"(?:{plant.also})" for plant in plants)
    besides = {told(item) for item in found if item.key.kind == "path" and re.fullmatch(also, item.key.name, re.DOTALL)}
    assert {told(item) for item in found} - besides == expected


def disjoint(plants: Sequence[Plant]) -> list[list[Plant]]:
    """The plants in groups whose members change different paths, so that one look tells all of a group."""
    groups: list[tuple[set[str], list[Plant]]] = []
    for plant in plants:
        names = {line.rpartition(": ")[0] for line in plant.expect}
        group = next((group for group in groups if not group[0] & names), None)
        if group is None:
            group = (set(), [])
            groups.append(group)
        group[0].update(names)
        group[1].append(plant)
    return [members for _names, members in groups]


# One by one where it is cheapest, in groups where only the file system is another.
BATCHES = [*(("btrfs", [plant]) for plant in FILES), *((fs, group) for fs in ("ext4", "xfs") for group in disjoint(FILES))]


@pytest.mark.parametrize(
    ("planted", "plants"),
    BATCHES,
    indirect=["planted"],
    scope="module",
    ids=[f"{fs}-{group[0].name}{f' and {len(group) - 1} more' * (len(group) > 1)}" for fs, group in BATCHES],
)
def test_finds_exactly_the_planted_changes_of_files(planted: tuple[Host, State, str], plants: list[Plant]) -> None:
    host, before, _fs = planted
    plant_and_tell(host, plants, files(before), lambda host: files(capture_inside(host)))


# These do not depend on the file system.
@pytest.mark.parametrize("planted", ["btrfs"], indirect=True)
@pytest.mark.parametrize("plant", SYSTEM, ids=lambda plant: plant.name)
def test_finds_exactly_the_planted_change_of_the_system(planted: tuple[Host, State, str], plant: Plant) -> None:
    host, before, _fs = planted
    plant_and_tell(host, [plant], before, capture)


def test_nothing_is_left_after_all_were_undone(planted: tuple[Host, State, str]) -> None:
    host, before, _fs = planted
    assert [str(difference) for difference in compare(before, capture(host))] == []


# What Ansible does for one module without pipelining.
MODULE = """
    umask 77; set -e; mkdir -p ~/.ansible/tmp; mkdir ~/.ansible/tmp/module; cd ~/.ansible/tmp/module
    echo "import platform, json" > module.py; python3 module.py; cd /; rm -r ~/.ansible/tmp/module
"""


def test_idle_host_does_not_change(planted: tuple[Host, State, str]) -> None:
    host, _before, fs = planted
    users = ("root", "deploy", "pwuser", "plain")
    for user in users:
        run(ssh.argv(host, [MODULE], user=user))
    before = capture(host)
    for number in range(10 if fs == "btrfs" else 2):
        run(ssh.argv(host, [MODULE], user=users[number % 4]))
        run(ssh.argv(host, ["sudo -n python3 -c 'import ssl' && sudo -n -u plain id"], user="deploy"))
        run(ssh.argv(host, ["echo lab-secret | sudo -S id"], user="pwuser"))
        if number % 3 == 2:
            ssh.forget_connections(host)
        assert [str(difference) for difference in compare(before, capture(host))] == []


def test_restored_snapshot_is_the_same_host(planted: tuple[Host, State, str]) -> None:
    host, _before, fs = planted
    if fs != "btrfs":
        hosts.kill(host)
    hosts.snapshot(host, "proof")
    host = lifecycle.wait([hosts.restore(registry.find_host(host.lab, host.name), "proof")])[0]
    before = capture(host)
    do(host, "rm -r /opt/plant/directory; chmod 600 /etc/hosts")
    assert len(compare(before, capture(host))) >= 4
    host = lifecycle.wait([hosts.restore(host, "proof")])[0]
    assert [str(difference) for difference in compare(before, capture(host), across_boot=True)] == []
