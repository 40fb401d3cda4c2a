# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_step: runs one task as one step of the open transaction, and hands its result through unchanged."""

from __future__ import annotations

import uuid
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.playbook.task import Task
from ansible_collections.acid.host.plugins.plugin_utils import nested, steps, tasks
from ansible_collections.acid.host.plugins.plugin_utils.hostcommand import HostError
from ansible_collections.acid.host.plugins.plugin_utils.ledger import Ledger
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    _supports_async = True
    ARGUMENTS = {
        "task": {"type": "dict", "required": True},
        "compensate": {"type": "list", "elements": "dict"},
        "capture": {"type": "str", "choices": ["trace", "none"], "default": "trace"},
    }

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        """The wrapped task is parsed first and templated then, like any task: the other way round, a value could add arguments."""
        return value if name in ("task", "compensate") else super().finalize_task_arg(name, value, templar, context)

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if arguments["compensate"]:
            raise HostError(
                "usage",
                "tx_step: 'compensate' cannot be used yet: compensations are not in this version.",
                "Undo it in the play's rescue section.",
            )
        inner = self._inner_task(arguments["task"])
        handler = nested.handler_of(inner, self)
        if self._task.check_mode:
            return nested.run(handler, task_vars)
        transaction = self.required_transaction(task_vars, purpose="add a step to")
        if arguments["capture"] == "none":
            return nested.run(handler, task_vars)
        steps.install()
        info = tasks.step_info(inner, step_id=uuid.uuid4().hex)
        armed = steps.Armed(self._connection, transaction, info._replace(position=tasks.position(self._task)), task_vars)
        return tasks.supervise(nested.run, (handler, task_vars), {}, handler=handler, armed=armed, ledger=Ledger.of_this_run())

    def _inner_task(self, data: dict[str, Any]) -> Task:
        try:
            return nested.task_of(data, self)
        except nested.NotOneTask as error:
            raise AnsibleActionFail(str(error)) from None
