# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A row of a table as a value of model.py: the columns of each that has one, in the order in which they are read."""

from __future__ import annotations

import json
from typing import Any

from ..model import Compensation, Step, Transaction

TX = "id, name, owner, state, token, created_ns, deadline, options, boot_id, engine, reason, epoch, ended_ns, images, rewinding_to"
STEP = "n, id, epoch, task, module, position, no_log, state, started_ns, sealed_ns, pid"
COMPENSATION = (
    "id, n, epoch, end_epoch, name, step, body, host, result, seconds, state, attempts, claim, claimed_by, claim_until_ns, reason"
)


def dump(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


class Unreadable(Exception):
    """A value in the journal is not what any engine has written."""


def load(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise Unreadable(f"a value is no JSON ({error})") from error


def storable(text: str) -> str:
    """Names of paths need not be UTF-8, and SQLite's text has to."""
    return text.encode("utf-8", "backslashreplace").decode()


def transaction(row: tuple[Any, ...]) -> Transaction:
    fields = dict(zip(TX.split(", "), row))
    fields["options"] = load(fields["options"])
    fields["images"] = bool(fields["images"])
    return Transaction(**fields)


def step(row: tuple[Any, ...]) -> Step:
    fields = dict(zip(STEP.split(", "), row))
    fields["no_log"] = bool(fields["no_log"])
    return Step(**fields)


def compensation(row: tuple[Any, ...]) -> Compensation:
    fields = dict(zip(COMPENSATION.split(", "), row))
    fields["host"] = None if fields["host"] is None else tuple(load(fields["host"]))
    return Compensation(**fields)
