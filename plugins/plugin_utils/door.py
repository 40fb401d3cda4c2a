# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks a host to roll back when its host command cannot run: a step has broken Python, sqlite3, sudo or PATH (ADR 20).

By a file that the agent looks at (engine/door.py) and builtins of /bin/sh alone, as the login and without become: `[`, `echo`, `read`.
Calling sequence: `may_help(error)`, then `roll_back`, which returns the host's summary, or raises the HostError that it was given.
"""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible.utils.display import Display

from .hostcommand import HostCommand, HostError, Output, answer
from .ledger import OpenTransaction

display = Display()

# The host command did not run; an answer of its own, with a class of its own, is not among them.
CANNOT_RUN = frozenset(("no-answer", "not-installed", "not-root"))

TAKEN_WITHIN = 15.0  # seconds: an agent that died is there again by then, or does not come
ENDED_WITHIN = 900.0  # seconds, for the undo
PAUSES = (0.2, 0.3, 0.5, 0.5, 1.0)


def may_help(error: HostError, transaction: OpenTransaction) -> bool:
    return bool(transaction.door) and error.kind in CANNOT_RUN


def roll_back(command: HostCommand, transaction: OpenTransaction, error: HostError) -> dict[str, Any]:
    display.v(f"{transaction.host}: {error.msg} Its agent is asked by a file.")
    asked = command.as_login(_ask(transaction))
    started, turn = time.monotonic(), 0
    while "acid-asked" in asked.stdout:
        time.sleep(PAUSES[min(turn, len(PAUSES) - 1)])
        turn += 1
        told = command.as_login(_listen(transaction))
        if any(line.startswith("{") for line in told.stdout.splitlines()):
            summary = answer("rollback", Output(0, told.stdout, told.stderr))
            if "steps" in summary:
                note = f"nothing could be run on the host any more, so its agent was asked by a file ({error.msg.rstrip('.')})"
                return {**summary, "told": [*summary.get("told", []), note]}
        elif time.monotonic() - started > TAKEN_WITHIN:
            break
        if time.monotonic() - started > ENDED_WITHIN:
            break
    raise error


def _ask(transaction: OpenTransaction) -> str:
    file = shlex.quote(transaction.door)
    line = f"acid rollback {transaction.tx} {transaction.token} {transaction.door_secret} end"
    return f"[ -f {file} ] && echo {shlex.quote(line)} > {file} && echo acid-asked"


def _listen(transaction: OpenTransaction) -> str:
    file = shlex.quote(f"{transaction.door}.told")
    return f'if [ -f {file} ]; then while IFS= read -r line; do echo "$line"; done < {file}; fi'
