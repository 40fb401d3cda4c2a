# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture's name is a test's argument)
"""A rollback that is refused ends nothing and nobody, and a file system that is read-only by now keeps a transaction from nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from rig import Rig

DAEMON = "(setsid sleep 7001 &) > /dev/null 2>&1"


def lives(rig: Rig, program: str) -> bool:
    return rig.sh(f"pgrep -fx '{program}'", good=False).code == 0


@pytest.fixture
def daemon(rig: Rig) -> Iterator[Rig]:
    """A committed transaction has left a daemon running."""
    rig.sh("echo one > one")
    rig.begin()
    rig.step(f"echo two > one; {DAEMON}")
    rig.commit()
    assert lives(rig, "sleep 7001")
    yield rig
    rig.sh("pkill -fx 'sleep 700[12]'", good=False)


def refused(rig: Rig, tx: str, kind: str) -> None:
    assert rig.ctl("rollback", tx).error["class"] == kind
    assert lives(rig, "sleep 7001"), "what a committed transaction left running was killed for an undo that did not come"


def test_for_a_later_one_that_overlaps(daemon: Rig) -> None:
    first = daemon.tx
    daemon.begin()
    daemon.step("echo three > one")
    daemon.commit()
    refused(daemon, first, "wrong-state")
    assert daemon.sh("cat one").out == "three\n"
    daemon.rollback()
    assert daemon.ctl("rollback", first).json["state"] == "ABORTED"
    assert not lives(daemon, "sleep 7001")
    assert daemon.sh("cat one").out == "one\n"


def test_for_one_that_is_open_and_whose_step_runs_on(daemon: Rig) -> None:
    first = daemon.tx
    daemon.begin()
    words = " ".join(f"'{word}'" for word in daemon.argv(["sh", "-c", f"echo x > {daemon.root}/x; sleep 7002"]))
    daemon.start(words)
    daemon.sh("until pgrep -fx 'sleep 7002'; do sleep 0.05; done")
    refused(daemon, first, "busy")
    for wrong in (first[:8], daemon.tx[:8], daemon.tx[:-1], "20200101-00000000"):
        refused(daemon, wrong, "wrong-transaction")
    assert lives(daemon, "sleep 7002")
    assert daemon.state_now() == "ACTIVE"
    assert daemon.sh("cat one x").out == "two\nx\n"
    daemon.rollback()
    assert not lives(daemon, "sleep 7002")
    assert lives(daemon, "sleep 7001")


def test_for_images_that_are_gone(daemon: Rig) -> None:
    assert daemon.ctl("gc", "--days", "0").code == 0
    refused(daemon, daemon.tx, "wrong-state")
    assert daemon.state_now() == "COMMITTED"


# What is read-only by now


@pytest.fixture
def disk(rig: Rig) -> Iterator[Rig]:
    """A file system of its own at `disk`. In memory it has no reserve: tests/unit/engine/test_retention.py has one that has."""
    rig.sh("mkdir disk; mount -t tmpfs -o size=64m none disk; echo one > disk/one; seq 100000 > disk/gone")
    yield rig
    rig.sh("umount disk")


CHANGE = "echo two > disk/one; rm disk/gone; mount -o remount,ro disk"


def test_a_commit_with_what_is_read_only_by_now(disk: Rig) -> None:
    rig = disk
    rig.begin()
    rig.step(CHANGE)
    assert rig.commit()["state"] == "COMMITTED"
    rig.sh(f"ls disk/.acid-store/{rig.tx}")
    for _again in range(2):
        done = rig.ctl("gc", "--days", "0")
        assert done.code == 0, done
        assert rig.tx not in done.json["dropped"]
    rig.sh(f"ls -d disk/.acid-store/{rig.tx} /var/lib/acid/tx/{rig.tx}; mount -o remount,rw disk")
    assert rig.tx in rig.ctl("gc", "--days", "0").json["dropped"]
    assert rig.sh(f"ls -A disk; ls -d /var/lib/acid/tx/{rig.tx}", good=False).out == "one\n"


@pytest.mark.parametrize("committed", [False, True])
def test_an_undo_of_what_is_read_only_by_now(disk: Rig, committed: bool) -> None:
    """The mount is put back as it was before its files are."""
    rig = disk
    before = rig.look()
    rig.begin(probes=["hostname", "mounts"])
    rig.step(CHANGE)
    if committed:
        rig.commit()
    rig.rollback()
    assert rig.changed(before) == []
    rig.sh("touch disk/one")
