# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_rollback."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.acid.host.plugins.plugin_utils import lifecycle
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    ARGUMENTS = {
        "tx": {"type": "str"},
        "to": {"type": "str"},
        "on_drift": {"type": "str", "choices": ["stop", "force", "merge"]},
        "_held_by": {"type": "str", "default": "tasks"},
        "_orphan": {"type": "bool", "default": False},
        "_rehearsed": {"type": "bool", "default": False},
        "_any_controller": {"type": "bool", "default": False},
    }

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "Check mode changes nothing, so nothing is rolled back."}
        if arguments["_orphan"]:
            summary = lifecycle.roll_back_orphan(self, task_vars)
            return {"changed": bool(summary), "summary": summary}
        current = self.open_transaction(task_vars)
        policy = arguments["on_drift"] or ""
        if arguments["tx"] and (current is None or arguments["tx"] != current.tx):
            before = lifecycle.info(self, task_vars, tx=arguments["tx"]).get("transaction", {})
            summary = lifecycle.roll_back_ended(
                self, task_vars, tx=arguments["tx"], any_controller=arguments["_any_controller"], on_drift=policy
            )
            if before.get("state") == "ABORTED":
                return {"changed": False, "summary": summary, "tx": arguments["tx"]}
        elif arguments["to"]:
            current = self.required_transaction(task_vars, purpose="roll back")
            summary = lifecycle.roll_back_to(self, task_vars, current, name=arguments["to"], on_drift=policy)
        else:
            current = self.required_transaction(task_vars, purpose="roll back")
            if arguments["_held_by"] != current.held_by:
                self.only_explicit(current)
            rehearsed = arguments["_rehearsed"]
            summary = lifecycle.end(self, task_vars, current, outcome=lifecycle.ROLLED_BACK, rehearsed=rehearsed, on_drift=policy)
        self._fail_unless_exact(summary, held_by=arguments["_held_by"])
        return {"changed": bool(summary.get("paths") or summary.get("units")), "summary": summary, "tx": summary.get("tx")}

    @staticmethod
    def _fail_unless_exact(summary: dict[str, Any], *, held_by: str) -> None:
        """The callback reads the host's answer itself; a play that rolls back by a task has to hear of it by the task."""
        if held_by == "play" or summary.get("state") not in ("UNDO_FAILED", "DOOMED"):
            return
        differs = "; ".join(map(str, summary.get("differs", [])[:3])) or "see 'acidctl show'"
        raise AnsibleActionFail(
            f"The undo was not exact, and the transaction {summary.get('tx')} is {summary['state']}: {differs}.",
            result={"error_class": "undo-failed", "summary": summary, "tx": summary.get("tx")},
        )
