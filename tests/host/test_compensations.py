# SPDX-License-Identifier: GPL-3.0-or-later
"""Compensations and savepoints in real plays: rescue and go on, a controller that dies, debts, recover."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

PLAY = """
- hosts: h1
  gather_facts: false
  vars:
    acid_transaction: {{confirm_timeout: 10, probes: [hostname]}}
    tell: "{log}"
  tasks:
{tasks}
"""

# c1: the host itself can; c2: only a controller
BOTH_KINDS = """
    - copy: {content: "1\\n", dest: /etc/first, mode: "0644"}
      vars: {acid_compensate: {shell: "echo c1-{{ acid_result is failed }}-$(ls /etc/first) >> /root/compensated"}}
    - command: echo two
      vars: {acid_compensate: {shell: "echo c2-{{ acid_result.stdout }} >> {{ tell }}", delegate_to: localhost}}
    - copy: {content: "3\\n", dest: /etc/third, mode: "0644"}
      vars: {acid_compensate: {shell: "echo c3-$(cat /etc/third) >> /root/compensated"}}
"""


def play(hosts, tasks: str) -> str:
    hosts.ssh("h1", "rm -f /root/compensated")
    return PLAY.format(tasks=tasks, log=hosts.folder / "told")


def told(hosts) -> tuple[str, str]:
    """(on the host, on the controller)"""
    log = hosts.folder / "told"
    return hosts.ssh("h1", "cat /root/compensated 2>/dev/null; true"), log.read_text() if log.exists() else ""


def start(hosts, text: str) -> subprocess.Popen[str]:
    environment = hosts.environment(callback=True)
    return subprocess.Popen(
        hosts.command(text),
        cwd=hosts.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def playbook(hosts, name: str, *extra: str) -> list[str]:
    inventory = hosts.command("- hosts: localhost\n")[:3]
    return [*inventory, f"acid.host.{name}", "-e", "acid_hosts=h1", *extra]


def run(hosts, name: str, *extra: str) -> str:
    done = subprocess.run(
        playbook(hosts, name, *extra), capture_output=True, text=True, cwd=hosts.folder, env=hosts.environment(callback=True), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill(process: subprocess.Popen[str]) -> None:
    """The controller and its workers, which are in sessions of their own."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False).stdout.split()
    for pid in [str(process.pid), *children]:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def wait_for(true, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.3)
    pytest.fail("it did not happen in time")


def test_a_failed_play_is_compensated_in_reverse(warm_hosts):
    hosts = warm_hosts
    before = hosts.state("h1", "before")
    ran = hosts.play(play(hosts, BOTH_KINDS + "    - command: 'false'\n"))
    assert ran.outcome("h1") == "rolled back", ran.stdout + ran.stderr
    assert "compensated: copy, command, copy" in ran.recap
    assert told(hosts) == ("c3-3\nc1-False-/etc/first\n", "c2-two\n")
    hosts.ssh("h1", "rm /root/compensated")
    assert hosts.differences(before, hosts.state("h1", "after"), "--outside", "/root") == ""


@pytest.mark.exact
@pytest.mark.parametrize("login", ["deploy", "pwuser"])
def test_a_login_that_is_not_root(warm_hosts, login):
    """What is stored goes to the host by stdin, behind sudo and its password."""
    hosts = warm_hosts
    variables = ["-e", f"ansible_user={login}", "-e", "ansible_become=true", "-e", "ansible_become_password=lab-secret"]
    plain = BOTH_KINDS.replace("delegate_to: localhost", "delegate_to: localhost, vars: {ansible_become: false}")
    ran = hosts.play(play(hosts, plain + "    - command: 'false'\n"), *variables)
    assert ran.outcome("h1") == "rolled back", ran.stdout + ran.stderr
    assert told(hosts) == ("c3-3\nc1-False-/etc/first\n", "c2-two\n")
    assert "c3-" not in hosts.ssh("h1", "cat /var/log/auth.log 2>/dev/null; journalctl -o cat --no-pager _COMM=sudo")


RESCUED = """
    - command: echo kept
      vars: {acid_compensate: {shell: "echo kept >> /root/compensated"}}
    - vars: {acid_savepoint: tried}
      block:
        - copy: {content: "x\\n", dest: /etc/tried, mode: "0644"}
          vars: {acid_compensate: {shell: "echo tried-$(cat /etc/tried) >> /root/compensated"}}
        - vars: {acid_savepoint: deeper}
          block:
            - copy: {content: "y\\n", dest: /etc/tried, mode: "0644"}
              vars: {acid_compensate: {shell: "echo inner-$(cat /etc/tried) >> /root/compensated"}}
            - command: "false"
          rescue:
            - acid.host.tx_rollback: {to: deeper}
            - command: cat /etc/tried
              register: there
            - assert: {that: there.stdout == 'x'}
        - command: "false"
      rescue:
        - acid.host.tx_rollback: {to: tried}
        - stat: {path: /etc/tried}
          register: gone
        - assert: {that: not gone.stat.exists}
    - copy: {content: "z\\n", dest: /etc/instead, mode: "0644"}
      vars: {acid_compensate: {shell: "echo instead-$(cat /etc/instead) >> /root/compensated"}}
"""


def test_a_rescue_goes_back_to_a_savepoint_and_the_rest_is_undone_after_the_commit(warm_hosts):
    hosts = warm_hosts
    ran = hosts.play(play(hosts, RESCUED))
    assert ran.outcome("h1") == "committed", ran.stdout + ran.stderr
    assert told(hosts)[0] == "inner-y\ntried-x\n"
    run(hosts, "rollback", "-e", f"tx={hosts.journal('h1')[0]['tx']}")
    assert told(hosts)[0] == "inner-y\ntried-x\ninstead-z\nkept\n"
    assert hosts.states("h1")[0] == "ABORTED"


def test_a_dead_controller_leaves_debts_that_two_recovers_pay_once(warm_hosts):
    hosts = warm_hosts
    before = hosts.state("h1", "before")
    controller = start(hosts, play(hosts, BOTH_KINDS + "    - command: touch /etc/started\n    - command: sleep 30\n"))
    wait_for(lambda: hosts.ssh("h1", "ls /etc/started", check=False))
    kill(controller)
    hosts.ssh("h1", "pkill sleep", check=False)
    wait_for(lambda: hosts.states("h1")[0] == "UNDO_FAILED")
    assert told(hosts) == ("c3-3\nc1-False-/etc/first\n", "")
    assert "'command' is owed" in hosts.ssh("h1", "acidctl show")
    refused = hosts.play("- hosts: h1\n  gather_facts: false\n  tasks: [{command: 'true'}]\n")
    assert "is owed" in refused.recap or "has failed" in refused.recap

    both = [
        subprocess.Popen(
            playbook(hosts, "recover"),
            cwd=hosts.folder,
            env=hosts.environment(callback=True),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _one in range(2)
    ]
    for recovering in both:
        text, _none = recovering.communicate(timeout=120)
        assert recovering.returncode == 0, text
    assert told(hosts) == ("c3-3\nc1-False-/etc/first\n", "c2-two\n")
    assert hosts.states("h1")[0] == "ABORTED"
    hosts.ssh("h1", "rm /root/compensated")
    assert hosts.differences(before, hosts.state("h1", "after"), "--outside", "/root") == ""
    assert "changed=0" in run(hosts, "recover")


SLOW = """
    - command: echo one
      vars: {acid_compensate: {shell: "echo s1 >> {{ tell }}", delegate_to: localhost, timeout: 2}}
    - command: echo two
      vars: {acid_compensate: {shell: "echo s2 >> {{ tell }}; sleep 4", delegate_to: localhost, timeout: 6}}
    - command: echo three
      vars: {acid_compensate: {shell: "echo s3 >> {{ tell }}", delegate_to: localhost, timeout: 2}}
    - command: "false"
"""


@pytest.mark.exact
def test_a_controller_that_dies_in_a_compensation_is_taken_over(warm_hosts):
    """What it had paid stays paid; the one that it was at is run again, for nobody knows how far it got."""
    hosts = warm_hosts
    controller = start(hosts, play(hosts, SLOW))
    wait_for(lambda: told(hosts)[1] == "s3\ns2\n")
    kill(controller)
    assert hosts.states("h1")[0] == "ABORTING"
    run(hosts, "recover")
    assert told(hosts)[1] == "s3\ns2\ns2\ns1\n"
    assert hosts.states("h1")[0] == "ABORTED"


FAILING = """
    - copy: {content: "1\\n", dest: /etc/first, mode: "0644"}
      vars: {acid_compensate: {shell: "echo f1 >> /root/compensated"}}
    - command: echo two
      vars: {acid_compensate: {command: ls /root/repaired}}
    - copy: {content: "3\\n", dest: /etc/third, mode: "0644"}
    - command: "false"
"""


@pytest.mark.exact
def test_one_that_fails_for_good_is_said_and_the_rest_is_undone(warm_hosts):
    hosts = warm_hosts
    ran = hosts.play(play(hosts, FAILING))
    assert ran.outcome("h1") == "UNDO FAILED", ran.stdout + ran.stderr
    assert (
        "compensation 'command' failed 4 times: ansible.builtin.command: non-zero return code" in ran.recap or "failed 4 times" in ran.recap
    )
    assert hosts.ssh("h1", "ls /etc/first /etc/third 2>/dev/null; cat /root/compensated; touch /root/repaired", check=False) == "f1\n"
    run(hosts, "recover")
    assert hosts.states("h1")[0] == "ABORTED"
    assert hosts.ssh("h1", "cat /root/compensated; rm /root/repaired") == "f1\n"


@pytest.mark.exact
def test_after_a_crash_of_the_host_it_pays_what_it_can(warm_hosts, monkeypatch):
    monkeypatch.setenv("ACID_DURABILITY", "power")  # without it an undo after a crash does not claim to be exact
    hosts = warm_hosts
    controller = start(hosts, play(hosts, BOTH_KINDS + "    - command: touch /etc/started\n    - command: sleep 30\n"))
    wait_for(lambda: hosts.ssh("h1", "ls /etc/started", check=False))
    kill(controller)
    hosts.lab("kill", "h1")
    hosts.lab("start", "h1")
    wait_for(lambda: told(hosts)[0].endswith("c1-False-\n"))
    assert told(hosts) == ("c3-\nc1-False-\n", "")
    run(hosts, "recover")
    assert told(hosts) == ("c3-\nc1-False-\n", "c2-two\n")
    assert hosts.states("h1")[0] == "ABORTED"
