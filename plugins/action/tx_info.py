# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_info."""

from __future__ import annotations

from typing import Any

from ansible_collections.acid.host.plugins.plugin_utils import lifecycle
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    ARGUMENTS = {"tx": {"type": "str"}, "required": {"type": "bool", "default": False}}

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        transaction = self.open_transaction(task_vars)
        if arguments["required"] and not self._task.check_mode:
            transaction = self.required_transaction(task_vars, purpose="protect the host with")
        answer = lifecycle.info(self, task_vars, tx=arguments["tx"])
        return {
            "changed": False,
            "held": transaction is not None,
            "held_by": transaction.held_by if transaction else None,
            "tx": transaction.tx if transaction else None,
            "journal": answer,
        }
