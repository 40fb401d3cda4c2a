# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays and their lease: long tasks, lost controllers, hosts that nobody can log in to, planned reboots. See tests/fault/deadman.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from acidlab import registry, ssh

LEASE = 10
LATE = 5  # seconds after the deadline by which the host must be as before
HEAD = f"- hosts: all\n  gather_facts: false\n  vars: {{acid_transaction: {{confirm_timeout: {LEASE}}}}}\n  tasks:\n"
CHANGE = '    - copy: {content: "one\\n", dest: /etc/lease, mode: "0644"}\n    - user: {name: lease, uid: 4712}\n'


def wait_until(found, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.mark.exact
def test_long_tasks_and_idle_hosts_are_no_silence(warm_hosts):
    """Longer than the lease: a task of h1 that h2 waits for, and a pause of the controller."""
    long = f"    - command: sleep {LEASE + 3}\n      when: inventory_hostname == 'h1'\n    - pause: {{seconds: {LEASE + 1}}}\n"
    run = warm_hosts.play(HEAD + CHANGE + long)
    assert (run.rc, run.outcome("h1"), run.outcome("h2")) == (0, "committed", "committed"), run.stdout + run.stderr
    for host in ("h1", "h2"):
        warm_hosts.ssh(host, f"acidctl rollback {warm_hosts.journal(host)[0]['tx']}")


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGKILL, marks=pytest.mark.exact), signal.SIGSTOP])
def test_a_controller_that_is_gone_in_a_long_step(warm_hosts, signum):
    before = {host: warm_hosts.state(host, "before") for host in ("h1", "h2")}
    process = subprocess.Popen(
        warm_hosts.command(HEAD + CHANGE + "    - shell: touch /srv/hold; sleep 300\n"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=warm_hosts.folder,
        env=warm_hosts.environment(callback=True),
    )
    wait_until(lambda: all("hold" in warm_hosts.ssh(host, "ls /srv") for host in before), 60)
    gone = time.time()
    process.send_signal(signum)
    wait_until(lambda: all(warm_hosts.states(host)[0] == "ABORTED" for host in before), 60)
    for host in before:  # lease + 5 s is promised, which tests/fault/deadman.py measures; here two hosts and the suite share a machine
        assert warm_hosts.journal(host)[0]["ended_ns"] / 1e9 < gone + LEASE + 10
    if signum == signal.SIGSTOP:
        process.send_signal(signal.SIGCONT)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 2, output
    for host, state in before.items():
        assert warm_hosts.differences(state, warm_hosts.state(host, "after")) == ""


def test_a_link_that_is_cut_in_the_middle_of_a_step(warm_hosts):
    """Nothing else is wrong: the controller lives and goes on with its heartbeat, and the step with its work."""
    host = registry.find_host(registry.find_lab(warm_hosts.name), "h1")

    def link(way: str) -> None:
        subprocess.run(["ip", "link", "set", host.veth, way], check=True)

    def inside(verb: str) -> dict:
        return json.loads(ssh.inside(host, ["acidctl", verb, "--json"]).stdout)

    before = warm_hosts.state("h1", "before")
    process = subprocess.Popen(
        warm_hosts.command(HEAD + CHANGE + "    - shell: for n in $(seq 600); do echo $n >> /srv/link; sleep 0.5; done\n", "--limit", "h1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=warm_hosts.folder,
        env=warm_hosts.environment(callback=True),
        start_new_session=True,
    )
    try:
        wait_until((host.root / "srv/link").exists, 60)
        link("down")
        time.sleep(0.5)  # a word may have been under way
        deadline = inside("info")["open"]["deadline"]
        wait_until(lambda: inside("info")["open"] is None, LEASE + 20)
        newest = inside("list")["transactions"][0]
        assert newest["state"] == "ABORTED", newest
        late = newest["ended_ns"] / 1e9 - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) - deadline
        assert 0 < late < LATE
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        link("up")
        ssh.forget_connections(host)
    assert warm_hosts.differences(before, warm_hosts.state("h1", "after")) == ""


def test_a_commit_needs_a_login_that_works(warm_hosts):
    """The shared connection still works; a new one would not."""
    before = warm_hosts.state("h1", "before")
    run = warm_hosts.play(HEAD + CHANGE + "    - command: systemctl stop ssh.service ssh.socket\n", "--limit", "h1")
    assert run.rc == 2, run.stdout + run.stderr
    assert run.outcome("h1") == "rolled back", run.stderr
    assert "commit failed" in run.stderr
    assert warm_hosts.differences(before, warm_hosts.state("h1", "after")) == ""


# Enabled and running, running by hand, enabled and stopped by hand.
UNITS = r"""
cd /etc/systemd/system
for name in on hand off; do
    printf '[Service]\nExecStart=/bin/sleep 3001\n[Install]\nWantedBy=multi-user.target\n' > lab-$name.service
done
systemctl daemon-reload
systemctl enable --quiet lab-on lab-off
systemctl start lab-on lab-hand
"""
UNITS_GONE = "systemctl disable --quiet --now lab-on lab-off; systemctl stop lab-hand; rm /etc/systemd/system/lab-*"
ARE_UP = "systemctl is-active lab-on lab-hand lab-off lab-new cron; systemctl is-enabled lab-on cron"
CHANGE_UNITS = r"""
    - systemd_service: {name: "{{ item }}", enabled: false, state: stopped}
      loop: [lab-on, cron]
    - shell: |
        printf '[Service]\nExecStart=/bin/sleep 3003\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/lab-new.service
        systemctl daemon-reload
        systemctl enable --now lab-new
"""


def test_after_a_planned_reboot_what_ran_runs_again(warm_hosts):
    warm_hosts.ssh("h1", UNITS)
    try:
        before, up = warm_hosts.state("h1", "before"), warm_hosts.ssh("h1", ARE_UP, check=False)
        assert up.split() == ["active", "active", "inactive", "inactive", "active", "enabled", "enabled"]
        play = HEAD + CHANGE_UNITS + "    - reboot: {reboot_timeout: 60}\n    - command: 'false'\n"
        run = warm_hosts.play(play, "--limit", "h1")
        text = run.stdout + run.stderr
        assert (run.rc, run.outcome("h1")) == (2, "rolled back"), text
        assert warm_hosts.ssh("h1", ARE_UP, check=False) == up, text
        assert warm_hosts.differences(before, warm_hosts.state("h1", "after"), "--across-boot") == "", text
    finally:
        warm_hosts.ssh("h1", UNITS_GONE, check=False)


@pytest.mark.parametrize("fails", [True, pytest.param(False, marks=pytest.mark.exact)])
def test_a_planned_reboot(warm_hosts, fails):
    before = warm_hosts.state("h1", "before")
    boot = warm_hosts.ssh("h1", "cat /proc/sys/kernel/random/boot_id")
    after = '    - copy: {content: "two\\n", dest: /etc/lease-two, mode: "0644"}\n' + ("    - command: 'false'\n" if fails else "")
    in_memory = "    - shell: mkdir /run/lease && echo x > /run/lease/x\n"
    run = warm_hosts.play(HEAD + CHANGE + in_memory + "    - reboot: {reboot_timeout: 60}\n" + after, "--limit", "h1")
    text = run.stdout + run.stderr
    assert warm_hosts.ssh("h1", "cat /proc/sys/kernel/random/boot_id") != boot
    assert (run.rc, run.outcome("h1")) == ((2, "rolled back") if fails else (0, "committed")), text
    assert run.stdout.count("changed: [h1]") == 5, text
    if not fails:
        assert warm_hosts.ssh("h1", "cat /etc/lease /etc/lease-two") == "one\ntwo\n"
        warm_hosts.ssh("h1", f"acidctl rollback {warm_hosts.journal('h1')[0]['tx']}")
    assert warm_hosts.differences(before, warm_hosts.state("h1", "after"), "--across-boot") == "", text
