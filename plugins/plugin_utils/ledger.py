# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the worker processes tell the controller: one file per host in Ansible's own temporary directory for this run.

Every task runs in a forked process that can hand back nothing but its result, and a wrapped task's result must not change. So a
worker appends one line per event (one write(2) to an O_APPEND file, hence whole lines): a CRC and JSON. The main process reads them
when the play is over. If a worker dies between a call to the host and its line, the controller knows less than the host does: a
step is missing from the list that commit sends, never one too many, and an unrecorded transaction ends by its lease.

Such a file can be damaged: a full disk, a worker killed in its write, somebody who cleans up temporary files. What cannot be read is an
event too (`DAMAGED`): reading never raises, one host's file is nobody else's trouble, and that host does not commit (`damage`).
"""

from __future__ import annotations

import errno
import json
import os
import zlib
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
    the connection logs in to; `lease` is in seconds; `connection` and `address` tell a task that goes elsewhere from one that does not;
    `door` is the file by which a shell can ask for the rollback (door.py), if there is one.
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
    door: str = ""
    door_secret: str = ""


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
DAMAGED = "damaged"  # never written: stands for what cannot be read

# The transactions that the main process has seen begin. Workers inherit it by fork, so that a damaged file hides none of them.
_seen_to_begin: dict[str, OpenTransaction] = {}
_seen_to_end: set[str] = set()


class Ledger:
    """Safe to use from several processes at once; no file is cached."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def of_this_run(cls) -> Ledger:
        return cls(Path(str(C.DEFAULT_LOCAL_TMP)) / "acid-ledger")

    def append(self, host: str, kind: str, /, **data: Any) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = _line(kind, data)
        descriptor = os.open(self._path(host), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # behind a torn one, which spoils no other
            written = os.write(descriptor, line)
            if written < len(line):  # a full disk: the rest will not fit either, and torn lines are damage
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({written} of {len(line)} bytes written)", str(self._path(host)))
        finally:
            os.close(descriptor)

    def written(self, host: str) -> int:
        """When the last event was (ns on the wall clock); 0: there is none, or nobody can tell."""
        try:
            return self._path(host).stat().st_mtime_ns
        except OSError:
            return 0

    def begun(self, transaction: OpenTransaction) -> None:
        self.append(transaction.host, BEGUN, **asdict(transaction))

    def remember(self, transaction: OpenTransaction) -> None:
        """By the main process, once it knows of a begin."""
        _seen_to_begin[transaction.host] = transaction

    def forget(self, host: str, *, ended: str = "") -> None:
        """By the main process, once the transaction is no business of the play's any more; `ended`: its id, if it has ended."""
        _seen_to_begin.pop(host, None)
        if ended:
            _seen_to_end.add(ended)

    def events(self, host: str) -> Iterator[Event]:
        """In the order of their writing; a `DAMAGED` one for each line that cannot be read."""
        try:
            content = self._path(host).read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            yield Event(DAMAGED, {"what": f"it cannot be read: {error.strerror}"})
            return
        for number, line in enumerate(content.split(b"\n"), 1):
            if line:
                yield _event(line) or Event(DAMAGED, {"what": f"line {number} is damaged"})

    def damage(self, host: str) -> str:
        """Why what is noted of the newest transaction is not all that happened there. Empty: it is."""
        events = self.since_begin(host)
        found = next((str(event.data["what"]) for event in events if event.kind == DAMAGED), "")
        seen = _seen_to_begin.get(host)
        if not found and seen is not None and not any(event.kind == BEGUN and event.data["tx"] == seen.tx for event in events):
            found = "its begin is missing"
        return f"the controller's notes on this host are damaged, so it cannot be trusted to commit ({found})" if found else ""

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
        seen = _seen_to_begin.get(host)
        for event in self.events(host):
            if event.kind == BEGUN:
                found = OpenTransaction(**event.data)
            elif event.kind == ENDED:
                found = None if found is not None and event.data.get("tx") == found.tx else found
                seen = None if seen is not None and event.data.get("tx") == seen.tx else seen
        if seen is not None and (found is None or found.tx != seen.tx):
            found = seen  # the line that says so is damaged
        return None if found is not None and found.tx in _seen_to_end else found

    def waiting(self, host: str) -> dict[str, Any] | None:
        """The options of a transaction that has yet to begin, because the host has no Python for it so far."""
        events = self.since_begin(host)
        if any(event.kind == DAMAGED for event in events):
            return None  # it may have begun
        return dict(events[0].data["options"]) if _waits(events) else None

    def steps(self, host: str) -> list[str]:
        """Ids of the steps that went to the host in the newest transaction, each once, in order."""
        return list(dict.fromkeys(event.data["id"] for event in self.since_begin(host) if event.kind == STEP))

    def _path(self, host: str) -> Path:
        return self._directory / (quote(host, safe="") or "%")


def _line(kind: str, data: dict[str, Any]) -> bytes:
    body = json.dumps({"kind": kind, "data": data}).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _event(line: bytes) -> Event | None:
    """None: the line is not as it was written."""
    body = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(body):
        return None
    record = json.loads(body)
    return Event(record["kind"], record["data"])


def _waits(events: list[Event]) -> bool:
    """These events are of a transaction that has neither begun nor been given up."""
    return bool(events) and events[0].kind == WAITING and not any(event.kind in (BEGUN, ENDED) for event in events)
