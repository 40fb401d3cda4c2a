# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a task says something to the transaction of the host that it belongs to, also when its own connection leads elsewhere (delegate_to).

Then a task of ours, which is not delegated, says it: ansible-core makes the connection for that one as for any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import inner_task, lifecycle, steps
from .hostcommand import HostError, encode
from .ledger import OpenTransaction


class Way(NamedTuple):
    action: Any
    task_vars: dict[str, Any]
    transaction: OpenTransaction
    elsewhere: bool

    def savepoint(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._say("savepoint", request)

    def compensate(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._say("compensate", request)

    def _say(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        """Raises HostError, and AnsibleConnectionFailure where the host cannot be reached over the task's own connection."""
        request = {"tx": self.transaction.tx, "token": self.transaction.token, **request}
        with steps.unarmed():
            if not self.elsewhere:
                return lifecycle.call(self.action, self.task_vars, self.transaction, verb, request)
            return self._by_a_task(verb, request)

    def _by_a_task(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        arguments = {"name": "-", "_verb": verb, "_request": encode(request)}
        task = inner_task.load({"acid.host.tx_savepoint": arguments, "check_mode": False, "timeout": 0}, self.action._task)
        variables = {name: value for name, value in self.task_vars.items() if name != "ansible_delegated_vars"}
        result = inner_task.run(task, variables).result
        if result.get("failed") or result.get("unreachable"):
            raise HostError(str(result.get("error_class", "no-answer")), str(result.get("msg", "the host did not answer")))
        answer: dict[str, Any] = result["answer"]
        return answer


def way(action: Any, task_vars: dict[str, Any], transaction: OpenTransaction, *, elsewhere: bool) -> Way:
    return Way(action, task_vars, transaction, elsewhere)
