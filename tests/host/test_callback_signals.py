# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C and SIGTERM of ansible-playbook at random moments: every host is exactly as it was, whatever was going on."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - copy: {content: "one\\n", dest: /etc/signal-one, mode: "0644"}
    - lineinfile: {path: /etc/services, line: "signal 4711/tcp"}
    - user: {name: signal, uid: 4711}
    - shell: mkdir -p /srv/signal && for n in $(seq 300); do echo $n > /srv/signal/$n; done
    - apt: {name: acid-svc, state: present}
    - file: {path: /srv/signal, state: absent}
    - command: sleep 20
"""
LONGEST = 20.0  # seconds; by then every task but the last has run
SEED = 20261120


def stop_at(hosts, moment: float, signum: int) -> tuple[int, str]:
    process = subprocess.Popen(
        hosts.command(PLAY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=hosts.folder,
        env=hosts.environment(callback=True),
    )
    time.sleep(moment)
    process.send_signal(signum)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def sweep(hosts, signum: int, rounds: int) -> None:
    moments = random.Random(SEED + signum)
    before = {host: hosts.state(host, "before") for host in ("h1", "h2")}
    for number in range(rounds):
        moment = moments.uniform(1.5, LONGEST)
        rc, output = stop_at(hosts, moment, signum)
        where = f"round {number}, {signal.Signals(signum).name} after {moment:.2f} s, seed {SEED}:\n{output}"
        assert rc == (99 if signum == signal.SIGINT else -signum), where
        for host, state in before.items():
            assert hosts.states(host)[0] in ("ABORTED", "COMMITTED"), where
            found = hosts.differences(state, hosts.state(host, f"after-{number}"))
            assert found == "", f"{where}\n{host}:\n{found}"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_a_few_moments(warm_hosts, signum):
    sweep(warm_hosts, signum, 2)


@pytest.mark.exact
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_twenty_moments(warm_hosts, signum):
    sweep(warm_hosts, signum, 20)
