# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs one command of a step under the shim: where the shim goes, which shell reads what, who becomes whom.

The decisions are in `shim.py`; here they meet Ansible's own way of building commands. All that is changed for the one command (the become
plugin of the connection, how it builds its command) is put back when it has run.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible import constants as C

from . import elevation, shim
from .ledger import OpenTransaction


@dataclass(frozen=True)
class Command:
    """A call of `ActionBase._low_level_execute_command` (`method`, with `call` as its bound arguments) that belongs to a step."""

    action: Any
    method: Callable[..., Any]
    call: inspect.BoundArguments
    step: shim.StepInfo
    transaction: OpenTransaction
    task_vars: dict[str, Any]

    def under_shim(self) -> Any:
        """What the method returned for the command with its shim."""
        identity = self._identity()
        place = shim.place(identity)
        if place is shim.Place.INSIDE:
            self.call.arguments["cmd"] = self._wrapped(
                self.call.arguments["cmd"], reader=self._reader(becomes=identity.becomes is not None)
            )
            return self._run()
        reader = self._reader(becomes=False)
        if place is shim.Place.AROUND_BECOME:
            with _built_by(self.action._connection.become, lambda build, cmd, shell: self._wrapped(build(cmd, shell), reader=reader)):
                return self._run()
        return self._behind_own_become(becomes=identity.becomes is not None, reader=reader)

    def _run(self) -> Any:
        return self.method(*self.call.args, **self.call.kwargs)

    def _wrapped(self, command: str, *, reader: str | None, user: str | None = None) -> str:
        return shim.wrap(shim.shim(self.transaction, self.step, user=user), command, shell=reader)

    def _behind_own_become(self, *, becomes: bool, reader: str | None) -> Any:
        connection = self.action._connection
        own, theirs = elevation.root_become(self.action, self.task_vars), connection.become
        login = self.action._get_remote_user() or self.transaction.login

        def build(become: Callable[..., str], cmd: str, shell: Any) -> str:
            user: str | None = login
            if becomes:
                if theirs.get_option("become_pass"):
                    # Two prompts cannot be answered over one connection: go to the user straight from root, who needs no password.
                    user, cmd = None, _as_if_from(login, cmd)
                cmd = theirs.build_become_command(cmd, shell)
            command = become(self._wrapped(cmd, reader=reader, user=user), shell)
            # The shim looks for a process of the login. The shell that reads this would be replaced by sudo, were that its only command.
            return command if self.call.arguments["executable"] is None else shlex.join(["/bin/sh", "-c", f"{command}; exit $?"])

        self.call.arguments["sudoable"] = True
        with elevation.become_of(connection, own), _built_by(own, build):
            result = self._run()
        # Two becomes print two marks; Ansible strips one of them.
        while result["stdout"].lstrip().startswith("BECOME-SUCCESS-"):
            result["stdout"] = result["stdout"].lstrip().partition("\n")[2]
        if own.get_option("become_pass") and not becomes:  # the terminal's echo of the Enter after the password
            result["stdout"] = result["stdout"].removeprefix("\r").removeprefix("\n")
        result["stdout_lines"] = result["stdout"].splitlines()
        return result

    def _identity(self) -> shim.Identity:
        """The same decision as Ansible's own about whether this command goes through become."""
        action = self.action
        login = elevation.login_of(action)
        root = self.transaction.login_is_root if login.root is None else login.root
        if not self.call.arguments["sudoable"] or not action._connection.become:
            return shim.Identity(root, None)
        user, remote_user = action.get_become_option("become_user"), action._get_remote_user()
        if not (C.BECOME_ALLOW_SAME_USER or user != remote_user or not any((user, remote_user))):
            return shim.Identity(root, None)
        return shim.Identity(root, str(user or "root"))

    def _reader(self, *, becomes: bool) -> str | None:
        """The shell that would read the command without the shim. None: the login's own."""
        given, action = self.call.arguments["executable"], self.action
        if becomes:
            return str(given or getattr(action._connection._shell, "executable", None) or "/bin/sh")
        if given or given is None:
            return str(given or action._play_context.executable or "/bin/sh")
        return None if action._connection.transport == "ssh" else "/bin/sh"


def _as_if_from(login: str, command: str) -> str:
    name = shlex.quote(login)
    return f"SUDO_USER={name} SUDO_UID=$(id -u {name}) SUDO_GID=$(id -g {name}); export SUDO_USER SUDO_UID SUDO_GID; {command}"


@contextmanager
def _built_by(plugin: Any, build: Callable[..., str]) -> Iterator[None]:
    """`build(original, cmd, shell)` makes the become command while the block runs."""
    original = plugin.build_become_command
    plugin.build_become_command = lambda cmd, shell: build(original, cmd, shell)
    try:
        yield
    finally:
        del plugin.build_become_command
