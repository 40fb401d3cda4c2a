#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tx_info
short_description: Says whether a transaction holds the host, and what its journal has
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - Reads only.
  - As a play's first task with O(required=true), it makes sure that the play does not run without its transaction, should the
    callback not be enabled or not be found.
extends_documentation_fragment:
  - acid.host.tx
options:
  required:
    description: Fail when no transaction of this play holds the host. In check mode there never is one, so this is not asked for then.
    type: bool
    default: false
  tx:
    description: The id of the transaction to ask about. The open one where nothing is said.
    type: str
"""

EXAMPLES = r"""
- name: What the host's journal says
  hosts: all
  gather_facts: false
  tasks:
    - name: Ask
      acid.host.tx_info:
      register: journal
    - name: Show it
      ansible.builtin.debug:
        var: journal.held

- name: A play that insists on its transaction
  hosts: all
  gather_facts: false
  tasks:
    - name: Begin, as the callback would
      acid.host.tx_begin:
    - name: Insist
      acid.host.tx_info:
        required: true
    - name: End it
      acid.host.tx_rollback:
"""

RETURN = r"""
held:
  description: Whether a transaction of this play holds the host.
  returned: always
  type: bool
held_by:
  description: V(play) when the callback began it, V(tasks) when M(acid.host.tx_begin) did.
  returned: always
  type: str
  sample: play
tx:
  description: The id of the transaction that holds the host.
  returned: always
  type: str
  sample: 20260101-120000-3f2a
journal:
  description: The host's own answer.
  returned: always
  type: dict
  contains:
    open:
      description: The transaction that is open on the host, whoever holds it.
      type: dict
    debts:
      description: Ids of the transactions whose compensations are owed.
      type: list
      elements: str
error_class:
  description: The class of the error, for scripts.
  returned: on failure
  type: str
  sample: no-transaction
"""
