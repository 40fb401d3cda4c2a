# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""The agent: killed at any moment, nothing is lost and nothing doubtful is committed; what steps leave running goes on being answered."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from rig import KILL, Rig

TREE = "for n in $(seq 40); do mkdir -p d$n; for m in $(seq 5); do seq $((n * m * 20)) > d$n/$m; done; done; ln d1/1 link; "
TREE += "ln -s d2 sym"
WORK = """for n in $(seq 40); do rm d$n/1; mv d$n/2 d$n/x; echo more >> d$n/3; chmod 600 d$n/4; mkdir d$n/new; echo new > d$n/new/f
          mv d$n e$n; done
          sed -i s/1/2/ link; rm sym"""


def killed_in_a_step(rig: Rig, after: float) -> None:
    """`after` seconds from the step's start on; then the transaction must not be committable, and the host exact."""
    before = rig.look()
    rig.begin()
    rig.step("echo before > first; rm d40/5")
    with rig.killing(after):
        start = time.monotonic()
        rig.step(WORK, good=None, seconds=60)
        assert time.monotonic() - start < 50, "a call hung"
        commit = rig.ctl("commit", tx=rig.tx, token=rig.token, steps=[])
    if commit.code == 0 or rig.state_now() == "COMMITTED":  # the step was faster, and perhaps the agent died before it could say so
        assert rig.sh("[ ! -e sym ] && [ -e e40/new/f ] && echo whole").out == "whole\n", "committed, though the step was torn"
        assert rig.ctl("rollback", tx=rig.tx).json["differs"] == []
    else:
        assert commit.error["class"] in ("doomed", "no-transaction", "wrong-state", "wrong-transaction", "agent-unavailable"), commit
        if commit.error["class"] == "agent-unavailable" and rig.state_now() == "ACTIVE":  # killed between the steps: it goes on
            rig.ctl("rollback", tx=rig.tx)
        rig.wait_for("ABORTED")
    assert rig.changed(before) == []


@pytest.mark.parametrize("after", [0.02, 0.1, 0.3])
def test_killed_in_a_step(rig: Rig, after: float) -> None:
    rig.sh(TREE)
    killed_in_a_step(rig, after)


@pytest.mark.exact
def test_killed_in_a_step_at_20_random_moments(rig: Rig) -> None:
    rig.sh(TREE)
    for _round in range(20):
        after = random.SystemRandom().random() * 0.6
        print(f"after {after:.3f} s")
        killed_in_a_step(rig, after)


def test_killed_between_steps(rig: Rig) -> None:
    """Images are written before the change, so nothing is lost: the transaction goes on."""
    rig.sh(TREE)
    before = rig.look()
    rig.begin()
    rig.step("rm -r d1 d2; echo one > d3/1")
    rig.savepoint("one")
    middle = rig.look()
    rig.sh(f"{KILL}; until acidctl confirm; do sleep 0.1; done")
    done = rig.step("mv d3 d4/; echo two > d5/1", good=None)
    if done.code == 0:
        rig.rollback(to="one")
        assert [line for line in rig.changed(middle) if ": nlink: " not in line] == []
        rig.rollback()
    else:  # it may also have rolled back; never half
        assert done.code == 97, done
        rig.wait_for("ABORTED")
    assert rig.changed(before) == []


def test_what_both_agents_saw_has_the_image_of_the_first(rig: Rig) -> None:
    rig.sh("mkdir d; echo old > d/old")
    before = rig.look()
    rig.begin()
    rig.step("echo 1 > d/new; echo 1 > d/other; mv d/other d/old")
    rig.savepoint("sealed")
    rig.sh(f"{KILL}; until acidctl confirm; do sleep 0.1; done")
    rig.step("echo 2 > d/x; mv d/x d/new; echo 2 > d/y; mv d/y d/old; mkdir e; mv d/old e")
    rig.rollback()
    assert rig.changed(before) == []


def test_an_image_that_no_record_names_goes_with_the_undo(rig: Rig) -> None:
    """What an agent leaves that dies between the two: an inode would have one more name for good."""
    rig.sh("seq 4000 > kept; seq 4000 > removed")
    before = rig.look()
    rig.begin()
    rig.step("rm removed; echo new > new")
    rig.sh(f"ln kept /var/lib/acid/store/{rig.tx}/999; echo copy > /var/lib/acid/store/{rig.tx}/c1000; {KILL}")
    rig.rollback()
    assert rig.changed(before) == []
    assert rig.sh(f"ls /var/lib/acid/store/{rig.tx}").out == ""


def test_killed_in_a_rollback(rig: Rig) -> None:
    """The next agent does it again, from the start; that is no harm."""
    rig.sh(TREE)
    before = rig.look()
    for after in (0.01, 0.05):
        rig.begin()
        rig.step(WORK)
        with rig.killing(after):
            rig.ctl("rollback", tx=rig.tx, token=rig.token)
        rig.wait_for("ABORTED")
        assert rig.changed(before) == []


def test_killed_half_way_back_to_a_savepoint(rig: Rig) -> None:
    """Who asked is gone too, and nobody asks again. The next agent finishes it: no step and no commit comes before that, and all of it is
    undone by then."""
    rig.sh("mkdir many; cd many; for n in $(seq 6000); do echo $n > $n; done")
    before = rig.look()
    rig.begin()
    rig.step("echo first > first")
    rig.savepoint("one")
    point = rig.look()
    rig.step("find many -type f -delete")
    rig.savepoint("sealed")
    rig.sh("rm -f /run/killed")
    asks = rig.start(f"exec acidctl rollback {rig.tx} --to one")
    rig.start(f"until [ $(ls -f many | wc -l) -gt 300 ]; do :; done; kill -9 {asks}; {KILL}; ls many | wc -l > /run/killed")
    half = int(rig.sh("until [ -s /run/killed ]; do sleep 0.05; done; cat /run/killed").out)
    assert half < 6000, "the undo was quicker: this shows nothing"
    tried = [rig.run(*rig.argv(["true"])).code]
    while tried[-1] == 97 and len(tried) < 200:
        tried.append(rig.run(*rig.argv(["true"])).code)
    assert tried[-1] == 0, (rig.listed(), tried)
    assert [line for line in rig.changed(point) if ": nlink: " not in line] == [], f"half undone: {half}"
    rig.commit()
    rig.rollback()
    assert rig.changed(before) == []


def test_what_is_left_running_works_after_the_commit(rig: Rig) -> None:
    """Its calls are answered for as long as it lives: after the commit, and by the next agent."""
    rig.begin()
    done = rig.step("(for n in $(seq 600); do echo $n > beat.new && mv beat.new beat; sleep 0.05; done) > /dev/null 2>&1 & echo $!")
    summary = rig.commit()
    assert summary["survivors"], summary

    def beats() -> None:
        first = rig.sh("for n in $(seq 50); do [ -e beat ] && break; sleep 0.1; done; cat beat").out
        rig.sh(f"for n in $(seq 100); do [ \"$(cat beat)\" != '{first.strip()}' ] && exit 0; sleep 0.1; done; exit 1")

    beats()
    rig.sh(KILL)
    beats()
    rig.begin()
    rig.step("echo next > next")
    beats()
    rig.rollback()
    beats()
    rig.sh(f"kill -9 {done.out}")


def test_the_lease(rig: Rig) -> None:
    """Without a word from the controller the host rolls back by itself; a step that runs is a word."""
    rig.sh(TREE)
    before = rig.look()
    rig.begin(confirm_timeout=4)
    rig.step("rm -r d1; sleep 5; echo x > d2/1")
    assert rig.state_now() == "ACTIVE"
    rig.wait_for("ABORTED", 17)
    assert rig.changed(before) == []
    done = rig.run(*rig.argv(["touch", f"{rig.root}/late"]))
    assert done.code == 97
    assert rig.changed(before) == []


def test_the_agent_ends_when_nobody_needs_it(rig: Rig) -> None:
    rig.begin()
    rig.rollback()
    rig.sh("for n in $(seq 100); do systemctl is-active -q acid-agent || exit 0; sleep 0.1; done; exit 1")
    assert rig.sh("systemctl is-failed acid-agent", good=False).out.strip() in ("inactive", "active")


def test_a_timer_that_an_agent_left_at_its_death_goes(rig: Rig) -> None:
    """Killed between a transaction's end and the end of the timer that stands behind it."""
    rig.sh("systemd-run --quiet --collect --unit=acid-agent-lease-1 --on-active=600 true; systemctl start acid-agent")
    rig.sh("for n in $(seq 200); do systemctl is-active -q acid-agent-lease-1.timer || exit 0; sleep 0.1; done; exit 1")


def begins_after_clean_up(rig: Rig, rounds: int, *, crowd: int) -> None:
    """Many transactions end beyond their retention, and 300,000 names lie in the state besides. The agent, idle by now, cleans up, which
    was a walk for each of them with its door closed; then somebody begins."""
    beyond = {"days": 7, "percent": 0}
    rig.sh("mkdir -p /var/lib/acid/store/slow && cd /var/lib/acid/store/slow && seq 300000 | xargs touch", seconds=200)
    try:
        for number in range(rounds):
            for _one in range(crowd):
                rig.begin(retention=beyond)
                rig.step("seq 10 | xargs touch; rm 5")
                rig.commit()
            time.sleep(3)
            done = rig.try_begin(retention=beyond)
            assert done.code == 0, (number, done)
            rig.tx, rig.token = done.json["tx"], done.json["token"]
            rig.commit()
    finally:
        rig.sh("rm -rf /var/lib/acid/store/slow", seconds=200)


def test_who_begins_while_it_cleans_up_is_served(rig: Rig) -> None:
    begins_after_clean_up(rig, 1, crowd=40)


@pytest.mark.exact
def test_100_who_begin_while_it_cleans_up_are_served(rig: Rig) -> None:
    begins_after_clean_up(rig, 100, crowd=10)
