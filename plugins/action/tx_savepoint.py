# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_savepoint."""

from __future__ import annotations

import base64
import json
from typing import Any

from ansible_collections.acid.host.plugins.plugin_utils import lifecycle
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    ARGUMENTS = {"name": {"type": "str", "required": True}, "_verb": {"type": "str"}, "_request": {"type": "str"}}

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "No transaction is open in check mode; there is nowhere to set a savepoint."}
        transaction = self.required_transaction(task_vars, purpose="set a savepoint in")
        if arguments["_verb"]:  # for a task that is delegated elsewhere (own_host.py), and for the heartbeat
            known = {"tx": transaction.tx, "token": transaction.token}
            request = {**known, **json.loads(base64.b64decode(arguments["_request"]))}
            return {"changed": False, "answer": lifecycle.call(self, task_vars, transaction, arguments["_verb"], request)}
        answer = lifecycle.savepoint(self, task_vars, transaction, name=arguments["name"])
        return {"changed": False, "savepoint": answer.get("savepoint"), "epoch": answer.get("epoch"), "tx": transaction.tx}
