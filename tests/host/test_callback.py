# SPDX-License-Identifier: GPL-3.0-or-later
"""Unchanged playbooks over ssh: the cost in remote calls, the step's view, delegation, unreachable hosts, bad input."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

LOGINS = {
    "root": {"ansible_user": "root"},
    "a user with sudo and a password": {"ansible_user": "pwuser", "ansible_become": "true", "ansible_become_password": "lab-secret"},
    "a user, nobody becomes root": {"ansible_user": "deploy"},
}

MANY_KINDS = """
- hosts: h1
  gather_facts: true
  tasks:
    - command: id -un
    - shell: echo one > {{ folder }}/kinds
    - copy: {content: "two\\n", dest: "{{ folder }}/kinds2", mode: "0644"}
    - lineinfile: {path: "{{ folder }}/kinds", line: three}
    - raw: echo raw
    - script: script.sh a
    - command: "true"
      become: true
      become_user: nobody
    - command: "true"
      loop: [1, 2]
    - command: "true"
      register: tried
      until: tried is succeeded
      retries: 2
    - file: {path: "{{ folder }}/kinds", state: absent}
    - file: {path: "{{ folder }}/kinds2", state: absent}
    - debug: {msg: x}
    - command: sleep 4
      async: 20
      poll: 0
"""


def extra(variables: dict[str, str]) -> list[str]:
    return [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]


# The others run with `make exact`.
ALWAYS = {("root", "true"), ("a user, nobody becomes root", "false")}
COUNTED = [
    pytest.param(login, pipelining, marks=() if (login, pipelining) in ALWAYS else pytest.mark.exact)
    for login in LOGINS
    for pipelining in ("true", "false")
]


@pytest.mark.parametrize(("login", "pipelining"), COUNTED)
def test_a_task_takes_as_many_remote_calls_as_without(warm_hosts, login, pipelining):
    hosts = warm_hosts
    (hosts.folder / "script.sh").write_text("#!/bin/sh\necho script $*\n")
    variables = extra({**LOGINS[login], "folder": "/tmp"})
    plain = hosts.play(MANY_KINDS, *variables, callback=False, ANSIBLE_PIPELINING=pipelining)
    run = hosts.play(MANY_KINDS, *variables, ANSIBLE_PIPELINING=pipelining)
    assert (plain.rc, run.rc) == (0, 0), plain.stdout + run.stdout + run.stderr
    assert run.outcome("h1") == "committed"
    begin_and_commit = 2
    assert run.remote_calls == plain.remote_calls + begin_and_commit


VIEW = """
- hosts: h1
  gather_facts: false
  tasks:
    - name: seen by a module
      command: sh -c "id; umask; pwd; ulimit -a; env | sort; cut -d' ' -f3 /proc/self/cgroup | wc -l"
      environment: {FLAVOUR: "two words"}
      args: {chdir: "{{ folder | default('/') }}"}
      register: seen
    - name: seen by raw
      raw: "id; umask; pwd; ulimit -a; env | sort"
      register: raw
    - debug: {msg: "{{ {'module': seen.stdout_lines, 'raw': raw.stdout_lines} | to_json | b64encode }}"}
"""

BECOMES = {
    "nobody": {},
    "root": {"ansible_become": "true"},
    "another user": {"ansible_become": "true", "ansible_become_user": "plain"},
    "another user by su": {"ansible_become": "true", "ansible_become_user": "plain", "ansible_become_method": "su"},
}
# Random, or the name of a process or of a file that differs in every run of Ansible itself. So are empty lines: Ansible leaves the
# terminal's echo of the Enter after a password in some results.
VOLATILE = re.compile(r"^(SSH_(CLIENT|CONNECTION)|SUDO_COMMAND|XDG_SESSION_ID|_)=")


def view(hosts, variables: dict[str, str], *, callback: bool) -> dict[str, list[str]]:
    run = hosts.play(VIEW, *extra(variables), callback=callback)
    assert run.rc == 0, run.stdout + run.stderr
    if callback:
        assert run.outcome("h1") == "committed", run.stderr
    seen = json.loads(base64.b64decode(re.search(r'"msg": "([A-Za-z0-9+/=]+)"', run.stdout).group(1)))
    return {name: [line for line in lines if line and not VOLATILE.match(line)] for name, lines in seen.items()}


# su asks for the other user's password, unless root asks
ALWAYS_SEEN = {("root", "another user"), ("deploy", "nobody"), ("deploy", "root"), ("pwuser", "another user")}
SEEN = [
    pytest.param(user, become, marks=() if (user, become) in ALWAYS_SEEN else pytest.mark.exact)
    for user in ("root", "deploy", "pwuser")
    for become in BECOMES
    if user == "root" or "su" not in become.split()
]


@pytest.mark.parametrize(("user", "become"), SEEN)
def test_a_step_sees_what_it_would_see_without(hosts, user, become):
    variables = {"ansible_user": user, **BECOMES[become]}
    if user == "pwuser":
        variables["ansible_become_password"] = "lab-secret"
    assert view(hosts, variables, callback=True) == view(hosts, variables, callback=False)


def test_a_login_that_cannot_become_root_is_refused_with_the_reason(hosts):
    play = "- hosts: h1\n  gather_facts: false\n  tasks:\n    - command: touch /tmp/never\n"
    wrong = {"ansible_user": "pwuser", "ansible_become_password": "wrong"}
    for variables in ({"ansible_user": "plain"}, {"ansible_user": "pwuser"}, wrong):
        run = hosts.play(play, *extra(variables))
        assert run.rc == 2
        assert f"the login '{variables['ansible_user']}' cannot become root here" in run.recap
        assert "TASK [" not in run.stdout
    assert "never" not in hosts.ssh("h1", "ls /tmp")


DELEGATES = """
- hosts: h1,h2
  gather_facts: false
  tasks:
    - copy: {content: "x\\n", dest: "/etc/from-{{ inventory_hostname }}", mode: "0644"}
      delegate_to: h2
    - command: "false"
      when: inventory_hostname == failing
"""


BOTH = "/etc/from-h1\n/etc/from-h2\n"
DELEGATED = [
    ("nobody", BOTH, ""),
    ("h2", "", "h1 .*\n +note: what its steps did on h2 was undone there"),
    ("h1", BOTH, "h2 .*\n +note: it keeps what steps of h1, which did not commit, did here"),
]


@pytest.mark.parametrize(("failing", "left", "note"), DELEGATED)
def test_a_delegated_step_belongs_to_the_host_that_it_changes(hosts, failing, left, note):
    run = hosts.play(DELEGATES, "-e", f"failing={failing}")
    assert hosts.ssh("h2", "ls -d /etc/from-* 2>/dev/null; rm -f /etc/from-*", check=False) == left, run.stderr
    assert "/etc/from" not in hosts.ssh("h1", "ls -d /etc/from-* 2>/dev/null", check=False)
    assert "will not be undone" not in run.stderr
    assert re.search(note, run.recap)
    assert ("note: " in run.recap) == bool(note)


def test_a_delegate_outside_is_named_before_and_after_and_can_be_forbidden(hosts):
    play = """
- hosts: h1
  gather_facts: false
  tasks:
    - name: far away
      command: touch /tmp/far-away
      delegate_to: "{{ target }}"
    - name: for all to see
      command: touch /tmp/far-away
      delegate_to: h2
    - command: "false"
"""
    run = hosts.play(play, "-e", "target=h2")
    assert run.outcome("h1") == "rolled back"
    assert "for all to see: ansible.builtin.command on h2 (delegate_to)" in run.stderr.split("TRANSACTIONS")[0]
    assert "not undone: far away: ansible.builtin.command on h2 (delegate_to)" in run.recap
    hosts.ssh("h2", "rm /tmp/far-away")

    run = hosts.play(play, "-e", "target=h2", ACID_IRREVERSIBLE="deny")
    assert run.rc not in (0, 2, 4)
    assert "for all to see: ansible.builtin.command on h2" in run.stderr
    assert "far-away" not in hosts.ssh("h2", "ls /tmp")
    run = hosts.play(play.replace("delegate_to: h2", "delegate_to: h1"), "-e", "target=h2", ACID_IRREVERSIBLE="deny")
    assert run.rc == 2
    assert "'irreversible: deny'" in run.stdout, run.stdout + run.stderr
    assert "far-away" not in hosts.ssh("h2", "ls /tmp")


def test_a_host_that_dies_is_named_and_takes_itself_back(warm_hosts):
    hosts = warm_hosts
    play = f"""
- hosts: all
  gather_facts: false
  tasks:
    - copy: {{content: "x\\n", dest: /etc/dies, mode: "0644"}}
    - command: {Path(__file__).parents[1] / "lab" / "lab"} --lab {hosts.name} kill h1
      delegate_to: localhost
      run_once: true
      vars: {{ansible_connection: local, ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"}}
    - command: "true"
"""
    before = hosts.state("h1", "before")
    run = hosts.play(play)
    assert run.rc == 4
    assert "unreachable=1    failed=0" in run.stdout
    assert run.outcome("h1") == "left to the host"
    assert run.outcome("h2") == "committed"
    tx = re.search(r"transaction: (\S+);", run.recap).group(1)
    hosts.lab("start", "h1")
    # All of it is undone; that nothing is missing, `durability: process` cannot say after a host that did not shut down.
    assert wait_for(lambda: [entry["state"] for entry in hosts.journal("h1") if entry["tx"] == tx] == ["UNDO_FAILED"])
    assert "without an orderly shutdown" in hosts.ssh("h1", f"acidctl show {tx}")
    hosts.ssh("h1", f"acidctl resolve {tx}")
    assert hosts.differences(before, hosts.state("h1", "after"), "--across-boot") == ""
    hosts.ssh("h2", "rm /etc/dies")


def wait_for(true, *, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return True
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.5)
    return False


def test_a_busy_host_says_who_holds_it(warm_hosts):
    hosts = warm_hosts
    wait = "timeout 120 sh -c 'until [ -e /run/go ]; do sleep 0.1; done'"
    slow = f"- hosts: h1\n  gather_facts: false\n  tasks:\n    - command: {wait}\n"
    first = subprocess.Popen(
        hosts.command(slow), cwd=hosts.folder, env=hosts.environment(callback=True), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_for(lambda: hosts.ssh("h1", "pgrep -x timeout"), seconds=60)
        run = hosts.play(slow)
    finally:
        hosts.ssh("h1", "touch /run/go")
        assert first.wait() == 0
        hosts.ssh("h1", "rm /run/go")
    assert run.rc == 2
    assert run.outcome("h1") == "not begun"
    assert f"ansible[{first.pid}]" in run.recap


def test_an_engine_that_was_tampered_with_is_refused(warm_hosts):
    hosts = warm_hosts
    hosts.ssh("h1", "echo '# x' >> /usr/local/lib/acid/current/engine/store.py")
    try:
        run = hosts.play("- hosts: h1\n  gather_facts: false\n  tasks:\n    - command: 'true'\n")
    finally:
        hosts.ssh("h1", "sed -i '$d' /usr/local/lib/acid/current/engine/store.py")
    assert run.rc == 2
    assert run.outcome("h1") == "not begun"
    assert "store.py" in run.recap


def test_no_python_that_will_do_is_refused_with_what_is_missing(hosts):
    hosts.lab("fresh", "h2")
    hosts.ssh("h2", "mv /usr/lib/python3.11/sqlite3 /usr/lib/python3.11/sqlite3.away")
    run = hosts.play("- hosts: h2\n  gather_facts: false\n  tasks:\n    - command: 'true'\n")
    hosts.lab("fresh", "h2")
    assert run.rc == 2
    assert re.search(r"h2 +: not begun: .*/usr/bin/python3: has no module sqlite3", run.recap), run.recap


def test_installing_the_engine_leaves_no_trace_in_the_times_of_directories(hosts):
    hosts.lab("fresh", "h2")
    watched = "stat -c '%n %y' /usr/local/lib /usr/local/sbin /etc/systemd /usr/lib /var/lib"
    before = hosts.ssh("h2", watched)
    hosts.play("- hosts: h2\n  gather_facts: false\n  tasks:\n    - command: 'true'\n")
    assert hosts.ssh("h2", "ls /usr/local/sbin/acidctl")
    assert hosts.ssh("h2", watched) == before


def test_two_plays_deliver_at_the_same_time(hosts):
    hosts.lab("fresh", "h2")
    command = hosts.command("- hosts: h2\n  gather_facts: false\n  tasks:\n    - command: 'true'\n")
    environment = hosts.environment(callback=True)
    done: list[int] = []

    def run() -> None:
        done.append(subprocess.run(command, cwd=hosts.folder, env=environment, capture_output=True, check=False).returncode)

    threads = [threading.Thread(target=run) for _unused in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(done) <= {0, 2}  # 2: the other one held the host just then
    assert 0 in done
    assert hosts.ssh("h2", "ls -A /usr/local/lib/acid | grep -c new", check=False) == "0\n"


def test_a_play_that_brings_python_begins_when_it_is_there(hosts):
    hosts.lab("fresh", "h2")
    hosts.ssh("h2", "mv /usr/lib/python3.11/sqlite3 /usr/lib/python3.11/sqlite3.away")
    play = """
- hosts: h2
  gather_facts: false
  tasks:
    - name: bootstrap
      raw: mv /usr/lib/python3.11/sqlite3.away /usr/lib/python3.11/sqlite3
    - copy: {content: "x\\n", dest: /etc/late, mode: "0644"}
    - command: "false"
"""
    run = hosts.play(play)
    assert run.rc == 2
    assert "h2: no transaction yet: no Python on the host will do" in run.stderr
    assert run.outcome("h2") == "rolled back"
    assert "not undone: bootstrap: ansible.builtin.raw before there was a Python" in run.recap
    assert hosts.ssh("h2", "ls /etc/late 2>/dev/null; ls -d /usr/lib/python3.11/sqlite3", check=False) == "/usr/lib/python3.11/sqlite3\n"


NET = """
- hosts: h1
  gather_facts: false
  tasks:
    - command: sh -c "echo x > /var/tmp/acid-net; rm /var/tmp/acid-net"
      changed_when: false
    - copy: {src: /etc/hostname, dest: /var/tmp/acid-kept, remote_src: true, mode: preserve}
      check_mode: true
    - file: {path: /etc/hostname, state: file}
    - shell: cp -p /etc/services /var/tmp/acid-s && echo more >> /etc/services && cat /var/tmp/acid-s > /etc/services && rm /var/tmp/acid-s
      changed_when: false
    - shell: echo one > /etc/acid-net-1; echo two > /etc/acid-net-2
      when: changes is defined
    - command: "false"
      when: fails is defined
"""


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_what_a_play_has_changed_is_what_differs_between_its_begin_and_its_end(warm_hosts, pipelining):
    hosts = warm_hosts

    def changed(*variables: str) -> str:
        run = hosts.play(NET, *(word for name in variables for word in ("-e", f"{name}=1")), ANSIBLE_PIPELINING=pipelining)
        return re.search(r"(?:changed|undone)=[0-9]+", run.stderr[run.stderr.index("h1 :") :]).group(0)

    assert changed() == "changed=0"
    assert hosts.ssh("h1", "acidctl diff --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"changes\"])'").strip() == "[]"
    assert "/var/tmp/acid-net" not in hosts.ssh("h1", "acidctl show")
    assert "/var/tmp/acid-net" in hosts.ssh("h1", "acidctl show --all")
    assert changed("changes", "fails") == "undone=2"
    assert changed("changes") == "changed=2"
    hosts.ssh("h1", "rm /etc/acid-net-1 /etc/acid-net-2")
