# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who the connection logs in as, and how the transaction becomes root there.

The trace is supervised by root. Where the login is root nothing is needed; else the play's own become settings (method, flags,
executable, password) are used with root as the user, whatever user the task itself becomes.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible import constants as C
from ansible.plugins.loader import become_loader


@dataclass(frozen=True)
class Login:
    """`root` is None while only the host knows: ssh may take the user from its own configuration."""

    name: str
    root: bool | None


def login_of(action: Any) -> Login:
    if action._connection.transport == "local":
        return Login(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid() == 0)
    name = action._get_remote_user()
    if not name:
        return Login("", None)
    return Login(str(name), name == "root")


def variables_of(action: Any, task_vars: dict[str, Any]) -> dict[str, Any]:
    """The variables of the host that the task really runs on."""
    target = action._task.delegate_to
    if not target:
        return task_vars
    delegated: dict[str, Any] = task_vars.get("ansible_delegated_vars", {}).get(target, {})
    return delegated


def root_become(action: Any, task_vars: dict[str, Any]) -> Any:
    """A become plugin of the play's own method, set to become root. The same sources as a task's become has."""
    task, connection = action._task, action._connection
    variables = variables_of(action, task_vars)
    method = variables.get("ansible_become_method")
    method = action._templar.template(method) if method else task.become_method or C.DEFAULT_BECOME_METHOD
    plugin = become_loader.get(method)
    if plugin is None:
        raise LookupError(f"the become method '{method}' is not installed on the controller")
    names = C.config.get_plugin_vars("become", plugin._load_name)
    values = {name: action._templar.template(variables[name]) for name in names if name in variables}
    keywords = task.dump_attrs()
    if action._play_context.become_pass:
        keywords["become_pass"] = action._play_context.become_pass
    plugin.set_options(task_keys=keywords, var_options=values, direct={"become_user": "root"})
    if getattr(plugin, "require_tty", False) and not getattr(connection, "has_tty", False):
        raise LookupError(f"the become method '{method}' needs a terminal, and the connection '{connection._load_name}' has none")
    return plugin


@contextmanager
def become_of(connection: Any, plugin: Any) -> Iterator[None]:
    """The connection answers the prompts of `plugin` while the block runs; then the task's own plugin is back."""
    before = connection.become
    connection.set_become_plugin(plugin)
    try:
        yield
    finally:
        connection.set_become_plugin(before)
