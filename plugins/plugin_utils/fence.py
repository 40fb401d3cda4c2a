# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of a task that no transaction can undo, by the option `irreversible`: it is let pass, named, or not sent. In the worker.

`deny` stops before anything is sent. All others are put down for the recap, where a host that was rolled back has to say what was not
undone; `warn` says so at once, too. A task with a compensation is not irreversible.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from . import connections, effects
from .hostcommand import HostCommand, HostError
from .ledger import OUTSIDE, Ledger, OpenTransaction

display = Display()

ALLOW, WARN, DENY = "allow", "warn", "deny"

# Filled in the main process before workers fork, so that nothing is warned about twice.
named_before: set[str] = set()


def module_of(task: Any) -> str:
    name = str(getattr(task, "resolved_action", None) or task.action)
    return name.replace("ansible.legacy.", "ansible.builtin.", 1)


def declared(task: Any, connection: Any) -> effects.Effect | None:
    """What the table says of a task whose arguments are final."""
    return effects.current().of(effects.Doing(module_of(task), task.args, connections.short_name(connection)))


def what_is_declared(task: Any, found: effects.Effect, outside: str) -> str:
    return f"{task.get_name()}: {module_of(task)}{f' on {outside}' if outside else ''}: {found.why}"


def meet(what: str, transaction: OpenTransaction, *, ledger: Ledger, advice: str = "") -> None:
    """Raises AnsibleActionFail where the policy forbids it. `what`: the task, and why it cannot be undone."""
    if transaction.irreversible == DENY:
        raise AnsibleActionFail(f"This cannot be undone, and 'irreversible: deny' forbids it: {what}. Nothing was sent. {advice}".rstrip())
    ledger.append(transaction.host, OUTSIDE, what=what)
    if transaction.irreversible == WARN and what not in named_before:
        display.warning(f"{what}: it will not be undone.")


def why_refused(action: Any, task_vars: dict[str, Any], transaction: OpenTransaction, *, login: Any) -> str:
    """Under `deny` the host refuses calls that no image can undo, and a program seldom says why one failed. Asks once for all since the
    last time; a refusal that nobody asks about is told to the next step."""
    request = {"tx": transaction.tx, "token": transaction.token}
    try:
        answer = HostCommand(action, task_vars, login=login).run("denied", request, engine=transaction.engine)
    except HostError as error:
        display.vvv(f"{transaction.host}: not known whether a call was refused: {error}")
        return ""
    return "; ".join(map(str, answer.get("denied", [])))
