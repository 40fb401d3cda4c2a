# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `systemctl show` says of units, as values, and which of them a transaction has moved. Pure: no host is asked here."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Times are CLOCK_MONOTONIC microseconds of the boot.
_TIMES = (
    "StateChangeTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "ActiveExitTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
)
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "InvocationID",
    "NRestarts",
    "TriggeredBy",
    "Type",
    "Transient",
    "CanReload",
    "RefuseManualStart",
    "RefuseManualStop",
    "LastTriggerUSecMonotonic",
    *_TIMES,
)

UP = frozenset({"active", "reloading", "refreshing"})
DOWN = frozenset({"inactive", "failed"})

# Asked of `systemctl show --state`: an inactive unit may or may not be in systemd's memory, which means nothing.
NOT_INACTIVE = ("active", "reloading", "refreshing", "maintenance", "failed", "activating", "deactivating")
# Mounts are another probe's; devices and scopes nobody can start.
KINDS = ("service", "socket", "target", "timer", "path", "automount", "swap", "slice")
# They come and go with logins (the controller's own among them), or are the engine's.
_NEVER = (
    "acid-agent*",
    "acid-recover.service",
    "system-acid*.slice",
    "acid*.slice",
    "user@*",
    "user-runtime-dir@*",
    "ssh@*",
    "sshd@*",
    "user.slice",
    "user-[0-9]*.slice",
    "-.slice",
    "system.slice",
    "machine.slice",
)
# A break in these takes the host's own plumbing or the way in with it: restarted in one go, never kept down while files are put back.
_KEPT_UP = (
    "dbus*",
    "systemd-*",
    "NetworkManager*",
    "networking.service",
    "network.service",
    "wpa_supplicant*",
    "ssh.*",
    "sshd.*",
)


class Unit(NamedTuple):
    """`restarts` counts starts by the unit's own Restart= since the last one by hand. `triggered` is when a timer last fired (opaque).

    Whether a unit is enabled is a matter of files, which are the trace's and the probe etc's."""

    load: str = "not-found"
    active: str = "inactive"
    invocation: str = ""
    restarts: int = 0
    triggered_by: tuple[str, ...] = ()
    type: str = ""
    transient: bool = False
    can_reload: bool = False
    refuses_start: bool = False
    refuses_stop: bool = False
    triggered: str = ""
    times: tuple[int, ...] = (0, 0, 0, 0, 0)

    @property
    def up(self) -> bool:
        return self.active in UP

    @property
    def down(self) -> bool:
        return self.active in DOWN

    def to_json(self) -> list[Any]:
        return list(self)

    @classmethod
    def from_json(cls, data: list[Any]) -> Unit:
        unit = cls(*data)
        return unit._replace(triggered_by=tuple(unit.triggered_by), times=tuple(unit.times))


ABSENT = Unit()
Units = Mapping[str, Unit]


def parse(text: str) -> dict[str, Unit]:
    """The output of `systemctl show --property=PROPERTIES '*'`: one paragraph a unit, properties in any order."""
    units: dict[str, Unit] = {}
    for paragraph in text.split("\n\n"):
        found = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        name = found.get("Id")
        if not name:
            continue
        units[name] = Unit(
            load=found.get("LoadState", ""),
            active=found.get("ActiveState", ""),
            invocation=found.get("InvocationID", ""),
            restarts=_number(found.get("NRestarts")),
            triggered_by=tuple(found.get("TriggeredBy", "").split()),
            type=found.get("Type", ""),
            transient=found.get("Transient") == "yes",
            can_reload=found.get("CanReload") == "yes",
            refuses_start=found.get("RefuseManualStart") == "yes",
            refuses_stop=found.get("RefuseManualStop") == "yes",
            triggered=found.get("LastTriggerUSecMonotonic", ""),
            times=tuple(_number(found.get(key)) for key in _TIMES),
        )
    return units


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def concerns(name: str) -> bool:
    """Whether the probe may ever act on the unit."""
    return name.rpartition(".")[2] in KINDS and not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NEVER)


def kept_up(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _KEPT_UP)


class Moves(NamedTuple):
    """Names of units by what has to be done to bring them back; each sorted, and in one list only except `reset` and `fail`, whose units
    failed in the transaction, and before it."""

    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    fail: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for names in self for name in names)


class Clock(NamedTuple):
    """Whether a time (CLOCK_MONOTONIC us) can be a step's doing, and whether it can be a daemon's that a step asked."""

    by_a_step: Callable[[int], bool]
    by_a_daemon: Callable[[int], bool]


def moves(before: Units, after: Units, *, clock: Clock | None = None, rebooted: bool = False) -> Moves:
    """What was moved between two images; without a `clock`, by whomever.

    Never in it: what a timer that fired, or the unit's own Restart=, has moved. After a reboot every unit has another invocation, so that
    only up and down can be compared; which targets a boot reaches is left to it.
    """
    found: dict[str, list[str]] = {"stop": [], "start": [], "restart": [], "reload": [], "reset": [], "fail": []}
    for name in sorted({*before, *after}):
        if not concerns(name):
            continue
        was, now = before.get(name, ABSENT), after.get(name, ABSENT)
        action = _action(name, was, now, rebooted=rebooted)
        if _timer_fired(was, now, before, after, rebooted=rebooted) or not _in_time(action, was, now, clock):
            continue
        if action:
            found[action].append(name)
        if now.active == "failed" and was.active != "failed":
            found["reset"].append(name)
        if was.active == "failed" and now.active != "failed" and not rebooted:  # a boot forgets it
            found["fail"].append(name)
    return Moves(*(tuple(found[field]) for field in Moves._fields))


def _action(name: str, was: Unit, now: Unit, *, rebooted: bool) -> str:
    """Units that were on their way at capture (activating: a one-shot at work, say) ended by themselves and are left."""
    kind = name.rpartition(".")[2]
    if was.down and rebooted:
        # A one-shot that is at work will end by itself, as it did in the boot before. What had failed the boot has tried again.
        return "stop" if now.up and kind != "target" and was.active != "failed" and not now.refuses_stop else ""
    if was.down:
        return "" if now.down or now.refuses_stop else "stop"
    if not was.up:
        return ""
    if now.down or now.active == "deactivating":
        return "" if kind == "slice" or (kind == "target" and rebooted) or was.refuses_start else "start"
    if rebooted or kind in ("target", "slice") or was.refuses_start or now.refuses_stop:
        return ""
    if not now.up:
        # Activating, and it was up: a restart under way, or one that fails again and again.
        return "restart"
    if now.invocation != was.invocation:
        return "" if now.restarts > was.restarts else "restart"
    if kind == "service" and now.can_reload and now.times[0] != was.times[0]:
        return "reload"
    return ""


def _timer_fired(was: Unit, now: Unit, before: Units, after: Units, *, rebooted: bool) -> bool:
    for timer in {*was.triggered_by, *now.triggered_by}:
        if rebooted and timer.endswith(".timer"):
            if timer in before and after.get(timer, ABSENT).triggered not in ("", "0"):
                return True
            continue
        if timer.endswith(".timer") and timer in before and timer in after and before[timer].triggered != after[timer].triggered:
            # A timer that was started anew fires by the doing of whoever did that.
            return before[timer].invocation == after[timer].invocation
    return False


def _in_time(action: str, was: Unit, now: Unit, clock: Clock | None) -> bool:
    """A unit that systemd has forgotten (its times are 0) may have been anybody's, and counts as a step's."""
    if clock is None:
        return True
    fresh = [time for time, old in zip(now.times, was.times) if time and time != old]
    # A unit ends or reloads by a signal as well; to start it takes systemd, which was asked, unless a socket or a path did it.
    asked = action in ("stop", "restart") and not was.triggered_by and not now.triggered_by
    return not fresh or any((clock.by_a_daemon if asked else clock.by_a_step)(time) for time in fresh)
