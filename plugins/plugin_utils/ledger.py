# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the worker processes tell the controller: one file per host in Ansible's own temporary directory for this run.

Every task runs in a forked process that can hand back nothing but its result, and a wrapped task's result must not change. So a
worker appends one line of JSON per event (one write(2) to an O_APPEND file, hence whole lines), and the main process reads them
when the play is over. If a worker dies between a call to the host and its line, the controller knows less than the host does: a
step is missing from the list that commit sends, never one too many, and an unrecorded transaction ends by its lease.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible import constants as C


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction on a host, as every process of this run needs to know it.

    `held_by` is "play" when the callback began it (every task is a step) or "tasks" for the explicit form. `login` is the account that
    the connection logs in to; `lease` is in seconds; `connection` and `address` tell a task that goes elsewhere from one that does not.
    """

    host: str
    tx: str
    token: int
    engine: str
    name: str
    held_by: str
    login: str
    login_is_root: bool
    connection: str
    address: str
    lease: int
    irreversible: str


class Event(NamedTuple):
    kind: str
    data: dict[str, Any]


BEGUN = "begun"
REFUSED = "refused"
WAITING = "waiting"
STEP = "step"
OUTSIDE = "outside"
BYPASSED = "bypassed"
ENDED = "ended"
RESULT = "result"  # of a step with no_log, for its compensation: not to be stored on the host
SAVEPOINT = "savepoint"


class Ledger:
    """Safe to use from several processes at once; nothing is cached."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def of_this_run(cls) -> Ledger:
        return cls(Path(str(C.DEFAULT_LOCAL_TMP)) / "acid-ledger")

    def append(self, host: str, kind: str, /, **data: Any) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = json.dumps({"kind": kind, "data": data}).encode() + b"\n"
        descriptor = os.open(self._path(host), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def written(self, host: str) -> int:
        """When the last event was (ns on the wall clock); 0: there is none."""
        try:
            return self._path(host).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def begun(self, transaction: OpenTransaction) -> None:
        self.append(transaction.host, BEGUN, **asdict(transaction))

    def events(self, host: str) -> Iterator[Event]:
        """In the order of their writing."""
        try:
            text = self._path(host).read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            record = json.loads(line)
            yield Event(record["kind"], record["data"])

    def since_begin(self, host: str) -> list[Event]:
        """The events of the newest transaction or attempt at one, oldest first."""
        events: list[Event] = []
        for event in self.events(host):
            if event.kind in (BEGUN, REFUSED, WAITING) and not _waits(events):
                events = []
            events.append(event)
        return events

    def open_transaction(self, host: str) -> OpenTransaction | None:
        """The newest transaction of this run on `host`, unless it has ended."""
        found: OpenTransaction | None = None
        for event in self.events(host):
            if event.kind == BEGUN:
                found = OpenTransaction(**event.data)
            elif event.kind == ENDED and found is not None and event.data.get("tx") == found.tx:
                found = None
        return found

    def waiting(self, host: str) -> dict[str, Any] | None:
        """The options of a transaction that has yet to begin, because the host has no Python for it so far."""
        events = self.since_begin(host)
        return dict(events[0].data["options"]) if _waits(events) else None

    def steps(self, host: str) -> list[str]:
        """Ids of the steps that went to the host in the newest transaction, each once, in order."""
        return list(dict.fromkeys(event.data["id"] for event in self.since_begin(host) if event.kind == STEP))

    def _path(self, host: str) -> Path:
        return self._directory / (quote(host, safe="") or "%")


def _waits(events: list[Event]) -> bool:
    """These events are of a transaction that has neither begun nor been given up."""
    return bool(events) and events[0].kind == WAITING and not any(event.kind in (BEGUN, ENDED) for event in events)
