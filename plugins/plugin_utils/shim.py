# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The words put in front of a step's command. Pure functions: no connection, no process.

The shim (`acidctl exec`) has to run as root, and the step's command as whoever it would run as without it:

| login | the task becomes | the shim goes | and the command runs |
|---|---|---|---|
| root | nobody, or root | before the command (inside the become command) | as it is |
| other | root | before the command, inside the become command | as it is |
| root | another user | before the finished become command | the become command, from root |
| other | another user | before the finished become command, behind our own become to root | the become command, from the login (`--user`) |
| other | nobody | behind our own become to root | the command, from the login (`--user`) |
"""

from __future__ import annotations

import shlex
from enum import Enum
from typing import NamedTuple

from . import paths
from .hostcommand import encode
from .ledger import OpenTransaction

REFUSED = 97


class Place(Enum):
    """Where the shim goes; see the table above."""

    INSIDE = "inside"
    AROUND_BECOME = "around become"
    BEHIND_OWN_BECOME = "behind own become"


class Identity(NamedTuple):
    """`becomes` is the user that the task's become command leads to for this very command, or None where none is used."""

    login_is_root: bool
    becomes: str | None


class StepInfo(NamedTuple):
    """What the host's journal keeps of a step: never its arguments."""

    id: str
    task: str
    module: str
    position: str
    no_log: bool
    check: bool


def place(identity: Identity) -> Place:
    if identity.becomes == "root" or (identity.login_is_root and identity.becomes is None):
        return Place.INSIDE
    return Place.AROUND_BECOME if identity.login_is_root else Place.BEHIND_OWN_BECOME


def shim(transaction: OpenTransaction, step: StepInfo, *, user: str | None = None) -> list[str]:
    """The argument list up to and with `--`."""
    words = [paths.acidctl(transaction.engine), "exec", "--tx", transaction.tx, "--token", str(transaction.token)]
    words += ["--step", encode(step._asdict())]
    if user is not None:
        words += ["--user", user]
    return [*words, "--"]


def wrap(words: list[str], command: str, *, shell: str | None) -> str:
    """A shell command that runs `command` under the shim, by the shell that would have read it. None stands for the login's own
    shell, which only the host knows: `raw` without `executable` is read by that."""
    reader = [shell, "-c", command] if shell else ["/bin/sh", "-c", f'exec "${{SHELL:-/bin/sh}}" -c {shlex.quote(command)}']
    return shlex.join([*words, *reader])


def refusal(rc: int, *texts: str) -> str | None:
    """The sentence of a shim that did not let the step run, out of what the command printed; None when it did run."""
    if rc != REFUSED:
        return None
    for text in texts:
        for line in text.splitlines():
            if line.startswith("acid: "):
                return line.removeprefix("acid: ").strip()
    return None
