# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All probes, in the order in which an undo calls them. Explicit imports: AnsiballZ ships only what it sees."""

from __future__ import annotations

from typing import Any

from .base import Probe
from .choice import Choice, parse
from .etc import Etc
from .hostname import Hostname
from .modules import Modules
from .mounts import Mounts
from .network import Network
from .nftables import Nftables
from .own import Own
from .service_directories import ServiceDirectories
from .swap import Swap
from .sysctl import Sysctl
from .systemd import Systemd
from .timezone import Timezone

# Services before mounts: they keep file systems busy. Swap before its file goes. Mounts before services' directories: what is mounted on
# one is no service's.
BEFORE_FILES: tuple[type[Probe], ...] = (
    Systemd,
    Swap,
    Mounts,
    ServiceDirectories,
    Etc,
    Hostname,
    Timezone,
    Modules,
    Network,
    Sysctl,
    Nftables,
)

# Files before systemd reads them again; modules before the settings that they bring; links before their settings and rules, but
# settings before addresses too: there are none of IPv6 where it is switched off.
# What the kernel holds comes before the services, which may need an address to bind to, and once more after them: a service that is started
# again may load what its files say (nftables.service, networkd), where somebody had changed it by hand before the transaction, or write
# files of its own. Services' directories come once more, too: a socket may hold its name until its service is stopped again.
AFTER_FILES: tuple[type[Probe], ...] = (
    Mounts,
    ServiceDirectories,
    Etc,
    Hostname,
    Timezone,
    Modules,
    Sysctl,
    Network,
    Sysctl,
    Nftables,
    Swap,
    Systemd,
    ServiceDirectories,
    Etc,
    Network,
    Sysctl,
    Nftables,
)

NAMES = tuple(sorted(probe.name for probe in BEFORE_FILES))


def choose(option: Any = None) -> Choice:
    """What a transaction's option `probes` says; all of them by default. Raises Usage."""
    return parse(option, NAMES)


class Probes:
    """One undo's, or one transaction's, probes. The same instances serve both phases."""

    def __init__(self, option: Any = None) -> None:
        choice = choose(option)
        self._made: dict[type[Probe], Probe] = {
            probe: Etc(further=choice.trees) if probe is Etc else probe() for probe in BEFORE_FILES if probe.name in choice.names
        }
        self._own = tuple(Own(commands) for commands in choice.own)

    def before_files(self) -> tuple[Probe, ...]:
        """Each once."""
        return (*(self._made[probe] for probe in BEFORE_FILES if probe in self._made), *self._own)

    def after_files(self) -> tuple[Probe, ...]:
        """Some of them twice."""
        return (*(self._made[probe] for probe in AFTER_FILES if probe in self._made), *self._own)
