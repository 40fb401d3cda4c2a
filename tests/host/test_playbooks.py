# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's own playbooks and its role, one life of a host from the first contact to the last."""

from __future__ import annotations

import re
import subprocess

GUARD = """
- hosts: h2
  gather_facts: false
  vars: {acid_transaction: false}
  roles: [acid.host.guard]
"""
KEPT = """
- hosts: h2
  gather_facts: false
  tasks:
    - copy: {content: "x\\n", dest: /etc/kept, mode: "0644"}
"""


def playbook(hosts, name: str, *extra: str) -> str:
    command = hosts.command("- hosts: localhost\n")
    words = [command[0], *command[1:3], f"acid.host.{name}", "-e", "acid_hosts=h2", *extra]
    environment = hosts.environment(callback=True)
    done = subprocess.run(words, capture_output=True, text=True, cwd=hosts.folder, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TRANSACTIONS" not in done.stderr  # they hold none themselves
    return done.stdout


def test_from_guard_to_uninstall(hosts):
    hosts.lab("fresh", "h2")
    assert "no engine on this host" in playbook(hosts, "status")

    guarded = hosts.play(GUARD)
    assert guarded.rc == 0, guarded.stdout
    assert hosts.states("h2") == ["ABORTED"]

    assert hosts.play(KEPT).outcome("h2") == "committed"
    assert "COMMITTED" in playbook(hosts, "status")
    tx = re.search(r"([0-9a-f-]{17,})  COMMITTED", playbook(hosts, "history")).group(1)
    assert "/etc/kept" in playbook(hosts, "history", "-e", f"tx={tx}")
    anywhere = playbook(hosts, "status", "-e", f"tx={tx}", "-e", "acid_hosts=all")  # h1 has not had it
    assert f"Transaction {tx}  COMMITTED" in anywhere
    assert anywhere.count(f"Transaction {tx}") == 1
    assert "/etc/kept" not in anywhere
    assert "this host knows no transaction 20200101-nobody" in playbook(hosts, "status", "-e", "tx=20200101-nobody")
    assert "changed=0" in playbook(hosts, "recover")

    assert "changed=1" in playbook(hosts, "rollback", "-e", f"tx={tx}")
    assert hosts.ssh("h2", "ls /etc/kept 2>&1", check=False).startswith("ls: cannot access")
    assert "changed=0" in playbook(hosts, "rollback", "-e", f"tx={tx}")
    assert f"Transaction {tx}  ABORTED" in playbook(hosts, "status", "-e", f"tx={tx}")

    playbook(hosts, "uninstall")
    left = hosts.ssh(
        "h2",
        "ls -d /usr/local/lib/acid* /usr/local/sbin/acid* /var/lib/acid* /run/acid* /etc/systemd/system/*acid* 2>/dev/null",
        check=False,
    )
    assert left == ""
