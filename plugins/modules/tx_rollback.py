#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tx_rollback
short_description: Undoes a transaction, or what came after a savepoint
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - Takes the host back to what it was before the open transaction, and ends it.
  - With O(to) it undoes only what came after that savepoint, and the transaction stays open.
  - With O(tx) it undoes a transaction that was committed before, as long as its images are kept.
  - Rolling back what is rolled back already changes nothing and succeeds.
  - Compensations of the steps that are undone are run in their places of the reverse order. Of a transaction whose compensations are owed
    or have failed, O(tx) runs those.
extends_documentation_fragment:
  - acid.host.tx
options:
  to:
    description: The name of a savepoint that M(acid.host.tx_savepoint) set in the open transaction.
    type: str
  tx:
    description: The id of a transaction of this host that is not the open one.
    type: str
  on_drift:
    description:
      - What becomes of paths that somebody else has changed since a step left them, instead of what the transaction's own option says.
      - With V(stop) they are left, with all that belongs together with them, and reported; the rest is undone, and the task fails.
      - With V(force) a copy is kept aside and they are undone. So a rollback that V(stop) has left unfinished can be finished.
      - With V(merge) files of lines are merged, such as C(/etc/hosts), and V(stop) is for all others.
    type: str
    choices: [stop, force, merge]
"""

EXAMPLES = r"""
- name: Try something, and take only that back
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      acid.host.tx_begin:
    - name: A setting
      acid.host.tx_step:
        task:
          ansible.builtin.copy:
            content: "level = 4\n"
            dest: /etc/level.conf
            mode: "0644"
    - name: Remember this point
      acid.host.tx_savepoint:
        name: configured
    - name: Something that does not work out
      acid.host.tx_step:
        task:
          ansible.builtin.command:
            cmd: rm /etc/level.conf
    - name: Take it back
      acid.host.tx_rollback:
        to: configured
    - name: Keep the rest
      acid.host.tx_commit:
      register: kept
    - name: Undo even that, later
      acid.host.tx_rollback:
        tx: "{{ kept.tx }}"
"""

RETURN = r"""
tx:
  description: The transaction's id.
  returned: when rolled back
  type: str
  sample: 20260101-120000-3f2a
summary:
  description: What was undone, as the host has it.
  returned: when rolled back
  type: dict
  contains:
    paths:
      description: How many paths were undone.
      type: int
    units:
      description: The systemd units that were started, stopped, restarted or reloaded to bring them back.
      type: list
      elements: str
    irreversible:
      description: What could not be undone.
      type: list
      elements: str
    differs:
      description: What differs from before, and compensations that have not succeeded.
      type: list
      elements: str
    told:
      description: What the undo left alone on purpose, or kept a copy of. Left out where there is nothing.
      type: list
      elements: str
    compensations:
      description: >-
        The compensations of the transaction, each with C(name), C(state), C(attempts) and C(reason). Left out where there are none.
      type: list
      elements: dict
    drift:
      description:
        - Present when somebody else has changed what the steps had left.
        - Lists of paths in C(left), C(held) (what had to stay with these), C(merged), C(kept_aside) (undone, with a copy) and
          C(gone) (what no step had made in directories born in the transaction).
      type: dict
    seconds:
      description: How long the undo took.
      type: float
error_class:
  description: The class of the error, for scripts.
  returned: on failure
  type: str
  sample: drift
"""
