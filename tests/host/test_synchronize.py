# SPDX-License-Identifier: GPL-3.0-or-later
"""`ansible.posix.synchronize` starts rsync by an ssh of its own: its other end is a step all the same, and runs as whom it would."""

from __future__ import annotations

import json

import pytest


def test_synchronize_is_a_step(hosts):
    (hosts.folder / "tree").mkdir()
    (hosts.folder / "tree" / "file").write_text("x")
    play = """
- hosts: h1
  gather_facts: false
  tasks:
    - ansible.posix.synchronize: {src: tree/, dest: /etc/synchronized}
    - command: test -f /etc/synchronized/file
    - command: "false"
"""
    for variables in ({"ansible_user": "root"}, {"ansible_user": "deploy", "ansible_become": "true"}):
        run = hosts.play(play, "-e", json.dumps(variables))
        assert "TASK [command]" in run.stdout and "changed=2" in run.stdout, run.stdout
        assert run.outcome("h1") == "rolled back"
        assert "synchronized" not in hosts.ssh("h1", "ls /etc")
    # Within tx_step, and not in /etc, where a probe takes back what the trace has not seen.
    task = "ansible.posix.synchronize: {src: tree/, dest: /etc/synchronized}"
    wrapped = play.replace(task, f"acid.host.tx_step: {{task: {{{task}}}}}").replace("/etc/", "/srv/")
    run = hosts.play(wrapped, "-e", "ansible_user=root")
    assert "changed=2" in run.stdout, run.stdout
    assert run.outcome("h1") == "rolled back"
    assert "synchronized" not in hosts.ssh("h1", "ls /srv")


SYNCHRONIZED_AS = [
    ({"ansible_user": "deploy"}, "deploy"),
    ({"ansible_user": "deploy", "ansible_become": "true", "ansible_become_user": "nobody"}, "nobody"),
    ({"ansible_user": "root", "ansible_become": "true", "ansible_become_user": "nobody"}, "nobody"),
]


@pytest.mark.parametrize(("variables", "owner"), SYNCHRONIZED_AS)
def test_synchronize_writes_as_whom_the_task_runs(hosts, variables, owner):
    (hosts.folder / "tree").mkdir()
    (hosts.folder / "tree" / "file").write_text("x")
    hosts.ssh("h1", "rm -rf /tmp/from /tmp/synchronized; install -d -m 777 /tmp/from; echo x >/tmp/from/source")
    play = f"""
- hosts: h1
  gather_facts: false
  tasks:
    - ansible.posix.synchronize: {{src: tree/, dest: /tmp/synchronized}}
      register: tried
      until: tried.attempts == 2
      retries: 2
      delay: 0
    - command: stat -c %U /tmp/synchronized/file
      register: found
    - assert: {{that: found.stdout == '{owner}'}}
    - ansible.posix.synchronize: {{src: /tmp/from/source, dest: fetched, mode: pull, rsync_opts: [--remove-source-files]}}
    - command: test ! -e /tmp/from/source
    - fail: {{msg: as wanted}}
"""
    run = hosts.play(play, "-e", json.dumps(variables))
    assert "as wanted" in run.stdout, run.stdout
    assert run.outcome("h1") == "rolled back"
    assert hosts.ssh("h1", "ls /tmp/synchronized /tmp/from", check=False).split() == ["/tmp/from:", "source"]
    hosts.ssh("h1", "rm -r /tmp/from")


@pytest.mark.parametrize("delegate", ["localhost", "h2"])
def test_synchronize_is_a_step_of_the_host_that_it_changes(hosts, delegate):
    """Wherever it is delegated: rsync is started there, and its other end on the task's own host. In /srv no probe looks."""
    (hosts.folder / "file").write_text("x")
    play = f"""
- hosts: h1,h2
  gather_facts: false
  tasks:
    - copy: {{src: "{{{{ ansible_ssh_private_key_file }}}}", dest: /root/lab-key, mode: "0600"}}
    - copy: {{content: x, dest: /root/file, mode: "0600"}}
    - ansible.posix.synchronize:
        src: "{{{{ '{hosts.folder}' if '{delegate}' == 'localhost' else '/root' }}}}/file"
        dest: /srv/pushed
        private_key: "{{{{ ansible_ssh_private_key_file if '{delegate}' == 'localhost' else '/root/lab-key' }}}}"
      delegate_to: {delegate}
      when: inventory_hostname == 'h1'
    - command: test -f /srv/pushed
      when: inventory_hostname == 'h1'
    - fail: {{msg: as wanted}}
"""
    run = hosts.play(play, ACID_IRREVERSIBLE="deny")
    assert "as wanted" in run.stdout and "changed=4" in run.stdout, run.stdout + run.stderr
    for name in ("h1", "h2"):
        assert run.outcome(name) == "rolled back"
        assert hosts.ssh(name, "ls -A /srv/pushed /root/file /root/lab-key", check=False) == ""
