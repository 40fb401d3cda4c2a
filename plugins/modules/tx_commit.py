#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tx_commit
short_description: Keeps what the open transaction did
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - Ends the transaction that M(acid.host.tx_begin) began on this host, and keeps its changes.
  - The host refuses to commit when a step is missing that the controller sent, or when the transaction can no longer be trusted.
  - A transaction that the callback holds ends by itself after the play, so this module refuses it.
extends_documentation_fragment:
  - acid.host.tx
"""

EXAMPLES = r"""
- name: Two settings, both or none
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      acid.host.tx_begin:
    - name: A setting
      acid.host.tx_step:
        task:
          ansible.builtin.lineinfile:
            path: /etc/level.conf
            line: level = 3
            create: true
            mode: "0644"
    - name: Keep it
      acid.host.tx_commit:
"""

RETURN = r"""
tx:
  description: The transaction's id.
  returned: when committed
  type: str
  sample: 20260101-120000-3f2a
summary:
  description: What the transaction did, as the host has it.
  returned: when committed
  type: dict
  contains:
    steps:
      description: The steps, each with the number of paths that it touched.
      type: list
      elements: dict
    paths:
      description: How many paths were touched.
      type: int
    seconds:
      description: How long the commit took.
      type: float
error_class:
  description: The class of the error, for scripts.
  returned: on failure
  type: str
  sample: doomed
"""
