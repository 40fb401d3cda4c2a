# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transaction leaves on a host: no secret of a play's tasks, and nothing that is not root's alone.

The before-image of a file holds what the file held (SECURITY.md), so the play writes its secret once.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest

LAB = Path(__file__).resolve().parents[1] / "lab" / "lab"

# Where Ansible itself, the engine, and what logs could have kept something. The file that the play writes is elsewhere.
SEARCHED = "/var/lib/acid /.acid-store /run/acid /usr/local/lib/acid /etc /tmp /var/tmp /var/log /root/.ansible /home/pwuser/.ansible"

PLAY = """
- hosts: h1
  gather_facts: false
  become: true
  vars: {canary: "%(canary)s"}
  tasks:
    - name: A file that holds it
      ansible.builtin.copy: {content: "password = {{ canary }}\\n", dest: /root/canary, mode: "0600"}
      no_log: true
    - name: A program that reads it
      ansible.builtin.command: {cmd: cat, stdin: "{{ canary }}"}
      no_log: true
    - name: Waits, so that its processes can be looked at
      ansible.builtin.shell: {cmd: "cat > /dev/null; sleep 2", stdin: "{{ canary }}"}
      no_log: true
      changed_when: true
    - ansible.builtin.command: "%(last)s"
      changed_when: true
"""


OWN_FILE_SYSTEM = """
mkdir -p /srv/own; mount -t tmpfs own /srv/own; echo old > /srv/own/a; mkdir -m 777 /srv/own/d; head -c 9000 /dev/zero > /srv/own/d/b
"""
CARELESS = """
- hosts: h1
  gather_facts: false
  tasks:
    - ansible.builtin.shell: umask 0; rm -r /srv/own/d; echo new > /srv/own/a; echo x > /root/x; chmod 777 /root/x; rm /etc/motd
    - ansible.builtin.command: "true"
"""
# A kept inode is the user's own, with its own mode, in a directory of root's.
OPEN = r"""
find /var/lib/acid /srv/own/.acid-store -type d -perm /077 -printf '%M %p\n'
find /var/lib/acid /srv/own/.acid-store -type f -perm /077 ! -regex '.*/\(store\|\.acid-store\)/[^/]*/[0-9]+' -printf '%M %p\n'
find /var/lib/acid /srv/own/.acid-store -maxdepth 3 ! -user root -printf '%u %p\n'
find /run/acid -perm /077 -printf '%M %p\n'
"""
CURIOUS = "cat /var/lib/acid/journal.db; ls /var/lib/acid; ls /run/acid; acidctl list"


@pytest.mark.parametrize("last", ["false", "true"], ids=["rolled back", "committed"])
def test_no_secret_of_a_play_is_left_or_shown(hosts: Any, last: str) -> None:
    canary = secrets.token_hex(16)
    watch = "for n in $(seq 2000); do cat /proc/[0-9]*/cmdline 2>/dev/null; echo || exit; sleep 0.05; done"  # exit: nobody listens any more
    login = ["-e", "ansible_user=pwuser", "-e", "ansible_become_password=lab-secret"]
    seen = hosts.folder / "seen"  # a pipe that nobody reads meanwhile would hold the first 64 KiB, and then the watch up
    command = [str(LAB), "--lab", hosts.name, "ssh", "h1", watch]
    with seen.open("wb") as out, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out) as watching:
        run = hosts.play(PLAY % {"canary": canary, "last": last}, *login)
        watching.terminate()
    processes = seen.read_bytes()
    assert run.rc == (2 if last == "false" else 0), run.stdout + run.stderr
    assert b"acidctl" in processes, "nothing was seen"
    assert hosts.ssh("h1", "ls /root/canary", check=False).strip() == ("" if last == "false" else "/root/canary")
    for secret in (canary, "lab-secret"):
        assert secret.encode() not in processes
        assert secret not in run.stdout + run.stderr
        search = f"grep -r -a -l -e {secret} {SEARCHED} 2>/dev/null; journalctl -a --no-pager | grep -a -e {secret}"
        found = hosts.ssh("h1", search, check=False)
        assert found == "", found
    hosts.ssh("h1", "rm -f /root/canary*")


def test_all_that_the_engine_keeps_is_roots_alone(hosts: Any) -> None:
    """Also under a login with umask 0, and with a store on a file system of its own."""
    hosts.ssh("h1", OWN_FILE_SYSTEM)
    run = hosts.play(CARELESS)
    assert run.rc == 0, run.stdout + run.stderr
    assert hosts.ssh("h1", "find /srv/own/.acid-store | wc -l").strip() != "0"
    open_ones = hosts.ssh("h1", OPEN, check=False)
    assert open_ones == "", open_ones
    refused = hosts.ssh("h1", f"su deploy -s /bin/sh -c '{CURIOUS}' 2>&1", check=False)
    assert refused.count("ermission denied") >= 3, refused
    assert not re.search(r"\b20\d{6}-[0-9a-f]{8}\b", refused), refused
    hosts.ssh("h1", "umount -l /srv/own; rm -f /root/x", check=False)
