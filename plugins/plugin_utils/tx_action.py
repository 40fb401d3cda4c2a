# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tx_* action plugins have in common: arguments, errors as sentences, check mode."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from . import steps
from .hostcommand import HostError
from .ledger import Ledger, OpenTransaction
from .options import OptionError


class TxAction(ActionBase):  # type: ignore[misc]
    """A subclass names its arguments and does its work in `act`, which returns the result or raises HostError."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    ARGUMENTS: dict[str, dict[str, Any]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        arguments = self.arguments()
        with steps.unarmed():
            try:
                return {**result, **self.act(arguments, variables)}
            except OptionError as error:
                raise AnsibleActionFail(str(error)) from None
            except HostError as error:
                raise AnsibleActionFail(str(error), result={"error_class": error.kind}) from None

    @abstractmethod
    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]: ...

    def arguments(self) -> dict[str, Any]:
        _dummy, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
        found: dict[str, Any] = arguments
        return found

    def host(self, task_vars: dict[str, Any]) -> str:
        """The inventory name of the host that the task's commands go to."""
        return str(self._task.delegate_to or task_vars["inventory_hostname"])

    def open_transaction(self, task_vars: dict[str, Any]) -> OpenTransaction | None:
        return Ledger.of_this_run().open_transaction(self.host(task_vars))

    def required_transaction(self, task_vars: dict[str, Any], *, purpose: str) -> OpenTransaction:
        found = self.open_transaction(task_vars)
        if found is None:
            raise HostError(
                "no-transaction",
                f"There is no open transaction of this play on {self.host(task_vars)}, so there is nothing to {purpose}.",
                "Begin one with acid.host.tx_begin, or enable the callback acid.host.transaction.",
            )
        return found

    def only_explicit(self, transaction: OpenTransaction) -> None:
        """The callback ends its own transactions, when the verdict on the host is final."""
        if transaction.held_by == "play":
            raise HostError(
                "wrong-state",
                f"The transaction {transaction.tx} on {transaction.host} is held by the callback acid.host.transaction, "
                "which ends it after the play.",
                "Fail the play to roll it back, or set 'acid_transaction: false' on the play and use acid.host.tx_begin.",
            )
