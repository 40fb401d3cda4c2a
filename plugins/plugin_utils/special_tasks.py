# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few actions that do not reach the host like all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.utils.display import Display

from . import shim
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


def lead_rsync_through_shim(task: Any, transaction: OpenTransaction, step: shim.StepInfo) -> None:
    """synchronize starts rsync on the host by its own ssh, past Ansible's connection. Pulling changes nothing there."""
    if getattr(task, "resolved_action", None) != "ansible.posix.synchronize" or task.args.get("mode", "push") != "push":
        return
    elevate = "" if transaction.login_is_root else "sudo "
    rsync = task.args.get("rsync_path") or "rsync"
    task.args["rsync_path"] = f"{elevate}{' '.join(shim.shim(transaction, step))} {rsync}"
