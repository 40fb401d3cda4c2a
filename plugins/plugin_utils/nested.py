# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the task inside `tx_step` as Ansible itself would have run it: same parsing, module_defaults, action plugin, keywords.

The wrapped task takes its keywords (become, environment, async, check_mode, ...) from the tx_step task around it, so only a
module and its arguments may stand inside.
"""

from __future__ import annotations

from typing import Any

from ansible.playbook.task import Task
from ansible.plugins.loader import action_loader, module_loader

from .inner_task import NOT_A_MODULE


class NotOneTask(ValueError):
    """What stands under `task:` is not one module with its arguments."""


def task_of(data: dict[str, Any], action: Any) -> Task:
    """The wrapped task, with its arguments templated once. Raises NotOneTask."""
    outer = action._task
    modules = [key for key in data if key != "args"]
    if len(modules) != 1:
        raise NotOneTask(
            f"tx_step: give exactly one module under 'task', not {len(modules)} ({', '.join(map(str, modules)) or 'none'}); "
            "keywords such as become or when go to the tx_step task itself."
        )
    if modules[0] in NOT_A_MODULE:
        raise NotOneTask(f"tx_step: '{modules[0]}' is no module. Wrap the tasks that it leads to.")
    parsed = Task(block=None, role=outer._role)
    parsed._parent = outer._parent
    parsed.load_data(dict(data), variable_manager=outer._variable_manager, loader=action._loader)
    inner = outer.copy(exclude_parent=True, exclude_tasks=True)
    inner._parent = outer._parent
    inner.action = parsed.action
    inner.args = inner._post_validate_args("args", parsed.args, action._templar._engine)
    return inner


def handler_of(task: Task, action: Any) -> Any:
    """The same choice of action plugin as TaskExecutor makes, but for network devices, which are refused anyway."""
    collections = task.collections
    module = module_loader.find_plugin_with_context(task.action, collection_list=collections)
    if module.resolved and module.action_plugin:
        name = module.action_plugin
    elif action_loader.has_plugin(task.action, collection_list=collections):
        name = task.action
    else:
        name, collections = "ansible.legacy.normal", None
    return action_loader.get(
        name,
        task=task,
        connection=action._connection,
        play_context=action._play_context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
        collection_list=collections,
    )


def run(handler: Any, task_vars: dict[str, Any]) -> dict[str, Any]:
    try:
        result: dict[str, Any] = handler.run(task_vars=task_vars)
        return result
    finally:
        handler.cleanup()
