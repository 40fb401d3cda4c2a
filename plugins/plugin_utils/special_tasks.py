# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few actions that do not reach the host like all others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.utils.display import Display

from . import effects, elevation, paths, shim
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

# The end that sends only reads, but for these: they remove what was sent, or hand an option to the host's rsync alone (a log file, say).
REMOVES_THE_SOURCE = ("--remove-source-files", "--remove-sent-files")
CHANGES_THE_SOURCE = (*REMOVES_THE_SOURCE, "--remote-option", "-M")
WRITES_WHERE_IT_STARTS = (*REMOVES_THE_SOURCE, "--log-file", "--write-batch", "--only-write-batch")


# As rsync reads it: a colon before any slash.
_REMOTE_END = re.compile(r"(?:[^/:@]+@)?(?:\[([^]/]+)\]|([^/:\[]+)):")


def changes_elsewhere(handler: Any, task_vars: dict[str, Any], *, host: str) -> str:
    """What synchronize changes that the arguments name by themselves and no shim can see: another host by an ssh of rsync's own, or
    whatever an rsync daemon writes to. Empty: nothing of that kind."""
    task = handler._task
    if getattr(task, "resolved_action", None) != SYNCHRONIZE:
        return ""
    changed = [str(task.args.get("dest") or "")]
    if _has_option(task.args.get("rsync_opts"), CHANGES_THE_SOURCE):
        changed.append(str(task.args.get("src") or ""))
    led = starts_rsync_by_itself(handler, task_vars, host=host)
    for end in changed:
        if end.startswith("rsync://") or "::" in end.partition("/")[0].rpartition("]")[2]:
            return f"{end} (an rsync daemon)"
        found = _REMOTE_END.match(end)
        if found and not (led and (found[1] or found[2]) in (host, _address_of(host, task_vars))):
            return found[1] or found[2]
    return ""


def what_is_far(name: str, end: str) -> str:
    return f"{name}: {SYNCHRONIZE} changes {end}, where no transaction sees it"


def starts_rsync_by_itself(handler: Any, task_vars: dict[str, Any], *, host: str) -> bool:
    """Whether the task changes its own host (`host`, whoever it is delegated to) by an rsync that synchronize starts there by its own ssh,
    past Ansible's connection: from the controller, or from the delegate. Else all that it changes is where the module runs."""
    task = handler._task
    if getattr(task, "resolved_action", None) != SYNCHRONIZE or not _changes_the_host(task.args):
        return False
    if not task.delegate_to:
        return bool(handler._connection.transport != "local")
    return task.delegate_to not in (host, _address_of(host, task_vars))


def lead_rsync_through_shim(handler: Any, task_vars: dict[str, Any], transaction: OpenTransaction, step: shim.StepInfo) -> None:
    """Where `starts_rsync_by_itself`. `transaction` is that of the task's own host, never the delegate's. Raises AnsibleActionFail."""
    task = handler._task
    given = str(task.args.get("rsync_path") or "")
    if f"{paths.acidctl(transaction.engine)} exec " in given:
        return  # another attempt (until): the arguments are those that the first one left
    task.args["rsync_path"] = _rsync_under_shim(handler, transaction, step, given, login=_login_there(handler, task_vars))


def only_sends(module: str, arguments: Mapping[str, Any]) -> bool:
    """Whether it certainly changes nothing where it is started. Arguments that are not known yet are effects.UNKNOWN."""
    options, dest = arguments.get("rsync_opts"), arguments.get("dest")
    if module != SYNCHRONIZE or effects.UNKNOWN in (options, dest) or arguments.get("mode", "push") != "push":
        return False
    # An rsync daemon knows no rsync_path, so whatever it does is not traced.
    return not _has_option(options, WRITES_WHERE_IT_STARTS) and not str(dest).startswith("rsync://")


def only_sends_from_delegate(handler: Any, task_vars: dict[str, Any], *, host: str) -> bool:
    """All that the task changes is on its own host. Where that has the address of the delegate itself, synchronize may copy without ssh."""
    return only_sends(SYNCHRONIZE, handler._task.args) and _address_of(host, task_vars) not in C.LOCALHOST


def _changes_the_host(arguments: dict[str, Any]) -> bool:
    return arguments.get("mode", "push") == "push" or _has_option(arguments.get("rsync_opts"), CHANGES_THE_SOURCE)


def _has_option(options: Any, wanted: tuple[str, ...]) -> bool:
    words = options.split(",") if isinstance(options, str) else [str(word) for word in options or []]
    return any(word.strip().startswith(wanted) for word in words)


def _address_of(host: str, task_vars: dict[str, Any]) -> str:
    """Where synchronize's ssh goes: what the inventory says, whatever the task's own variables are."""
    known = task_vars.get("hostvars", {}).get(host) or {}
    return str(known.get("ansible_host", host))


def _login_there(handler: Any, task_vars: dict[str, Any]) -> elevation.Login:
    """Whom synchronize's ssh logs in as on the task's own host. With a delegate, Ansible's own connection says nothing about that."""
    if not handler._task.delegate_to:
        return elevation.login_of(handler)
    name = handler._templar.template(task_vars.get("ansible_user") or handler._play_context.remote_user)
    return elevation.Login(str(name), name == "root") if name else elevation.Login("", None)


def _rsync_under_shim(handler: Any, transaction: OpenTransaction, step: shim.StepInfo, given: str, *, login: elevation.Login) -> str:
    """The host's rsync runs as whoever it would without us: the login, or whom synchronize itself would have become by sudo. It does that
    only where the task gives no path of its own. The login's shell reads the text; rsync's arguments follow it."""
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
