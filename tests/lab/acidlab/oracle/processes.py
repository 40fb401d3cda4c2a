# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs, by unit: so that what a play left running shows. Logins and numbers of equal workers do not count."""

from __future__ import annotations

import os
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
    # os.walk: a cgroup may go away meanwhile.
    for folder, _folders, _files in os.walk(group):
        relative = os.path.relpath(folder, group)
        if any(rules.part(part) == ABSENT for part in relative.split("/")) or relative in (".", "supervisor"):
            continue
        try:
            members = Path(folder, "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            continue
        for pid in members:
            try:
                command = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
                user = Path(f"/proc/{pid}").stat().st_uid
            except OSError:
                continue
            # systemd's and sshd's short-lived children have names of their own on the way to exec.
            if not command.startswith("("):
                found[Key("process", f"{_unit(relative)} {command} uid={user}")] = {}
    return found
