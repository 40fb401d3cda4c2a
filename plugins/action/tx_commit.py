# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_commit."""

from __future__ import annotations

from typing import Any

from ansible_collections.acid.host.plugins.plugin_utils import connections, lifecycle
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    ARGUMENTS = {"_held_by": {"type": "str", "default": "tasks"}}

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "No transaction is open in check mode; there is nothing to commit."}
        transaction = self.required_transaction(task_vars, purpose="commit")
        if arguments["_held_by"] != transaction.held_by:
            self.only_explicit(transaction)
        connections.make_fresh(self._connection)
        summary = lifecycle.end(self, task_vars, transaction, outcome=lifecycle.COMMITTED)
        return {"changed": False, "summary": summary, "tx": transaction.tx}
