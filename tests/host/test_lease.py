# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""The lease: without its controller a host rolls itself back in time, whatever becomes of its agent and its clock; with it, never."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from rig import KILL, Rig

LATE = 5.0  # seconds after the deadline by which the host must be as before


def timers(rig: Rig) -> list[str]:
    return rig.sh("systemctl list-units --all --plain --no-legend 'acid-agent-lease-*.timer' | awk '{print $1}'").out.split()


def timers_become(rig: Rig, count: int) -> None:
    """The agent sets and stops them beside what it answers."""
    end = time.monotonic() + 20
    while len(timers(rig)) != count and time.monotonic() < end:
        time.sleep(0.1)
    assert len(timers(rig)) == count


def rolls_back_in_time(rig: Rig, limit: float = LATE) -> None:
    """By the journal's own times: how long a busy machine takes to look is no part of it. A host's clocks are this machine's."""
    deadline = rig.listed()["deadline"]
    rig.wait_for("ABORTED", 60)
    late = rig.listed()["ended_ns"] / 1e9 - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) - deadline
    assert late > 0, "it did not wait for its lease to end"
    assert late < limit


def test_a_step_without_heartbeat_holds_it_and_one_with_does_not(rig: Rig) -> None:
    before = rig.look()
    rig.begin(confirm_timeout=4, heartbeat=True)
    words = rig.argv(["sh", "-c", f"echo x > {rig.root}/x; sleep 61"])
    rig.start(" ".join(f"'{word}'" for word in words))
    rig.sh("until pgrep -fx 'sleep 61'; do sleep 0.05; done")  # its begin is the last word
    rolls_back_in_time(rig)
    assert rig.changed(before) == []
    assert rig.sh("pgrep -fx 'sleep 61'", good=False).out == "", "the step's process outlived its transaction"


def test_extended_and_cancelled(rig: Rig) -> None:
    rig.begin(confirm_timeout=3)
    assert rig.ctl("confirm", rig.tx, "--extend", "30").json["left"] > 25
    rig.step("true")  # does not cut it short
    time.sleep(4.5)
    assert rig.state_now() == "ACTIVE"
    assert rig.ctl("confirm", rig.tx, "--cancel").json["left"] is None
    rig.step("true")  # does not end it
    rig.savepoint("sealed")  # an agent's death in a step would doom the transaction
    rig.sh(KILL)  # nor does another agent
    time.sleep(6)
    assert rig.state_now() == "ACTIVE"
    rig.step("echo x > x")
    rig.sh("acidctl confirm")
    rig.wait_for("ABORTED", 3 + LATE)


def test_confirm_needs_the_right_transaction(rig: Rig) -> None:
    assert rig.ctl("confirm").error["class"] == "no-transaction"
    rig.begin()
    assert rig.ctl("confirm", "20200101-nobody").error["class"] == "wrong-transaction"
    assert rig.ctl("confirm", tx=rig.tx, token=rig.token - 1).error["class"] == "stale-token"


def test_the_deadline_survives_the_agent(rig: Rig) -> None:
    """An agent that dies again and again must not renew it."""
    before = rig.look()
    rig.begin(confirm_timeout=6)
    rig.step("echo x > x")
    rig.savepoint("sealed")
    start = time.monotonic()
    for _kill in range(3):
        time.sleep(0.8)
        rig.sh(KILL, good=False)
    assert rig.state_now() == "ACTIVE"
    rig.wait_for("ABORTED", 6 + LATE - (time.monotonic() - start))
    assert rig.changed(before) == []


@pytest.mark.parametrize(
    "what", [pytest.param("stopped", marks=pytest.mark.exact), "hung", pytest.param("unstartable", marks=pytest.mark.exact)]
)
def test_the_timer_behind_the_agent(rig: Rig, what: str) -> None:
    before = rig.look()
    timers_become(rig, 0)
    rig.begin(confirm_timeout=5)
    timers_become(rig, 1)
    rig.step("echo x > x; mkdir d; touch d/y")
    if what == "stopped":
        rig.sh("systemctl stop acid-agent")
    elif what == "hung":
        rig.sh(KILL.replace("-9", "-STOP"))
    else:
        rig.sh(
            f"mkdir -p /run/systemd/system/acid-agent.service.d; cd /run/systemd/system/acid-agent.service.d; {KILL.replace('-9', '-STOP')}"
            "; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > broken.conf; systemctl daemon-reload; " + KILL
        )
    try:
        # From 1 s after the deadline on a hung agent is asked twice, for 1.5 s each time, before it is killed: that alone takes 4 s.
        rolls_back_in_time(rig, 8 if what == "hung" else LATE)
    finally:
        rig.sh("rm -rf /run/systemd/system/acid-agent.service.d; systemctl daemon-reload; systemctl reset-failed acid-agent; true")
    assert rig.changed(before) == []


@pytest.mark.exact
def test_the_timer_is_set_anew_and_goes_with_the_transaction(rig: Rig) -> None:
    rig.begin(confirm_timeout=2)
    first = timers(rig)
    for _round in range(5):
        time.sleep(0.9)
        rig.ctl("confirm", tx=rig.tx, token=rig.token)
    assert timers(rig) != first
    assert rig.state_now() == "ACTIVE"
    rig.commit()
    gone = "systemctl list-units --all --plain --no-legend 'acid-agent-lease-*' | grep -q . || exit 0"
    rig.sh(f"for n in $(seq 50); do {gone}; sleep 0.1; done; exit 1")


@pytest.mark.exact
def test_a_client_that_hangs_does_not_hold_the_lease(rig: Rig) -> None:
    rig.begin(confirm_timeout=2)
    hang = (
        "import socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('/run/acid/agent.sock'); time.sleep(15)"
    )
    rig.start(f'python3 -c "{hang}"')
    rolls_back_in_time(rig)


def test_a_late_commit_is_refused(rig: Rig) -> None:
    rig.begin(confirm_timeout=3)
    rig.step("echo x > x")
    tx = rig.tx
    rig.wait_for("ABORTED", 3 + LATE)
    commit = rig.ctl("commit", tx=tx, token=rig.token, steps=[])
    assert commit.error["class"] in ("no-transaction", "wrong-state"), commit
    rig.begin()
    assert rig.ctl("commit", tx=tx, token=rig.token, steps=[]).error["class"] == "wrong-transaction"
    assert rig.state_now() == "ACTIVE"


def test_verify_finds_a_missing_image(rig: Rig) -> None:
    rig.sh("seq 100000 > big; echo x > small; touch gone")
    rig.begin()
    rig.step("echo more >> big; mv small other; rm gone")
    rig.commit()
    assert rig.ctl("verify", rig.tx).json["transactions"] == 1
    store = f"/var/lib/acid/store/{rig.tx}"
    names = rig.sh(f"cd {store}; ls").out.split()
    assert names
    for name in names:
        rig.sh(f"mv {store}/{name} /var/lib/acid/aside")
        assert rig.ctl("verify", rig.tx).error["class"] == "journal-damaged", name
        rig.sh(f"mv /var/lib/acid/aside {store}/{name}")
    assert rig.ctl("verify").code == 0
    rig.ctl("rollback", tx=rig.tx)


def test_a_silent_holder_is_not_robbed_before_its_lease_ends(rig: Rig) -> None:
    rig.begin(confirm_timeout=3)
    rig.step("echo x > x")
    old, token = rig.argv(["touch", f"{rig.root}/late"]), rig.token
    assert rig.try_begin(name="other").error["class"] == "busy"
    rig.wait_for("ABORTED", 3 + LATE)
    rig.begin()
    assert rig.token > token
    assert rig.run(*old).code == 97
    assert rig.sh("ls").out == ""
    rig.rollback()


def test_somebody_elses_apt_is_waited_for(rig: Rig) -> None:
    rig.sh("dpkg --purge acid-dep 2>/dev/null; true")
    before = rig.sh("cat /var/lib/dpkg/status").out
    rig.begin()
    rig.step("dpkg -i /srv/repo/apt/acid-dep_1.0_all.deb")
    take = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'a'); fcntl.lockf(f, fcntl.LOCK_EX); "
    take += "open('/run/held', 'w'); time.sleep(4); open('/run/released', 'w')"
    rig.sh("rm -f /run/held /run/released")
    rig.start(f'python3 -c "{take}"')
    rig.sh("until [ -e /run/held ]; do sleep 0.05; done")
    rig.rollback()
    rig.sh("test -e /run/released")
    assert rig.sh("cat /var/lib/dpkg/status").out == before
    assert rig.sh("dpkg --audit").out == ""
