# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decides for each task whether it is a step, of which transaction, and says so to the host. Lives in the worker process.

Called with the action handler of every task, just before it runs. A task that never sends a command (debug, set_fact, add_host,
...) makes no step, without a list of such tasks: the step begins on the host with its first command.
"""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from . import compensating, connections, effects, elevation, fence, inner_task, lifecycle, own_host, shim, special_tasks, steps
from .hostcommand import HostCommand, HostError
from .ledger import BYPASSED, OUTSIDE, SAVEPOINT, STEP, Ledger, OpenTransaction
from .options import Options, override

display = Display()

OWN_ACTIONS = frozenset(f"acid.host.{name}" for name in ("tx_begin", "tx_step", "tx_savepoint", "tx_rollback", "tx_commit", "tx_info"))

WITHOUT_PYTHON = frozenset(("ansible.builtin.raw", "ansible.builtin.script"))

#: Hosts of the running play that turned the transaction off. None: it is no play of ours (check mode). Workers inherit it by fork.
opted_out: frozenset[str] | None = None


class Where(NamedTuple):
    """`transaction` is None outside, and then `outside` says where that is."""

    transaction: OpenTransaction | None
    outside: str


class Wishes(NamedTuple):
    """What a task's own variables ask for: `acid_capture`, `acid_savepoint`, `acid_compensate`. `carrier` is the task, block or play that
    the savepoint is written on."""

    traced: bool
    savepoint: str
    carrier: str
    compensate: list[dict[str, Any]]


def prepare(executor: Any, handler: Any) -> None:
    """Wrap the handler's `run` so that its commands become a step. Does nothing on hosts that turned the transaction off, unless the task
    goes to one that has one."""
    task, host = handler._task, executor._host.name
    if inner_task.running:
        return
    steps.disarm()
    ledger = Ledger.of_this_run()
    if handler._connection is None or action_name(task) in OWN_ACTIONS:
        return
    elsewhere = str(task.delegate_to) if task.delegate_to and task.delegate_to != host else ""
    own = _held_by_play(host, ledger=ledger)
    if own is None:
        waits = ledger.waiting(host) is not None
        if waits and not elsewhere:
            _begin_late(executor, handler, ledger=ledger)
            return
        if not waits and opted_out is not None and host not in opted_out:
            handler.run = _refusing_without_begin(host)
            return
        own = _held_by_play(elsewhere, ledger=ledger) if elsewhere else None  # a guest's step: all it asks for is asked of that host
        if own is None:
            return
    where = destination(handler, own, ledger=ledger)
    run = handler.run

    @functools.wraps(run)
    def run_as_step(*args: Any, **kwargs: Any) -> Any:
        task_vars = kwargs.get("task_vars") or {}
        _refuse_what_cannot_be(handler, where)
        wishes = wishes_of(handler, task_vars)
        covered = where.transaction is not None
        far = special_tasks.changes_elsewhere(handler, task_vars, host=host)
        if own.host == host and special_tasks.starts_rsync_by_itself(handler, task_vars, host=host):
            covered = covered or special_tasks.only_sends_from_delegate(handler, task_vars, host=host)
            if wishes.traced and not far:
                special_tasks.lead_rsync_through_shim(handler, task_vars, own, step_info(task, step_id=uuid.uuid4().hex))
        say = own_host.way(handler, task_vars, own, elsewhere=where.transaction is not own)
        if wishes.savepoint:
            _set_savepoint(own, wishes, say, ledger=ledger)
        step_id = _step_id(executor, where)
        told = _meet_declared(handler, own, where, ledger=ledger, compensated=bool(wishes.compensate))
        if far and wishes.traced and not told:
            fence.meet(special_tasks.what_is_far(task.get_name(), far), own, ledger=ledger, advice="Give it 'acid_compensate'.")
        if wishes.compensate and not task.check_mode:
            _record(executor, handler, task_vars, own, wishes.compensate, step_id=step_id, say=say)
        if covered and not wishes.traced:
            if not told:
                _leave_out(task, own, ledger=ledger)
            return run(*args, **kwargs)
        if where.transaction is not None and action_name(task) == special_tasks.REBOOT and not task.check_mode:
            return special_tasks.reboot(lambda: run(*args, **kwargs), task, _sayer(handler, task_vars, where.transaction))
        step = step_info(task, step_id=step_id)
        outside = _nothing_to_say if told or covered else _on_outside(task, own, where.outside, ledger=ledger)
        armed = steps.Armed(handler._connection, where.transaction, step, task_vars, outside, sent_by=host)
        try:
            return supervise(run, args, kwargs, handler=handler, armed=armed, ledger=ledger)
        finally:
            _keep_step_id(executor, where, armed.step.id)

    handler.run = run_as_step


def _held_by_play(host: str, *, ledger: Ledger) -> OpenTransaction | None:
    found = ledger.open_transaction(host)
    return found if found is not None and found.held_by == "play" else None


def _refusing_without_begin(host: str) -> Callable[..., Any]:
    """Such a host was left out when the play began, and `meta: clear_host_errors` let it in again, when it was too late to begin."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AnsibleActionFail(
            f"{host} has no transaction, so this task was not run: the host could not begin with the play (it was unreachable), and "
            "'meta: clear_host_errors' brought it back later. Run the play again on it, or set 'acid_transaction: false' for it."
        )

    return refuse


def _sayer(handler: Any, task_vars: dict[str, Any], to: OpenTransaction) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Says something to the transaction of the host that the handler's connection leads to."""

    def say(verb: str, request: dict[str, Any]) -> dict[str, Any]:
        with steps.unarmed():
            return lifecycle.call(handler, task_vars, to, verb, {"tx": to.tx, "token": to.token, **request})

    return say


def _begin_late(executor: Any, handler: Any, *, ledger: Ledger) -> None:
    """The host had no Python when the play began. Tasks that need none run unprotected, and say so; the first other one begins."""
    task, host, run = handler._task, executor._host.name, handler.run

    @functools.wraps(run)
    def run_late(*args: Any, **kwargs: Any) -> Any:
        task_vars = kwargs.get("task_vars") or {}
        if action_name(task) in WITHOUT_PYTHON:
            what = f"{task.get_name()}: {action_name(task)} before there was a Python to hold a transaction with"
            ledger.append(host, OUTSIDE, what=what)
            display.warning(f"{host}: {what}: it will not be undone.")
            return run(*args, **kwargs)
        options = override(Options(), ledger.waiting(host) or {}, where="waiting")
        try:
            lifecycle.begin(handler, task_vars, host=host, options=options, held_by="play")
        except HostError as error:
            raise AnsibleActionFail(f"No transaction, so this task is not run: {error}") from None
        del handler.run
        prepare(executor, handler)
        return handler.run(*args, **kwargs)

    handler.run = run_late


def supervise(run: Callable[..., Any], args: Any, kwargs: Any, *, handler: Any, armed: steps.Armed, ledger: Ledger) -> Any:
    """Run it as the armed step and tell the ledger. The step stays armed: polling an asynchronous task comes after `run`."""
    steps.arm(armed)
    transaction = armed.transaction
    try:
        result = run(*args, **kwargs)
        if transaction is not None:
            _tell_why_refused(result, handler, armed, transaction)
        return result
    finally:
        if transaction is not None:
            try:
                for step_id in dict.fromkeys(armed.ran):
                    ledger.append(transaction.host, STEP, id=step_id, task=armed.step.task, by=armed.sent_by or transaction.host)
            finally:
                if armed.bypassed:
                    _doom(handler, armed, transaction, ledger=ledger)


def destination(handler: Any, own: OpenTransaction, *, ledger: Ledger) -> Where:
    """The transaction of the host that the task's commands go to."""
    target = handler._task.delegate_to
    if target and target != own.host:
        other = ledger.open_transaction(target)
        return Where(other, "") if other is not None and other.held_by == "play" else Where(None, f"{target} (delegate_to)")
    name = connections.short_name(handler._connection)
    if name != own.connection or connections.address_of(handler) != own.address:
        return Where(None, f"{connections.address_of(handler)} (connection: {name})")
    return Where(own, "")


def action_name(task: Any) -> str:
    return str(getattr(task, "resolved_action", None) or task.action)


def step_info(task: Any, *, step_id: str) -> shim.StepInfo:
    return shim.StepInfo(
        id=step_id,
        task=task.get_name(),
        module=action_name(task),
        position=position(task),
        no_log=bool(task.no_log),
        check=bool(task.check_mode),
    )


def item_starts(executor: Any) -> None:
    """A task, or one item of a loop, is about to run. With a compensation it is a step of its own."""
    if executor.__dict__.pop("_acid_compensation", None) is not None:
        executor.__dict__.pop("_acid_step_ids", None)


def item_ended(executor: Any, result: Any) -> None:
    recorded = executor.__dict__.get("_acid_compensation")
    if recorded is not None:
        with steps.unarmed():
            recorded.ended(inner_task.as_result(result))


def _record(
    executor: Any, handler: Any, task_vars: dict[str, Any], own: OpenTransaction, data: list[dict[str, Any]], *, step_id: str, say: Any
) -> None:
    """Once, however often the task is tried."""
    if executor.__dict__.get("_acid_compensation") is not None:
        return
    try:
        executor._acid_compensation = compensating.record(handler, task_vars, own, data, step_id=step_id, say=say.compensate)
    except (HostError, compensating.NotTasks) as error:
        raise AnsibleActionFail(f"The compensation could not be stored, so this task was not run: {error}") from None


def _step_id(executor: Any, where: Where) -> str:
    """One step per task and host: items of a loop and retries are parts of it."""
    ids: dict[str, str] = executor.__dict__.setdefault("_acid_step_ids", {})
    return ids.setdefault(where.transaction.tx if where.transaction else "", uuid.uuid4().hex)


def _keep_step_id(executor: Any, where: Where, step_id: str) -> None:
    executor._acid_step_ids[where.transaction.tx if where.transaction else ""] = step_id


def position(task: Any) -> str:
    path, _dummy, line = (task.get_path() or "").rpartition(":")
    if not path:
        return ""
    short = os.path.relpath(path)
    return f"{path if short.startswith('..') else short}:{line}"


def _refuse_what_cannot_be(handler: Any, where: Where) -> None:
    if where.transaction is None:
        return
    why = connections.refusal(handler._connection)
    if why:
        raise AnsibleActionFail(f"{why[0].upper()}{why[1:]}.")


def wishes_of(handler: Any, task_vars: dict[str, Any]) -> Wishes:
    compensate: list[dict[str, Any]] = []
    if task_vars.get("acid_compensate") is not None:
        try:
            compensate = compensating.wanted(task_vars["acid_compensate"], task_vars)
        except compensating.NotTasks as error:
            raise AnsibleActionFail(f"acid_compensate: {error}. This task was not run.") from None
    capture, savepoint = (task_vars.get(name) for name in ("acid_capture", "acid_savepoint"))
    capture = handler._templar.template(capture) if capture is not None else "trace"
    if capture not in ("trace", "none"):
        raise AnsibleActionFail(f"acid_capture is '{capture}'; give 'trace' or 'none'. This task was not run.")
    name = str(handler._templar.template(savepoint)) if savepoint else ""
    return Wishes(capture == "trace", name, _carrier(handler._task, "acid_savepoint") if name else "", compensate)


def _carrier(task: Any, variable: str) -> str:
    """The nearest of task, blocks and play that sets the variable: a block's is set once, before the first of its tasks."""
    at = task
    while at is not None and variable not in (at.vars or {}):
        at = getattr(at, "_parent", None)
    return str(at._uuid) if at is not None else "play"


def _set_savepoint(own: OpenTransaction, wishes: Wishes, say: Any, *, ledger: Ledger) -> None:
    done = {"tx": own.tx, "carrier": wishes.carrier, "name": wishes.savepoint}
    if any(event.kind == SAVEPOINT and event.data == done for event in ledger.since_begin(own.host)):
        return
    try:
        say.savepoint({"name": wishes.savepoint})
    except HostError as error:
        raise AnsibleActionFail(f"The savepoint '{wishes.savepoint}' could not be set, so this task was not run: {error}") from None
    ledger.append(own.host, SAVEPOINT, **done)


def _nothing_to_say() -> None:
    """It has been said."""


def _meet_declared(handler: Any, own: OpenTransaction, where: Where, *, ledger: Ledger, compensated: bool) -> bool:
    """Whether nothing more is to be said of the task: it leaves nothing behind, it is compensated, or the table had a word on it."""
    task = handler._task
    found = fence.declared(task, handler._connection)
    if task.check_mode or compensated or (found is not None and found.effect == effects.NONE):
        return True
    if found is None:
        return False
    if found.effect == effects.BOOT and action_name(task) != special_tasks.REBOOT and not where.outside:
        raise AnsibleActionFail(
            f"{action_name(task)} belongs into a play of its own, with 'acid_transaction: false': the host would undo the transaction "
            "when it boots. Nothing was sent."
        )
    fence.meet(fence.what_is_declared(task, found, where.outside), own, ledger=ledger, advice="Give it 'acid_compensate'.")
    return True


def _leave_out(task: Any, own: OpenTransaction, *, ledger: Ledger) -> None:
    """The user asked for no before-images here; without a compensation that is irreversible like everything else outside."""
    fence.meet(f"{task.get_name()}: {action_name(task)} with 'acid_capture: none'", own, ledger=ledger)


def _on_outside(task: Any, own: OpenTransaction, outside: str, *, ledger: Ledger) -> Callable[[], None]:
    """What to do when a task's first command goes to a host that no transaction of this play covers."""
    said: list[bool] = []

    def note() -> None:
        if not said:
            said.append(True)
            what = f"{task.get_name()}: {action_name(task)} on {outside}"
            fence.meet(what, own, ledger=ledger, advice="Put that host into the play.")

    return note


def _tell_why_refused(result: Any, handler: Any, armed: steps.Armed, transaction: OpenTransaction) -> None:
    """A step that failed under `deny` may have been refused a call, and its program may not have said so."""
    failed = isinstance(result, dict) and (result.get("failed") or result.get("rc") not in (None, 0))
    if transaction.irreversible != fence.DENY or not armed.ran or not failed:
        return
    login = elevation.Login(transaction.login, transaction.login_is_root)
    with steps.unarmed():
        why = fence.why_refused(handler, armed.task_vars, transaction, login=login)
    if why:
        result["msg"] = f"{why} {result.get('msg') or ''}".rstrip()


def _doom(handler: Any, armed: steps.Armed, transaction: OpenTransaction, *, ledger: Ledger) -> None:
    reason = f"step '{armed.step.task}' ({armed.step.module}) sent {armed.bypassed[0]}"
    login = elevation.Login(transaction.login, transaction.login_is_root)
    try:
        ledger.append(transaction.host, BYPASSED, reason=reason)
    except OSError as error:
        display.warning(f"{transaction.host}: {reason}; the controller cannot note it ({error}).")
    try:
        with steps.unarmed():
            HostCommand(handler, armed.task_vars, login=login).run(
                "doom", {"tx": transaction.tx, "token": transaction.token, "reason": reason}, engine=transaction.engine
            )
    except HostError as error:
        display.warning(f"{transaction.host}: {reason}; the host could not be told ({error}), so the controller rolls back.")
