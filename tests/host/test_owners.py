# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Whose a log is, and whose the files of others' locks are: an agent that comes up slowly just as its lease ends; a person in vipw."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from rig import KILL, PLACE, Rig

DROP_IN = "/run/systemd/system/acid-agent.service.d"

SLOW = """
import os, sys, time
sys.path.insert(0, os.path.realpath("/usr/local/lib/acid/current"))
from engine import agent, recovery
look = recovery.after_death
def pauses(*arguments, **more):
    found = look(*arguments, **more)
    time.sleep(14)
    return found
recovery.after_death = pauses
sys.exit(agent.main())
"""


def test_an_agent_that_comes_up_slowly_as_the_lease_ends_is_the_only_owner(rig: Rig) -> None:
    """It has looked, and acts later: the timer behind it neither kills it nor undoes beside it."""
    rig.sh("seq 3000 > one; echo two > two")
    before = rig.look()
    rig.begin(confirm_timeout=5)
    rig.step("seq 9 > one; rm two; mkdir d; echo > d/f")
    rig.savepoint("sealed")  # else the step is torn by the death, and undone at once
    rig.write(f"{PLACE}/slow.py", SLOW)
    unit = f"[Service]\\nExecStart=\\nExecStart=/usr/bin/python3 -IS {PLACE}/slow.py\\n"
    try:
        rig.sh(f"mkdir -p {DROP_IN}; printf '{unit}' > {DROP_IN}/slow.conf; systemctl daemon-reload; {KILL}")
        rig.sh("sleep 1; systemctl show -P MainPID acid-agent > /run/first")
        rig.wait_for("ABORTED", 60)
        assert rig.listed()["reason"].startswith("the lease ran out: no word from the controller")
        assert rig.sh("systemctl show -P MainPID acid-agent | cmp - /run/first && echo same").out == "same\n"
    finally:
        rig.sh(f"rm -r {DROP_IN}; systemctl daemon-reload; {KILL}; true")
    assert rig.changed(before) == []


HOLDS = """
import fcntl, os, time
fd = os.open("/etc/.pwd.lock", os.O_WRONLY | os.O_CREAT, 0o600)
fcntl.lockf(fd, fcntl.LOCK_EX)
open("/run/held", "w").close()
time.sleep(300)
"""


def test_accounts_that_a_person_has_locked_are_left_and_named(rig: Rig) -> None:
    """vipw, for as long as it is open: what it writes at its end would go over what was undone meanwhile."""
    rig.sh("cp -a /etc/passwd /etc/shadow /etc/group /etc/gshadow .; echo one > one; rm -f /run/held")
    rig.begin()
    rig.step("useradd -M locked; echo step > one")
    rig.write(f"{PLACE}/holds.py", HOLDS)
    person = rig.start(f"python3 {PLACE}/holds.py")
    rig.sh("until [ -e /run/held ]; do sleep 0.1; done")
    try:
        summary = rig.rollback(exact=False)
        assert summary["state"] == "UNDO_FAILED"
        assert "/etc/.pwd.lock: drift: locked by somebody else since; left as it is" in summary["differs"]
        held = summary["drift"]["held"]
        assert {"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"} <= set(held), held
        assert rig.sh("getent passwd locked | cut -d: -f1; grep -c locked /etc/shadow; cat one").out == "locked\n1\none\n"
    finally:
        rig.sh(f"kill {person}")
    assert rig.rollback()["state"] == "ABORTED"
    rig.sh("for f in passwd shadow group gshadow; do cmp $f /etc/$f; [ $(stat -c %Y $f) = $(stat -c %Y /etc/$f) ]; done")
