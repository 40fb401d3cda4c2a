#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tx_begin
short_description: Begins a transaction on the host
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - From here on, tasks wrapped in M(acid.host.tx_step) are steps of the transaction, until M(acid.host.tx_commit) keeps what they did or
    M(acid.host.tx_rollback) undoes it.
  - The engine is put on the host first, once per version.
  - If neither happens within the lease, the host rolls back by itself.
  - With the callback P(acid.host.transaction#callback) enabled this module is not needed.
extends_documentation_fragment:
  - acid.host.tx
options:
  name:
    description: What people see in the recap and in C(acidctl list).
    type: raw
  confirm_timeout:
    description: >-
      The lease, in seconds (300 where nothing is said). A host that has not heard from the controller for so long rolls back by itself.
    type: raw
  durability:
    description: >-
      V(process), as where nothing is said, survives the death of any process. V(power) survives a power cut at any point too, and
      is slower.
    type: raw
  on_drift:
    description: >-
      What an undo does with a path that somebody else changed after the step did. V(stop), as where nothing is said, leaves it and
      reports it; V(force) undoes it and keeps a copy aside; V(merge) merges where a merge is defined.
    type: raw
  irreversible:
    description: What to do about a step that cannot be undone, one of V(allow), V(warn) and V(deny).
    type: raw
  exclude:
    description: Absolute paths on the host that are left out of the transaction.
    type: raw
  probes:
    description: >-
      Which kinds of run-time state are captured and restored, all where nothing is said; and probes of your own, as mappings with C(name),
      C(capture) and C(restore), or further trees of the probe C(etc). See C(docs/probes.md) of the collection.
    type: raw
  retention:
    description: How long the images of a committed transaction are kept, and how much of the file system they may take.
    type: raw
  scope:
    description: V(host) is the only one that this version knows.
    type: raw
  group:
    description: Not in this version; anything given is refused.
    type: raw
  parties:
    description: Not in this version; anything given is refused.
    type: raw
  delegates:
    description: V(irreversible) is the only one that this version knows.
    type: raw
  volumes:
    description: Not in this version; anything given is refused.
    type: raw
  checks:
    description: Not in this version; anything given is refused.
    type: raw
  observe:
    description: Not in this version; anything but V(0) is refused.
    type: raw
  rehearse:
    description: >-
      The callback P(acid.host.transaction#callback) rehearses whole plays. The explicit form cannot, so anything but V(false) is refused.
    type: raw
"""

EXAMPLES = r"""
- name: Upgrade as a whole or not at all
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      acid.host.tx_begin:
        name: upgrade
        confirm_timeout: 600
    - name: The upgrade
      block:
        - name: A setting
          acid.host.tx_step:
            task:
              ansible.builtin.copy:
                content: "level = 2\n"
                dest: /etc/level.conf
                mode: "0644"
        - name: Keep it
          acid.host.tx_commit:
      rescue:
        - name: Undo it
          acid.host.tx_rollback:
        - name: Say so
          ansible.builtin.fail:
            msg: The upgrade was rolled back.
"""

RETURN = r"""
tx:
  description: The transaction's id, as C(acidctl) on the host takes it.
  returned: when begun
  type: str
  sample: 20260101-120000-3f2a
state:
  description: The transaction's state.
  returned: when begun
  type: str
  sample: ACTIVE
engine:
  description: The hash of the engine that holds the transaction.
  returned: when begun
  type: str
  sample: 71bbf054e00b884d
seconds:
  description: How long the host took to begin.
  returned: when begun
  type: float
  sample: 0.14
error_class:
  description: The class of the error, for scripts.
  returned: on failure
  type: str
  sample: busy
"""
