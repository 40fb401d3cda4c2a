# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be undone: allowed, named or stopped, by the table and by the trace."""

from __future__ import annotations

import json
import re

import pytest

# A server on the host that counts what it is sent.
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        open("/run/posted", "a").write(self.path + "\\n")
        self.send_response(200)
        self.end_headers()
    do_GET = do_POST
http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""


@pytest.fixture
def posted(warm_hosts):
    warm_hosts.ssh("h1", f"cat > /run/server.py <<'X'\n{SERVER}\nX\nsystemd-run -q --unit=posted python3 /run/server.py; sleep 1")
    yield lambda: warm_hosts.ssh("h1", "cat /run/posted 2>/dev/null; rm -f /run/posted", check=False).split()
    warm_hosts.ssh("h1", "systemctl stop posted; rm -f /run/server.py /run/posted", check=False)


TABLE = """
- hosts: h1
  gather_facts: false
  tasks:
    - name: tell the balancer
      uri: {url: "http://127.0.0.1:8099/drain", method: "{{ method }}"}
      when: inventory_hostname == 'h1'
    - copy: {content: "x\\n", dest: /etc/after-it, mode: "0644"}
    - command: "false"
"""


@pytest.mark.parametrize(
    ("policy", "method", "sent", "stderr", "recap"),
    [
        ("warn", "POST", ["/drain"], "tell the balancer: ansible.builtin.uri: it sends a request", "not undone: tell the balancer"),
        pytest.param("allow", "POST", ["/drain"], "", "not undone: tell the balancer", marks=pytest.mark.exact),
        ("deny", "POST", [], "", ""),
        pytest.param("deny", "GET", ["/drain"], "", "", marks=pytest.mark.exact),
    ],
)
def test_a_module_of_the_table(posted, warm_hosts, policy, method, sent, stderr, recap):
    run = warm_hosts.play(TABLE, "-e", f"method={method}", ACID_IRREVERSIBLE=policy)
    assert run.rc == 2
    assert posted() == sent, run.stdout
    assert stderr in run.stderr.partition("TRANSACTIONS")[0]
    assert recap in run.recap
    assert ("not undone" in run.recap) == bool(recap)
    refused = "This cannot be undone, and 'irreversible: deny' forbids it: tell the balancer: ansible.builtin.uri"
    assert (refused in run.stdout.replace("\n", " ")) == (policy == "deny" and method == "POST")


def test_a_table_of_the_users_and_a_compensation(posted, warm_hosts):
    own = warm_hosts.folder / "own.yml"
    own.write_text("irreversible: [{modules: [ansible.builtin.lineinfile], effect: remote, why: a robot reads it}]\n")
    play = """
- hosts: h1
  gather_facts: false
  tasks:
    - name: to the robot
      lineinfile: {path: /etc/robot, line: go, create: true, mode: "0644"}
"""
    settings = {"ACID_IRREVERSIBLE": "deny", "ACID_IRREVERSIBLE_TABLE": str(own)}
    run = warm_hosts.play(play, **settings)
    assert run.rc == 1 and "to the robot: ansible.builtin.lineinfile: a robot reads it" in run.stderr
    assert "TASK [" not in run.stdout
    compensated = play + "      vars: {acid_compensate: {command: 'true'}}\n    - command: 'false'\n"
    run = warm_hosts.play(compensated, **settings)
    assert run.outcome("h1") == "rolled back" and "not undone" not in run.recap, run.stderr


# What it does, and how a queue of System V that it made would show.
CALLS = {
    "msgget": "ipcmk -Q",
    "clock_settime": "date -s now",
    "init_module": "python3 -c \"import ctypes; exit(ctypes.CDLL(None).syscall(175, 0, 0, b'') != 0)\"",
    "block device 7:199 opened for writing": "dd if=/dev/zero of=/dev/acid-block count=1",
}
QUEUES = "ipcs -q | grep -c ^0x; ipcs -q | awk '/^0x/ {print $2}' | xargs -r -n1 ipcrm -q"

TRACED = """
- hosts: h1
  gather_facts: false
  tasks:
    - copy: {content: "x\\n", dest: /etc/before-it, mode: "0644"}
    - name: the call
      shell: "{{ call }}"
      ignore_errors: "{{ ignored | default(false) | bool }}"
    - name: the next one
      command: "true"
    - command: "false"
"""


def call(command: str, **more: str) -> list[str]:
    return ["-e", json.dumps({"call": command, **more})]


@pytest.fixture
def block_device(warm_hosts):
    warm_hosts.ssh("h1", "mknod /dev/acid-block b 7 199")
    yield warm_hosts
    warm_hosts.ssh("h1", "rm /dev/acid-block")


def test_calls_that_no_image_can_undo_are_named(block_device):
    hosts = block_device
    commands = "; ".join(f"({command}) || true" for command in CALLS.values())
    before = hosts.state("h1", "before")
    run = hosts.play(TRACED, *call(commands))
    assert run.outcome("h1") == "rolled back", run.stdout + run.stderr
    for name in CALLS:
        assert f"not undone: {name}" in run.recap, run.recap
    assert hosts.ssh("h1", QUEUES, check=False) == "1\n"
    assert hosts.differences(before, hosts.state("h1", "after")) == ""


ALWAYS = ("msgget",)


@pytest.mark.parametrize("name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.exact) for name in CALLS])
def test_deny_refuses_the_call_and_the_task_says_why(block_device, name):
    hosts = block_device
    before = hosts.state("h1", "before")
    run = hosts.play(TRACED, *call(CALLS[name]), ACID_IRREVERSIBLE="deny")
    assert run.rc == 2 and run.outcome("h1") == "rolled back"
    said = " ".join(run.stdout.split())
    forbidden = "cannot be undone, and 'irreversible: deny' forbids it: in the step 'the call' the call was refused"
    assert re.search(rf"{name}\b.* {forbidden}", said), said
    assert "the next one" not in run.stdout
    assert hosts.ssh("h1", QUEUES, check=False) == "0\n"
    assert hosts.differences(before, hosts.state("h1", "after")) == ""


def test_a_refusal_that_the_program_ignores_stops_the_next_step_and_one_that_the_play_ignores_does_not(warm_hosts):
    run = warm_hosts.play(TRACED, *call("ipcmk -Q || true"), ACID_IRREVERSIBLE="deny")
    said = " ".join(run.stdout.split())
    assert "The step was not let run on h1: denied: " in said and "in the step 'the call' the call was refused" in said, said
    run = warm_hosts.play(TRACED, *call("ipcmk -Q", ignored="yes"), ACID_IRREVERSIBLE="deny")
    assert "TASK [command]" in run.stdout and "denied" not in run.stdout, run.stdout
    last = warm_hosts.play(TRACED.partition("    - name: the next one")[0], *call("ipcmk -Q || true"), ACID_IRREVERSIBLE="deny")
    assert last.rc == 2 and last.outcome("h1") == "rolled back" and "commit failed: " in last.recap, last.recap
    assert warm_hosts.ssh("h1", QUEUES, check=False) == "0\n"


SHUTDOWN = """
- hosts: h1
  gather_facts: false
  tasks:
    - copy: {content: "x\\n", dest: /etc/before-it, mode: "0644"}
    - name: good night
      community.general.shutdown: {delay: 0}
"""


def test_a_shutdown_in_a_transaction_is_not_sent(warm_hosts):
    """The host would undo the transaction when it boots."""
    boot = warm_hosts.ssh("h1", "cat /proc/sys/kernel/random/boot_id")
    run = warm_hosts.play(SHUTDOWN)
    assert run.rc == 2 and run.outcome("h1") == "rolled back", run.stdout
    assert "community.general.shutdown belongs into a play of its own" in " ".join(run.stdout.split())
    assert warm_hosts.ssh("h1", "cat /proc/sys/kernel/random/boot_id; ls /etc/before-it 2>/dev/null", check=False) == boot
