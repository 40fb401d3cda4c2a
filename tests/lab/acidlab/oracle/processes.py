# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs, by unit: so that what a play left running shows. Logins and numbers of equal workers do not count."""

from __future__ import annotations

from pathlib import Path

from ..volatile import ABSENT, UNITS, Matcher
from .model import Key, State


def _unit(cgroup: str) -> str:
    """The last part of a cgroup v2 path that is a unit."""
    return next((part for part in reversed(cgroup.split("/")) if part.endswith((".service", ".scope", ".slice", ".mount", ".socket"))), "-")


def read(group: Path) -> State:
    """Processes below a host's cgroup, as the outer machine sees them."""
    rules = Matcher(UNITS)
    found: State = {}
    for members in group.rglob("cgroup.procs"):
        relative = str(members.parent.relative_to(group))
        if any(rules.part(part) == ABSENT for part in relative.split("/")) or relative in (".", "supervisor"):
            continue
        for pid in members.read_text(encoding="ascii").split():
            try:
                command = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
                user = Path(f"/proc/{pid}").stat().st_uid
            except OSError:
                continue
            # systemd's and sshd's short-lived children have names of their own on the way to exec.
            if not command.startswith("("):
                found[Key("process", f"{_unit(relative)} {command} uid={user}")] = {}
    return found
