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
import shlex
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from . import elevation, shim
from .ledger import OpenTransaction

# What these run on the host is Ansible's own preparation. The trace leaves the remote temporary directory out, so nothing is lost.
HOUSEKEEPING = ("_make_tmp_path", "_remove_tmp_path", "_remote_expand_user", "_remote_file_exists", "_fixup_perms2", "_configure_module")


@dataclass
class Armed:
    """The step that this worker is about to run. `transaction` None: the task goes to a host outside, and is only watched."""

    connection: Any
    transaction: OpenTransaction | None
    step: shim.StepInfo
    task_vars: dict[str, Any] = field(default_factory=dict)
    on_outside: Callable[[], None] = lambda: None
    fired: bool = False
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
            call = signature.bind(self, *args, **kwargs)
            call.apply_defaults()
            result = _under_shim(self, method, call, step)
            step.fired = True
            sentence = shim.refusal(result["rc"], result["stderr"], result["stdout"])
            if sentence is not None:
                raise AnsibleActionFail(f"The step was not let run on {step.transaction.host}: {sentence}")
            return result
        finally:
            _running -= 1

    return execute


def _under_shim(action: Any, method: Callable[..., Any], call: inspect.BoundArguments, step: Armed) -> Any:
    assert step.transaction is not None
    identity = _identity(action, sudoable=call.arguments["sudoable"], transaction=step.transaction)
    where = shim.place(identity)
    if where is shim.Place.INSIDE:
        words = shim.shim(step.transaction, step.step)
        call.arguments["cmd"] = shim.wrap(words, call.arguments["cmd"], shell=_reader(action, call, becomes=identity.becomes is not None))
        return method(*call.args, **call.kwargs)
    reader = _reader(action, call, becomes=False)
    if where is shim.Place.AROUND_BECOME:
        words = shim.shim(step.transaction, step.step)
        with _built_by(action._connection.become, lambda build, cmd, shell: shim.wrap(words, build(cmd, shell), shell=reader)):
            return method(*call.args, **call.kwargs)
    return _behind_own_become(action, method, call, step, identity=identity, reader=reader)


def _behind_own_become(
    action: Any, method: Callable[..., Any], call: inspect.BoundArguments, step: Armed, *, identity: shim.Identity, reader: str | None
) -> Any:
    transaction = step.transaction
    assert transaction is not None
    connection = action._connection
    own, theirs = elevation.root_become(action, step.task_vars), connection.become
    login = action._get_remote_user() or transaction.login

    def build(become: Callable[..., str], cmd: str, shell: Any) -> str:
        user: str | None = login
        if identity.becomes is not None:
            if theirs.get_option("become_pass"):
                # Two prompts cannot be answered over one connection: go to the user straight from root, who needs no password.
                user, cmd = None, _as_if_from(login, cmd)
            cmd = theirs.build_become_command(cmd, shell)
        return become(shim.wrap(shim.shim(transaction, step.step, user=user), cmd, shell=reader), shell)

    call.arguments["sudoable"] = True
    with elevation.become_of(connection, own), _built_by(own, build):
        result = method(*call.args, **call.kwargs)
    # Two becomes print two marks; Ansible strips one of them.
    while result["stdout"].lstrip().startswith("BECOME-SUCCESS-"):
        result["stdout"] = result["stdout"].lstrip().partition("\n")[2]
    if own.get_option("become_pass"):  # the terminal's echo of the Enter after the password
        result["stdout"] = result["stdout"].removeprefix("\r").removeprefix("\n")
    result["stdout_lines"] = result["stdout"].splitlines()
    return result


def _as_if_from(login: str, command: str) -> str:
    name = shlex.quote(login)
    return f"SUDO_USER={name} SUDO_UID=$(id -u {name}) SUDO_GID=$(id -g {name}); export SUDO_USER SUDO_UID SUDO_GID; {command}"


@contextmanager
def _built_by(plugin: Any, build: Callable[..., str]) -> Any:
    """`build(original, cmd, shell)` makes the become command while the block runs."""
    original = plugin.build_become_command
    plugin.build_become_command = lambda cmd, shell: build(original, cmd, shell)
    try:
        yield
    finally:
        del plugin.build_become_command


def _identity(action: Any, *, sudoable: bool, transaction: OpenTransaction) -> shim.Identity:
    """The same decision as Ansible's own about whether this command goes through become."""
    connection = action._connection
    login = elevation.login_of(action)
    root = transaction.login_is_root if login.root is None else login.root
    if not sudoable or not connection.become:
        return shim.Identity(root, None)
    user, remote_user = action.get_become_option("become_user"), action._get_remote_user()
    if not (C.BECOME_ALLOW_SAME_USER or user != remote_user or not any((user, remote_user))):
        return shim.Identity(root, None)
    return shim.Identity(root, str(user or "root"))


def _reader(action: Any, call: inspect.BoundArguments, *, becomes: bool) -> str | None:
    """The shell that would read the command without the shim. None: the login's own."""
    given = call.arguments["executable"]
    if becomes:
        return str(given or getattr(action._connection._shell, "executable", None) or "/bin/sh")
    if given or given is None:
        return str(given or action._play_context.executable or "/bin/sh")
    return None if action._connection.transport == "ssh" else "/bin/sh"


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
