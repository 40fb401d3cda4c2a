# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes the remote commands of a task run as a step of its transaction. Lives in the worker process, which runs one task and ends.

`install()` replaces `ActionBase._low_level_execute_command`, the one method that every action plugin, nested or not, uses to run
something on the host, and marks the methods that only keep house (the remote temporary directory, interpreter discovery). Before
a task's action runs, `armed` is set; while it is, each command that is not housekeeping gets the shim in front. So a task makes
as many remote calls as without us.

Fail closed: what goes to the host past that method (a connection's `exec_command` called by itself, a file put elsewhere than
into the temporary directory) cannot be undone. A file put elsewhere is refused before it is sent. A command that went past is
noticed afterwards; it dooms the transaction, because nobody can say what it changed.
"""

from __future__ import annotations

import functools
import inspect
import posixpath
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from . import shim
from .ledger import OpenTransaction
from .supervision import Command

# What these run on the host is Ansible's own preparation. The trace leaves the remote temporary directory out, so nothing is lost.
HOUSEKEEPING = ("_make_tmp_path", "_remove_tmp_path", "_remote_expand_user", "_remote_file_exists", "_fixup_perms2", "_configure_module")


@dataclass
class Armed:
    """The step that this worker is about to run. `transaction` None: the task goes to a host outside, and is only watched.
    `sent_by` is the host whose task it is: another one than the transaction's with delegate_to. `ran` has the ids that ran."""

    connection: Any
    transaction: OpenTransaction | None
    step: shim.StepInfo
    task_vars: dict[str, Any] = field(default_factory=dict)
    on_outside: Callable[[], None] = lambda: None
    sent_by: str = ""
    ran: list[str] = field(default_factory=list)
    bypassed: list[str] = field(default_factory=list)


armed: Armed | None = None
_housekeeping = 0
_running = 0


def install() -> None:
    """Once per process; a second call does nothing."""
    if getattr(ActionBase, "_acid_steps", False):
        return
    ActionBase._acid_steps = True
    for name in HOUSEKEEPING:
        setattr(ActionBase, name, _keeping_house(getattr(ActionBase, name)))
    ActionBase._low_level_execute_command = _supervised(ActionBase._low_level_execute_command)


def arm(step: Armed) -> None:
    """From here on until the worker ends or the next `arm`, commands over this connection belong to `step`."""
    global armed
    armed = step
    _watch(step.connection)


def disarm() -> None:
    global armed
    armed = None


@contextmanager
def unarmed() -> Any:
    """For our own calls to the host while a step is armed."""
    global armed
    before, armed = armed, None
    try:
        yield
    finally:
        armed = before


def _keeping_house(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def keep_house(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _housekeeping
        _housekeeping += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            _housekeeping -= 1

    return keep_house


def _supervised(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _running
        _running += 1
        try:
            step = armed
            if step is None or _housekeeping or self._connection is not step.connection:
                return method(self, *args, **kwargs)
            if step.transaction is None:
                step.on_outside()
                return method(self, *args, **kwargs)
            return _as_step(self, method, signature, step, step.transaction, args, kwargs)
        finally:
            _running -= 1

    return execute


def _as_step(
    action: Any,
    method: Callable[..., Any],
    signature: inspect.Signature,
    armed_step: Armed,
    transaction: OpenTransaction,
    args: Any,
    kwargs: Any,
) -> Any:
    """Another task may have had its turn on this host since our last command (delegation, the free strategy), and that sealed our step:
    then the rest of the task is a step of its own. The refused command was not run, so it can be sent again."""
    for last_try in (False, True):
        call = signature.bind(action, *args, **kwargs)
        call.apply_defaults()
        result = Command(action, method, call, armed_step.step, transaction, armed_step.task_vars).under_shim()
        sentence = shim.refusal(result["rc"], result["stderr"], result["stdout"])
        if sentence is None:
            armed_step.ran.append(armed_step.step.id)
            return result
        if last_try or not sentence.startswith("wrong-state:"):
            break
        armed_step.step = armed_step.step._replace(id=uuid.uuid4().hex)
    raise AnsibleActionFail(f"The step was not let run on {transaction.host}: {sentence}")


def _watch(connection: Any) -> None:
    """Notice what goes over this connection and not through a step."""
    if "_acid_watched" in connection.__dict__:
        return
    connection._acid_watched = True
    run, put, fetch = connection.exec_command, connection.put_file, connection.fetch_file

    @functools.wraps(run)
    def exec_command(cmd: Any, *args: Any, **kwargs: Any) -> Any:
        if armed is not None and armed.connection is connection and not _running and not _housekeeping:
            armed.bypassed.append("a command that did not go through _low_level_execute_command")
        return run(cmd, *args, **kwargs)

    @functools.wraps(put)
    def put_file(in_path: Any, out_path: Any, *args: Any, **kwargs: Any) -> Any:
        if armed is not None and armed.connection is connection and armed.transaction is not None:
            _refuse_outside_tmp(connection, str(out_path), host=armed.transaction.host)
        return _running_through(put, in_path, out_path, *args, **kwargs)

    connection.exec_command, connection.put_file = exec_command, put_file
    connection.fetch_file = functools.partial(_running_through, fetch)


def _running_through(transfer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Some connections transfer files by commands of their own (ssh with `piped`)."""
    global _running
    _running += 1
    try:
        return transfer(*args, **kwargs)
    finally:
        _running -= 1


def _refuse_outside_tmp(connection: Any, path: str, *, host: str) -> None:
    folder = connection._shell.tmpdir
    if folder and posixpath.normpath(path).startswith(posixpath.normpath(folder) + "/"):
        return
    raise AnsibleActionFail(
        f"This action would put {path} on {host} past the trace, and that could not be undone. Nothing was sent. "
        "Copy it with ansible.builtin.copy, or run the task in a play with 'acid_transaction: false'."
    )
