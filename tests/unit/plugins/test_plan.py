# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a playbook: every task, how it would be undone, and nothing run. Real ansible-playbook, no host."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PLAY = """
- name: Web servers
  hosts: all
  serial: 1
  gather_facts: true
  pre_tasks:
    - name: drain
      uri: {url: "http://lb/drain", method: POST}
      delegate_to: localhost
      vars: {acid_compensate: {name: undrain, uri: {url: "http://lb/undrain", method: POST}}}
  roles: [web]
  tasks:
    - {name: opened, include_tasks: more/a.yml}
    - {name: closed, include_tasks: "{{ nope }}.yml"}
    - {name: looped, include_tasks: "more/{{ item }}", loop: [a.yml]}
    - block:
        - {name: in a block, shell: touch {{ folder }}/ran, loop: [1, 2]}
      rescue:
        - {name: rescued, command: touch {{ folder }}/ran}
      when: x is defined
      tags: [some]
    - {name: perhaps, uri: {url: "http://x/", method: "{{ m }}"}}
    - {name: posted, uri: {url: "http://x/", method: POST}}
    - {name: got, uri: {url: "http://x/"}}
    - {name: said, debug: {msg: x}}
    - {name: booted, reboot: }
    - {name: elsewhere, command: touch {{ folder }}/ran, delegate_to: far}
    - {name: anywhere, command: touch {{ folder }}/ran, delegate_to: "{{ where }}"}
    - {name: sent, ansible.posix.synchronize: {src: a, dest: /b}, delegate_to: localhost}
    - {name: fetched, ansible.posix.synchronize: {src: /a, dest: b, mode: pull}, delegate_to: localhost}
    - {name: unseen, copy: {content: x, dest: "{{ folder }}/ran"}, vars: {acid_capture: none}}
- name: Off
  hosts: all
  vars: {acid_transaction: false}
  gather_facts: false
  tasks:
    - {name: without, command: touch {{ folder }}/ran}
"""

WANTED = {
    "drain": "undone by a compensation",
    "web : nginx": "undone by the trace",
    "web : inner": "undone by the trace",
    "from more": "undone by the trace",
    "from deeper": "undone by the trace",
    "closed": "known when it runs",
    "looped": "known when it runs",
    "in a block": "undone by the trace",
    "rescued": "undone by the trace",
    "perhaps": "irreversible",
    "posted": "irreversible",
    "got": "nothing to undo",
    "said": "nothing to undo",
    "booted": "irreversible",
    "elsewhere": "irreversible",
    "anywhere": "undone by the trace",
    "sent": "undone by the trace",
    "fetched": "irreversible",
    "unseen": "irreversible",
    "web : reload it": "undone by the trace",
    "without": "irreversible",
}
MARKS = {
    "looped": "loop",
    "in a block": "conditional, loop",
    "rescued": "rescue, conditional",
    "perhaps": "depends on method",
    "anywhere": "depends on delegate_to",
    "web : reload it": "handler",
}
ROW = re.compile(
    r"^  (undone by the trace|undone by a compensation|irreversible|refused|known when it runs|nothing to undo)"
    r" +(.+?)(?:  \[(.+)\])?  \(\S+:\d+\)$",
    re.MULTILINE,
)


@pytest.fixture
def site(controller):
    for name, text in {
        "roles/web/tasks/main.yml": "- {name: nginx, apt: {name: nginx}, notify: reload it}\n- include_tasks: inner.yml\n",
        "roles/web/tasks/inner.yml": "- {name: inner, template: {src: x, dest: /etc/x}, no_log: true}\n",
        "roles/web/handlers/main.yml": "- {name: reload it, service: {name: nginx, state: reloaded}}\n",
        "more/a.yml": "- {name: from more, command: 'true'}\n- include_tasks: deeper.yml\n",
        "more/deeper.yml": "- {name: from deeper, command: 'true'}\n",
    }.items():
        path = controller.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return PLAY.replace("{{ folder }}", str(controller.folder))


def rows(stdout: str) -> dict[str, str]:
    return {name: how for how, name, _marks in ROW.findall(stdout)}


def nothing_ran(controller) -> bool:
    return not (controller.folder / "ran").exists() and controller.calls() == []


def test_every_task_and_nothing_is_run(controller, site):
    run = controller.play(site, hosts="h1,h2", ACID_PLAN="1")
    assert run.rc == 0, run.stderr
    assert rows(run.stdout) == WANTED
    assert {name: marks for _how, name, marks in ROW.findall(run.stdout) if marks} == MARKS
    assert run.stdout.count("Web servers  (2 hosts: h1, h2)") == 1  # two batches, one plan
    assert "ansible.builtin.apt; probes: systemd, service_directories, etc" in run.stdout
    assert "ansible.builtin.shell; all probes" in run.stdout and "ansible.builtin.template; files only" in run.stdout
    assert "ansible.builtin.uri: undrain" in run.stdout
    assert nothing_ran(controller)


def test_tags_and_deny(controller, site):
    some = controller.play(site, "--tags", "some", ACID_PLAN="1", ACID_IRREVERSIBLE="deny")
    assert set(rows(some.stdout)) == {"in a block", "rescued", "web : reload it"} and some.rc == 0
    whole = controller.play(site, ACID_PLAN="1", ACID_IRREVERSIBLE="deny")
    assert whole.rc == 2 and rows(whole.stdout) == WANTED
    assert nothing_ran(controller)


def test_the_playbook_and_a_callback_that_cannot_be_loaded(controller, site):
    path = controller.write(site, "site.yml")
    words = controller.command("- hosts: none\n")
    command = [*words[:3], "acid.host.plan", "-e", f"playbook={path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=controller.folder, env=controller.env(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "irreversible              posted" in done.stdout and nothing_ran(controller)

    wrong = subprocess.run([*command, "-e", "acid_arguments=--nonsense"], capture_output=True, text=True, env=controller.env(), check=False)
    assert wrong.returncode == 2 and "failed=1" in wrong.stdout

    run = controller.play("- hosts: all\n  tasks: [{command: 'true'}]\n", callback=False, ANSIBLE_STDOUT_CALLBACK="acid.host.plam")
    assert run.rc not in (0, 2) and "Could not load" in run.stderr and nothing_ran(controller)


def test_a_table_that_is_wrong_stops_everything(controller):
    Path(controller.folder, "own.yml").write_text("irreversible: [{modules: [x]}]")
    for settings in ({"ACID_PLAN": "1"}, {}):
        run = controller.play(
            "- hosts: all\n  tasks: [{command: 'true'}]\n", ACID_IRREVERSIBLE_TABLE=str(controller.folder / "own.yml"), **settings
        )
        assert run.rc == 1 and "own.yml: irreversible, row 1: effect is ''" in run.stderr, run.stderr
        assert nothing_ran(controller)
