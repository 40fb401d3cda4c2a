# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system over which another one of its type was mounted in the play: it is undone where it is, and the other one goes."""

from __future__ import annotations

PLAY = """
- hosts: h1
  gather_facts: false
  tasks:
    - ansible.builtin.shell: "echo changed > /mnt/t/f; rm /mnt/t/g; echo new > /mnt/t/n"
    - ansible.builtin.shell: "mount -t tmpfs -o size=2m none /mnt/t; echo other > /mnt/t/other"
    - ansible.builtin.fail: {msg: forced}
"""


def test_files_under_a_mount_that_the_play_made(warm_hosts):
    hosts = warm_hosts
    hosts.ssh("h1", "mkdir -p /mnt/t; mount -t tmpfs -o size=2m none /mnt/t; echo old > /mnt/t/f; echo old > /mnt/t/g")
    before = hosts.state("h1", "before")
    try:
        done = hosts.play(PLAY)
        assert done.rc == 2, done.stdout + done.stderr
        assert done.outcome("h1") == "rolled back", done.recap
        assert hosts.ssh("h1", "cd /mnt/t; head *; findmnt --noheadings -o TARGET /mnt/t").split() == (
            ["==>", "f", "<==", "old", "==>", "g", "<==", "old", "/mnt/t"]
        )
        assert hosts.differences(before, hosts.state("h1", "after")) == ""
    finally:
        hosts.ssh("h1", "umount /mnt/t; rmdir /mnt/t")
