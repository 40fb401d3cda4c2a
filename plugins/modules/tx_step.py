#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tx_step
short_description: Runs one task as a step of the open transaction
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - The wrapped task runs as it would run by itself, with the same remote calls, and its result is the result of this task, unchanged.
  - Keywords such as C(become), C(environment), C(async), C(loop) or C(when) go to the task around it.
  - With the callback P(acid.host.transaction#callback) enabled this module is not needed for ordinary tasks.
extends_documentation_fragment:
  - acid.host.tx
attributes:
  async:
    support: full
  check_mode:
    details: Runs the wrapped task in check mode, outside of a transaction.
  diff_mode:
    support: full
    details: As the wrapped task does.
options:
  task:
    description: One module and its arguments, as in a task.
    type: dict
    required: true
  capture:
    description: >-
      V(trace) takes before-images of what the task changes. V(none) runs it without: what it changes is not undone.
    type: str
    choices:
      - trace
      - none
    default: trace
  compensate:
    description:
      - A task, or a list of tasks, that undoes what of the wrapped task is out of the engine's reach, or C("{{ name }}") of a variable
        that has them.
      - It is stored before the task runs, and runs when an undo has come to this step, before the step's own files are undone.
      - The wrapped task's result is C(acid_result) there.
      - It is tried four times. With the controller gone, V(command) and V(shell) tasks of the host itself are run by the host; others
        are debts, which the playbook C(acid.host.recover) pays.
    type: raw
"""

EXAMPLES = r"""
- name: A step with keywords
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      acid.host.tx_begin:
    - name: Two files
      acid.host.tx_step:
        task:
          ansible.builtin.copy:
            content: "{{ item }}\n"
            dest: "/etc/level-{{ item }}.conf"
            mode: "0644"
      loop:
        - one
        - two
      register: files
    - name: A command
      acid.host.tx_step:
        task:
          ansible.builtin.command: cat /etc/level-one.conf
      changed_when: false
    - name: Undo them
      acid.host.tx_rollback:

- name: A step that is undone elsewhere too
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      acid.host.tx_begin:
    - name: Register the host
      acid.host.tx_step:
        task:
          ansible.builtin.command: echo 4711
        compensate:
          - name: Take it off the list
            ansible.builtin.command: echo "{{ acid_result.stdout }} is gone"
            delegate_to: localhost
            register: said
          - name: See that it is
            ansible.builtin.assert:
              that: said.stdout == '4711 is gone'
      changed_when: true
    - name: Undo it
      acid.host.tx_rollback:
      register: undone
    - name: It was compensated
      ansible.builtin.assert:
        that: undone.summary.compensations | map(attribute='state') == ['PAID']
"""

RETURN = r"""
result:
  description: There is no key of that name. The result is that of the wrapped task, with all of its own keys and no others.
  returned: never
  type: dict
error_class:
  description: The class of the error, for scripts.
  returned: when there is no transaction to add a step to
  type: str
  sample: no-transaction
"""
