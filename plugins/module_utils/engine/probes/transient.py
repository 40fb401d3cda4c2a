# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Unit files that PID 1 writes for systemd-run, and removes with the unit: without them it cannot be started again."""

from __future__ import annotations

import os
from collections.abc import Collection

Files = dict[str, str]


def read(top: str) -> Files:
    """Texts by path below a manager's directory; not those of logins (scopes), nor of the engine."""
    found: Files = {}
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if _concerns(name.rpartition(".d")[0])]
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), top)
            if folder != top or _concerns(name):
                try:
                    with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
                        found[path] = file.read()
                except OSError:
                    # PID 1 has just removed it.
                    continue
    return found


def put_back(top: str, before: Files, units: Collection[str]) -> None:
    """Those of these units. OSError."""
    now = read(top)
    for path in sorted({*before, *now}):
        unit = path.partition("/")[0]
        if (unit[: -len(".d")] if "/" in path else unit) not in units or before.get(path) == now.get(path):
            continue
        full = os.path.join(top, path)
        if path not in before:
            os.unlink(full)
            continue
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full + "~", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(before[path])
        os.rename(full + "~", full)


def _concerns(unit: str) -> bool:
    return not unit.endswith((".scope", ".slice", "~")) and not unit.startswith("acid-")
