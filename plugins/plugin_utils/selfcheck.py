# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks, before anything is hooked, that ansible-core is one that the hooks were tried with and looks as they expect.

The hooks reach into parts of ansible-core that are not promised to stay. A difference found here is a sentence and a play that does
not start; the same difference found later would be a task that ran outside its transaction.
"""

from __future__ import annotations

import inspect
from typing import Any

from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.playbook.play import Play
from ansible.plugins.action import ActionBase
from ansible.release import __version__
from ansible.vars.manager import VariableManager

from .steps import HOUSEKEEPING

TRIED = ((2, 19), (2, 20), (2, 21))

# class, method, the parameters that the hooks use (others may follow)
EXPECTED: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
    (TaskExecutor, "_get_action_handler_with_module_context", ("self", "templar")),
    (TaskExecutor, "_execute", ("self",)),
    (TaskQueueManager, "run", ("self", "play")),
    (ActionBase, "_low_level_execute_command", ("self", "cmd", "sudoable", "in_data", "executable")),
    (ActionBase, "_transfer_data", ("self", "remote_path", "data")),
    (ActionBase, "_get_remote_user", ("self",)),
    (ActionBase, "_get_remote_addr", ("self", "tvars")),
    (Play, "copy", ("self",)),
    (VariableManager, "clear_facts", ("self", "hostname")),
    *((ActionBase, name, ("self",)) for name in HOUSEKEEPING),
)

STATE = ("_failed_hosts", "_unreachable_hosts", "_stats", "_final_q", "_workers", "_callback_plugins", "_start_at_done", "_terminated")


def complaints() -> list[str]:
    """What is not as expected; empty when all is well."""
    found = []
    version = tuple(int(part) for part in __version__.split(".")[:2])
    if version not in TRIED:
        found.append(f"ansible-core is {__version__}, and only {', '.join('%d.%d' % known for known in TRIED)} were tried")
    for owner, name, parameters in EXPECTED:
        method = getattr(owner, name, None)
        if method is None:
            found.append(f"{owner.__name__}.{name} is gone")
            continue
        seen = tuple(inspect.signature(method).parameters)[: len(parameters)]
        if seen != parameters:
            found.append(f"{owner.__name__}.{name} takes ({', '.join(seen)}) instead of ({', '.join(parameters)})")
    source = inspect.getsource(TaskQueueManager)
    found += [f"TaskQueueManager.{name} is gone" for name in STATE if f"self.{name}" not in source]
    return found
