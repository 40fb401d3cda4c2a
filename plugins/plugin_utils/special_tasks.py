# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few actions that do not reach the host like all others."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from . import shim
from .ledger import OpenTransaction


def refuse_reboot(action: str, *, host: str) -> None:
    """A boot with an open transaction is a crash to the host: it would take itself back."""
    if action == "ansible.builtin.reboot":
        raise AnsibleActionFail(
            f"A reboot inside a transaction cannot be done yet: {host} would take itself back to before the play. "
            "Nothing was sent. Put the reboot into a play of its own, after this one, with 'acid_transaction: false'."
        )


def lead_rsync_through_shim(task: Any, transaction: OpenTransaction, step: shim.StepInfo) -> None:
    """synchronize starts rsync on the host by its own ssh, past Ansible's connection. Pulling changes nothing there."""
    if getattr(task, "resolved_action", None) != "ansible.posix.synchronize" or task.args.get("mode", "push") != "push":
        return
    elevate = "" if transaction.login_is_root else "sudo "
    rsync = task.args.get("rsync_path") or "rsync"
    task.args["rsync_path"] = f"{elevate}{' '.join(shim.shim(transaction, step))} {rsync}"
