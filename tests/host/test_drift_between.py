# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Somebody changes between two steps what both of them change: the present does not show it, and it is named all the same (I5)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from drifting import admin, begun, drift, only, stopped
from fixtures import rig, rigs  # noqa: F401
from rig import Rig

APPENDED = "echo step >> one"
REPLACED = "cp one new; echo step >> new; mv new one"


def between(rig: Rig, script: str) -> None:
    """What is done within a tick of a step's begin may be the step's."""
    admin(rig, script + "; sleep 0.2")


def theirs(rig: Rig, summary: dict, path: str) -> str:
    told = [one for kind in ("left", "kept_aside") for one in summary["drift"].get(kind, ()) if one["path"].endswith(path)]
    return rig.run("cat", told[0]["theirs_kept"]).out


@pytest.mark.parametrize("first", [APPENDED, REPLACED])
@pytest.mark.parametrize("second", [APPENDED, REPLACED, "echo nothing of it > one"])
@pytest.mark.parametrize("he", ["echo admin >> one", "sed -i '$aadmin' one"])
def test_a_file_that_two_steps_change(rig: Rig, first: str, second: str, he: str) -> None:
    before = begun(rig, first)
    between(rig, he)
    rig.step(second)
    summary = stopped(rig)
    assert drift(summary, "left") == ["one"]
    assert "by somebody else between two steps" in summary["differs"][0]
    assert theirs(rig, summary, "/one") == "one\nstep\nadmin\n"
    only(before, rig.look(), {"one"})
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED", summary
    after = rig.look()
    only(before, after, {"one"})  # what he did to the directory by a rename keeps its time
    assert after["one"] == before["one"]


def test_by_force_his_version_is_kept(rig: Rig) -> None:
    before = begun(rig, APPENDED, on_drift="force")
    between(rig, "echo admin >> one")
    rig.step("echo nothing of it > one")
    summary = rig.rollback(exact=False)
    assert summary["state"] == "ABORTED"
    assert theirs(rig, summary, "/one") == "one\nstep\nadmin\n"
    assert rig.changed(before) == []


def test_his_mode_his_removal_and_what_he_put_there(rig: Rig) -> None:
    """What he has removed stays so: nothing of the transaction's is left there."""
    before = begun(rig, "echo step >> one; echo step >> two; rm d/three; mkdir born; echo > born/f; echo > stays")
    between(rig, "chmod 640 one; rm two; echo admin > d/three; echo admin >> born/f; echo admin > untouched")
    rig.step("echo again >> one; echo again >> two; echo again > d/three; echo again > born/f; echo again >> stays; rm untouched")
    summary = stopped(rig)
    assert {"one", "d/three", "born/f"} <= set(drift(summary, "left"))
    after = rig.look()
    assert "born/f" in after
    assert "two" not in after
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED", summary
    only(before, rig.look(), {"untouched", "two"})


def test_what_only_steps_have_changed_is_nobody_elses(rig: Rig) -> None:
    """Each touched by each of three steps, in all ways, with what one of them leaves running."""
    change = "echo s >> one; sed -i s/o/0/ two; chmod 600 big; mv d e; mv e d; ln big big2; rm big2"
    change += "; mkdir -p n; echo > n/f; rm -f gone; touch gone"
    before = begun(rig, change, change, change)
    rig.step("(sleep 1; echo late >> two) & echo s >> one")
    rig.step("sleep 1.5; " + change)
    summary = rig.rollback()
    assert "drift" not in summary
    assert rig.changed(before) == []


def test_users_between_two_user_tasks(rig: Rig) -> None:
    """By row, whatever the policy: his user stays, and both of the play's go."""
    before = rig.run("getent", "passwd").out
    begun(rig, "useradd -M play1", prepare="true")
    between(rig, "useradd -M adminuser")
    rig.step("useradd -M play2")
    summary = rig.rollback(exact=False)
    assert summary["state"] == "ABORTED", summary
    after = rig.run("getent", "passwd").out
    assert [line.split(":")[0] for line in after.splitlines() if line not in before.splitlines()] == ["adminuser"]
    assert rig.sh("getent group; getent shadow").out.count("adminuser") == 2
    rig.sh("userdel adminuser")


def test_lines_between_two_steps_are_merged(rig: Rig) -> None:
    begun(rig, "echo '192.0.2.1 play1' >> /etc/hosts", prepare="true", on_drift="merge")
    between(rig, "echo '192.0.2.2 admin' >> /etc/hosts")
    rig.step("echo '192.0.2.3 play2' >> /etc/hosts")
    summary = rig.rollback(exact=False)
    assert summary["state"] == "ABORTED", summary
    found = rig.run("cat", "/etc/hosts").out
    assert "192.0.2.2 admin" in found
    assert "play" not in found
    rig.sh("sed -i /192.0.2/d /etc/hosts")
