# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values that the journal hands out and the controller gets as JSON. Nothing here does anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Transaction:
    """`token` is the fencing token (invariant I6). `deadline` is the lease's end in seconds on CLOCK_BOOTTIME of the boot
    `boot_id`; None when nothing ticks. A planned reboot takes the transaction over into another boot. `images` is False once retention
    has dropped what a rollback would need. `epoch` is the current one; `rewinding_to`: that of the savepoint to which an undo is
    under way. Times ending in _ns are CLOCK_REALTIME."""

    id: str
    name: str
    owner: str
    state: str
    token: int
    created_ns: int
    deadline: float | None
    options: dict[str, Any]
    boot_id: str
    engine: str
    reason: str
    epoch: int = 0
    ended_ns: int | None = None
    images: bool = True
    rewinding_to: int | None = None

    @property
    def durable(self) -> bool:
        """Whether its images are on the disk before the changes happen."""
        return self.options.get("durability") == "power"

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["tx"] = data.pop("id")
        return data


@dataclass(frozen=True)
class Step:
    """`n` counts from 1 within the transaction; `id` is the controller's uuid; `epoch` is the one that its records carry.
    `pid` is the first process of the step, while it runs."""

    n: int
    id: str
    epoch: int
    task: str
    module: str
    position: str
    no_log: bool
    state: str
    started_ns: int
    sealed_ns: int | None = None
    pid: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Savepoint:
    """Rolling back to it undoes every record with an epoch >= `epoch`."""

    name: str
    epoch: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Compensation:
    """What undoes a step's effects out of the trace's reach. `body` and `result` are the controller's, and opaque here; `host` has the
    commands that this host can run by itself (None: only a controller can). It was recorded at the start of `epoch`, just before its
    step; the step had ended when `end_epoch` began (None: never seen to end). `claim` names who runs it now, until `claim_until_ns` on
    CLOCK_REALTIME; `claimed_by` is the session of the last one. `seconds`: how long one attempt may take."""

    id: str
    n: int
    epoch: int
    end_epoch: int | None
    name: str
    step: str
    body: str
    host: tuple[dict[str, Any], ...] | None
    result: str | None
    seconds: int
    state: str
    attempts: int = 0
    claim: str = ""
    claimed_by: str = ""
    claim_until_ns: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """For people: without what may hold secrets."""
        data = asdict(self)
        for key in ("body", "host", "result", "claim", "claimed_by", "claim_until_ns"):
            del data[key]
        return data


@dataclass(frozen=True)
class Note:
    """Something to tell people about a transaction; `kind` is one of NOTE_KINDS."""

    kind: str
    text: str
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


IRREVERSIBLE = "irreversible"
SURVIVOR = "survivor"
MOOT = "moot"
DIFFERS = "differs"
#: what a probe left alone on purpose, or kept a copy of
TOLD = "told"
#: a daemon's socket that a step connected to: what that daemon did meanwhile may be the step's doing
ASKED = "asked"
#: a call of a step that changes what probes look at; not written down as a note
ACTED = "acted"
NOTE_KINDS = (IRREVERSIBLE, SURVIVOR, MOOT, DIFFERS, TOLD, ASKED)


@dataclass(frozen=True)
class FileSystem:
    """A file system that the transaction touched, and where its kept inodes lie. Bytes: paths need not be UTF-8."""

    mount_point: bytes
    fstype: str
    store: bytes


@dataclass(frozen=True)
class StepSummary:
    n: int
    id: str
    task: str
    module: str
    position: str
    state: str
    paths: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, step: Step, *, paths: int) -> StepSummary:
        return cls(step.n, step.id, step.task, step.module, step.position, step.state, paths)


@dataclass(frozen=True)
class Summary:
    """The answer to commit, rollback and show (docs/architecture.md)."""

    tx: str
    name: str
    state: str
    steps: tuple[StepSummary, ...] = ()
    paths: int = 0
    units: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "tx": self.tx,
            "name": self.name,
            "state": self.state,
            "steps": [step.to_json() for step in self.steps],
            "paths": self.paths,
            "units": list(self.units),
            "irreversible": list(self.irreversible),
            "survivors": list(self.survivors),
            "differs": list(self.differs),
            "seconds": round(self.seconds, 3),
        }
        data.update(self.extra)
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Summary:
        known = dict(data)
        steps = tuple(StepSummary(**step) for step in known.pop("steps", ()))
        lists = {key: tuple(known.pop(key, ())) for key in ("units", "irreversible", "survivors", "differs")}
        return cls(
            tx=known.pop("tx"),
            name=known.pop("name"),
            state=known.pop("state"),
            steps=steps,
            paths=known.pop("paths", 0),
            seconds=known.pop("seconds", 0.0),
            extra=known,
            **lists,
        )
