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
    description: Not in this version; anything given is refused.
    type: list
    elements: dict
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
