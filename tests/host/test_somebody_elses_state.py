# SPDX-License-Identifier: GPL-3.0-or-later
"""A person at work in a login of his own while a play runs that fails: what he does to run-time state stays, and what the play does of
the same kinds is undone."""

from __future__ import annotations

import subprocess
import time

PREPARED = r"""
mkdir -p /srv/his /srv/ours /srv/kept
mount -t tmpfs -o size=1m kept /srv/kept
mount -t tmpfs -o size=1m gone /srv/ours
ip link add dum0 type veth peer name dum1; ip link set dum0 up; ip link set dum1 up; sleep 3
cd /etc/systemd/system
for name in stop start ours forgotten; do
    printf '[Service]\nExecStart=/bin/sleep 4001\n[Install]\nWantedBy=multi-user.target\n' > lab-$name.service
done
systemctl daemon-reload
systemctl enable --quiet --now lab-stop lab-ours
systemctl start lab-forgotten
"""

PLAY = """
- hosts: h1
  gather_facts: false
  tasks:
    - shell: umount /srv/ours && mount -t tmpfs -o size=2m ours /srv/ours
    - shell: ip addr add 10.98.0.1/24 dev dum0 && ip route add 10.41.0.0/16 via 10.98.0.2
    - systemd_service: {name: lab-ours, state: stopped}
    - file: {path: /srv/step, state: touch}
    - wait_for: {path: /run/he-is-done, timeout: 60}
      delegate_to: localhost
    - file: {path: /srv/step, state: absent}
    - command: "false"
"""

HIS = r"""
mount -t tmpfs -o size=1m his /srv/his && echo precious > /srv/his/file
mount -o remount,noexec /srv/kept
ip addr add 10.97.0.1/24 dev dum0
ip route add 10.42.0.0/16 via 10.97.0.2
systemctl stop lab-stop lab-forgotten
systemctl start lab-start
systemctl mask --quiet --runtime lab-masked
"""

LOOK = r"""
cat /srv/his/file
findmnt -no SOURCE,OPTIONS /srv/his /srv/kept
findmnt -rno SOURCE,SIZE /srv/ours
ip -br addr show dev dum0 | tr -s ' ' '\n' | grep -v ^fe80
ip route show
systemctl is-active lab-stop lab-forgotten lab-start lab-ours
readlink /run/systemd/system/lab-masked.service
"""


GONE = r"""
umount /srv/his /srv/kept /srv/ours
ip link del dum0
systemctl disable --quiet --now lab-stop lab-ours; systemctl stop lab-start lab-forgotten
rm -f /etc/systemd/system/lab-*.service /run/systemd/system/lab-masked.service
"""


def test_what_a_person_does_meanwhile_stays(warm_hosts):
    warm_hosts.ssh("h1", PREPARED)
    try:
        _meanwhile(warm_hosts)
    finally:
        warm_hosts.ssh("h1", GONE, check=False)


def _meanwhile(hosts):
    done = hosts.folder / "he-is-done"
    command = hosts.command(PLAY.replace("/run/he-is-done", str(done)), "--limit", "h1")
    with subprocess.Popen(
        command, cwd=hosts.folder, env=hosts.environment(callback=True), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as play:
        deadline = time.monotonic() + 120
        while "TASK [wait_for]" not in (line := play.stdout.readline()) and line and time.monotonic() < deadline:
            pass
        time.sleep(3)  # the daemon that a step has asked, and does something a little later, is past
        hosts.ssh("h1", HIS)
        stays = hosts.ssh("h1", LOOK, check=False)
        done.write_text("")
        text = play.stdout.read()
    assert play.returncode == 2, text
    assert "h1 : rolled back" in text, text
    left = hosts.ssh("h1", LOOK, check=False)
    # Of what he saw, what the play had done is undone, and nothing else.
    undone = stays.replace("ours 2M", "gone 1M").replace("10.98.0.1/24\n", "").replace("10.41.0.0/16 via 10.98.0.2 dev dum0 \n", "")
    undone = undone.replace("10.98.0.0/24 dev dum0 proto kernel scope link src 10.98.0.1 \n", "")
    undone = undone.replace("active\ninactive\n/dev/null", "active\nactive\n/dev/null")
    assert undone != stays
    assert left == undone, text
    # That a file came which nobody of the play made is the probe etc's to tell.
    told = [line for line in text.splitlines() if "note:" in line or "drift" in line]
    assert all("lab-masked.service" in line for line in told), text
