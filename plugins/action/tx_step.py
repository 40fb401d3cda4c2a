# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_step: runs one task as one step of the open transaction, and hands its result through unchanged."""

from __future__ import annotations

import uuid
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.playbook.task import Task
from ansible_collections.acid.host.plugins.plugin_utils import (
    compensating,
    effects,
    fence,
    nested,
    own_host,
    shim,
    special_tasks,
    steps,
    tasks,
)
from ansible_collections.acid.host.plugins.plugin_utils.hostcommand import HostError
from ansible_collections.acid.host.plugins.plugin_utils.ledger import Ledger, OpenTransaction
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    _supports_async = True
    ARGUMENTS = {
        "task": {"type": "dict", "required": True},
        "compensate": {"type": "raw"},
        "capture": {"type": "str", "choices": ["trace", "none"], "default": "trace"},
    }

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        """The wrapped task is parsed first and templated then, like any task: the other way round, a value could add arguments."""
        return value if name in ("task", "compensate") else super().finalize_task_arg(name, value, templar, context)

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        inner = self._inner_task(arguments["task"])
        handler = nested.handler_of(inner, self)
        if self._task.check_mode:
            return nested.run(handler, task_vars)
        transaction = self.required_transaction(task_vars, purpose="add a step to")
        info = tasks.step_info(inner, step_id=uuid.uuid4().hex)
        if arguments["compensate"]:
            return self._compensated(arguments, task_vars, transaction, handler, info)
        return self._step(arguments, task_vars, transaction, handler, info)

    def _compensated(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], transaction: OpenTransaction, handler: Any, info: shim.StepInfo
    ) -> dict[str, Any]:
        say = own_host.way(self, task_vars, transaction, elsewhere=False)
        try:
            data = compensating.wanted(arguments["compensate"], task_vars)
            recorded = compensating.record(handler, task_vars, transaction, data, step_id=info.id, say=say.compensate)
        except compensating.NotTasks as error:
            raise HostError("usage", f"tx_step: compensate: {error}.", "The task was not run.") from None
        result: dict[str, Any] = {"failed": True, "msg": "It failed before it had a result."}
        try:
            result = self._step(arguments, task_vars, transaction, handler, info)
        finally:
            recorded.ended(result)
        return result

    def _step(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], transaction: OpenTransaction, handler: Any, info: shim.StepInfo
    ) -> dict[str, Any]:
        ledger = Ledger.of_this_run()
        found = None if arguments["compensate"] else fence.declared(handler._task, self._connection)
        if found is not None and found.effect != effects.NONE:
            fence.meet(fence.what_is_declared(handler._task, found, ""), transaction, ledger=ledger, advice="Give it 'compensate'.")
        if arguments["capture"] == "none":
            return nested.run(handler, task_vars)
        host = str(task_vars["inventory_hostname"])
        far = special_tasks.changes_elsewhere(handler, task_vars, host=host)
        if far and not arguments["compensate"]:
            fence.meet(special_tasks.what_is_far(info.task, far), transaction, ledger=ledger, advice="Give it 'compensate'.")
        if not far and special_tasks.starts_rsync_by_itself(handler, task_vars, host=host):
            own = self._transaction_of(host, ledger=ledger)
            special_tasks.lead_rsync_through_shim(handler, task_vars, own, info._replace(id=uuid.uuid4().hex))
        steps.install()
        armed = steps.Armed(self._connection, transaction, info._replace(position=tasks.position(self._task)), task_vars)
        return tasks.supervise(nested.run, (handler, task_vars), {}, handler=handler, armed=armed, ledger=ledger)

    def _transaction_of(self, host: str, *, ledger: Ledger) -> OpenTransaction:
        """Also when the step itself is one of a delegate's."""
        found = ledger.open_transaction(host)
        if found is None:
            raise HostError(
                "no-transaction",
                f"There is no open transaction on {host}, which synchronize changes from the host that it is delegated to.",
                f"Begin one on {host} as well, or give 'capture: none'. Nothing was sent.",
            )
        return found

    def _inner_task(self, data: dict[str, Any]) -> Task:
        try:
            return nested.task_of(data, self)
        except nested.NotOneTask as error:
            raise AnsibleActionFail(str(error)) from None
