# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a whole task, with all of its keywords, from within a worker process that is at another one.

    task = inner_task.load({"ansible.builtin.uri": {...}, "delegate_to": "lb"}, action._task)
    ran = inner_task.run(task, {**task_vars, "acid_result": ...})

It is run by ansible-core's own TaskExecutor, with the worker's connection settings, passwords and inventory, and as a task of the play:
keywords of the blocks around the worker's own task do not apply. No callback hears of it. While it runs, nothing is a step (`running`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ansible._internal._task import TaskContext
from ansible.errors import AnsibleError
from ansible.executor.process import worker as worker_process
from ansible.executor.task_executor import TaskExecutor
from ansible.playbook.block import Block
from ansible.playbook.task import Task

NOT_A_MODULE = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "ansible.builtin.", "ansible.legacy.")
    for name in ("include_role", "import_role", "include_tasks", "import_tasks", "import_playbook", "meta", "block")
)

running = False


class Silent:
    """Stands for the queue to the main process: takes everything, tells nobody."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def load(data: dict[str, Any], around: Any) -> Task:
    """Raises AnsibleError for what is not one task. `around`: the worker's own task, for the play that it belongs to."""
    top = around
    while getattr(top, "_parent", None) is not None:
        top = top._parent
    if any(key in NOT_A_MODULE for key in data):
        raise AnsibleError(f"{next(key for key in data if key in NOT_A_MODULE)} is no module; give the tasks that it leads to")
    block = Block(play=getattr(top, "_play", None))
    block._variable_manager, block._loader = around._variable_manager, around._loader
    return Task.load(dict(data), block=block, variable_manager=around._variable_manager, loader=around._loader)


class Ran(NamedTuple):
    """`result` as the task would register it (an error is one too; an unreachable host has `unreachable`); `variables` for later tasks."""

    result: dict[str, Any]
    variables: dict[str, Any]


def run(task: Task, task_vars: dict[str, Any]) -> Ran:
    register = task.register
    task_vars = {**task_vars, **task.get_vars()}
    worker = worker_process.current_worker
    known = {
        "host": worker._host,
        "task": task,
        "job_vars": task_vars,
        "play_context": worker._play_context,
        "loader": worker._loader,
        "shared_loader_obj": worker._shared_loader_obj,
        "final_q": Silent(),
        "variable_manager": worker._variable_manager,
    }
    executor = TaskExecutor(*(known[name] for name in inspect.signature(TaskExecutor).parameters if name in known))
    # From ansible-core 2.21 on, that is where the executor finds task and variables; before it, only lookups look there.
    create = getattr(TaskContext, "create", None)
    with _nothing_is_a_step(), create(task=task, task_vars=task_vars, host_name=worker._host.name) if create else TaskContext(task):
        task.squash()
        returned = executor.run()
        result = as_result(returned)
        facts = result.get("ansible_facts")
        variables = dict(facts) if isinstance(facts, Mapping) else {}
        if isinstance(register, str):
            variables[register] = result
        elif register:  # several variables out of one result, from ansible-core 2.21 on
            returned.finalize_registered_values()
            variables.update(returned.registered_values or {})
        return Ran(result, variables)


def as_result(returned: Any) -> dict[str, Any]:
    """What TaskExecutor's methods return: a dict, and from ansible-core 2.21 on an object."""
    result: dict[str, Any] = returned if isinstance(returned, dict) else returned.as_result_dict()
    return result


@contextmanager
def _nothing_is_a_step() -> Iterator[None]:
    global running
    before, running = running, True
    try:
        yield
    finally:
        running = before
