# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All probes, in the order in which an undo calls them. Explicit imports: AnsiballZ ships only what it sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import Usage
from .base import Probe
from .daemon_files import DaemonFiles
from .hostname import Hostname
from .mounts import Mounts
from .service_directories import ServiceDirectories
from .systemd import Systemd

# Services before mounts: they keep file systems busy. Their files before systemd reads them again.
BEFORE_FILES: tuple[type[Probe], ...] = (Systemd, ServiceDirectories, Mounts, DaemonFiles, Hostname)
AFTER_FILES: tuple[type[Probe], ...] = (Mounts, ServiceDirectories, DaemonFiles, Hostname, Systemd)

NAMES = tuple(sorted(probe.name for probe in BEFORE_FILES))


def probe_names(options: Mapping[str, Any]) -> tuple[str, ...]:
    """What a transaction's option `probes` names: a list, or "a,b"; all of them by default, and for "all". Raises Usage."""
    option = options.get("probes") or "all"
    names = tuple(name.strip() for name in (option.split(",") if isinstance(option, str) else option))
    for name in names:
        if name not in (*NAMES, "all"):
            raise Usage(f"There is no probe {name!r}.", hint=f"The option probes takes all, or some of {', '.join(NAMES)}.")
    return NAMES if "all" in names else names


class Probes:
    """One undo's, or one transaction's, probes. The same instances serve both phases."""

    def __init__(self, names: str | Iterable[str] = NAMES) -> None:
        wanted = probe_names({"probes": names})
        self._made = {probe.name: probe() for probe in BEFORE_FILES if probe.name in wanted}

    def before_files(self) -> tuple[Probe, ...]:
        return tuple(self._made[probe.name] for probe in BEFORE_FILES if probe.name in self._made)

    def after_files(self) -> tuple[Probe, ...]:
        return tuple(self._made[probe.name] for probe in AFTER_FILES if probe.name in self._made)
