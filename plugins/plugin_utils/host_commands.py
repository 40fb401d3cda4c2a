# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Those compensations that a host can run without the controller: plain `command` and `shell` tasks of the host itself, as root.

    commands = of(tasks, templar, root=...) -> [{"argv", "chdir", "creates", "removes", "stdin"}], or None: only a controller can

They are templated while the controller is there. Any keyword beyond those below may ask for something that the host cannot do: then None.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleError

COMMAND = frozenset(f"{prefix}command" for prefix in ("ansible.builtin.", "ansible.legacy."))
SHELL = frozenset(f"{prefix}shell" for prefix in ("ansible.builtin.", "ansible.legacy."))
KEYWORDS = frozenset(("name", "args", "changed_when", "become", "become_user", "become_method", "become_flags", "tags", "timeout"))
ARGUMENTS = frozenset(("_raw_params", "cmd", "argv", "chdir", "creates", "removes", "stdin", "executable"))
# The command module would expand these, in the environment of its user.
EXPANDED = ("$", "~")


def of(tasks: Sequence[tuple[dict[str, Any], Any]], templar: Any, *, root: bool) -> list[dict[str, Any]] | None:
    """`tasks`: each one's text and what was loaded from it; `root`: the play runs commands as root where nothing else is said."""
    found = []
    for data, task in tasks:
        one = _command(data, task, templar, root=root)
        if one is None:
            return None
        found.append(one)
    return found


def _command(data: dict[str, Any], task: Any, templar: Any, *, root: bool) -> dict[str, Any] | None:
    action = str(getattr(task, "resolved_action", None) or task.action)
    if action not in COMMAND | SHELL or len(set(data) - KEYWORDS) != 1:
        return None
    try:
        if task.no_log or task.delegate_to or task.environment or not _is_root(task, templar, root=root):
            return None
        arguments = templar.template(dict(task.args))
    except AnsibleError:
        return None
    if set(arguments) - ARGUMENTS or any(value is not None and not isinstance(value, (str, list)) for value in arguments.values()):
        return None
    argv = _argv(action, arguments)
    if argv is None:
        return None
    stdin = arguments.get("stdin")
    return {
        "argv": argv,
        **{key: str(arguments[key]) for key in ("chdir", "creates", "removes") if arguments.get(key)},
        **({"stdin": f"{stdin}\n"} if stdin is not None else {}),
    }


def _argv(action: str, arguments: dict[str, Any]) -> list[str] | None:
    text = arguments.get("_raw_params") or arguments.get("cmd")
    if action in SHELL:
        return [str(arguments.get("executable") or "/bin/sh"), "-c", str(text)] if text else None
    words = [str(word) for word in arguments["argv"]] if arguments.get("argv") else shlex.split(str(text or ""))
    return None if not words or any(sign in word for word in words for sign in EXPANDED) else words


def _is_root(task: Any, templar: Any, *, root: bool) -> bool:
    if not task.become:
        return root
    user = templar.template(task.become_user) if task.become_user else "root"
    return str(user) == "root" and bool(templar.template(task.become))
