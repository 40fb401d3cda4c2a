# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part in compensations (docs/compensation.md): recorded before the step, run when the undo comes to them.

    recorded = record(action, task_vars, transaction, wanted, say)     before the step; `say` takes a request to the host
    recorded.ended(result)                                             after it
    pay(action, task_vars, handed, ...) -> why it did not work         in an undo

If the worker dies after `record`, the compensation runs all the same, with `acid_result` saying so (INTERRUPTED).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleError
from ansible.playbook.task import Task
from ansible.utils.display import Display

from . import closure, host_commands, inner_task, sealed
from .hostcommand import HostError, encode
from .ledger import RESULT, Ledger, OpenTransaction

display = Display()

TIMEOUT = 300  # seconds, for a task that does not say its own
LARGEST_REQUEST = 120 << 10  # Linux takes 128 KiB in one word of a command line
INTERRUPTED = {"failed": True, "interrupted": True, "msg": "The step was interrupted, so what it did is not known."}
CENSORED = {"censored": "the step had 'no_log: true', so its result was not stored on the host"}
INHERITED = ("become", "become_user", "become_method", "become_flags")
# Not the result's own, or of no use later; arguments are never stored.
DROPPED = ("invocation", "stdout_lines", "stderr_lines", "warnings", "deprecations", "exception", "diff")

Say = Callable[[dict[str, Any]], Any]


class NotTasks(ValueError):
    """What stands in acid_compensate or `compensate`."""


@dataclass(frozen=True)
class Recorded:
    id: str
    host: str
    tx: str
    task_vars: Mapping[str, Any]
    action: Any
    tasks: tuple[tuple[dict[str, Any], Task], ...]
    secret: bool  # no_log, of the step or of the compensation
    may_run_there: bool
    root: bool
    say: Say

    def commands(self, result: Any) -> list[dict[str, Any]] | None:
        """For the host, should nobody else be there. Vault's values are not written out, so what needs them is for the controller."""
        if not self.may_run_there:
            return None
        templar = self.action._templar.copy_with_new_env(available_variables={**self.task_vars, "acid_result": result})
        return host_commands.of(self.tasks, templar, root=self.root)

    def ended(self, result: dict[str, Any]) -> None:
        secret = self.secret or bool(result.get("_ansible_no_log"))
        kept = _kept(result)
        place = f"{self.tx} {self.id} result"
        text = sealed.seal(CENSORED if secret else kept, place=place)
        if secret:
            Ledger.of_this_run().append(self.host, RESULT, id=self.id, result=kept)
        request = {"id": self.id, "result": text, "host": None if secret else self.commands(sealed.unpack(kept))}
        try:
            self.say(request)
        except (HostError, AnsibleError) as error:
            display.warning(f"{self.host}: its compensation will not know the result of this task: {error}")


def wanted(value: Any, task_vars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tasks as written. A text may be the name of a variable that has them. Raises NotTasks."""
    if isinstance(value, str):
        name = "".join(value.split()).removeprefix("{{").removesuffix("}}")
        if name not in task_vars:
            raise NotTasks(f"'{value}' names no variable; give a task, a list of tasks, or '{{{{ name }}}}' of a variable that has them")
        value = task_vars[name]
    found = [value] if isinstance(value, Mapping) else value
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(task, Mapping) for task in found):
        raise NotTasks(f"a {type(value).__name__} was given; give a task or a list of tasks")
    return [dict(task) for task in found]


def record(
    action: Any, task_vars: Mapping[str, Any], transaction: OpenTransaction, data: list[dict[str, Any]], *, step_id: str, say: Say
) -> Recorded:
    """On the host's disk when this returns. Raises NotTasks and HostError, and then the step must not run."""
    outer = action._task
    inherited = {key: getattr(outer, key) for key in INHERITED if getattr(outer, key) is not None}
    tasks = tuple(({**inherited, **one}, _load({**inherited, **one}, outer)) for one in data)
    known = closure.of([{**inherited, **one} for one in data], task_vars)
    secret = bool(outer.no_log)
    recorded = Recorded(
        id=uuid.uuid4().hex,
        host=transaction.host,
        tx=transaction.tx,
        task_vars=task_vars,
        action=action,
        tasks=tasks,
        secret=secret,
        may_run_there=not known.vaulted and not secret and not any(task.no_log for _data, task in tasks),
        root=transaction.login_is_root,
        say=say,
    )
    body = {"tasks": sealed.pack([one for one, _task in tasks]), "values": known.values, "left_out": known.left_out}
    request = {
        "id": recorded.id,
        "name": f"{outer.get_name()}",
        "step": step_id,
        "body": sealed.seal(body, place=f"{transaction.tx} {recorded.id} body"),
        "host": recorded.commands(INTERRUPTED),
        "seconds": sum(_seconds(task) for _data, task in tasks),
    }
    if len(encode(request)) > LARGEST_REQUEST:
        raise NotTasks("it is too long to be stored with its step; move its content into a file or a role's task that it includes")
    say(request)
    return recorded


def pay(action: Any, task_vars: dict[str, Any], handed: dict[str, Any], *, host: str, tx: str, any_controller: bool = False) -> str:
    """Run it once, all of its tasks in order. Why it did not work; empty: it did."""
    try:
        body = sealed.unseal(str(handed["body"]), place=f"{tx} {handed['id']} body", any_controller=any_controller)
        result = _result(handed, host=host, tx=tx, any_controller=any_controller)
    except sealed.Forged:
        return (
            "it was stored by another controller or user, or changed on the host. Run acid.host.recover where it came from, or look at it "
            "(acidctl debts) and take it on with -e acid_any_controller=true"
        )
    variables = {**task_vars, **sealed.unpack({sealed.MAPPING: body["values"]}), "acid_result": result}
    for data in sealed.unpack(body["tasks"]):
        try:
            task = _load(data, action._task)
        except NotTasks as error:
            return str(error)
        problem = _run(task, variables)
        if problem:
            missing = [f"{name} was not stored: {why}" for name, why in body["left_out"].items() if f"'{name}'" in problem]
            return "; ".join([problem, *missing])
    return ""


def _run(task: Task, variables: dict[str, Any]) -> str:
    result, new = inner_task.run(task, dict(variables))
    variables.update(new)
    ignore = bool(task.ignore_errors)
    if not (result.get("failed") or result.get("unreachable")) or ignore:
        return ""
    if result.get("_ansible_no_log") or task.no_log:
        return f"{task.get_name()}: it failed (the output is hidden by 'no_log: true')"
    result = next((item for item in result.get("results") or [] if isinstance(item, dict) and item.get("failed")), result)
    words = [str(result.get(key) or "").strip() for key in ("msg", "stderr", "module_stderr")]
    return ": ".join([task.get_name(), *([word.splitlines()[-1][:300] for word in words if word] or ["it failed"])])


def _load(data: dict[str, Any], around: Any) -> Task:
    try:
        task = inner_task.load(data, around)
    except AnsibleError as error:
        raise NotTasks(str(error)) from None
    if str(getattr(task, "resolved_action", None) or task.action).startswith("acid.host."):
        raise NotTasks(f"{task.action} cannot compensate anything")
    task.check_mode = False
    task.timeout = task.timeout or TIMEOUT
    return task


def _seconds(task: Task) -> int:
    attempts = 1 + (task.retries if isinstance(task.retries, int) else 3 if task.until else 0)
    one = task.timeout if isinstance(task.timeout, int) else TIMEOUT
    return attempts * one + (attempts - 1) * (task.delay if isinstance(task.delay, int) else 5)


def _result(handed: dict[str, Any], *, host: str, tx: str, any_controller: bool) -> Any:
    if handed.get("result") is None:
        return dict(INTERRUPTED)
    for event in Ledger.of_this_run().events(host):
        if event.kind == RESULT and event.data["id"] == handed["id"]:
            return _with_lines(sealed.unpack(event.data["result"]))
    return _with_lines(
        sealed.unpack(sealed.unseal(str(handed["result"]), place=f"{tx} {handed['id']} result", any_controller=any_controller))
    )


def _kept(result: Mapping[str, Any]) -> Any:
    """The packed result, without what is too much of it."""
    kept: dict[str, Any] = {}
    room = closure.LARGEST
    for key, value in sorted(result.items(), key=lambda pair: len(str(pair[1]))):
        if key in DROPPED or str(key).startswith("_ansible"):
            continue
        try:
            packed = _untrusted(sealed.pack(value))
        except sealed.Unstorable:
            continue
        room -= len(json.dumps(packed))
        if room < 0:
            kept["truncated"] = True
            break
        kept[str(key)] = packed
    return {sealed.MAPPING: kept}


def _untrusted(packed: Any) -> Any:
    """A result is data, whatever was in it."""
    if isinstance(packed, list):
        return [_untrusted(item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if sealed.TEMPLATE in packed and len(packed) == 1 and isinstance(packed[sealed.TEMPLATE], str):
        return packed[sealed.TEMPLATE]
    return {key: ({k: _untrusted(item) for k, item in value.items()} if key == sealed.MAPPING else value) for key, value in packed.items()}


def _with_lines(result: Any) -> Any:
    for name in ("stdout", "stderr"):
        if isinstance(result, dict) and isinstance(result.get(name), str):
            result.setdefault(f"{name}_lines", result[name].splitlines())
    return result
