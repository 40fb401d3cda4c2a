# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back needs next to nothing: a step breaks what the host command needs, and the host is rolled back at once all the same.

One play of each kind here. For figures: ACID_WAY_BACK_ROUNDS=20 pytest -s tests/host/test_way_back.py
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

ROUNDS = int(os.environ.get("ACID_WAY_BACK_ROUNDS", "1"))

#: Seconds from the start of the step that broke it to the end of the undo. Measured 1 to 3 (docs/benchmarks.md has no other load).
SOON = 5.0

PLAY = """
- hosts: h1
  gather_facts: false
  tasks:
    - ansible.builtin.raw: "echo changed >> /etc/motd; rm /etc/issue.net; echo new > /srv/new"
      become: true
    - ansible.builtin.raw: {breaks}
      become: true
    - ansible.builtin.fail: {{msg: forced}}
"""

QUIET = """
- hosts: h1
  gather_facts: false
  tasks:
    - {ansible.builtin.raw: "true", become: true}
"""

PWUSER = ("-e", "ansible_user=pwuser", "-e", "ansible_become_password=lab-secret")

# What the step runs, and who logs in.
KINDS = {
    "python": ("mv $(dirname $(readlink -f /usr/lib/python3*/os.py)) /usr/lib/gone; rm -r /usr/lib/python3/dist-packages", ()),
    "interpreter": ("rm /usr/bin/python3.*", ()),
    "sqlite3": ("mv /usr/lib/python3.11/sqlite3 /usr/lib/python3.11/sqlite3.gone", ()),
    "sudo": ("chmod 0 /usr/bin/sudo", PWUSER),
    "sudoers": ("chmod 666 /etc/sudoers", PWUSER),
    "path": ("sed -i '1i PATH=/nowhere' /home/pwuser/.bashrc", PWUSER),
    # A step that kills the agent dooms: the next agent has undone it before it is asked, and says so.
    "sudo and agent": ("chmod 0 /usr/bin/sudo; kill -9 $(systemctl show -P MainPID acid-agent)", PWUSER),
    "python as another": ("mv /usr/lib/python3.11 /usr/lib/gone", PWUSER),
}

TIMES = """
import sqlite3
db = sqlite3.connect("/var/lib/acid/journal.db")
tx, end = db.execute("SELECT id, ended_ns FROM tx ORDER BY token DESC LIMIT 1").fetchone()
start = max(row[0] for row in db.execute("SELECT started_ns FROM step WHERE tx = ?", (tx,)))
print((end - start) / 1e9)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_can_run_nothing_more_is_rolled_back_at_once(warm_hosts: Any, kind: str) -> None:
    hosts = warm_hosts
    breaks, login = KINDS[kind]
    play = PLAY.format(breaks=json.dumps(breaks))
    for attempt in range(ROUNDS):
        assert hosts.play(QUIET, *login).rc == 0  # the same login, before we look
        before = hosts.state("h1", f"before-{attempt}")
        run = hosts.play(play, *login, ANSIBLE_SSH_ARGS="-o ControlMaster=no")  # each login has the environment of its time
        assert run.rc == 2, run.stdout + run.stderr
        assert run.outcome("h1") == "rolled back", run.stderr
        seconds = float(hosts.ssh("h1", f"python3 -c '{TIMES}'"))
        print(f"{kind}: {seconds:.2f} s")
        assert hosts.differences(before, hosts.state("h1", f"after-{attempt}")) == ""
        assert seconds < SOON
        assert "its agent was asked by a file" in run.recap, "nothing was broken"
