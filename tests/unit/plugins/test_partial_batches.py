# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that come late, stay out or go away while the play's other hosts hold transactions. Fake engine, real ansible-playbook."""

from __future__ import annotations

import re

import pytest

PAST_THE_TRACE = """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        rc, out, err = self._connection.exec_command("/bin/sh -c 'echo direct'")
        return {"changed": True, "rc": rc}
"""

# h1 cannot be reached until the file is there
LATE = """
h1 ansible_host=127.0.0.9 ansible_port=1 ansible_connection="{{{{ lookup('file', '{up}', errors='ignore') | default('ssh', true) }}}}"
h2 ansible_connection=local
"""

COMES_BACK = """
- hosts: all
  gather_facts: false
{play}
  tasks:
    - command: sh -c 'printf local > {up}'
      when: inventory_hostname == 'h2'
    - meta: clear_host_errors
    - name: changes
      command: touch {folder}/changed-{{{{ inventory_hostname }}}}
"""

BEFORE = "- hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'true'\n"


def inventory(controller, text: str) -> str:
    path = controller.folder / "inventory"
    path.write_text(text.strip() + "\n")
    return str(path)


def late(controller, *, play: str = "", before: str = "") -> tuple[str, str]:
    up = controller.folder / "up"
    hosts = inventory(controller, LATE.format(up=up))
    return before + COMES_BACK.format(up=up, folder=controller.folder, play=play), hosts


@pytest.mark.parametrize("before", ["", BEFORE], ids=["in this play", "in an earlier play"])
def test_a_host_that_comes_back_without_a_transaction_runs_no_task(controller, before):
    source, hosts = late(controller, before=before)
    run = controller.play(source, hosts=hosts)
    assert not (controller.folder / "changed-h1").exists()
    assert (controller.folder / "changed-h2").exists()
    assert run.rc == 2, run.stdout + run.stderr
    assert "h1 has no transaction, so this task was not run" in run.stdout + run.stderr
    assert re.search(r"^h2 : committed", run.recap, re.M), run.recap


def test_a_host_that_turned_it_off_may_come_back(controller):
    off = "  vars:\n    acid_transaction: \"{{ inventory_hostname != 'h1' }}\""
    source, hosts = late(controller, play=off, before=BEFORE)
    run = controller.play(source, hosts=hosts)
    assert (controller.folder / "changed-h1").exists(), run.stdout + run.stderr
    assert re.search(r"^h2 : committed", run.recap, re.M), run.recap


def test_a_late_host_is_refused_also_where_no_other_has_a_transaction(controller):
    off = "  vars:\n    acid_transaction: \"{{ inventory_hostname != 'h2' }}\""
    source, hosts = late(controller, play=off, before=BEFORE)
    run = controller.play(source, hosts=hosts)
    assert not (controller.folder / "changed-h1").exists(), run.stdout
    assert (controller.folder / "changed-h2").exists()


def test_what_a_host_outside_delegates_to_one_inside_is_a_step_there(controller):
    hosts = inventory(controller, "h0 ansible_connection=local acid_transaction=false\nh1 ansible_connection=local")
    run = controller.play(
        """
- hosts: all
  gather_facts: false
  tasks:
    - name: sent over
      command: 'true'
      delegate_to: h1
      when: inventory_hostname == 'h0'
    - name: own
      command: 'true'
""",
        hosts=hosts,
    )
    assert run.rc == 0, run.stdout + run.stderr
    sent = controller.calls("exec")
    assert [call["step"]["task"] for call in sent] == ["sent over", "own"]
    (commit,) = controller.calls("commit")
    assert commit["request"]["steps"] == [call["step"]["id"] for call in sent]
    assert re.search(r"^h1 : committed +steps=2", run.recap, re.M), run.recap


@pytest.mark.parametrize(("fatal", "h2"), [("true", "rolled back"), ("false", "committed")])
def test_any_errors_fatal_holds_for_what_only_the_controller_sees(controller, fatal, h2):
    folder = controller.folder / "action_plugins"
    folder.mkdir()
    (folder / "direct.py").write_text(PAST_THE_TRACE)
    source = f"""
- hosts: all
  gather_facts: false
  any_errors_fatal: {fatal}
  tasks:
    - command: 'true'
    - direct:
      when: inventory_hostname == 'h1'
"""
    run = controller.play(source, hosts="h1,h2")
    assert run.rc == 2
    assert re.search(r"^h1 : rolled back", run.recap, re.M), run.recap
    assert re.search(rf"^h2 : {h2}", run.recap, re.M), run.recap
    assert ("because: another host is rolled back, and the play has 'any_errors_fatal'" in run.recap) == (fatal == "true")


@pytest.mark.parametrize(("most", "goes_on"), [(30, False), (50, True)])
def test_hosts_that_cannot_begin_count_for_max_fail_percentage(controller, most, goes_on):
    source = f"""
- hosts: all
  gather_facts: false
  max_fail_percentage: {most}
  tasks:
    - command: 'true'
"""
    hosts = inventory(controller, "h1 ansible_connection=ansible.builtin.psrp\nh2 ansible_connection=local")
    run = controller.play(source, hosts=hosts)
    assert run.rc == 2, run.stdout + run.stderr
    assert bool(controller.calls("exec")) == goes_on
    assert re.search(r"^h2 : committed" if goes_on else r"^h2 : rolled back", run.recap, re.M), run.recap
    assert ("1 of 2 hosts could not begin" in run.recap) != goes_on


def test_a_host_that_leaves_the_inventory_costs_the_others_nothing(controller):
    hosts = inventory(controller, "h1 ansible_connection=local\nh2 ansible_connection=local")
    source = f"""
- hosts: all
  gather_facts: false
  tasks:
    - command: sed -i /h2/d {hosts}
      when: inventory_hostname == 'h1'
    - meta: refresh_inventory
    - command: 'true'
"""
    run = controller.play(source, hosts=hosts)
    assert run.rc == 2, run.stdout + run.stderr
    assert re.search(r"^h1 : committed", run.recap, re.M), run.recap + run.stderr
    assert re.search(r"^h2 : left to the host: the host is gone from the inventory", run.recap, re.M), run.recap
    assert len(controller.calls("commit")) == 1
