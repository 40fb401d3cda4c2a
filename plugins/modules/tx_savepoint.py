#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tx_savepoint
short_description: Remembers a point of the open transaction to go back to
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - M(acid.host.tx_rollback) with O(acid.host.tx_rollback#module:to) undoes what came after it.
  - Works in transactions of M(acid.host.tx_begin) and in those that the callback holds.
  - With the callback, the variable C(acid_savepoint) on a block or task does the same, before the first task that carries it.
extends_documentation_fragment:
  - acid.host.tx
options:
  name:
    description: The savepoint's name. Of several with one name the newest counts, until it has itself been undone.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Remember a point
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      acid.host.tx_begin:
    - name: Remember this point
      acid.host.tx_savepoint:
        name: start
    - name: Nothing came after it, so nothing is undone
      acid.host.tx_rollback:
        to: start
    - name: Keep what there is
      acid.host.tx_commit:
"""

RETURN = r"""
savepoint:
  description: The savepoint's name.
  returned: when set
  type: str
  sample: start
epoch:
  description: The number of the time between two step boundaries that begins here.
  returned: when set
  type: int
  sample: 3
tx:
  description: The transaction's id.
  returned: when set
  type: str
  sample: 20260101-120000-3f2a
error_class:
  description: The class of the error, for scripts.
  returned: on failure
  type: str
  sample: no-transaction
"""
