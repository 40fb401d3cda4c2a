# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One call of `acidctl` on the host, over the task's own connection, as root.

No module is sent: the engine is installed on the host, so one remote command is all. The answer is one JSON object on stdout; on
failure `{"error": {"class", "msg", "hint"}}`. Calling sequence: `HostCommand(action, task_vars)`, then `run(verb, request)`. It
raises `HostError` with the host's own words, `NotInstalled` where there is no engine of this version, and lets connection errors
through, so that an unreachable host is unreachable for Ansible too.
"""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any, NamedTuple

from ansible.errors import AnsibleAuthenticationFailure, AnsibleConnectionFailure, AnsibleError

from . import elevation, paths

NOT_ROOT = 96
SECRET = frozenset(("compensate",))


class HostError(Exception):
    """The host refused or failed. `kind` is the error class of docs/architecture.md; `str()` is a sentence with the hint in it."""

    def __init__(self, kind: str, msg: str, hint: str = "") -> None:
        super().__init__(f"{msg} {hint}".strip())
        self.kind = kind
        self.msg = msg
        self.hint = hint


class NotInstalled(HostError):
    """The engine of this version is not on the host, or the Python that it was installed for is gone."""


class Output(NamedTuple):
    rc: int
    stdout: str
    stderr: str


class HostCommand:
    """`login` is settled by the first command: until then nobody but the host may know who the connection logs in as."""

    def __init__(self, action: Any, task_vars: dict[str, Any], *, login: elevation.Login | None = None) -> None:
        self._action = action
        self._task_vars = task_vars
        self.login = login or elevation.login_of(action)

    def run(self, verb: str, request: dict[str, Any], *, engine: str) -> dict[str, Any]:
        """The answer of `acidctl verb` of the engine with this hash."""
        text = encode(request)
        # What may hold secrets goes by stdin: a command line can be read by all users of the host, and sudo logs it.
        by_stdin = verb in SECRET and getattr(self._action._connection, "has_pipelining", False)
        command = [paths.acidctl(engine), verb, "--json", "--request", "-" if by_stdin else text]
        return answer(verb, self.shell(shlex.join(command), stdin=text.encode() if by_stdin else None))

    def as_login(self, command: str) -> Output:
        """Run a shell command as whom the connection logs in as."""
        return self._plain(command, None)

    def shell(self, command: str, *, stdin: bytes | None = None) -> Output:
        """Run a shell command as root."""
        if self.login.root is None:
            guarded = f'if [ "$(id -u)" != 0 ]; then echo "acid-login $(id -un)"; exit {NOT_ROOT}; fi; {command}'
            output = self._plain(guarded, stdin)
            if output.rc != NOT_ROOT:
                self.login = elevation.Login(self.login.name or "root", True)
                return output
            self.login = elevation.Login(output.stdout.split("acid-login ", 1)[-1].split()[0], False)
        return self._plain(command, stdin) if self.login.root else self._as_root(command, stdin)

    def _plain(self, command: str, stdin: bytes | None) -> Output:
        with elevation.become_of(self._action._connection, None):
            result = self._action._low_level_execute_command(command, sudoable=False, in_data=stdin)
        return Output(result["rc"], result["stdout"], result["stderr"])

    def _as_root(self, command: str, stdin: bytes | None) -> Output:
        try:
            plugin = elevation.root_become(self._action, self._task_vars)
        except LookupError as error:
            raise self._no_root(str(error)) from error
        try:
            with elevation.become_of(self._action._connection, plugin):
                result = self._action._low_level_execute_command(command, sudoable=True, in_data=stdin)
        except AnsibleAuthenticationFailure as error:
            raise self._no_root(str(error)) from error
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:  # a wrong or missing become password is a plain AnsibleError in some connection plugins
            raise self._no_root(str(error)) from error
        output = Output(result["rc"], result["stdout"], result["stderr"])
        if output.rc != 0 and not output.stdout.strip() and plugin.check_missing_password((output.stderr or "").encode()):
            raise self._no_root(output.stderr.strip().splitlines()[-1])
        return output

    def _no_root(self, why: str) -> HostError:
        return HostError(
            "not-root",
            f"the login '{self.login.name}' cannot become root here: {why.rstrip('.')}.",
            "A transaction is supervised by root: give the play become settings that lead to root (and the password), log in as root, "
            "or set 'acid_transaction: false' for this host.",
        )


def encode(value: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def answer(verb: str, output: Output) -> dict[str, Any]:
    """The JSON object in what `acidctl` printed. Login banners and become noise may stand before it."""
    for line in reversed(output.stdout.splitlines()):
        if line.startswith("{"):
            try:
                data = json.loads(line)
            except ValueError:
                break
            return _checked(verb, data, output.rc)
    if output.rc in (126, 127):
        raise NotInstalled("not-installed", f"there is no engine of this version on the host ({_last_line(output) or 'not found'})")
    raise HostError(
        "no-answer",
        f"'acidctl {verb}' ended with exit code {output.rc} and no answer ({_last_line(output) or 'no output'}).",
        "Run 'acidctl health' on the host.",
    )


def _checked(verb: str, data: Any, rc: int) -> dict[str, Any]:
    error = data.get("error")
    if isinstance(error, dict):
        raise HostError(str(error.get("class", "unknown")), str(error.get("msg", f"'acidctl {verb}' failed")), str(error.get("hint", "")))
    if rc != 0 and "tx" not in data:
        raise HostError("no-answer", f"'acidctl {verb}' ended with exit code {rc}.", "Run 'acidctl health' on the host.")
    result: dict[str, Any] = data
    return result


def _last_line(output: Output) -> str:
    lines = (output.stderr.strip() or output.stdout.strip()).splitlines()
    return lines[-1][:300] if lines else ""
