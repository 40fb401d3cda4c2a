# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a rehearsal did on each host before it was taken back: values out of `acidctl diff --each`, for the terminal and for the page.

The worker that rolls a host back asks for them first (`ask`), and leaves them in a file beside the ledger: they are too much
for a line of it. The main process reads them when the play is over (`of_host`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible import constants as C

from .hostcommand import HostError
from .reports import REHEARSED, Report


class FileChange(NamedTuple):
    """As engine/cli/diff.py describes it. `metadata`: (name, before, after); `diff` without its
    two lines of names; `hidden`: why there is none, where there should be one."""

    path: str
    kind: str
    moved_from: str
    metadata: tuple[tuple[str, str, str], ...]
    diff: tuple[str, ...]
    hidden: str


class StepChanges(NamedTuple):
    """`more` changes were too many to list."""

    n: int
    task: str
    module: str
    position: str
    no_log: bool
    changes: tuple[FileChange, ...]
    more: int
    undone: tuple[str, ...]
    irreversible: tuple[str, ...]


@dataclass(frozen=True)
class Rehearsal:
    """One host in one play. `host_changes`: sentences on units, mounts and the like, of the whole play. `problem`: why nothing is known."""

    report: Report
    steps: tuple[StepChanges, ...] = ()
    host_changes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def paths(self) -> int:
        return sum(len(step.changes) + step.more for step in self.steps)

    @property
    def added_removed(self) -> tuple[int, int]:
        lines = [line for step in self.steps for change in step.changes for line in change.diff]
        return sum(is_added(line) for line in lines), sum(is_removed(line) for line in lines)


def is_added(line: str) -> bool:
    return line.startswith("+")


def is_removed(line: str) -> bool:
    return line.startswith("-")


Say = Callable[[str, dict[str, Any]], dict[str, Any]]


def ask(say: Say, request: dict[str, Any]) -> str:
    """Why the play could not have been committed; empty: it could. Never in the way of the rollback: what cannot be told is told to be
    so."""
    try:
        answer = say("denied", {**request, "seal": True})
        refused = "; ".join([*map(str, answer.get("denied", [])), *filter(None, [str(answer.get("doomed") or "")])])
    except HostError as error:
        refused = str(error)
    _fetch(say, tx=str(request["tx"]))
    return refused


def _fetch(say: Say, *, tx: str) -> None:
    try:
        answer = say("diff", {"tx": tx, "each": True})
    except HostError as error:
        answer = {"problem": str(error)}
    path = _file(tx)
    with contextlib.suppress(OSError):  # a part of it cannot be read, and that is said
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(answer, file)


def was_asked(report: Report) -> bool:
    return report.outcome == REHEARSED or (bool(report.tx) and _file(report.tx).exists())


def of_host(report: Report) -> Rehearsal:
    try:
        data = json.loads(_file(report.tx).read_text(encoding="utf-8"))
        if "problem" in data:
            return Rehearsal(report, problem=str(data["problem"]))
        return Rehearsal(report, tuple(map(_step, data["each"])), tuple(map(str, data["host"])))
    except FileNotFoundError:
        return Rehearsal(report, problem="the host was not asked what had changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Rehearsal(report, problem=f"what the host said cannot be read: {error}")


def _file(tx: str) -> Path:
    return Path(str(C.DEFAULT_LOCAL_TMP)) / "acid-rehearsals" / quote(tx, safe="")


def _step(data: dict[str, Any]) -> StepChanges:
    return StepChanges(
        n=int(data["n"]),
        task=str(data["task"]),
        module=str(data["module"]),
        position=str(data["position"]),
        no_log=bool(data["no_log"]),
        changes=tuple(map(_change, data["changes"])),
        more=int(data["more"]),
        undone=tuple(map(str, data["undone"])),
        irreversible=tuple(map(str, data["irreversible"])),
    )


def _change(data: dict[str, Any]) -> FileChange:
    before, after = data["before"] or {}, data["after"] or {}
    if data["kind"] in ("created", "removed"):
        facts = after or before
        names = [name for name in facts if name != "mtime"]
    else:
        names = [name for name in data["differs"] if name != "content"]
    return FileChange(
        path=printable(data["path"]),
        kind=str(data["kind"]),
        moved_from=printable(data["from"] or ""),
        metadata=tuple((name, _word(before.get(name)), _word(after.get(name))) for name in names),
        diff=tuple(printable(part, keep="\t") for line in (data["diff"] or ())[2:] for part in line.split("\n")),
        hidden=str(data["hidden"] or ""),
    )


def _word(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{printable(str(name))}={printable(str(text))}" for name, text in value.items())
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def printable(text: str, *, keep: str = "") -> str:
    """Without what a terminal or a browser would obey: control characters, bidirectional marks, bytes that are no text."""
    return "".join(char if char.isprintable() or char in keep else char.encode("unicode_escape", "surrogatepass").decode() for char in text)
