# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few actions that do not reach the host like all others."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.utils.display import Display

from . import elevation, paths, shim
from .hostcommand import HostError
from .ledger import OpenTransaction

display = Display()


REBOOT = "ansible.builtin.reboot"


def reboot(run: Callable[[], Any], task: Any, say: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Any:
    """A planned one: the transaction waits for it, and goes on in the next boot. No command of it is a step. `say` tells the host."""
    say("reboot", {"seconds": _longest(task.args)})
    result: Any = None
    try:
        result = run()
    finally:
        try:
            say("rebooted", {})
        except (HostError, AnsibleConnectionFailure) as error:
            if isinstance(result, dict) and not result.get("failed"):
                raise AnsibleActionFail(f"The reboot worked, and the transaction did not go on after it: {error}") from None
            display.warning(f"The host could not be told that the reboot is over: {error}")
    return result


def _longest(arguments: dict[str, Any]) -> float:
    """Seconds that the action may take: it waits twice, for the boot and for a command."""

    def value(name: str, default: int) -> int:
        return int(arguments.get(name, arguments.get(f"{name}_sec", default)) or 0)

    return 2.0 * value("reboot_timeout", 600) + value("pre_reboot_delay", 0) + value("post_reboot_delay", 0) + 60


SYNCHRONIZE = "ansible.posix.synchronize"

# Pulling only reads, but for these: they remove what was sent, or hand an option to the host's rsync alone (a log file, say).
CHANGES_THE_SOURCE = ("--remove-source-files", "--remove-sent-files", "--remote-option", "-M")


def lead_rsync_through_shim(handler: Any, transaction: OpenTransaction, step: shim.StepInfo) -> None:
    """synchronize starts rsync on the host by its own ssh, past Ansible's connection. Raises AnsibleActionFail."""
    task = handler._task
    if getattr(task, "resolved_action", None) != SYNCHRONIZE or not _changes_the_host(task.args):
        return
    if handler._connection.transport == "local" or task.delegate_to == transaction.host:
        return  # both ends are there, and the module is a command like any other
    given = str(task.args.get("rsync_path") or "")
    if f"{paths.acidctl(transaction.engine)} exec " in given:
        return  # another attempt (until): the arguments are those that the first one left
    task.args["rsync_path"] = _rsync_under_shim(handler, transaction, step, given)


def _changes_the_host(arguments: dict[str, Any]) -> bool:
    options = arguments.get("rsync_opts") or []
    words = options.split(",") if isinstance(options, str) else [str(word) for word in options]
    return arguments.get("mode", "push") == "push" or any(word.strip().startswith(CHANGES_THE_SOURCE) for word in words)


def _rsync_under_shim(handler: Any, transaction: OpenTransaction, step: shim.StepInfo, given: str) -> str:
    """The host's rsync runs as whoever it would without us: the login, or whom synchronize itself would have become by sudo. It does that
    only where the task gives no path of its own. The login's shell reads the text; rsync's arguments follow it."""
    login = elevation.login_of(handler)
    is_root = transaction.login_is_root if login.root is None else login.root
    user: str | None = None if is_root else login.name or transaction.login
    become = handler._play_context
    rsync = ["rsync"]
    if given:
        rsync = ["/bin/sh", "-c", f'{given} "$@"', "rsync"]  # it may be more than one command: mkdir -p /x && rsync
    elif become.become and str(become.become_user or "root") != "root":
        rsync = ["sudo", "-u", str(become.become_user), "rsync"]
    elif become.become:
        user = None
    if (not is_root or rsync[0] == "sudo") and _short(become.become_method) != "sudo":
        raise AnsibleActionFail(
            f"synchronize reaches the host by an ssh of its own, where only sudo can be used, and the become method is "
            f"'{become.become_method}'. Use sudo, log in as root, or set 'acid_transaction: false' on a play of its own. Nothing was sent."
        )
    words = [*shim.shim(transaction, step, user=user), *rsync]
    if is_root:
        return shlex.join(words)
    if user is None:
        return shlex.join(["sudo", *words])
    # The shim looks for a process of the login: a shell with only this command would be replaced by sudo.
    return shlex.join(["/bin/sh", "-c", f'{shlex.join(["sudo", *words])} "$@"; exit $?', "rsync"])


def _short(method: Any) -> str:
    return str(method or "sudo").removeprefix("ansible.builtin.")
